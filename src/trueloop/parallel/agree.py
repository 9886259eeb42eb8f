"""One run on several processes goes on, stops and fails as one: after each event, they tell each other how it stands.

A process may know what the others do not: an observer of its own replied ``Stop``, a signal reached it, an exception
came while its event was out. Whoever knew nothing of it learns it here, before the loop goes on, and ends as well.
"""

from __future__ import annotations

from trueloop.checkpoint.signals import Asked, ending
from trueloop.errors import PeerError
from trueloop.events import RunEnded, Stop
from trueloop.loop import Events
from trueloop.parallel.reduce import any_of, gathered
from trueloop.parallel.world import World


def agreed(events: Events, here: World, asked: Asked) -> Events:
    """The same events; what ends the run on one process ends it on all, after the same step.

    Args:
        events: a run's, as ``loop.train`` gives them.
        here: this process.
        asked: what signals have asked this process for.
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
        try:
            reply = yield event
        except GeneratorExit:
            events.close()
            raise
        except BaseException as raised:
            error = raised
        if isinstance(event, RunEnded):  # each has its own by now
            if error is not None:
                raise error
            continue
        if not any(any_of([reply is not None, asked.signal is not None, error is not None])):
            continue
        stop, error = _same(reply, asked, error)


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
