"""One run on several processes goes on, stops and fails as one: after each event, they tell each other how it stands.

A process may know what the others do not: an observer of its own replied ``Stop``, a signal reached it, an exception
came while its event was out. Whoever knew nothing of it learns it here, and ends after the same event.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from trueloop.checkpoint.signals import Asked, ending
from trueloop.errors import PeerError, Preempted, ProcessError, TrueloopError
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, StepEnded, Stop
from trueloop.loop import Events, Run
from trueloop.optim.parts import lies_in_parts
from trueloop.parallel.alike import check_weights
from trueloop.parallel.failing import in_words, is_of_the_network, lost
from trueloop.parallel.reading import ReadByAll
from trueloop.parallel.reduce import gathered, summing
from trueloop.parallel.waiting import Standing
from trueloop.parallel.world import World, world


def agreed(events: Events, run: Run, here: World, asked: Asked, check_every: int | None = None) -> Events:
    """The same events; what ends the run on one process ends it on all, after the same step: at most one later.

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
    reply: Stop | None = None  # what this process has met, and the others may not know of yet
    raised: BaseException | None = None
    word = _Word()
    asked.compares = True
    cut_up = any(lies_in_parts(parameter) for parameter in run.ritual.model.parameters())
    while True:
        try:
            event = events.send(stop) if error is None else events.throw(error)
        except StopIteration:
            return
        if isinstance(event, RunEnded):
            yield from _ended(events, event, run, here, asked)
            return
        Standing.at = _in_words(event)
        try:
            if word.to_compare or _is_checked(event, check_every, asked.compare_every):
                asked.to_compare = word.to_compare = False
                asked.compare = partial(check_weights, run.ritual.model, event.step)
                if isinstance(run.feed, ReadByAll):
                    run.feed.check_alike(event.step)
                if cut_up:  # while the event is out, rank 0 has the others do other things
                    asked.are_alike()
            reply = (yield event) or reply
        except GeneratorExit:
            events.close()
            raise
        except BaseException as one:
            raised = raised or one
        if not asked.are_alike():
            raised = raised or asked.drift
        try:
            met = reply is not None or raised is not None or asked.signal is not None
            if word.has_reached_all(met, to_compare=asked.to_compare, waits=not isinstance(event, StepEnded)):
                stop, error = _same(reply, asked, raised)
                asked.stands_whole = True
        except RuntimeError as unreachable:  # another process is gone; the event is over, and this one stands whole
            if isinstance(raised, Preempted):  # by torchrun, which ends the others when one is gone: it is no request
                raised, asked.signal = None, None
            error, asked.stands_whole = raised or unreachable, True


class _Word:
    """What processes know of each other after an event: whether one of them has met something that ends the run.

    After a step nobody waits for it: it is known after the next event. So what one process alone has met ends them all
    one step later; what all have met ends them at once, since each that has met something does wait.

    Attributes:
        to_compare: one of them has asked for a look at all weights, and all know of it, at the same event.
    """

    def __init__(self) -> None:
        self._before: Callable[[], list[float]] | None = None
        self.to_compare = False

    def has_reached_all(self, met: bool, *, to_compare: bool, waits: bool) -> bool:
        """Whether every process knows that one of them has met something; it is the same on all of them.

        Args:
            met: whether this one has.
            to_compare: whether this one asks for a look at all weights.
            waits: whether all of them wait for each other at this event.
        """
        if self._before is not None:
            others_met, asked_for = self._before()
            if others_met:
                return True
            self.to_compare = self.to_compare or bool(asked_for)
        told = summing([met, to_compare], Standing.at)
        self._before = None if waits else told
        if not (waits or met):
            return False
        all_met, asked_for = told()
        self.to_compare = self.to_compare or (waits and bool(asked_for))
        return all_met >= (1 if waits else world().size)


def _ended(events: Events, event: RunEnded, run: Run, here: World, asked: Asked) -> Events:
    """The last event, each process's own: where another one was the cause, it says so."""
    cause: TrueloopError | None = None
    if event.status in ("finished", "stopped", "preempted"):  # all of them: what comes now is the last save
        try:
            check_weights(run.ritual.model, event.step)
        except ProcessError as drifted:
            cause, asked.is_void = drifted, True
        except RuntimeError as unreachable:  # another process is gone; the run is over, and this one stands whole
            Standing.leaves = asked.stands_whole = True
            cause = lost(here, str(unreachable))
    Standing.leaves = True
    if event.status == "failed" and is_of_the_network(event.reason):
        cause = lost(here, event.reason)
    if cause is not None:
        event = event._replace(status="failed", reason=f"failed: {type(cause).__name__}: {cause}")
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
    if error is not None or cause is not None:
        raise error or cause  # type: ignore[misc]  # one of them is there


def _same(reply: Stop | None, asked: Asked, error: BaseException | None) -> tuple[Stop | None, BaseException | None]:
    """What all processes do about what any of them has met: its own error each, else a signal, else a stop."""
    told = gathered((None if reply is None else reply.reason, asked.signal, None if error is None else in_words(error)))
    stops, signals, errors = zip(*told, strict=True)
    asked.signal = next(filter(None, signals), None)
    if error is None and asked.signal is not None:
        error = ending(asked.signal)
    elif error is None and any(errors):
        failed = next(rank for rank, name in enumerate(errors) if name)
        error = PeerError(f"process {failed} has failed: {errors[failed]}")
    reason = next(filter(None, stops), None)
    return None if reason is None else Stop(reason), error


def _is_checked(event: Event, *every: int | None) -> bool:
    if isinstance(event, StepEnded):
        return any(steps is not None and event.step % steps == 0 for steps in every)
    return isinstance(event, (EvalEnded, EpochEnded))


def _in_words(event: Event) -> str:
    kind = {StepEnded: "step", EvalEnded: "the evaluation of step", EpochEnded: "the epoch that ended with step"}
    return f"after {kind.get(type(event), 'the beginning, step')} {event.step:,}"
