"""The course of an optimizer's training: a row of numbers for each step that was looked at closely.

Numbers alone say little (the limits that tools publish differ by orders of magnitude), so the rules that read a course
compare it with its own beginning, and only where one loss is brought down by one kind of step: ``is_plain``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.facts import Ended, Stepped
    from trueloop.doctor.seen import Accumulation, OptimizerSeen
    from trueloop.doctor.trace import Trace
    from trueloop.doctor.vitals import Vitals

KEPT = 1200
"""Rows that are kept; then every second one in the middle goes."""
FIRST_LOOK = 256
"""Long runs are judged at this step and whenever their number has doubled; short ones at their end only."""
PLACES = 8
"""Lines of ``backward`` that are remembered."""


class Row(NamedTuple):
    """One step."""

    step: int
    """The run's, 0 for the first."""
    loss: float | None
    """The mean of what was backpropagated for it; None where that was not read."""
    gradient: float
    """The Euclidean norm of all gradients, as the step used them."""
    update: float
    """Update / weights, by their norms, of the parameter in the middle (matrices only, where there are some)."""
    most: float
    """The same, of the one among them that moved most."""
    relative: float
    """Gradient / weights, by the norms over all parameters."""
    lr: float
    """The largest rate of its groups."""


@dataclass(eq=False)
class Course:
    """What is remembered of an optimizer's steps, for the rules that ask how the numbers went."""

    rows: list[Row] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Values of the backwards since the last step."""
    places: set[Place | None] = field(default_factory=set)
    """Where its backwards stand."""

    def add(self, step: int, accumulated: Sequence[Accumulation], vitals: Vitals | None) -> None:
        """A step was taken."""
        if len(self.places) < PLACES:
            self.places.update(one.place for one in accumulated)
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        self.losses.clear()
        if vitals is None or not vitals.parameters:
            return
        self.rows.append(row_of(step, loss, vitals))
        if len(self.rows) > KEPT:
            del self.rows[KEPT // 4 : -KEPT // 4 : 2]

    @property
    def with_loss(self) -> list[Row]:
        """The rows whose loss is known."""
        return [row for row in self.rows if row.loss is not None]


def row_of(step: int, loss: float | None, vitals: Vitals) -> Row:
    """A step's row.

    Example:
        >>> import torch
        >>> from trueloop.doctor.vitals import Vitals
        >>> weight = torch.ones(2, 2)
        >>> row = row_of(0, 0.5, Vitals((weight,), (2.0,), (3.0,), (0.2,), (0.1,)))
        >>> row.gradient, row.update, row.relative
        (3.0, 0.1, 1.5)
    """
    matrices: list[float] = []
    others: list[float] = []
    for parameter, weight, gradient, update in zip(
        vitals.parameters, vitals.weights, vitals.gradients, vitals.updates, strict=True
    ):
        if weight > 0 and (gradient is not None or update):
            (matrices if parameter.dim() > 1 else others).append(update / weight)
    ratios = matrices or others or [0.0]
    norm = math.sqrt(sum(gradient * gradient for gradient in vitals.gradients if gradient is not None))
    weights = math.sqrt(sum(weight * weight for weight in vitals.weights))
    relative = norm / weights if weights else math.inf
    return Row(step, loss, norm, median(ratios), max(ratios), relative, max(vitals.lrs, default=0.0))


def is_plain(trace: Trace, seen: OptimizerSeen) -> bool:
    """Whether a loss is expected to fall here: one loss, over data, and nothing that plays against it.

    Not so where optimizers take turns (a GAN, an actor and its critic), where one optimizer serves several backwards,
    and where passes without gradient are an ingredient of each step (a teacher, a target network, a rollout).
    """
    if trace.alternates or len(seen.course.places) > 1:
        return False
    for model in trace.models:
        if model.trained == 0 and model.unused > 3:
            return False
        if model.early and 2 * model.rounds > model.steps:
            return False
    return True


def rate_rises(rows: Sequence[Row]) -> bool:
    """Whether the rate is still on its way up: a warm-up, or a search for the right rate."""
    if len(rows) < 4:
        return False
    last = [row.lr for row in rows[-max(4, len(rows) // 10) :]]
    return last[-1] > last[0] * 1.0001 and all(before <= after for before, after in pairwise(last))


class CourseRule(Rule):
    """A rule that reads the courses: of long runs now and then, of each at the end."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._told: set[int] = set()

    @abstractmethod
    def judge(self, seen: OptimizerSeen) -> Iterator[Finding]:
        """What is wrong with the course of this optimizer, if anything is."""

    def stepped(self, fact: Stepped) -> Iterator[Finding] | None:
        steps = fact.optimizer.steps
        return self._look(fact.optimizer) if steps >= FIRST_LOOK and not steps & (steps - 1) else None

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for seen in self.trace.optimizers:
            yield from self._look(seen)

    def _look(self, seen: OptimizerSeen) -> Iterator[Finding]:
        if seen.number not in self._told:
            for finding in self.judge(seen):
                self._told.add(seen.number)
                yield finding


def middle(values: Sequence[float]) -> float:
    """The median; NaN of none."""
    return median(values) if values else math.nan


def noise(values: Sequence[float]) -> float:
    """The spread from one value to the next, so that a slow trend does not count: a standard deviation of noise.

    Example:
        >>> noise([1.0, 2.0, 3.0, 4.0]), noise([1.0, 3.0, 1.0, 3.0]) > 1
        (0.0, True)
    """
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return median(bends) / 0.6745 / math.sqrt(6) if bends else 0.0
