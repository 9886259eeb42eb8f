"""Rounds: every variant once, in random order, again and again; each variant in a process of its own."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import ROOT, Disturbance, busy_seconds, process_seconds

PATIENCE_SECONDS = 300.0
"""For one answer; the slowest one takes a tenth of it on a machine that is not too busy."""


class Failed(Exception):
    """A variant cannot be measured; the message says why."""


@dataclass(frozen=True)
class Variant:
    """A way of training: what the table calls it, and what a worker calls to do it."""

    name: str
    do: str
    """``module:function`` of this package."""
    python: Path
    missing: str | None = None
    """Why it cannot be measured at all (not installed)."""


@dataclass
class How:
    """What ``run.py`` was asked for."""

    ours: Path
    """The Python that has trueloop."""
    peers: Path | None
    """The Python that has the peers; None to leave them out."""
    peers_missing: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 7
    quick: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def variant(self, name: str, do: str) -> Variant:
        """One that runs where trueloop is."""
        return Variant(name, do, self.ours)


class Worker:
    """A process that answers requests; see ``worker.py``."""

    def __init__(self, python: Path, threads: int) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Mapping[str, Any], patience: float) -> dict[str, Any]:
        """The answer; Failed if it is an error, or none comes in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        if not select.select([self._process.stdout], [], [], patience)[0]:
            self._process.kill()
            raise Failed(f"no answer within {patience:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def let_go(self) -> None:
        """Tells the process to end, and does not wait."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        """Ends the process."""
        self.let_go()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _last_words(self) -> str:
        code = self._process.wait(10)
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()
        return f"exit code {code}: {words[-1][:200] if words else 'no last words'}"


class Pool:
    """A worker for each variant, all with so many threads, started when first asked."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: dict[tuple[Path, str], Worker] = {}

    def ask(
        self, variant: Variant, watch: Disturbance | None = None, patience: float = PATIENCE_SECONDS, **request: Any
    ) -> dict[str, Any]:
        """A variant's answer. Variants of one file share no process: what one does to its process slows no other."""
        worker = self._worker(variant)
        started, before, mine = time.perf_counter(), busy_seconds(), process_seconds(worker.pid)
        answer = worker.ask({"do": variant.do, **request}, patience)
        after = busy_seconds()
        if watch is not None and before is not None and after is not None:
            watch.others += max(0.0, after - before - (process_seconds(worker.pid) - mine))
            watch.wall += time.perf_counter() - started
        return answer

    def _worker(self, variant: Variant) -> Worker:
        if variant.missing is not None:
            raise Failed(variant.missing)
        key = (variant.python, variant.do)
        if key not in self._workers:
            self._workers[key] = Worker(variant.python, self.threads)
        return self._workers[key]

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers.values():
            worker.let_go()  # all at once: some take seconds over it
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


@dataclass
class Rounds:
    """What came of it: a figure for each variant and round."""

    figures: dict[str, list[dict[str, float]]]
    failed: dict[str, str]
    disturbance: Disturbance

    def middle(self, variant: str, figure: str) -> float:
        """The median over the rounds."""
        return median(one[figure] for one in self.figures[variant])

    def ratio(self, variant: str, other: str, figure: str) -> float:
        """The median over the rounds of the ratio within a round: what slows a whole round down falls out of it."""
        pairs = zip(self.figures[variant], self.figures[other], strict=True)
        return median(one[figure] / two[figure] for one, two in pairs)

    def difference(self, variant: str, other: str, figure: str) -> float:
        """The same for differences."""
        pairs = zip(self.figures[variant], self.figures[other], strict=True)
        return median(one[figure] - two[figure] for one, two in pairs)


Ask = Callable[[Variant, Disturbance | None], dict[str, float]]
"""One measurement of one variant."""


def interleaved(variants: Sequence[Variant], ask: Ask, how: How, label: str, seconds: float = 0.0) -> Rounds:
    """``how.rounds`` rounds over all variants that work; the first call of each warms up and does not count.

    Args:
        variants: in the order of the table.
        ask: measures one.
        how: from the command line.
        label: for who waits.
        seconds: further rounds are made until so much time has passed, up to three times as many.
    """
    figures: dict[str, list[dict[str, float]]] = {}
    failed: dict[str, str] = {}
    for variant in variants:
        try:
            say(f"{label}: warming up {variant.name}")
            ask(variant, None)
            figures[variant.name] = []
        except Failed as error:
            failed[variant.name] = str(error)
            say(f"{label}: {variant.name} FAILED: {error}")
    watch = Disturbance()
    begun = time.perf_counter()
    for number in range(3 * how.rounds):
        started = time.perf_counter()
        if number >= how.rounds and started - begun > seconds:
            break
        working = [variant for variant in variants if variant.name in figures]
        how.chance.shuffle(working)
        for variant in working:
            try:
                figures[variant.name].append(ask(variant, watch))
            except Failed as error:  # it worked before: leave it out altogether, rounds must pair
                failed[variant.name] = f"in round {number + 1}: {error}"
                del figures[variant.name]
        say(f"{label}: round {number + 1}, {time.perf_counter() - started:.1f} s")
    return Rounds(figures, failed, watch)


def say(text: str) -> None:
    """What goes on, for whoever waits."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)
