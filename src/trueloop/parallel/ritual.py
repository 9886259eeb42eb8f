"""The ritual on several processes: each has its part of the window, and all take the same step.

A process divides its mean loss by (the count of all processes / its own count), as microbatches of one process are
divided (``step.py``); gradients are then summed and not averaged. So the step is that of the one big batch, whatever
the parts' sizes, and a process that has no samples of a short batch counts for nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trueloop.data.cursor import derive
from trueloop.data.device import batch_length
from trueloop.data.part import Idle
from trueloop.errors import PeerError
from trueloop.finite import NotFinite
from trueloop.objective import Batch, Computed, Count, Objective
from trueloop.parallel.reduce import sum_gradients, summed, summing, summing_tensor
from trueloop.parallel.world import world
from trueloop.step import COUNTED, Ratio, Ritual, share_of

_DROPOUT = 0x64726F70  # "drop" in ASCII: keeps these seeds apart from those of data


class Engine(Protocol):
    """Who shares a model among the processes, and sums its gradients."""

    def compute(self, objective: Objective, batch: Batch, *, last: bool) -> Computed:
        """Forward pass and loss of one microbatch, the last of its window or not."""

    def send(self, loss: Tensor) -> Callable[[], Tensor]:
        """Begins to sum a window's loss over the processes, before its last backward pass; to be asked for after it."""


