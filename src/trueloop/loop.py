"""The loop. ``train`` is a generator of events, ``watch`` pours them into observers; nothing else drives a run.

``Trainer.fit`` is ``watch(train(...), observers)``. The loop decides when things happen; what changes weights is in
step.py, what is a fact in events.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trueloop.data.feed import Feed
from trueloop.errors import DataError, Preempted
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, RunStarted, Status, Stop
from trueloop.finite import Latch, NotFinite
from trueloop.objective import Batch, Mean, Objective
from trueloop.plan import Plan
from trueloop.preflight import checked, explain, explain_not_finite, explain_skipped
from trueloop.step import Ritual

Observer = Callable[[Event], Stop | None]
"""Called with every event, in order; may reply ``Stop``."""

Events = Generator[Event, Stop | None, None]
"""What ``train`` gives: iterate over it, or ``send`` a ``Stop``."""

Evaluation = Callable[[int, int], EvalEnded]
"""(step, epoch) -> an evaluation of the model as it is then."""


@dataclass
class Place:
    """Where a run stands, complete whenever an event is out: a checkpoint is made then."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Microbatches of this epoch that were trained on."""
    epoch_step: int = 0
    """Optimizer steps taken when this epoch began."""
    evaluated_at: int = -1
    """The step of the last evaluation in this epoch; -1 for none."""
    due: bool = False
    """The step that was taken last is to be followed by an evaluation."""
    stop: str | None = None
    """Why the run is over before its time: the reason of the ``Stop`` that ended it."""

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
        for name in asdict(self):
            setattr(self, name, state[name])


@dataclass
class Run:
    """All that ``train`` needs, set up: ``Trainer`` makes one a run."""

    ritual: Ritual
    objective: Objective
    feed: Feed
    plan: Plan
    seed: int
    accumulate: int = 1
    epochs: int | None = None
    steps: int | None = None
    evaluate: Evaluation | None = None
    """None where there is nothing to evaluate on."""
    evaluate_every: int | None = 1
    """Epochs between evaluations; None where they go by steps."""
    evaluate_every_steps: int | None = None
    onto_device: Callable[[Iterator[Batch]], Iterator[Batch]] = iter
    latch: Latch | None = None
    held_out: Feed | None = None
    """What evaluations read: looked at, where it is in memory, before the first step."""
    at_end: Callable[[], None] | None = None
    """What is left to do when the last step was taken (BatchNorm's statistics of averaged weights)."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it was asked for, in plain values; a resume compares them."""
    generators: Mapping[str, Any] = field(default_factory=dict)
    """Of random numbers, kept by the user's own objects: model, loss, validation data."""
    resumed: Callable[[], None] | None = None
    """Puts the RNGs where they were, once the loader stands where it stood; None for a run from its beginning."""
    place: Place = field(default_factory=Place, init=False)


def train(run: Run) -> Events:
    """Trains, and yields what happened, when it happened.

    Yields:
        ``RunStarted``; a ``StepEnded`` each step, an ``EvalEnded`` each evaluation, an ``EpochEnded`` each epoch;
        ``RunEnded`` last, whatever ended the run: an exception is raised after it.
    """
    started = time.monotonic()
    stop = None if run.place.stop is None else Stop(run.place.stop)
    try:
        if run.latch is not None:
            run.latch.attach()
        stop = (yield RunStarted(run.plan, run.seed, run.ritual.step, run.place.epoch)) or stop
        while stop is None and (run.place.batch or not _is_over(run)):  # an open epoch is ended, also without a step
            stop = yield from _epoch(run)
        _go_on(run)
        _check_latch(run)
        if run.at_end is not None:
            run.at_end()
    except GeneratorExit:  # whoever iterates has left; nobody would hear
        raise
    except BaseException as error:
        run.ritual.discard()  # a window that was begun is fetched again by a resume
        yield RunEnded(run.ritual.step, run.place.epoch, *_ended_by(error, time.monotonic() - started))
        raise
    finally:
        run.feed.close()
        if run.latch is not None:
            run.latch.detach()
    seconds = time.monotonic() - started
    if stop is None:
        yield RunEnded(run.ritual.step, run.place.epoch, "finished", seconds)
    else:
        run.place.stop = stop.reason
        yield RunEnded(run.ritual.step, run.place.epoch, stop.reason, seconds, "stopped")


def _epoch(run: Run) -> Generator[Event, Stop | None, Stop | None]:
    """One pass over the training data, with the evaluations that fall due in it."""
    started = time.monotonic()
    ritual, objective, place = run.ritual, run.objective, run.place
    epoch = place.epoch
    if place.batch == 0:
        ritual.mean = Mean(is_sum=objective.is_sum)
        place.epoch_step, place.evaluated_at = ritual.step, -1
    every_steps, last_step = run.evaluate_every_steps if run.evaluate else None, run.steps
    first = checked(objective, run.feed, run.held_out) if ritual.step == 0 else objective
    batches = run.onto_device(run.feed.epoch(epoch, place.batch))
    _go_on(run)
    if place.due and (stop := (yield from _evaluation(run))):
        return stop
    window: Sequence[Batch] = ()
    for window in () if last_step is not None and ritual.step >= last_step else windows(batches, run.accumulate):
        try:
            event = ritual.take(first, window, epoch)
        except NotFinite:
            raise explain_not_finite(ritual.model, objective, window, ritual.step, run.feed) from None
        except (RuntimeError, ValueError, IndexError) as error:
            explain(error, ritual.model, objective, window, run.feed)
            raise
        first = objective
        place.batch += len(window)
        place.due = every_steps is not None and event.step % every_steps == 0 and not event.skipped
        if stop := (yield event):
            return stop
        if place.due and (stop := (yield from _evaluation(run))):
            return stop
        if event.step == last_step:
            break
    if ritual.mean.samples == 0:
        raise DataError(f"expected at least one batch, got an empty loader in epoch {epoch}")
    if ritual.scaler is not None and ritual.step == place.epoch_step and window:
        raise explain_skipped(ritual.model, objective, window, ritual.step)
    over = _is_over(run, epoch + 1)
    due = over or _falls(run.evaluate_every, epoch + 1)
    stop = None
    if run.evaluate and place.evaluated_at != ritual.step and due:
        stop = yield from _evaluation(run)
        place.stop = None if stop is None else stop.reason  # the epoch's own event comes before the run ends
    _check_latch(run)
    ritual.epoch_ended()
    place.epoch, place.batch = epoch + 1, 0  # whole, also where the evaluation has been replied to with a Stop
    mean = ritual.mean
    last = yield EpochEnded(epoch, ritual.step, mean.value(), mean.samples, time.monotonic() - started)
    return stop or last


