"""What `trueloop check` costs, and what it says of sources that others wrote and many use: torch and its neighbours."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import environment
from benchmarks.machine import ROOT, Disturbance, busy_seconds
from benchmarks.rounds import How, say
from benchmarks.table import table, verdict

TITLE = "9. What the check costs and says of others' sources"
SECONDS, LINES_A_MINUTE = 0.3, 100_000
"""Goals: of a start; of one core."""
PACKAGES = {
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "transformers": "transformers",
    "lightning": "lightning",
    "pytorch_lightning": "pytorch-lightning",
    "accelerate": "accelerate",
    "ignite": "pytorch-ignite",
}
"""Folders in site-packages, and what they are installed as."""
OURS = ("src", "examples")
DENSE = ROOT / "tests" / "doctor" / "cases"
"""Short scripts that are all training, right and wrong ones: nothing in them is passed over."""
LOUD = ("error", "warning")
OPENS = "the path is the caller's, and the pickle in it runs as it is loaded"
TRUE: Mapping[str, str] = {
    "torch/distributed/checkpoint/format_utils.py unsafe-load": OPENS,
    "lightning/pytorch/utilities/deepspeed.py unsafe-load": OPENS,
    "pytorch_lightning/utilities/deepspeed.py unsafe-load": OPENS,
}
"""Findings that were read by hand and are right, by file and rule, each with its reason."""


@dataclass
class Reading:
    """What the check said of one folder.

    Args:
        name: the folder.
        files: how many were read.
        lines: of how many lines.
        seconds: of CPU, on one core.
        findings: each as ``file rule`` and its level.
        failed: files that the check broke on.
    """

    name: str
    files: int
    lines: int
    seconds: float
    findings: list[tuple[str, str]] = field(default_factory=list)
    failed: int = 0


@dataclass
class Readings:
    """All folders, and what a start takes."""

    folders: list[Reading]
    dense: Reading
    starts: dict[str, float]
    disturbance: Disturbance


def measure(how: How) -> Readings:
    """Reads all packages, each in a process of its own, on one core and without what is known from the last time."""
    watch = Disturbance()
    began, busy = time.monotonic(), busy_seconds()
    others = environment.sources()
    folders = [Path(_site_packages(how.ours)) / "torch", *(others / name for name in PACKAGES if name != "torch")]
    folders = [*(ROOT / name for name in OURS), *folders]
    with tempfile.TemporaryDirectory() as scratch:
        starts = _starts(how, Path(scratch))
        readings = [_read(how.ours, folder, Path(scratch)) for folder in (folders[:2] if how.quick else folders)]
        dense = _read(how.ours, DENSE, Path(scratch))
    watch.wall = time.monotonic() - began
    own = sum(one.seconds for one in (*readings, dense))
    watch.others = 0.0 if busy is None else max(0.0, (busy_seconds() or 0.0) - busy - own)
    return Readings(readings, dense, starts, watch)


def section(result: Readings) -> str:
    """The section: goals, then a row a folder, then each finding that is loud."""
    goals = [verdict(f"`trueloop check {name}`", seconds, SECONDS, " s") for name, seconds in result.starts.items()]
    goals += [_rate("over all", result.folders), _rate(f"short scripts that only train ({DENSE.name})", [result.dense])]
    rows = []
    for one in result.folders:
        loud = [key for key, level in one.findings if level in LOUD]
        right = [key for key in loud if key in TRUE]
        figures = [one.files, one.lines, round(one.lines / one.seconds * 60), len(loud), len(right)]
        notes = len(one.findings) - len(loud)
        rows.append([one.name, *(f"{figure:,}" for figure in figures), str(len(loud) - len(right)), str(notes)])
    told = Counter(key for one in result.folders for key, level in one.findings if level in LOUD)
    by_hand = "".join(f"\n- {key}{f' ({count} times)' * (count > 1)}: {_why(key)}" for key, count in told.items())
    failed = sum(one.failed for one in result.folders)
    head = ["folder", "files", "lines", "lines a minute a core", "errors and warnings", "true", "false", "notes"]
    return f"""A start is wall time of a fresh process, the median of several; reading is CPU time of one process,
nothing kept from before. Each error and warning was read by hand: those of `TRUE` in `cases/reading.py` are right, with
the reason; others count as false. The check broke on {failed} files.

{chr(10).join(goals)}

{table(head, rows)}
{by_hand}"""


def _rate(of: str, read: Sequence[Reading]) -> str:
    rate = sum(one.lines for one in read) / sum(one.seconds for one in read) * 60
    reached = "**reached**" if rate >= LINES_A_MINUTE else "**MISSED**"
    return f"- {reached} lines a minute a core, {of}: {rate:,.0f} (goal ≥ {LINES_A_MINUTE:,})"


def _why(key: str) -> str:
    return TRUE.get(key, "not read by hand yet: counted as false")


def _starts(how: How, scratch: Path) -> dict[str, float]:
    (scratch / "empty.py").write_text("")
    commands = {"--help": ["--help"], "empty.py": [str(scratch / "empty.py")]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(2 if how.quick else how.rounds):
        for name, arguments in commands.items():
            started = time.perf_counter()
            _run(how.ours, arguments)
            times[name].append(time.perf_counter() - started)
    return {name: median(those) for name, those in times.items()}


def _read(python: Path, folder: Path, scratch: Path) -> Reading:
    say(f"reading {folder}")
    output = scratch / "told.json"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [str(folder), "--no-cache", "--jobs", "1", "--format", "json", "--output", str(output)]
    ended = _run(python, arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not output.exists():
        raise SystemExit(f"the check of {folder} gave nothing: {ended.stderr[-300:]}")
    told = json.loads(output.read_text())
    findings = [(f"{_short(one['file'], folder)} {one['name']}", one["level"]) for one in told["findings"]]
    return Reading(
        folder.name,
        told["files"],
        sum(file.read_bytes().count(b"\n") for file in folder.rglob("*.py")),
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        findings,
        sum(line.startswith("trueloop check: ") and ".py: " in line for line in ended.stderr.splitlines()),
    )


def _short(file: str, folder: Path) -> str:
    return str(Path(file).resolve().relative_to(folder.resolve().parent))


def _run(python: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [str(python), "-m", "trueloop", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def _site_packages(python: Path) -> str:
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
