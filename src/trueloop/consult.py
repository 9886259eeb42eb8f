"""The doctor in our own loop: it listens to the first steps, then to a sample of them, and its findings are events.

Probes are put in for a few steps at a time and taken out again: the steps between cost what they cost without it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING

from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded, RunStarted, StepEnded, Stop

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding
    from trueloop.doctor.listen import Ear

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


def consulted(events: Events) -> Events:
    """The same events, with ``Found`` among them as the doctor finds something.

    Args:
        events: a run's, as ``loop.train`` gives them.
    """
    from trueloop.doctor.catalogue import sampled_rules
    from trueloop.doctor.listen import Ear, heard
    from trueloop.doctor.precedence import EXPLAINS
    from trueloop.doctor.trace import Trace

    if heard():  # ``trueloop doctor script.py``: somebody listens to all of it
        yield from events
        return
    told: deque[Event] = deque()
    explained: set[str] = set()

    def found(finding: Finding) -> None:
        if finding.name not in explained:  # by one that was told before
            explained.update(EXPLAINS.get(finding.name, ()))
            told.append(Found(turns.step, finding))

    ear = Ear(Trace(sampled_rules(), found=found, close_steps=sys.maxsize))  # when to listen is decided here
    turns = Turns(ear)
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
                    ear.finish()
                    told.append(event)
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
                turns.after(event)
    finally:
        ear.finish()


class Turns:
    """When the ear listens: told each event of the run, it puts the probes in and takes them out."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self.step = 0
        """Optimizer steps taken."""
        self._until = 0  # the step at which it has heard enough
        self._began = 0.0
        self._rest_until = 0.0
        self._evaluated = False
        self._steps_per_epoch: int | None = None

    def after(self, event: Event) -> None:
        """The event was told, and what comes next has not begun."""
        match event:
            case StepEnded(step=step):
                self.step = step
                if self._ear.listens:
                    if step >= self._until:
                        self._pause()
                elif time.perf_counter() >= self._rest_until:
                    self._listen(WINDOW)
                if not self._evaluated and self._steps_per_epoch and step % self._steps_per_epoch == 0:
                    self._listen(0)  # the first evaluation
            case RunStarted(step=step, plan=plan):
                self.step = step
                self._steps_per_epoch = plan.steps_per_epoch
                self._listen(FIRST)
            case EvalEnded(step=step):
                self._evaluated = True
                if step >= self._until:
                    self._pause()
            case EpochEnded(step=step):
                if step >= self._until:
                    self._pause()

    def _listen(self, steps: int) -> None:
        if not self._ear.listens:
            self._began = time.perf_counter()
            self._until = self.step + steps
            self._ear.listen()

    def _pause(self) -> None:
        if self._ear.listens:
            self._ear.pause()
            now = time.perf_counter()
            self._rest_until = now + (now - self._began) / SHARE
