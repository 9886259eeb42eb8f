"""The environments: ours, and those of others, made here: ``.bench-venv``, ``.diagnosis-venv``, ``.check-venv``."""

from __future__ import annotations

import subprocess
import sys
from compileall import compile_dir
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.rounds import say

TORCH = "2.13.0"
FOLDER = ROOT / ".bench-venv"
LIST = ROOT / "benchmarks" / "peers.txt"
DIAGNOSIS_FOLDER = ROOT / ".diagnosis-venv"
DIAGNOSIS_LIST = ROOT / "benchmarks" / "diagnosis" / "peers.txt"
SOURCES_FOLDER = ROOT / ".check-venv"
SOURCES_LIST = ROOT / "benchmarks" / "reading.txt"


def ours() -> Path:
    """The Python that runs this. Our sources get the bytecode that pip gives to what it installs, as peers have it."""
    compile_dir(ROOT / "src", quiet=1)
    return Path(sys.executable)


def peers() -> tuple[Path, dict[str, str]]:
    """The peers' Python, and why some of them are missing; installs what is not there, once a version of the list."""
    return _environment(FOLDER, LIST)


def diagnosis_peers() -> tuple[Path, dict[str, str]]:
    """The same for the tools that diagnose."""
    return _environment(DIAGNOSIS_FOLDER, DIAGNOSIS_LIST)


def sources() -> Path:
    """The folder with the packages that the check reads, ``.check-venv``: their sources alone, they never run."""
    wanted, stamp = SOURCES_LIST.read_text(), SOURCES_FOLDER / ".made"
    python = SOURCES_FOLDER / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        if not python.exists():
            say(f"making {SOURCES_FOLDER}")
            subprocess.run([sys.executable, "-m", "venv", SOURCES_FOLDER], check=True)
        (SOURCES_FOLDER / ".gitignore").write_text("*\n")
        problem = _pip(python, "--no-deps", "-r", str(SOURCES_LIST))
        if problem:
            raise SystemExit(f"{SOURCES_LIST.name} cannot be installed into {SOURCES_FOLDER}: {problem}")
        stamp.write_text(wanted)
    return next((SOURCES_FOLDER / "lib").glob("python*/site-packages"))


def version_of(python: Path, package: str) -> str:
    """The version of a package that is installed there."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def _environment(folder: Path, packages: Path) -> tuple[Path, dict[str, str]]:
    python, stamp = folder / "bin" / "python", folder / ".made"
    if not (stamp.exists() and stamp.read_text() == packages.read_text()):
        _make(folder, python, packages)
        stamp.write_text(packages.read_text())
    return python, _missing(python, packages)


def _make(folder: Path, python: Path, packages: Path) -> None:
    if not python.exists():
        say(f"making {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (folder / ".gitignore").write_text("*\n")
    say(f"installing torch {TORCH}")
    if _pip(
        python, f"torch=={TORCH}+cpu", "--retries", "0", "--extra-index-url", "https://download.pytorch.org/whl/cpu"
    ):
        problem = _pip(python, f"torch=={TORCH}")
        if problem:
            raise SystemExit(f"torch {TORCH} cannot be installed into {folder}: {problem}")
    say("installing the peers")
    if _pip(python, f"torch=={TORCH}", "-r", str(packages)):
        for wanted in _wanted(packages):  # one bad apple: the others by themselves
            problem = _pip(python, f"torch=={TORCH}", wanted)
            if problem:
                say(f"{wanted} cannot be installed: {problem}")


def _missing(python: Path, packages: Path) -> dict[str, str]:
    ask = "from importlib.metadata import distributions; print(*(d.metadata['Name'].lower() for d in distributions()))"
    found = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    names = [wanted.partition("==")[0] for wanted in _wanted(packages)]
    return {name: f"not installed: pip could not install {name}" for name in names if name not in found}


def _wanted(packages: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in packages.read_text().splitlines())
    return [line for line in lines if line]


def _pip(python: Path, *arguments: str) -> str | None:
    """Installs; what is wrong, if it is."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode == 0:
        return None
    errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or ended.stderr.splitlines() or ["no reason given"])[-1][:200]