class SharedRitual(Ritual):
    """A ritual that other processes take part in.

    Args:
        engine: sums the gradients; None where no window is taken as a whole (``OwnRitual``).
        seed: of random numbers in the forward pass (dropout), which are each process's own. They are a function of
            (seed, step, rank): a resume has nothing to put back. Outside the forward pass, all processes draw alike.
        *args: as for ``Ritual``.
        **kwargs: the same.
    """

    def __init__(self, engine: Engine | None, seed: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._engine, self._seed = engine, seed
        self._sum: Callable[[Sequence[nn.Parameter]], None] = sum_gradients
        self._is_whole = False
        self._check, self.guard = self.guard, self._send  # of the loss of all: they raise together
        self._sent: Callable[[], Tensor] | None = None
        self._is_last = False
        self._total: Count = 0
        self._all_samples = 0

    def _collect(self) -> None:
        super()._collect()
        engines = {*self.model.parameters()}
        self._left = [one for one in self.parameters if one not in engines]  # nobody sums those of a loss with weights

    def _accumulate(self, objective: Objective, window: Sequence[Batch]) -> Computed:
        own = [batch.batch if isinstance(batch, Idle) else batch for batch in window]
        idle = [isinstance(batch, Idle) for batch in window]
        counts = [objective.count(batch) * (not rests) for batch, rests in zip(own, idle, strict=True)]
        samples = sum(batch_length(batch) * (not rests) for batch, rests in zip(own, idle, strict=True))
        totals = _totals(sum(counts[1:], start=counts[0]), samples)  # they travel during the forward pass
        self._sent = None
        assert self._engine is not None, "a loop of the user's own makes its forward passes itself"
        with own_draws(self._seed, self.step):
            for number, (batch, count, rests) in enumerate(zip(own, counts, idle, strict=True)):
                self._is_last = number == len(own) - 1
                computed = self._engine.compute(objective, batch, last=self._is_last)
                if number == 0:
                    self._total, self._all_samples = totals()
                ratio = COUNTED if computed.counted else NOTHING if rests else share_of(self._total, count)
                if rests:
                    self.contribute(computed.loss * 0, computed.count * 0, 0, ratio)
                else:
                    self.contribute(computed.loss, computed.count, batch_length(batch), ratio)
        return computed

    def _send(self, part: Tensor) -> None:
        """A window's loss travels during its last backward pass."""
        if self._is_last:
            assert self._engine is not None, "a loop of the user's own makes its backward passes itself"
            self._sent = self._engine.send(part if self._loss is None else self._loss + part)
            self._is_last = False

    def _close(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        assert self._loss is not None, "a window was closed before it was opened"
        if self._left:
            self._sum(self._left)
        own = self._loss
        self._loss = (self._sent or summing_tensor(own))().to(own.dtype)
        if self._counted is not None:
            self._counted = self._total = _totals(self._counted, 0)()[0]
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


class OwnRitual(SharedRitual):
    """A ritual of a loop of the user's own, whose forward passes no engine sees: it sums gradients at a window's end.

    Those of a model that is cut up (FSDP) have been summed by then, in the backward pass.

    Args:
        sums: gives parameters the gradients of all processes.
        *args: as for ``SharedRitual``, without the engine and the seed.
        **kwargs: the same.
    """

    def __init__(self, sums: Callable[[Sequence[nn.Parameter]], None], *args: Any, **kwargs: Any) -> None:
        super().__init__(None, 0, *args, **kwargs)
        self._sum = sums
        self._own_count: Count = 0

    def _collect(self) -> None:
        super()._collect()
        self._left = [one for one in self.parameters if not hasattr(one, "device_mesh")]

    def shares(self, sizes: Sequence[int]) -> list[Ratio]:
        """What each microbatch's mean is divided by; of all processes' samples in this window."""
        total = int(summed([sum(sizes)])[0])
        return [share_of(total, size) if size else NOTHING for size in sizes]

    def contribute(self, loss: Tensor, count: Count, samples: int, ratio: Ratio = None) -> None:
        """Adds one microbatch's gradient."""
        own = 0 if self._in_window == 0 else self._own_count
        super().contribute(loss, count, samples, ratio)
        self._own_count = own + count

    def _close(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        self._total, self._all_samples = _totals(self._own_count, self._samples)()
        return super()._close()

    def _clip(self) -> Tensor | None:
        norm = super()._clip()
        return norm.full_tensor() if norm is not None and hasattr(norm, "full_tensor") else norm


NOTHING = torch.tensor(math.inf)
"""The ratio of what counts for nothing: a tensor, as the other processes' counts may be."""


@contextlib.contextmanager
def own_draws(*parts: int) -> Iterator[None]:
    """Inside, what is drawn from torch's generators is this process's own: a function of the parts and its rank.

    Outside, all processes draw alike: so a checkpoint of rank 0's generators is one of all.

    Example:
        >>> with own_draws(1, 2): first = torch.rand(1)
        >>> with own_draws(1, 2): bool(torch.rand(1) == first)
        True
    """
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    before = [generator.get_state() for generator in generators]
    for generator in generators:  # torch.manual_seed would format a traceback each time: 0.3 ms
        generator.manual_seed(derive(*parts, world().rank, _DROPOUT))
    _around.append((generators, before))
    try:
        yield
    finally:
        _around.pop()
        _set(generators, before)


@contextlib.contextmanager
def alike_again() -> Iterator[None]:
    """Within ``own_draws``, all processes draw alike in this block: what a checkpoint keeps is that.

    Example:
        >>> before = torch.get_rng_state()
        >>> with own_draws(1, 2), alike_again(): bool((torch.get_rng_state() == before).all())
        True
    """
    if not _around:
        yield
        return
    generators, outer = _around[-1]
    own = [generator.get_state() for generator in generators]
    _set(generators, outer)
    try:
        yield
    finally:
        _set(generators, own)


_around: list[tuple[list[torch.Generator], list[Tensor]]] = []
"""Around each block of ``own_draws`` that goes on: what all processes draw from, and where they stand."""


def _set(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def _totals(count: Count, samples: int) -> Callable[[], tuple[Count, int]]:
    """What a window counts, and its samples, over all processes: begun now. A count on a device stays there."""
    if isinstance(count, Tensor) and count.device.type != "cpu":
        on_device, number = summing_tensor(count), summing([samples])
        return lambda: (on_device(), int(number()[0]))
    both = summing([float(count), samples])

    def totals() -> tuple[Any, int]:
        total, number = both()
        return total, int(number)

    return totals
