"""The bookkeeping of a loop that is the user's own: windows, rates, modes, position; no policy.

``Trainer.epochs``, ``batches``, ``update`` and ``evaluating`` are these; the ritual under them is the one of ``train``.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trueloop.checks import check_count
from trueloop.data.device import batch_length, onto
from trueloop.data.feed import Feed
from trueloop.errors import ArgumentError, NonFiniteError, UnknownNameError
from trueloop.evaluate import resting
from trueloop.events import StepEnded
from trueloop.finite import Latch, NotFinite, first_bad_module
from trueloop.loop import windows
from trueloop.objective import NO_TERMS, Batch, Computed, Count, run_model
from trueloop.preflight import KEPT, check_loss
from trueloop.setup import Length, Setup, begin_average, length, make_ritual
from trueloop.step import COUNTED, Ratio, Ritual, refuse_closure, shares

_Batches = Generator[Batch, None, None]


@dataclass(frozen=True)
class _Place:
    """The microbatch that the user's loop body works on."""

    batch: Batch
    samples: int
    ratio: Ratio
    is_last: bool
    """The window ends with it: ``update`` takes the step."""


def _refuse_second(left: weakref.ref[_Batches] | None, name: str) -> None:
    """Two loops at once would end in the wrong order, or share one place."""
    before = left() if left else None
    if before is not None and inspect.getgeneratorstate(before) == inspect.GEN_CREATED:
        raise ArgumentError(
            f"one loop over trainer.{name}() goes on at a time, and another was made just now; for two loaders at "
            f"once, take one through {name}() and iterate over the other yourself"
        )


