"""The bookkeeping of a loop that is the user's own: windows, rates, modes, position; no policy.

``Trainer.epochs``, ``batches``, ``update`` and ``evaluating`` are these; the ritual under them is the one of ``train``.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trueloop.checkpoint.modes import Modes, modes_of
from trueloop.checks import check_count
from trueloop.data.device import batch_length, move, onto
from trueloop.data.feed import Feed
from trueloop.data.part import Idle
from trueloop.errors import ArgumentError, NonFiniteError, PeerError, UnknownNameError
from trueloop.evaluate import resting, wake
from trueloop.events import StepEnded
from trueloop.finite import Latch, NotFinite, first_bad_module
from trueloop.loop import Place, windows
from trueloop.objective import NO_TERMS, Batch, Computed, Count, run_model
from trueloop.parallel.alike import until_all_end
from trueloop.parallel.deal import same_buffers
from trueloop.parallel.failing import each_told_once, naming, telling
from trueloop.parallel.reduce import of_the_first
from trueloop.parallel.ritual import own_draws
from trueloop.parallel.waiting import Standing
from trueloop.preflight import KEPT, check_loss
from trueloop.setup import Length, Setup, begin_average, length, make_ritual
from trueloop.step import COUNTED, Ratio, Ritual, refuse_closure

_Batches = Generator[Batch, None, None]


@dataclass(frozen=True)
class _Microbatch:
    """What the user's loop body works on."""

    batch: Batch
    number: int
    """Its place in the epoch, from 0."""
    samples: int
    """0 where the batch is one of other processes, since there was none for this one: it counts for nothing."""
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
        begun: called when a run begins: a resume puts all in place then. It is told whether batches are to be fetched;
            if not, a forward pass was made already.

    Attributes:
        place: where the loop stands.
        rituals: of each optimizer, by name; none before the run has begun.
        feed: what ``batches`` reads.
        modes_to_come: of the model's parts, where ``evaluating`` holds it in eval mode: those that it gives back.
    """

    def __init__(self, setup: Setup, begun: Callable[[bool], Callable[[], None] | None] = lambda fetches: None) -> None:
        self.setup = setup
        self.place = Place()
        self.rituals: dict[str, Ritual] = {}
        self.feed: Feed | None = None
        self.modes_to_come: Modes | None = None
        self._begun = begun
        self._window: list[int] = []  # samples of each microbatch of the window that is worked on
        self._fetched: Sequence[Batch] = ()  # that window, as far as it was fetched here
        self._end = 0  # microbatches of the epoch that were fetched
        self._resumes = False  # the next loop over batches goes on where the checkpoint was saved
        self._epochs: int | None = None
        self._seed: int | None = None  # of what the loop body draws, where there are other processes
        self._latches: list[Latch] = []
        self._lost: set[str] = set()
        self._updated: set[str] = set()
        self._at: _Microbatch | None = None
        self._training: weakref.ref[_Batches] | None = None
        self._resting: weakref.ref[_Batches] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where the loop stands, in an epoch and in a window; with what was fetched of it and not yet trained on."""
        is_open = any(ritual.is_open for ritual in self.rituals.values())
        left = self._end - self.place.batch
        if not self.setup.world.alone and (is_open or left > 0):
            raise ArgumentError(
                "save after the update() that takes a window's step: within it, each process has batches and gradients "
                "of its own, and a checkpoint is of rank 0's alone"
            )
        rest = list(self._fetched[len(self._fetched) - left :]) if left > 0 else []
        return {
            **self.place.state_dict(),
            "seed": self._seed,
            "batch": self.place.batch + len(rest),
            "rest": rest,
            "window": list(self._window) if rest or is_open else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave: the next epoch and the next batch are those that come then."""
        self.place.load_state_dict(state)
        self._window, self._fetched = list(state.get("window", ())), list(state.get("rest", ()))
        self._seed = state.get("seed")
        self._resumes = True

    def go_back(self, state: Mapping[str, Any]) -> None:
        """Forgets the run that was, and stands where ``state`` says."""
        self.wake()
        self.rituals, self.feed = {}, None
        self.load_state_dict(state)

    def epochs(self, number: int) -> Iterator[int]:
        """See ``Trainer.epochs``."""
        check_count("epochs", number)
        self._epochs = number
        if not self._resumes:
            self.rituals, self.place, self._seed = {}, Place(), None  # a new run: its schedules start again
        return self._each_epoch(number)

    def _each_epoch(self, number: int) -> Iterator[int]:
        for epoch in range(self.place.epoch, number):
            self.wake()
            yield epoch
            for ritual in self.rituals.values():
                ritual.epoch_ended()
            self.place.epoch, self.place.batch, self._end = epoch + 1, 0, 0
        self._epochs = None  # from here on batches() counts by itself

    def batches(self, feed: Feed) -> Iterator[Batch]:
        """See ``Trainer.batches``."""
        _refuse_second(self._training, "batches")
        self.wake()
        batches = self._batches(feed)
        self._training = weakref.ref(batches)
        return batches

    def _batches(self, feed: Feed) -> _Batches:
        with telling(self.setup.world):
            yield from self._of_an_epoch(feed)

    def _of_an_epoch(self, feed: Feed) -> _Batches:
        wake(self.setup.choices.model)
        self.feed = feed
        last_act = None if self.rituals else self._begin(feed)
        start, self._resumes = self.place.batch if self._resumes else 0, False
        batches = onto(self.setup.device, ahead=not feed.state())(feed.epoch(self.place.epoch, start))
        shared = not self.setup.world.alone
        if last_act is not None:
            last_act()
        for latch in self._latches:
            latch.attach()
        rest, self._fetched, self._end = self._fetched if start else (), (), start
        number = start - len(rest)
        try:
            for window, sizes in self._windows(until_all_end(batches) if shared else batches, rest):
                first = len(sizes) - len(window)
                ratios = next(iter(self.rituals.values())).shares(sizes)[first:]
                for batch, samples, ratio in zip(window, sizes[first:], ratios, strict=True):
                    self.place.batch = number
                    self._at = _Microbatch(batch, number, samples, ratio, batch is window[-1])
                    number += 1
                    self._updated.clear()
                    draws = own_draws(self._seed or 0, self.place.epoch, number) if shared else contextlib.nullcontext()
                    with self.setup.precision.autocast(self.setup.device), draws:
                        yield batch
                self.place.batch = number
                for ritual in self.rituals.values():
                    if ritual.is_open:  # update() was not called for the window's last microbatch
                        ritual.finish(self.place.epoch)
                self._lost.clear()
            for latch in self._latches:
                latch.check(self.place.epoch, self.step)
            if shared:
                same_buffers(self.setup.choices.model)
        finally:
            self._at = None
            for latch in self._latches:
                latch.detach()
            for ritual in self.rituals.values():
                ritual.discard()
            feed.close()
            if self._epochs is None:  # no epochs() above it counts
                self.place.epoch, self.place.batch, self._end = self.place.epoch + 1, 0, 0

    def _windows(self, batches: Iterator[Batch], rest: Sequence[Batch]) -> Iterator[tuple[Sequence[Batch], list[int]]]:
        """The windows, each with the samples of its microbatches; of one that was worked on at a save only the rest."""
        if rest:
            yield [move(batch, self.setup.device) for batch in rest], self._window
        for window in windows(batches, self.setup.choices.accumulate):
            self._window = [0 if isinstance(batch, Idle) else batch_length(batch) for batch in window]
            self._fetched = [batch.batch if isinstance(batch, Idle) else batch for batch in window]
            self._end += len(window)
            yield self._fetched, self._window

    def update(self, loss: Tensor, count: Count | None, name: str) -> StepEnded | None:
        """See ``Trainer.update``."""
        if self.setup.world.alone:
            return self._update(loss, count, name)
        with naming(self.setup.world):
            event = self._update(loss, count, name)
        if event is not None:
            Standing.at = f"after step {event.step:,}"
        return event

    def _update(self, loss: Tensor, count: Count | None, name: str) -> StepEnded | None:
        place = self._at
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
        ratio = place.ratio if place else ritual.shares([1])[0]
        if ritual.step == 0 and not ritual.is_open:
            check_loss(Computed(loss, 1 if count is None else count, False, NO_TERMS, None, None))
        if count is not None and ratio is not None:
            ratio = COUNTED
        if samples == 0:
            loss, count = loss * 0, None if count is None else count * 0
        with torch.autocast(self.setup.device.type, enabled=False):  # it would round what an optimizer multiplies
            try:
                ritual.contribute(loss, samples if count is None else count, samples, ratio)
                event = ritual.finish(self.place.epoch) if place is None or place.is_last else None
            except NotFinite:
                self._give_up(ritual, name)
                raise self._not_finite(ritual, place) from None
            except PeerError:
                self._give_up(ritual, name)
                raise
        if place is not None:
            self.place.batch = place.number + 1
        if place is None:
            self._lost.clear()
            for latch in self._latches:
                latch.check(self.place.epoch, ritual.step)
        if self.setup.precision.dtype is not None:
            torch.clear_autocast_cache()  # the weights that it cast have moved
        return event

    def evaluating(self, feed: Feed) -> Iterator[Batch]:
        """See ``Trainer.evaluating``."""
        _refuse_second(self._resting, "evaluating")
        batches = each_told_once(self._evaluating(feed), self.setup.world)
        self._resting = weakref.ref(batches)
        return batches

    def _evaluating(self, feed: Feed) -> _Batches:
        around = self.modes_to_come
        self.modes_to_come = around or modes_of(self.setup.choices.model)
        try:
            with resting(self.setup.choices.model), self.setup.precision.autocast(self.setup.device):
                yield from onto(self.setup.device)(feed.epoch(0))
        finally:
            self.modes_to_come = around
            feed.close()

    @property
    def step(self) -> int:
        """Optimizer steps taken, by the optimizer that took most."""
        return max((ritual.step for ritual in self.rituals.values()), default=0)

    def wake(self) -> None:
        """Ends loops that an exception left open: their frames would keep eval mode, no-grad or autocast alive."""
        for left in (self._resting, self._training):
            batches = left() if left else None
            if batches is not None:
                batches.close()

    def _begin(self, feed: Feed | None) -> Callable[[], None] | None:
        """Makes what belongs to one run; gives the last act of a resume, if this is one."""
        begin_average(self.setup)
        self._latches = []
        if self._seed is None:
            self._seed = torch.initial_seed() if self.setup.world.alone else of_the_first(torch.initial_seed())
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
            for note in notes if self.setup.world.first else ():
                warnings.warn(note, stacklevel=2)
            self.rituals[name] = ritual
        return self._begun(feed is not None)

    def _ritual(self, name: str) -> Ritual:
        if not self.rituals:
            self._begin(None)
        if name in self.rituals:
            return self.rituals[name]
        if not name:
            known = ", ".join(self.rituals)
            raise ArgumentError(f"there are several optimizers; say which one: update(loss, optimizer=…), of {known}")
        raise UnknownNameError("optimizer", name, self.rituals)

    def _give_up(self, ritual: Ritual, name: str) -> None:
        ritual.discard()
        if self._at is not None:
            self._lost.add(name)

    def _not_finite(self, ritual: Ritual, place: _Microbatch | None) -> NonFiniteError:
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
