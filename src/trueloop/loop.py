"""The loop. ``train`` is a generator of events, ``watch`` pours them into observers; nothing else drives a run.

``Trainer.fit`` is ``watch(train(...), observers)``. The loop decides when things happen; what changes weights is in
step.py, what is a fact in events.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from trueloop.data.feed import Feed
from trueloop.errors import DataError
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, RunStarted, Stop
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
    epoch: int = field(default=0, init=False)
    """Epochs finished."""


def train(run: Run) -> Events:
    """Trains, and yields what happened, when it happened.

    Yields:
        ``RunStarted``; a ``StepEnded`` each step, an ``EvalEnded`` each evaluation, an ``EpochEnded`` each epoch;
        ``RunEnded`` last, whatever ended the run: an exception is raised after it.
    """
    started = time.monotonic()
    stop = None
    try:
        if run.latch is not None:
            run.latch.attach()
        stop = yield RunStarted(run.plan, run.seed, run.ritual.step, run.epoch)
        while stop is None and not _is_over(run):
            stop = yield from _epoch(run)
        _check_latch(run)
        if run.at_end is not None:
            run.at_end()
    except GeneratorExit:  # whoever iterates has left; nobody would hear
        raise
    except BaseException as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {type(error).__name__}: {error}"
        yield RunEnded(run.ritual.step, run.epoch, reason, time.monotonic() - started)
        raise
    finally:
        run.feed.close()
        if run.latch is not None:
            run.latch.detach()
    yield RunEnded(run.ritual.step, run.epoch, stop.reason if stop else "finished", time.monotonic() - started)


def _epoch(run: Run) -> Generator[Event, Stop | None, Stop | None]:
    """One pass over the training data, with the evaluations that fall due in it."""
    started = time.monotonic()
    ritual, objective, epoch = run.ritual, run.objective, run.epoch
    ritual.mean = Mean(is_sum=objective.is_sum)
    every_steps, last_step = run.evaluate_every_steps, run.steps
    evaluated_at, before = -1, ritual.step
    first = checked(objective, run.feed, run.held_out) if ritual.step == 0 else objective
    for window in windows(run.onto_device(run.feed.epoch(epoch)), run.accumulate):
        try:
            event = ritual.take(first, window, epoch)
        except NotFinite:
            raise explain_not_finite(ritual.model, objective, window, ritual.step, run.feed) from None
        except (RuntimeError, ValueError, IndexError) as error:
            explain(error, ritual.model, objective, window, run.feed)
            raise
        first = objective
        if stop := (yield event):
            return stop
        if every_steps and event.step % every_steps == 0 and not event.skipped and run.evaluate:
            evaluated_at = event.step
            if stop := (yield from _evaluation(run)):
                return stop
        if event.step == last_step:
            break
    if ritual.mean.samples == 0:
        raise DataError(f"expected at least one batch, got an empty loader in epoch {epoch}")
    if ritual.scaler is not None and ritual.step == before:
        raise explain_skipped(ritual.model, objective, window, before)
    over = _is_over(run, epoch + 1)
    due = over or _falls(run.evaluate_every, epoch + 1)
    stop = None
    if run.evaluate and evaluated_at != ritual.step and due:
        stop = yield from _evaluation(run)
    _check_latch(run)
    ritual.epoch_ended()
    run.epoch += 1  # whole, also where the evaluation has been replied to with a Stop
    mean = ritual.mean
    last = yield EpochEnded(epoch, ritual.step, mean.value(), mean.samples, time.monotonic() - started)
    return stop or last


def _evaluation(run: Run) -> Generator[Event, Stop | None, Stop | None]:
    assert run.evaluate is not None, "an evaluation fell due with nothing to evaluate on"
    _check_latch(run)
    event = run.evaluate(run.ritual.step, run.epoch)
    run.ritual.evaluated(event.metrics)
    return (yield event)


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
        try:
            for observer in observers:
                answer = observer(event)
                if answer is not None and reply is None:
                    reply = answer
        except BaseException as error:
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


def _end(events: Events, observers: Sequence[Observer], error: BaseException) -> None:
    """Lets every observer see ``RunEnded`` although one of them (or Ctrl-C between them) has raised."""
    try:
        _tell_all(events.throw(error), observers)
    except BaseException as second:
        if second is not error:
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
    epoch = run.epoch if epoch is None else epoch
    if run.steps is not None:
        return run.ritual.step >= run.steps
    return run.epochs is not None and epoch >= run.epochs


def _falls(every: int | None, count: int) -> bool:
    return every is not None and count % every == 0


def _check_latch(run: Run) -> None:
    if run.latch is not None:
        run.latch.check(run.epoch, run.ritual.step)
