"""How long it takes until something happens: the command's help, the import."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import ROOT, Disturbance
from benchmarks.rounds import Failed, How, Pool, Rounds, Variant, interleaved
from benchmarks.table import failures, table, verdict

TITLE = "4. Start-up"
GOAL_SECONDS = 0.5

HELP = "**trueloop --help**"
CODE = {
    "python -c pass": "pass",
    "import torch": "import torch",
    "import trueloop": "import trueloop",
    "import trueloop, first use of Trainer": "import trueloop; trueloop.Trainer",
}


def measure(how: How, pool: Pool) -> Rounds:
    """A fresh process each time. Threads make no difference to it: this is run once."""

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        return {"s": _seconds(_command(variant.name, how.ours), pool.threads)}

    return interleaved([how.variant(name, name) for name in (*CODE, HELP)], ask, how, "start-up")


def section(results: Mapping[int, Rounds], how: How) -> str:
    one = next(iter(results.values()))
    rows = [[name, f"{one.middle(name, 's'):.3f}"] for name in (*CODE, HELP) if name in one.figures]
    goal = verdict("trueloop --help", one.middle(HELP, "s"), GOAL_SECONDS, " s") if HELP in one.figures else ""
    return f"""Wall time of a fresh process, files in the page cache.

{goal}

{table(["command", "s"], rows)}
{failures(results)}"""


def _command(name: str, python: Path) -> list[str]:
    if name in CODE:
        return [str(python), "-c", CODE[name]]
    installed = python.parent / "trueloop"
    if installed.is_file():
        return [str(installed), "--help"]
    return [str(python), "-c", "import sys; from trueloop.cli.main import main; sys.exit(main())", "--help"]


def _seconds(command: list[str], threads: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT / "src")}
    started = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started
    if ended.returncode != 0:
        words = ended.stderr.strip().splitlines()
        raise Failed(f"{' '.join(command)[:80]}: exit code {ended.returncode}: {words[-1] if words else ''}")
    return seconds
