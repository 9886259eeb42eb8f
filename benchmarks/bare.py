"""The same arithmetic in a bare loop and in ``Trainer.train``, on the same batches: what the difference costs.

A 2-layer MLP 32 wide, batch 8, ``torch.optim.SGD`` (the same class in both), mean squared error. Asked by
``cases/overhead.py``, in one process.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

import trueloop as tl
from benchmarks.peers.trueloop import live_console
from trueloop.checkpoint.saving import Saver, Saving, saved
from trueloop.loop import Observer
from trueloop.observers import EarlyStop, Jsonl, Progress, RunRecord, TensorBoard, claim

BLOCK = 1024
"""Steps that are timed together: several flushes of the record and several drawings fall into each."""

WARM = 128

_generator = torch.Generator().manual_seed(0)
_BATCHES = [(torch.randn(8, 32, generator=_generator), torch.randn(8, 32, generator=_generator)) for _ in range(512)]


class Given:
    """``steps`` pre-gathered batches; if timed, wall and CPU seconds at which each block of them began."""

    def __init__(self, steps: int, *, timed: bool = False) -> None:
        self.steps = steps
        self.marks: list[tuple[float, float]] = []
        self._timed = timed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = itertools.islice(itertools.cycle(_BATCHES), self.steps)
        return self._in_blocks(batches) if self._timed else batches

    def _in_blocks(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        yield from itertools.islice(batches, WARM)
        for _ in range((self.steps - WARM) // BLOCK):
            self.marks.append((time.perf_counter(), time.process_time()))
            yield from itertools.islice(batches, BLOCK)
        self.marks.append((time.perf_counter(), time.process_time()))


def model() -> nn.Module:
    """Two layers, 32 wide."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))


def bare(given: Given, clock: Callable[[], float] | None = None) -> None:
    """The loop by hand, with nothing around the arithmetic."""
    net, criterion = model(), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    net.train()
    for x, y in given:
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()


def stream(given: Given, clock: Callable[[], float] | None = None) -> None:
    """``Trainer.train`` with no observer."""
    for _ in _trainer().train(given, epochs=1):
        pass


def watched(given: Given, clock: Callable[[], float] | None = None, *, tensorboard: bool = False) -> None:
    """``Trainer.train`` under every observer: live progress, record, run folder, early stop; and checkpoints."""
    with tempfile.TemporaryDirectory(prefix="trueloop-bench-") as name, live_console() as console:
        folder = Path(name, "run")
        claim(folder, {})
        progress = Progress(console, clock=clock or time.monotonic)
        record = Jsonl(folder / "events.jsonl", clock=clock or time.time)
        observers: list[Observer] = [progress, record, RunRecord(folder), EarlyStop()]
        if tensorboard:
            observers.append(TensorBoard(folder, clock=clock or time.time))
        val = [_BATCHES[0]]  # early stopping wants one; it is looked at once, after the last step
        trainer = _trainer()
        saver = Saver(
            folder, Saving(), trainer._session.capture
        )  # saves at the beginning and the end, and looks at each step
        tl.watch(saved(trainer.train(given, val, epochs=1, evaluate_every=None), saver), observers)


def watched_with_tensorboard(given: Given, clock: Callable[[], float] | None = None) -> None:
    """All that and TensorBoard."""
    watched(given, clock, tensorboard=True)


KINDS: dict[str, Callable[..., None]] = {
    "bare": bare,
    "stream": stream,
    "watched": watched,
    "watched_with_tensorboard": watched_with_tensorboard,
}


def microseconds(kind: str, blocks: int) -> dict[str, float]:
    """Microseconds a step, wall and CPU, of the middle block."""
    given = Given(WARM + blocks * BLOCK, timed=True)
    KINDS[kind](given)
    lengths = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(given.marks)]
    return {
        figure: median(length[column] for length in lengths) / BLOCK * 1e6
        for column, figure in enumerate(("wall", "cpu"))
    }


def calls(kind: str) -> dict[str, Any]:
    """Calls a step, counted over 2,048 steps: Python functions, C functions, and which of ours.

    Clocks advance by 150 µs at each look, so that drawings and flushes fall where they would, and the count is the
    same each time. Looking at such a clock is no Python call, as with a real one.
    """
    few, many = (_count(kind, steps) for steps in (512, 512 + 2048))
    many.subtract(few)
    python = {code: count / 2048 for code, count in many.items() if isinstance(code, CodeType)}
    ours = {
        f"{Path(code.co_filename).name}:{code.co_firstlineno} {code.co_qualname}": round(count, 2)
        for code, count in python.items()
        if "/src/trueloop/" in code.co_filename and count >= 0.5
    }
    return {"python": sum(python.values()), "c": many["c"] / 2048, "ours": ours}


def _count(kind: str, steps: int) -> Counter[CodeType | str]:
    counted: Counter[CodeType | str] = Counter()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            counted[frame.f_code] += 1
        elif event == "c_call":
            counted["c"] += 1

    clock = itertools.count(0.0, 150e-6).__next__
    KINDS[kind](Given(16), clock)  # first uses import things
    given = Given(steps)
    sys.setprofile(profile)
    try:
        KINDS[kind](given, clock)
    finally:
        sys.setprofile(None)
    return counted


def _trainer() -> tl.Trainer:
    net = model()
    return tl.Trainer(net, nn.MSELoss(), torch.optim.SGD(net.parameters(), lr=1e-3))
