"""Side by side with the loop written by hand and with the peers: one command, one table.

``make bench`` is ``python benchmarks/run.py``. It makes ``.bench-venv`` for the peers (versions in ``peers.txt``), runs
the cases (``cases/``) with 1 thread and with 2, and writes ``RESULTS.md``. Each variant (``peers/``) lives in a process
of its own that trains on request (``worker.py``); a round asks each one once, in random order, and figures are medians
over the rounds: times, and ratios taken within each round. What other processes took of the machine meanwhile is
measured and said; above a few percent, run it again when it is quiet. A peer that cannot be installed or run stands in
the table with its reason. ``--quick`` looks whether all works (minutes, writes nothing); ``--only overhead`` runs one
case and leaves the others' sections in ``RESULTS.md``; ``--accuracy`` runs the slow comparison, and nothing else.

``--only diagnosis`` runs ``trueloop doctor`` on a folder of scripts, and sets it beside what other tools said of them,
which is kept (``diagnosis/said``); ``--ask torch-audit`` has one of those look at the scripts that it has not seen yet,
``--minutes`` bounds each tool. ``--only checking`` does the same for ``trueloop check`` and the tools that only read,
which takes seconds. Without the folder, both are left out. ``--only reading`` makes ``.check-venv``, and has the check
read torch and what is built on it.

A new variant is a function ``(work, epochs) -> Trained`` in ``peers/`` and a line in a case. A new case is a file in
``cases/`` with ``measure`` and ``section``, and a line below.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the project, so that this folder's files shadow nothing

from benchmarks import environment, machine, table  # noqa: E402
from benchmarks.cases import (  # noqa: E402
    accuracy,
    checking,
    cnn,
    diagnosis,
    listening,
    overhead,
    reading,
    regression,
    saving,
    scale,
    startup,
)
from benchmarks.rounds import How, Pool, Rounds, say  # noqa: E402

CASES: dict[str, ModuleType] = {
    "regression": regression,
    "cnn": cnn,
    "overhead": overhead,
    "startup": startup,
    "saving": saving,
    "listening": listening,
    "scale": scale,
}
RESULTS = machine.ROOT / "benchmarks" / "RESULTS.md"
DIAGNOSIS, CHECKING, READING = "diagnosis", "checking", "reading"
"""Cases that train nothing: scripts, each run in a process of its own, or only read; and what others wrote, read."""
THREADS = (1, 2)


def main() -> None:
    """Measures what is asked for, writes and prints it."""
    asked = _arguments()
    every = (*CASES, DIAGNOSIS, CHECKING, READING)
    names = [name for name in every if name in (asked.only or every)]
    how = How(ours=environment.ours(), peers=None, rounds=2 if asked.quick else asked.rounds, quick=asked.quick)
    if not asked.no_peers and not asked.accuracy and {"regression", "cnn"} & set(names):
        how.peers, how.peers_missing = environment.peers()
    started = time.monotonic()
    titles = [module.TITLE for module in (*CASES.values(), accuracy, diagnosis, checking, reading)]
    order = sorted(titles, key=lambda title: int(title.partition(".")[0]))
    sections: dict[str, str] = {}
    for sections in _accuracy(how, asked.seeds, asked.epochs) if asked.accuracy else _all(how, names, asked):
        if not asked.quick:  # after each part, so that a run that is broken off leaves what it has
            table.replace_sections(RESULTS, _top(how), sections, order)
    if asked.quick:
        print("\n\n".join([_top(how), *(f"## {title}\n\n{body}" for title, body in sections.items())]))
    else:
        print(RESULTS.read_text())
    say(f"{(time.monotonic() - started) / 60:.1f} minutes" + ("" if asked.quick else f"; written to {RESULTS}"))


def _all(how: How, names: list[str], asked: argparse.Namespace) -> Iterator[dict[str, str]]:
    """All sections so far, again and again."""
    sections: dict[str, str] = {}
    training = [name for name in names if name in CASES]
    for sections in _measured(how, training) if training else ():
        yield sections
    if DIAGNOSIS in names and (asked.cases.is_dir() or asked.only):
        result = diagnosis.measure(how, asked.cases, asked.ask, asked.minutes)
        body = f"{machine.stamp(result.disturbance.share)}\n\n{diagnosis.section(result)}"
        sections = sections | {diagnosis.TITLE: body}
        yield sections
    if CHECKING in names and (asked.cases.is_dir() or asked.only):
        body = f"{machine.stamp()}\n\n{checking.section(checking.measure(how, asked.cases, asked.ask))}"
        sections = sections | {checking.TITLE: body}
        yield sections
    if READING in names:
        read = reading.measure(how)
        yield sections | {reading.TITLE: f"{machine.stamp(read.disturbance.share)}\n\n{reading.section(read)}"}


def _measured(how: How, names: list[str]) -> Iterator[dict[str, str]]:
    """The sections, once after each number of threads."""
    results: dict[str, dict[int, Any]] = {name: {} for name in names}
    disturbed = {name: machine.Disturbance() for name in names}
    for threads in THREADS:
        pool = Pool(threads)
        try:
            for name in names:
                if name in ("startup", "scale") and threads != THREADS[0]:
                    continue
                result = CASES[name].measure(how, pool)
                results[name][threads] = result
                rounds: Rounds = getattr(result, "rounds", result)
                disturbed[name].others += rounds.disturbance.others
                disturbed[name].wall += rounds.disturbance.wall
        finally:
            pool.close()
        yield {
            CASES[name].TITLE: f"{machine.stamp(disturbed[name].share)} {_rounds(results[name])} rounds.\n\n"
            + CASES[name].section(results[name], how)
            for name in names
        }


def _rounds(by_threads: dict[int, Any]) -> str:
    """How many there were: by threads, where that differs."""
    counts = {
        max(map(len, getattr(result, "rounds", result).figures.values()), default=0) for result in by_threads.values()
    }
    return " and ".join(str(count) for count in sorted(counts))


def _accuracy(how: How, seeds: int, epochs: int) -> Iterator[dict[str, str]]:
    pool = Pool(threads=THREADS[-1])
    try:
        result = accuracy.measure(how, pool, seeds, epochs)
    finally:
        pool.close()
    yield {accuracy.TITLE: f"{machine.stamp()} {seeds} seeds.\n\n" + accuracy.section(result)}


def _top(how: How) -> str:
    return f"""# Side by side