def _evaluation(run: Run) -> Generator[Event, Stop | None, Stop | None]:
    assert run.evaluate is not None, "an evaluation fell due with nothing to evaluate on"
    _check_latch(run)
    event = run.evaluate(run.ritual.step, run.place.epoch)
    run.ritual.evaluated(event.metrics)
    run.place.evaluated_at, run.place.due = event.step, False
    return (yield event)


def _go_on(run: Run) -> None:
    """The last act of a resume."""
    if run.resumed is not None:
        run.resumed()
        run.resumed = None


def _ended_by(error: BaseException, seconds: float) -> tuple[str, float, Status]:
    """Reason, seconds and status of a run that an exception has ended."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", seconds, "interrupted"
    if isinstance(error, Preempted):
        return error.reason, seconds, "preempted"
    return f"failed: {type(error).__name__}: {error}", seconds, "failed"


def watch(events: Events, observers: Sequence[Observer]) -> None:
    """Pours events into observers, in their order; the first ``Stop`` that one replies ends the run.

    Whatever is raised, by the loop or by an observer, is raised here after every observer has seen ``RunEnded``.

    Args:
        events: what ``train`` gives.
        observers: each is called with every event.

    Example:
        >>> def two_steps():
        ...     stop = yield "one"
        ...     if stop is None:
        ...         yield "two"
        >>> watch(two_steps(), [print])
        one
        two
        >>> watch(two_steps(), [lambda event: Stop("enough"), print])
        one
    """
    reply: Stop | None = None
    send = events.send
    while True:
        try:
            event = send(reply)
        except StopIteration:
            return
        if isinstance(event, RunEnded):
            _close(events, event, observers)
            return
        reply = None
        left = iter(observers)
        try:
            for observer in left:
                answer = observer(event)
                if answer is not None and reply is None:
                    reply = answer
        except BaseException as error:
            _tell_the_others(event, left, error)  # a checkpoint may be made now, and what they remember is in it
            _end(events, observers, error)
            raise


def _close(events: Events, ended: Event, observers: Sequence[Observer]) -> None:
    """The last event, and the run's own error after it, if it has one; an observer's is then a note to that."""
    error: BaseException | None = None
    try:
        _tell_all(ended, observers)
    except BaseException as raised:
        error = raised
    try:
        next(events)
    except StopIteration:
        if error is not None:
            raise error from None
    except BaseException as run_error:
        if error is not None:
            run_error.add_note(f"while the run was being closed: {type(error).__name__}: {error}")
        raise


def _tell_the_others(event: Event, observers: Iterator[Observer], error: BaseException) -> None:
    """An event that one observer has raised at reaches those after it as well."""
    for observer in observers:
        try:
            observer(event)
        except BaseException as second:
            error.add_note(f"another observer raised as well: {type(second).__name__}: {second}")


def _end(events: Events, observers: Sequence[Observer], error: BaseException) -> None:
    """Lets every observer see how the run ends although one of them (or Ctrl-C between them) has raised."""
    try:
        event = events.throw(error)
        while True:
            try:
                _tell_all(event, observers)
            except Exception as second:  # one that is broken must not keep the end of the run from the others
                if second is not error:
                    error.add_note(f"while the run was being closed: {type(second).__name__}: {second}")
            event = next(events)
    except BaseException as second:
        if second is not error and not isinstance(second, StopIteration):
            error.add_note(f"while the run was being closed: {type(second).__name__}: {second}")
    finally:
        events.close()


def _tell_all(event: Event, observers: Sequence[Observer]) -> None:
    """Every observer gets the event, also after one that raises; the first error is raised when all have had it."""
    errors: list[BaseException] = []
    for observer in observers:
        try:
            observer(event)
        except BaseException as error:
            errors.append(error)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"another observer raised as well: {type(other).__name__}: {other}")
        raise errors[0]


def windows(batches: Iterator[Batch], size: int) -> Iterable[Sequence[Batch]]:
    """Batches in groups of ``size``, the last one of an epoch maybe shorter."""
    if size == 1:
        return zip(batches, strict=False)  # one-tuples, made without a Python call a step
    return _grouped(batches, size)


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[Sequence[Batch]]:
    window: list[Batch] = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _is_over(run: Run, epoch: int | None = None) -> bool:
    epoch = run.place.epoch if epoch is None else epoch
    if run.steps is not None:
        return run.ritual.step >= run.steps
    return run.epochs is not None and epoch >= run.epochs


def _falls(every: int | None, count: int) -> bool:
    return every is not None and count % every == 0


def _check_latch(run: Run) -> None:
    if run.latch is not None:
        run.latch.check(run.place.epoch, run.ritual.step)