class OwnLoop:
    """What ``Trainer`` remembers while the user runs the loop.

    Args:
        setup: the trainer's.

    Attributes:
        epoch: the epoch (0-based) that runs, or comes next.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.epoch = 0
        self._epochs: int | None = None
        self._rituals: dict[str, Ritual] = {}
        self._latches: list[Latch] = []
        self._lost: set[str] = set()
        self._updated: set[str] = set()
        self._place: _Place | None = None
        self._training: weakref.ref[_Batches] | None = None
        self._resting: weakref.ref[_Batches] | None = None

    def epochs(self, number: int) -> Iterator[int]:
        """See ``Trainer.epochs``."""
        check_count("epochs", number)
        self._epochs = number
        self._rituals = {}  # a new run: its schedules start again
        return self._each_epoch(number)

    def _each_epoch(self, number: int) -> Iterator[int]:
        for self.epoch in range(number):  # the attribute is the loop's variable
            self.wake()
            yield self.epoch
            for ritual in self._rituals.values():
                ritual.epoch_ended()
        self._epochs = None  # from here on batches() counts by itself

    def batches(self, feed: Feed) -> Iterator[Batch]:
        """See ``Trainer.batches``."""
        _refuse_second(self._training, "batches")
        self.wake()
        batches = self._batches(feed)
        self._training = weakref.ref(batches)
        return batches

    def _batches(self, feed: Feed) -> _Batches:
        if not self.setup.choices.model.training:
            self.setup.choices.model.train()
        if not self._rituals:
            self._begin(feed)
        accumulate = self.setup.choices.accumulate
        for latch in self._latches:
            latch.attach()
        try:
            for window in windows(onto(self.setup.device)(feed.epoch(self.epoch)), accumulate):
                samples = [batch_length(batch) for batch in window]
                for index, ratio in enumerate(shares(samples)):
                    is_last = index + 1 == len(window)
                    self._place = _Place(window[index], samples[index], ratio, is_last)
                    self._updated.clear()
                    with self.setup.precision.autocast(self.setup.device):
                        yield window[index]
                for ritual in self._rituals.values():
                    if ritual.is_open:  # update() was not called for the window's last microbatch
                        ritual.finish(self.epoch)
                self._lost.clear()
            for latch in self._latches:
                latch.check(self.epoch, self.step)
        finally:
            self._place = None
            for latch in self._latches:
                latch.detach()
            for ritual in self._rituals.values():
                ritual.discard()
            feed.close()
            if self._epochs is None:  # no epochs() above it counts
                self.epoch += 1

    def update(self, loss: Tensor, count: Count | None, name: str) -> StepEnded | None:
        """See ``Trainer.update``."""
        place = self._place
        if place is None:
            self.wake()
        ritual = self._ritual(name)
        accumulate = self.setup.choices.accumulate
        if place is None and accumulate > 1:
            raise ArgumentError(
                f"update() with accumulate={accumulate} must know where a window ends; "
                "loop over trainer.batches(loader), or use accumulate=1"
            )
        if accumulate > 1 and name in self._updated:
            raise ArgumentError(
                "update() was called twice for one microbatch; with accumulate both are of one window: add the losses"
            )
        self._updated.add(name)
        if name in self._lost:
            return None  # its window has met NaN, and was given up
        samples = place.samples if place else 1
        ratio = place.ratio if place else None
        if ritual.step == 0 and not ritual.is_open:
            check_loss(Computed(loss, 1 if count is None else count, False, NO_TERMS, None, None))
        if count is not None and ratio is not None:
            ratio = COUNTED
        with torch.autocast(self.setup.device.type, enabled=False):  # it would round what an optimizer multiplies
            try:
                ritual.contribute(loss, samples if count is None else count, samples, ratio)
            except NotFinite:
                ritual.discard()
                self._lost.add(name)
                raise self._not_finite(ritual, place) from None
            event = ritual.finish(self.epoch) if place is None or place.is_last else None
        if place is None:
            self._lost.clear()
            for latch in self._latches:
                latch.check(self.epoch, ritual.step)
        if self.setup.precision.dtype is not None:
            torch.clear_autocast_cache()  # the weights that it cast have moved
        return event

    def evaluating(self, feed: Feed) -> Iterator[Batch]:
        """See ``Trainer.evaluating``."""
        _refuse_second(self._resting, "evaluating")
        batches = self._evaluating(feed)
        self._resting = weakref.ref(batches)
        return batches

    def _evaluating(self, feed: Feed) -> _Batches:
        try:
            with resting(self.setup.choices.model), self.setup.precision.autocast(self.setup.device):
                yield from onto(self.setup.device)(feed.epoch(0))
        finally:
            feed.close()

    @property
    def step(self) -> int:
        """Optimizer steps taken, by the optimizer that took most."""
        return max((ritual.step for ritual in self._rituals.values()), default=0)

    def wake(self) -> None:
        """Ends loops that an exception left open: their frames would keep eval mode, no-grad or autocast alive."""
        for left in (self._resting, self._training):
            batches = left() if left else None
            if batches is not None:
                batches.close()

    def _begin(self, feed: Feed | None) -> None:
        begin_average(self.setup)
        self._latches = []
        run = Length(self._epochs, None, None)
        if feed is not None and self._epochs is not None:
            run = length(feed, self.setup.choices.accumulate, self._epochs, None)
        for name in self.setup.optimizers:
            notes: list[str] = []
            ritual, _, _, latch = make_ritual(self.setup, name, run, notes)
            ritual.settings = replace(ritual.settings, is_sum=False)  # update() is given means
            self._latches += [] if latch is None else [latch]
            refuse_closure(ritual.optimizer)
            if ritual.scheduler is not None and ritual.scheduler.every == "evaluation":
                raise ArgumentError(
                    f"{type(ritual.scheduler.scheduler).__name__} moves after evaluations, which a loop of your own "
                    "makes: call its step(value) there, and leave schedule= out"
                )
            for note in notes:
                warnings.warn(note, stacklevel=2)
            self._rituals[name] = ritual

    def _ritual(self, name: str) -> Ritual:
        if not self._rituals:
            self._begin(None)
        if name in self._rituals:
            return self._rituals[name]
        if not name:
            known = ", ".join(self._rituals)
            raise ArgumentError(f"there are several optimizers; say which one: update(loss, optimizer=…), of {known}")
        raise UnknownNameError("optimizer", name, self._rituals)

    def _not_finite(self, ritual: Ritual, place: _Place | None) -> NonFiniteError:
        module = None
        if place is not None:
            try:
                module = first_bad_module(ritual.model, lambda: run_model(ritual.model, place.batch))
            except Exception:  # the model of one's own loop need not take the batch as it is
                module = None
        where = f"the first module whose output is not is {module}" if module else "its cause is in your loop"
        return NonFiniteError(
            f"the loss given to update() is not finite; {where}; {KEPT}", step=ritual.step, module=module
        )