Written by `make bench` (`benchmarks/run.py`, which says how it measures); do not edit. Figures are medians over rounds
in which every variant runs once, in random order, each in a process of its own; ratios are taken within each round.
"× by hand" is wall time, "CPU ×" CPU time of the process: on a machine that others use too, the second is steadier.

{machine.describe(how.ours)}."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 short rounds, to see that all works; writes nothing")
    every = [*CASES, DIAGNOSIS, CHECKING, READING]
    parser.add_argument("--only", action="append", choices=every, help="this case only; may be repeated")
    parser.add_argument("--no-peers", action="store_true", help="the loop by hand and trueloop only")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each case (default: %(default)s)")
    parser.add_argument("--accuracy", action="store_true", help="the slow comparison of accuracy, and nothing else")
    parser.add_argument("--seeds", type=int, default=3, help="for --accuracy (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="for --accuracy (default: %(default)s)")
    parser.add_argument(
        "--cases", type=Path, default=diagnosis.FOLDER, help="the scripts to diagnose (default: %(default)s)"
    )
    readers = [reader.package for reader in checking.PEERS]
    parser.add_argument(
        "--ask",
        action="append",
        default=[],
        choices=list(dict.fromkeys([*diagnosis.PEERS, *readers])),
        help="a tool to ask of scripts new to it",
    )
    parser.add_argument("--minutes", type=float, default=60, help="of diagnosis, for each tool (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
