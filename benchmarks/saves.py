"""What a checkpoint costs: how long a step waits for it, how fast it is written behind, what a step pays for its place.

Asked by ``cases/saving.py``, in one process: the same state is copied plainly, saved by us, and by ``torch.save``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import trueloop as tl
from trueloop.checkpoint.saving import Saver, Saving
from trueloop.events import StepEnded
from trueloop.loop import Place

MEGABYTE = 1_000_000
_SETS: dict[int, _Set] = {}


class _Set:
    """A trainer whose weights and Adam's moments are so many megabytes, after one step."""

    def __init__(self, megabytes: int) -> None:
        width = int((megabytes * MEGABYTE / 4 / 3 / 8) ** 0.5)
        self.model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(8)])
        self.trainer = tl.Trainer(self.model, nn.MSELoss(), tl.optim.adam(lr=1e-3))
        for _ in self.trainer.train((torch.zeros(1, width), torch.zeros(1, width)), steps=1, batch_size=1):
            pass
        self.folder = Path(tempfile.mkdtemp(prefix="trueloop-saves-"))
        self.saver = Saver(self.folder, Saving(keep_last=1), self.trainer._session.capture)
        self.bytes = sum(t.nbytes for t in self.tensors())
        self.saver._save("to warm up")  # whose memory is new
        self.saver._told()

    def tensors(self) -> list[torch.Tensor]:
        state = self.trainer.setup.optimizers[""].state
        return [*self.model.parameters(), *(t for one in state.values() for t in one.values())]


def save(megabytes: int) -> dict[str, float]:
    """One round: a plain copy, a save of ours and what goes on behind it, a ``torch.save`` with fsync."""
    if megabytes not in _SETS:
        for other in _SETS.values():
            shutil.rmtree(other.folder)
        _SETS.clear()
        _SETS[megabytes] = _Set(megabytes)
    one = _SETS[megabytes]
    started = time.perf_counter()
    copies = [tensor.detach().clone() for tensor in one.tensors()]
    copied = time.perf_counter() - started
    del copies
    started = time.perf_counter()
    one.saver._save("measured")
    held_up = time.perf_counter() - started
    (event,) = one.saver._told()
    behind = time.perf_counter() - started
    assert isinstance(event, tl.Saved), event
    file = one.folder / "by_torch.pt"
    started = time.perf_counter()
    with file.open("wb") as stream:
        torch.save(
            {"model": one.model.state_dict(), "optimizer": one.trainer.setup.optimizers[""].state_dict()}, stream
        )
        stream.flush()
        os.fsync(stream.fileno())
    by_torch = time.perf_counter() - started
    file.unlink()
    return {
        "copy ms": copied * 1e3,
        "held up ms": held_up * 1e3,
        "× a copy": held_up / copied,
        "MB/s": one.bytes / MEGABYTE / behind,
        "torch MB/s": one.bytes / MEGABYTE / by_torch,
    }


def place(steps: int) -> dict[str, float]:
    """Microseconds a step for knowing where the run stands, and for asking whether a checkpoint is due."""
    stands, window, every = Place(), (None,), None
    event = StepEnded(1, 0, torch.zeros(()), 8, 0.1, None, {}, False)
    empty = _timed(steps, lambda: None)

    def keep() -> None:
        stands.batch += len(window)
        stands.due = every is not None and event.step % every == 0 and not event.skipped

    with tempfile.TemporaryDirectory() as folder:
        saver: Any = Saver(Path(folder), Saving(every_steps=10**9), lambda: None)
        return {
            "place µs": _timed(steps, keep) - empty,
            "due µs": _timed(steps, lambda: saver.after(event, None)) - empty,
        }


def _timed(steps: int, function: Any) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        function()
    return (time.perf_counter() - started) / steps * 1e6
