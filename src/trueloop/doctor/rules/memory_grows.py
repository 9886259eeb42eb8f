"""The process's memory grows from step to step and does not level off.

Sees: the memory of the process (on CUDA: what tensors take there) is read every 5 steps; from the first quarter of
the run on it has grown by 100 MB or more (24 MB if a count of the live tensors says that it is they), in nearly every
eighth of the run, and in the last quarter about as fast as before. A step's first allocations and caches that fill up
once are left out by that. (Both are guesses: what a small script could not explain otherwise.)

Why it matters: a longer run dies of it, often after hours.

Usual causes: tensors are appended to a list that lives for the whole training (outputs, batches, hidden states); a
cache without a limit; hooks that store activations; losses kept with their graphs (see ``retained-graph``).

Fix: keep numbers instead of tensors, empty the list at the end of each epoch, give the cache a limit.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, Paused, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

EVERY = 5
GROWN = 100e6
TENSORS = 24e6  # where it is tensors that grow, by a count of them
BASE = 5  # readings before it is looked at whether there is growth
STEPS = 60
LEAST = 16  # readings
PARTS = 8
TENSOR_PARTS = 3
SHARE = 0.5
TOLD_AFTER = 1000  # steps: it is told then, and not at the end alone
_STATM = "/proc/self/statm"


class MemoryGrows(Rule):
    """Knows it by what the system says of the process."""

    name = "memory-grows"
    code = 703
    level = "warning"
    certainty = "measured"
    seen_by = ("run",)

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._readings: list[tuple[int, float]] = []
        self._every = self._due = EVERY
        self._tell_at = TOLD_AFTER
        self._counts: list[tuple[float, float]] = []  # memory, and bytes in tensors, from when it had grown somewhat
        self._count_at = EVERY * (BASE + 1)
        self._place: Place | None = None
        self._told = False
        self._readable = True

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self.trace.step < self._due or self._told or not self._readable:
            return
        self._due = self.trace.step + self._every
        memory = taken()
        if memory is None:
            self._readable = False
            return
        self._place = fact.place
        self._readings.append((self.trace.step, memory))
        grown = memory - self._readings[: BASE + 1][-1][1]
        if self.trace.step >= self._count_at and grown >= TENSORS / 2:
            self._count_at = self.trace.step * 3 // 2
            self._counts.append((memory, live()))
        if len(self._readings) == 400:  # as many as are needed, however long the run
            self._readings, self._every = self._readings[::2], 2 * self._every
        if self.trace.step >= self._tell_at:
            self._tell_at = self.trace.step + TOLD_AFTER
            yield from self._tell()

    def paused(self, fact: Paused) -> None:
        self._readable = False  # what grows while nobody looks is not the steps'

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if not self._told:
            yield from self._tell()

    def _tell(self) -> Iterator[Finding]:
        readings = self._readings[len(self._readings) // 4 :]
        if len(readings) < LEAST * 3 // 4 or self.trace.step < STEPS:
            return
        tensors = self._in_tensors()
        count = TENSOR_PARTS if tensors else PARTS  # what comes and goes with an evaluation makes steps of the line
        bounds = [i * len(readings) // (count + 1) for i in range(count + 2)]
        parts = [min(level for _, level in readings[begin:end]) for begin, end in pairwise(bounds)]  # lists are emptied
        rises = [after - before for before, after in pairwise(parts)]
        grown = (parts[-1] - parts[0]) * (count + 1) / count  # from the middle of the first to that of the last
        steady = sum(rise > grown / count / 4 for rise in rises) >= (count if tensors else count - 1)
        if (
            grown < (TENSORS if tensors else GROWN)
            or not steady
            or sum(rises[-(count // 3) :]) < grown / count / (3 if tensors else 2)
        ):
            return
        self._told = True
        steps = readings[-1][0] - readings[0][0]
        yield self.finding(
            f"memory grows by {grown / steps / 1e6:.2g} MB a step and does not level off",
            f"{readings[0][1] / 1e6:.0f} MB at step {readings[0][0]}, {readings[-1][1] / 1e6:.0f} MB at step "
            f"{readings[-1][0]}; it rose in {sum(rise > 0 for rise in rises)} of {count} parts of the run",
            place=self._place,
        )

    def _in_tensors(self) -> bool:
        """Whether it is tensors that take what the process has taken more, or that take much by themselves."""
        if not self._counts:
            return False
        memory, tensors = self._counts[0]
        return any(
            now - tensors >= min(TENSORS, SHARE * (then - memory)) for then, now in self._counts[1:] if then > memory
        )

    def passed(self) -> str | None:
        if self._told or len(self._readings) < LEAST or self.trace.step < STEPS:
            return None
        return f"memory did not grow without end over {self.trace.step} steps"

    def unseen(self) -> str | None:
        if not self._readable:
            return "the memory of the process could not be followed"
        return None if self.trace.step >= STEPS else f"fewer than {STEPS} steps: too few to tell growth from a start"


def live() -> float:
    """Bytes in tensors that are alive, each storage once. It takes some tens of milliseconds."""
    import torch

    found = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.layout == torch.strided]
    return float(sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found}.values()))


def taken() -> float | None:
    """Bytes that the process takes: on CUDA in tensors there, else in memory; None where the system does not say."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return float(torch.cuda.memory_allocated())
    try:
        with open(_STATM) as file:
            return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        return None


FIRES = {
    "batches are kept for the whole run": """
        import ctypes
        ctypes.CDLL(None).malloc_trim(0)  # what scripts before this one freed goes back: as in a process of its own
        model, seen = nn.Linear(100, 1), []
        opt = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(100):
            x = torch.randn(6000, 100)
            seen.append(x)
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
    """,
    "a hook stores activations": """
        import ctypes
        ctypes.CDLL(None).malloc_trim(0)  # what scripts before this one freed goes back: as in a process of its own
        model = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 1))
        stored = {"hidden": []}
        model[0].register_forward_hook(lambda m, i, o: stored["hidden"].append(o.detach().clone()))
        opt = torch.optim.Adam(model.parameters(), lr=1e-4)
        for _ in range(100):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(3000, 8)), torch.zeros(3000, 1)).backward()
            opt.step()
    """,
}

SILENT = {
    "a list that is emptied each epoch": """
        model = nn.Linear(100, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-4)
        for epoch in range(5):
            seen = []
            for _ in range(20):
                x = torch.randn(6000, 100)
                seen.append(x)
                opt.zero_grad()
                F.mse_loss(model(x), x[:, :1]).backward()
                opt.step()
    """,
    "a cache that is full after a third": """
        model, cache = nn.Linear(100, 1), {}
        opt = torch.optim.SGD(model.parameters(), lr=1e-4)
        for i in range(120):
            if i % 40 not in cache:
                cache[i % 40] = torch.randn(6000, 100)
            x = cache[i % 40]
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
    """,
}
