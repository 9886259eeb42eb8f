"""The doctor in our own loop: it listens to the first steps, then to a sample of them, and its findings are events.

Probes are put in for a few steps at a time and taken out again: the steps between cost what they cost without it. What
the events themselves say, exactly and of every step, is judged in hindsight.py.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded, RunStarted, StepEnded, Stop

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding
    from trueloop.doctor.listen import Ear
    from trueloop.loop import Run

Events = Generator[Event, Stop | None, None]

FIRST = 8
"""So many first steps are listened to in a row."""
WINDOW = 2
"""So many in a row at each later listening: an order is seen only from one step to the next."""
SHARE = 0.01
"""Of the run's time; listening, with the steps that run meanwhile, takes no more of it after the first evaluation."""


def listening_plan() -> str:
    """To what the doctor will listen, for the plan.

    Example:
        >>> listening_plan()
        'listens to the first 8 steps and an evaluation, then 1 % of the time (doctor=False: to nothing)'
    """
    then = f"then {100 * SHARE:g} % of the time (doctor=False: to nothing)"
    return f"listens to the first {FIRST} steps and an evaluation, {then}"


def consulted(events: Events, run: Run | None = None, at_start: Callable[[], Iterable[Finding]] = tuple) -> Events:
    """The same events, with ``Found`` among them as the doctor finds something.

    Args:
        events: a run's, as ``loop.train`` gives them.
        run: what they are of.
        at_start: asked when the run has begun: what is wrong with it already.
    """
    from trueloop.doctor.catalogue import sampled_rules
    from trueloop.doctor.facts import StateLoaded
    from trueloop.doctor.listen import Ear, heard
    from trueloop.doctor.precedence import EXPLAINS, nearest_to_the_cause
    from trueloop.doctor.probes.optimizers import watch
    from trueloop.doctor.trace import Trace
    from trueloop.hindsight import Hindsight

    for older in tuple(_listening):  # of a stream that nobody follows any more, or around this run
        older.make_way()
    if heard():  # ``trueloop doctor script.py``: somebody listens to all of it
        yield from events
        return
    fresh: list[Finding] = []
    explained: set[str] = set()
    worded: dict[str, str] = {}
    trace = Trace(sampled_rules(), found=fresh.append, close_steps=sys.maxsize)  # when to listen is decided here
    turns, hindsight = Turns(Ear(trace)), Hindsight(trace)
    trace.seldom = True
    if run is not None:
        model = run.ritual.model
        watch(trace.optimizer_of(run.ritual.optimizer))  # it was made before anybody listened
        trace.answers["shuffled"] = run.feed.shuffled
        # Weights that the optimizer leaves out may come from elsewhere, to rest: ``at_start`` names them.
        trace.tell(StateLoaded(model, dict(model.named_parameters()), None))

    def once(judged: Callable[[], Iterable[Finding]]) -> None:
        """What is known without probes: it is told in this one way, whatever they hear."""
        try:
            for finding in judged():
                if all(finding.name != known.name for known in trace.findings):
                    trace.findings.append(finding)
                    fresh.append(finding)
                    worded[finding.name] = finding.message
        except Exception as error:  # a defect of ours, or data of the user's kind, must not end the run
            trace.broke(error)

    def news() -> Iterator[Found]:
        """What was found since the last event; what comes of something that was told before is not told."""
        kept = nearest_to_the_cause(fresh)
        fresh[:] = [one for one in kept if one.level == "note" and turns.listens]  # its cause may still be heard
        for finding in kept:
            again = worded.get(finding.name, finding.message) != finding.message
            if finding not in fresh and finding.name not in explained and not again:
                explained.update(EXPLAINS.get(finding.name, ()))
                step = turns.step if finding.step is None else finding.step
                yield Found(step, replace(finding, step=step, epoch=turns.epoch))

    told: deque[Event] = deque()
    stop: Stop | None = None
    error: BaseException | None = None  # of whoever watches; to be thrown into the run
    try:
        while True:
            own = bool(told)
            if own:
                event = told.popleft()
            else:
                try:
                    event = events.send(stop) if error is None else events.throw(error)
                except StopIteration:
                    return
                stop = error = None
                if isinstance(event, RunEnded):
                    turns.finish()
                    once(partial(hindsight.after, event))
                    told.extend((*news(), event))
                    continue
            try:
                reply = yield event
            except GeneratorExit:
                events.close()
                raise
            except BaseException as raised:
                error = raised
                continue
            stop = stop or reply
            if not own:
                if isinstance(event, RunStarted):
                    once(at_start)
                turns.after(event)
                if type(event) is not StepEnded:
                    trace.step = turns.step
                    once(partial(hindsight.after, event))
            if fresh:
                told.extend(news())
    finally:
        turns.finish()


class Turns:
    """When the ear listens: told each event of the run, it puts the probes in and takes them out."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self.step = 0
        """Optimizer steps taken."""
        self.epoch = 0
        """The epoch (0-based) that they were taken in."""
        self._until = 0  # the step at which it has heard enough
        self._began = 0.0
        self._rest_until = 0.0
        self._awaits = True  # the first evaluation, or the first epoch's end where there is none
        self._evaluates = False
        self._first_epoch = 0
        self._steps_per_epoch: int | None = None

    def after(self, event: Event) -> None:
        """The event was told, and what comes next has not begun."""
        match event:
            case StepEnded(step=step, epoch=epoch):
                self.step, self.epoch = step, epoch
                left = -step % self._steps_per_epoch if self._awaits and self._steps_per_epoch else None
                if self._ear.listens:
                    if step >= self._until and left != 0:
                        self._pause()
                elif left == 0 or (left == WINDOW and epoch == self._first_epoch):
                    self._listen(left)  # the last steps of the epoch, and an evaluation
                elif time.perf_counter() >= self._rest_until:
                    self._listen(WINDOW)
            case RunStarted(step=step, epoch=epoch, plan=plan):
                self.step, self.epoch, self._first_epoch = step, epoch, epoch
                self._steps_per_epoch = plan.steps_per_epoch
                self._evaluates = not plan.evaluates.startswith("never")
                self._listen(FIRST)
            case EvalEnded(step=step):
                self._awaits = False
                if step >= self._until:
                    self._pause()
            case EpochEnded(step=step):
                self._awaits = self._awaits and self._evaluates
                if step >= self._until:
                    self._pause()

    @property
    def listens(self) -> bool:
        """Whether the probes are in."""
        return self._ear.listens

    def finish(self) -> None:
        """Nothing more will come."""
        self._ear.trace.step = self.step
        self._ear.finish()
        self._left()

    def make_way(self) -> None:
        """Listens no more, and tells nobody what it would have found: another run does, and this one may be over."""
        if self._ear.trace.thread == threading.get_ident():
            self._ear.trace.ended = self._ear.trace.deaf = True
            self._ear.trace.lines.stop()
            self._ear.take_out()
            self._left()

    def _left(self) -> None:
        if self in _listening:
            _listening.remove(self)

    def _listen(self, steps: int) -> None:
        from trueloop.doctor.listen import heard

        if heard() or self._ear.trace.ended:  # by itself, or by another run
            return
        self._began = time.perf_counter()
        self._until = self.step + steps
        self._ear.trace.step = self.step
        _listening.append(self)
        self._ear.listen()

    def _pause(self) -> None:
        if self._ear.listens:
            self._ear.pause()
            self._left()
            now = time.perf_counter()
            self._rest_until = now + (now - self._began) / SHARE


_listening: list[Turns] = []
"""Whose probes are in just now, of the runs of this process: one, and none between its turns."""
