"""One run on several processes goes on, stops and fails as one: after each event, they tell each other how it stands.

A process may know what the others do not: an observer of its own replied ``Stop``, a signal reached it, an exception
came while its event was out. Whoever knew nothing of it learns it here, before the loop goes on, and ends as well.
"""

from __future__ import annotations

from trueloop.checkpoint.signals import Asked, ending
from trueloop.errors import PeerError, ProcessError, TrueloopError
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, StepEnded, Stop
from trueloop.loop import Events, Run
from trueloop.parallel.alike import check_weights
from trueloop.parallel.failing import is_of_the_network, lost
from trueloop.parallel.reduce import any_of, gathered
from trueloop.parallel.waiting import Standing
from trueloop.parallel.world import World


def agreed(events: Events, run: Run, here: World, asked: Asked, check_every: int | None = None) -> Events:
    """The same events; what ends the run on one process ends it on all, after the same step.

    Args:
        events: a run's, as ``loop.train`` gives them.
        run: what they are of.
        here: this process.
        asked: what signals have asked this process for; what the others have met is noted in it.
        check_every: steps between two looks at whether all have the same weights, besides each evaluation and epoch.
    """
    if here.alone:
        yield from events
        return
    error: BaseException | None = None
    stop: Stop | None = None
    while True:
        try:
            event = events.send(stop) if error is None else events.throw(error)
        except StopIteration:
            return
        reply, error = None, None
        if isinstance(event, RunEnded):
            yield from _ended(events, event, here, asked)
            return
        Standing.at = _in_words(event)
        try:
            if _is_checked(event, check_every):
                check_weights(run.ritual.model, event.step)
            reply = yield event
        except GeneratorExit:
            events.close()
            raise
        except BaseException as raised:
            error = raised
        try:
            if any(any_of([reply is not None, asked.signal is not None, error is not None], Standing.at)):
                stop, error = _same(reply, asked, error)
                asked.stands_whole = True
        except RuntimeError as unreachable:  # another process is gone; the event is over, and this one stands whole
            error, asked.stands_whole = error or unreachable, True


def _ended(events: Events, event: RunEnded, here: World, asked: Asked) -> Events:
    """The last event, each process's own: where another one was the cause, it says so."""
    Standing.leaves = True
    cause: TrueloopError | None = None
    if event.status == "failed" and is_of_the_network(event.reason):
        cause = lost(here, event.reason)
        event = event._replace(reason=f"failed: {type(cause).__name__}: {cause}")
    if event.reason.startswith(f"failed: {ProcessError.__name__}") and cause is None:  # weights that have drifted
        asked.is_void = True
    elif event.status == "failed" and not asked.stands_whole:
        asked.is_void = cause is not None or event.reason.startswith(f"failed: {PeerError.__name__}")
    error: BaseException | None = None
    try:
        yield event
    except BaseException as raised:
        error = raised
    try:
        next(events)
    except StopIteration:
        pass
    except BaseException:
        if cause is not None:
            raise cause from None
        raise
    if error is not None:
        raise error


def _same(reply: Stop | None, asked: Asked, error: BaseException | None) -> tuple[Stop | None, BaseException | None]:
    """What all processes do about what any of them has met: its own error each, else a signal, else a stop."""
    told = gathered(
        (None if reply is None else reply.reason, asked.signal, None if error is None else type(error).__name__)
    )
    stops, signals, errors = zip(*told, strict=True)
    asked.signal = next(filter(None, signals), None)
    if error is None and asked.signal is not None:
        error = ending(asked.signal)
    elif error is None and any(errors):
        failed = next(rank for rank, name in enumerate(errors) if name)
        error = PeerError(f"process {failed} has failed: {errors[failed]}")
    reason = next(filter(None, stops), None)
    return None if reason is None else Stop(reason), error


def _is_checked(event: Event, every: int | None) -> bool:
    if isinstance(event, StepEnded):
        return every is not None and event.step % every == 0
    return isinstance(event, (EvalEnded, EpochEnded))


def _in_words(event: Event) -> str:
    kind = {StepEnded: "step", EvalEnded: "the evaluation of step", EpochEnded: "the epoch that ended with step"}
    return f"after {kind.get(type(event), 'the beginning, step')} {event.step:,}"
