"""The ritual on several processes: each has its part of the window, and all take the same step.

A process divides its mean loss by (the count of all processes / its own count), as microbatches of one process are
divided (``step.py``); gradients are then summed and not averaged. So the step is that of the one big batch, whatever
the parts' sizes, and a process that has no samples of a short batch counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from trueloop.data.cursor import derive
from trueloop.data.device import batch_length
from trueloop.data.part import Idle
from trueloop.errors import PeerError
from trueloop.finite import NotFinite
from trueloop.objective import Batch, Computed, Count, Objective
from trueloop.parallel.reduce import summed, summed_tensor
from trueloop.parallel.world import world
from trueloop.step import COUNTED, Ritual, share_of

_DROPOUT = 0x64726F70  # "drop" in ASCII: keeps these seeds apart from those of data


class Engine(Protocol):
    """Who shares a model among the processes, and sums its gradients."""

    def compute(self, objective: Objective, batch: Batch, *, last: bool) -> Computed:
        """Forward pass and loss of one microbatch, the last of its window or not."""


class SharedRitual(Ritual):
    """A ritual that other processes take part in.

    Args:
        engine: sums the gradients.
        seed: of random numbers in the forward pass (dropout), which are each process's own. They are a function of
            (seed, step, rank): a resume has nothing to put back. Outside the forward pass, all processes draw alike.
        *args: as for ``Ritual``.
        **kwargs: the same.
    """

    def __init__(self, engine: Engine, seed: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._engine, self._seed = engine, seed
        self._is_whole = False
        self._check, self.guard = self.guard, _no_guard  # of the loss of all: they raise together
        self._total: Count = 0
        self._all_samples = 0

    def _accumulate(self, objective: Objective, window: Sequence[Batch]) -> Computed:
        counts = [0 if isinstance(batch, Idle) else objective.count(batch) for batch in window]
        samples = sum(0 if isinstance(batch, Idle) else batch_length(batch) for batch in window)
        self._total, self._all_samples = _totals(sum(counts[1:], start=counts[0]), samples)
        drawn = torch.get_rng_state()
        torch.manual_seed(derive(self._seed, self.step, world().rank, _DROPOUT))
        for number, (batch, count) in enumerate(zip(window, counts, strict=True)):
            idle, last = isinstance(batch, Idle), number == len(window) - 1
            computed = self._engine.compute(objective, batch.batch if idle else batch, last=last)
            if idle:
                self.contribute(computed.loss * 0, 0, 0, COUNTED if computed.counted else share_of(self._total, 0))
            else:
                ratio = COUNTED if computed.counted else share_of(self._total, count)
                self.contribute(computed.loss, computed.count, batch_length(batch), ratio)
        torch.set_rng_state(drawn)
        return computed

    def _close(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        assert self._loss is not None, "a window was closed before it was opened"
        own = self._loss
        self._loss = summed_tensor(own)
        if self._counted is not None:
            self._counted = self._total = _totals(self._counted, 0)[0]
        try:
            self._check(self._loss)
        except NotFinite:
            if bool(torch.isfinite(own)):
                raise PeerError("the loss of another process is not finite") from None
            raise
        self._samples = self._all_samples
        loss, penalty, norm = super()._close()
        self.mean.add(loss, self._total, self._samples)
        return loss, penalty, norm


def _totals(count: Count, samples: int) -> tuple[Count, int]:
    """What a window counts, and its samples, over all processes. A count on a device stays there."""
    if isinstance(count, Tensor) and count.device.type != "cpu":
        return summed_tensor(count.double()), int(summed([samples])[0])
    total, number = summed([float(count), samples])
    return total, int(number)


def _no_guard(loss: Tensor) -> None:
    """The loss of all processes is looked at in its place."""
