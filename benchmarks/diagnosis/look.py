"""What a tool is asked and what it answers."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from benchmarks.diagnosis.case import Case

PATIENCE_SECONDS = 240.0
"""For one command."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    seconds: float
    cpu: float


@dataclass(frozen=True)
class Look:
    """What a tool said of one script."""

    findings: Sequence[tuple[str, str]] = ()
    """The tool's own names, each with its level: ``error``, ``warning`` or ``note``."""
    seconds: float = 0.0
    cpu: float = 0.0
    edits: int = 0
    """Lines of the script that had to be changed or added."""
    failed: str = ""
    """Why the tool could not look at it."""
    plain: Sequence[float] | None = None
    """Wall and CPU seconds of the script by itself, run just before; on a sample of the scripts."""


class Tool(Protocol):
    """The module of one tool."""

    NAME: str
    PACKAGE: str
    HOW: str
    """How it is run, and what that was made of for these scripts."""
    EDITS: str
    """What the script's owner has to write."""
    RUNS: bool
    """Whether it runs the script, or only reads it."""
    MEANS: Mapping[str, Sequence[str]]
    """By the tool's own name of a finding: the rules that it plausibly names."""
    ADVICE: Collection[str]
    """Findings that are advice on speed or hardware, whatever their level."""

    def look(self, case: Case, python: Path, work: Path) -> Look:
        """Looks at a script, with the Python that has the tool, in a folder of its own that holds the script."""
        ...


def tool(module: ModuleType) -> Tool:
    """A module read as a tool."""
    return cast(Tool, module)


def run(command: Sequence[str | Path], work: Path, patience: float = PATIENCE_SECONDS) -> Ran:
    """Runs a command with one thread in the folder; what it started dies with it. Raises TimeoutExpired."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "500", "NO_COLOR": "1"}
    before, started = _children_cpu(), time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=environment,
            start_new_session=True,
        )
        try:
            code = child.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        seconds = time.perf_counter() - started
        words.seek(0)
        return Ran(code, words.read(), seconds, _children_cpu() - before)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
