"""``with listening():`` puts the probes in and takes every one out again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from trueloop.doctor.catalogue import dynamic_rules
from trueloop.doctor.facts import Ended, Paused
from trueloop.doctor.findings import Finding
from trueloop.doctor.lines import Lines
from trueloop.doctor.patches import Patches
from trueloop.doctor.phases import settle
from trueloop.doctor.precedence import nearest_to_the_cause
from trueloop.doctor.probes import (
    compiled,
    data,
    dropouts,
    gradients,
    losses,
    metrics,
    modules,
    optimizers,
    orders,
    preprocessing,
    scaling,
    schedules,
    scripted,
    states,
    syncs,
)
from trueloop.doctor.rule import Rule
from trueloop.doctor.trace import CLOSE_EVERY, CLOSE_STEPS, Trace

PROBES = (
    modules,
    losses,
    gradients,
    optimizers,
    scaling,
    schedules,
    data,
    metrics,
    dropouts,
    orders,
    preprocessing,
    syncs,
    states,
    compiled,
    scripted,
)

_heard: list[Ear] = []  # by whom this process is listened to just now


def _rest() -> None:
    """A forked process is another: it is not heard, so that what two processes do is not taken for one training."""
    for ear in _heard:
        ear.trace.deaf = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rest)


def heard() -> bool:
    """Whether a doctor is listening already; two at once would hear each other."""
    return bool(_heard)


def taken_out() -> None:
    """In a forked process that is to be heard for itself: takes out what it has inherited."""
    for ear in tuple(_heard):
        ear.trace.lines.stop()
        ear.take_out()


class Ear:
    """The probes, put in and taken out as often as is asked.

    Args:
        trace: what hears.

    Example:
        >>> ear = Ear(Trace())
        >>> ear.listen(); ear.listens
        True
        >>> ear.pause(); ear.listens
        False
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        trace.lines = Lines()
        self._patches = Patches()
        self._remove: list[Callable[[], None]] = []

    @property
    def listens(self) -> bool:
        """Whether the probes are in."""
        return bool(self._remove)

    def listen(self) -> None:
        """Puts the probes in."""
        if not self._remove:
            _heard.append(self)
            self.trace.lines.install(self._patches)
            self._remove = [probe.install(self.trace, self._patches) for probe in PROBES]

    def pause(self) -> None:
        """Takes them out; what the rules hear next does not follow on what they heard before."""
        if self._remove:
            self.trace.lines.rest()
            settle(self.trace, last=True)
            self.take_out()
            self.trace.tell(Paused(self.trace.step))

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing more will come: settles what is open, asks the rules for their last words, keeps the causes.

        Args:
            error: what ended the script, if it did not end by itself.
        """
        trace = self.trace
        if trace.ended:
            return
        trace.ended, trace.error = True, error
        trace.lines.stop()
        settle(trace, last=True)
        trace.tell(Ended(error))
        self.take_out()
        trace.every_finding = trace.findings
        trace.findings = nearest_to_the_cause(trace.findings)

    def take_out(self) -> None:
        """Takes the probes out, and says nothing of it."""
        for remove in self._remove:
            remove()
        self._remove = []
        for name in self._patches.undo():
            self.trace.note(f"{name} was replaced by the script while it ran: what went through it was not seen")
        if self in _heard:
            _heard.remove(self)


@contextmanager
def listening(
    rules: Sequence[type[Rule]] | None = None,
    *,
    found: Callable[[Finding], None] | None = None,
    close_steps: int = CLOSE_STEPS,
    close_every: int = CLOSE_EVERY,
) -> Iterator[Trace]:
    """Listens to all training that happens inside, whoever's loop it is.

    Args:
        rules: the rules that listen; None takes every dynamic one of the catalogue.
        found: called with each finding as soon as it is made (before it is known which one is nearest to the cause).
        close_steps: so many first optimizer steps are looked at closely: values are read, not only order and state.
        close_every: after them, each so-many-th step is.

    Yields:
        The trace; after the block, its ``findings`` are complete, one a cause.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with listening() as trace:
        ...     for _ in range(5):
        ...         model(torch.ones(4, 2)).sum().backward()
        ...         optimizer.step()
        >>> [finding.name for finding in trace.findings if finding.level == "error"]
        ['missing-zero-grad']
    """
    trace = Trace(
        dynamic_rules() if rules is None else rules, found=found, close_steps=close_steps, close_every=close_every
    )
    ear = Ear(trace)
    ear.listen()
    error: BaseException | None = None
    try:
        yield trace
    except BaseException as raised:
        error = raised
        raise
    finally:
        ear.finish(error)
