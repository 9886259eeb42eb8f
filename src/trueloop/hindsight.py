"""What a run's events say that no sample of its steps could: its losses, exactly, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from trueloop.errors import NonFiniteError
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, RunStarted

if TYPE_CHECKING:
    from trueloop.doctor.course import Row
    from trueloop.doctor.findings import Finding, Place
    from trueloop.doctor.trace import Trace
    from trueloop.plan import Plan


class Hindsight:
    """Told each event, it says at an epoch's end and at the run's what is wrong with the course of the losses.

    Args:
        trace: of the steps that were heard: it knows the first losses, and how large updates were.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._plan: Plan | None = None
        self._began = 0
        self._epochs: list[EpochEnded] = []
        self._evaluations: list[EvalEnded] = []

    def after(self, event: Event) -> Iterable[Finding]:
        """What can be told now that this has happened."""
        match event:
            case RunStarted(plan=plan, step=step):
                self._plan, self._began = plan, step
            case EvalEnded():
                self._evaluations.append(event)
            case EpochEnded():
                self._epochs.append(event)
                return self._constant()
            case RunEnded(status="finished"):
                judged = self._too_high, self._too_low, self._overfitting, self._underfitting, self._weights_gone
                return (finding for judge in (*judged, self._not_evaluated) for finding in judge())
            case RunEnded(status="failed", reason=reason) if NonFiniteError.__name__ in reason:
                return self._ran_off()
        return ()

    def _rows(self) -> list[Row]:
        """The steps that were heard, of the one optimizer of a run."""
        return self._trace.optimizers[0].course.with_loss if len(self._trace.optimizers) == 1 else []

    def _constant(self) -> Iterator[Finding]:
        """Each loss that was heard, and the mean of each epoch, is the same number."""
        from trueloop.doctor.rules.loss_is_constant import EQUAL, SAME, LossIsConstant

        heard = [row.loss or 0.0 for row in self._rows()]
        values = [*heard, *(epoch.loss for epoch in self._epochs)]
        steps = self._epochs[-1].step - self._began
        batches = None if self._plan is None else self._plan.steps_per_epoch
        if len(heard) < 2 or steps < SAME or batches == 1 or len(self._trace.training_samples) < 2:
            return
        low, high = min(values), max(values)
        if not high - low <= EQUAL * abs(high) or high == 0:  # NaN is not equal; 0 may be reached, or no reward yet
            return
        yield LossIsConstant(self._trace).finding(
            f"the loss is {high:.6g} at each of {steps} steps, over different batches",
            f"so it is at each of {len(heard)} steps that were heard, and on average over {_count(self._epochs)}",
            place=self._place(),
        )

    def _too_high(self) -> Iterator[Finding]:
        """The loss left its start for good, and the first updates were as large as that takes."""
        from trueloop.doctor.course import is_plain, middle, rate_rises
        from trueloop.doctor.rules.learning_rate_too_high import (
            FAR,
            FIRST,
            KEEPS,
            LARGE,
            LEAPS,
            STEPS,
            THROWN,
            LearningRateTooHigh,
        )

        rows, epochs = self._rows(), [epoch.loss for epoch in self._epochs]
        if not rows or self._began or len(epochs) < 2 or self._epochs[-1].step < STEPS or rate_rises(rows):
            return
        losses = [row.loss for row in rows if row.loss is not None]
        start, last = losses[0], min(epochs[-1], *(one.metrics["loss"] for one in self._evaluations[-1:]), math.inf)
        update = middle([row.update for row in rows[:FIRST]])
        thrown = max(row.update for row in rows[:FIRST])
        far = sum(loss > FAR * start for loss in epochs)
        seen, rate = self._trace.optimizers[0], max(row.lr for row in rows)
        if min(*losses, *epochs) < 0 or start <= 0 or not is_plain(self._trace, seen):
            return
        leapt = (
            thrown > THROWN
            and rows[-1].lr > KEEPS * rate
            and sum(loss > FAR * start for loss in losses[:FIRST]) >= LEAPS
        )
        if not (2 * far >= len(epochs) or leapt) or last <= 0.9 * start or not (update > LARGE or thrown > THROWN):
            return
        yield LearningRateTooHigh(self._trace).finding(
            f"the learning rate of {seen.kind} ({rate:g}) is too high: the loss began at {start:.4g}, and its mean was "
            f"{max(epochs):.4g} in the worst epoch and {epochs[-1]:.4g} in the last",
            f"{far} of {_count(self._epochs)} have a mean loss above {FAR:g} times the first step's"
            if far
            else f"in the first steps it was up to {max(losses[:FIRST]):.4g}, and what that broke did not heal",
            f"an early update changed the weights by {max(update, thrown):.2g} of their size (0.001 is usual)",
            place=seen.place or seen.last_step_place,
        )

    def _ran_off(self) -> Iterator[Finding]:
        """The loss grew beyond all bounds from its first steps on, and then was not finite."""
        from trueloop.doctor.course import is_plain, middle
        from trueloop.doctor.rules.learning_rate_too_high import AWAY, FAR, LARGE, RUNAWAY, LearningRateTooHigh

        rows = self._rows()
        losses = [row.loss for row in rows if row.loss is not None]
        if len(rows) < RUNAWAY or self._began or not is_plain(self._trace, self._trace.optimizers[0]):
            return
        start, update = losses[0], middle([row.update for row in rows])
        far = sum(loss > FAR * start for loss in losses)
        if min(losses) < 0 or losses[-1] <= AWAY * start or 2 * far <= len(losses) or update <= LARGE:
            return
        seen, rate = self._trace.optimizers[0], max(row.lr for row in rows)
        yield LearningRateTooHigh(self._trace).finding(
            f"the learning rate of {seen.kind} ({rate:g}) is too high: the loss went from {start:.4g} to "
            f"{losses[-1]:.4g} in {len(losses)} steps that were heard, and is not finite after that",
            f"a step changes the weights by {update:.2g} of their size (median; 0.001 is usual)",
            place=seen.place or seen.last_step_place,
        )

    def _too_low(self) -> Iterator[Finding]:
        """Updates that were heard are next to nothing, at the highest rate of the run, and so is what the loss fell."""
        from trueloop.doctor.course import middle
        from trueloop.doctor.rules.learning_rate_too_low import ALIVE, MOST, SMALL, STEPS, LearningRateTooLow

        rows, epochs = self._rows(), [epoch.loss for epoch in self._epochs]
        peak = None if self._plan is None else self._plan.rate.peak
        if len(rows) < 4 or len(epochs) < 2 or self._epochs[-1].step - self._began < STEPS or peak is None:
            return
        update, rate = middle([row.update for row in rows]), max(row.lr for row in rows)
        if not 0 < update < SMALL or max(row.most for row in rows) > MOST or rate < peak:
            return
        fell = epochs[0] - epochs[-1]
        if middle([row.relative for row in rows]) < ALIVE or not abs(fell) <= 0.01 * abs(epochs[0]):
            return
        seen = self._trace.optimizers[0]
        yield LearningRateTooLow(self._trace).finding(
            f"the learning rate of {seen.kind} ({rate:g}) is too low: in {_count(self._epochs)} the mean loss went "
            f"from {epochs[0]:.5g} to {epochs[-1]:.5g}",
            f"a step changes the weights by {update:.2g} of their size (median of {len(rows)} steps; 0.001 is usual)",
            place=seen.place or seen.last_step_place,
        )

    def _overfitting(self) -> Iterator[Finding]:
        """Nobody stopped it, and no checkpoint of the best is kept."""
        from trueloop.doctor.rules.overfitting import Overfitting

        if self._plan is None or not self._trace.models or "the best" in (self._plan.saves or ""):
            return
        training = [(epoch.step, epoch.loss) for epoch in self._epochs]
        evaluations = [(one.step, one.metrics["loss"]) for one in self._evaluations]
        if all(math.isfinite(loss) for _, loss in evaluations):
            yield from Overfitting(self._trace).judge(evaluations, training, self._place(), self._trace.models[0])

    def _underfitting(self) -> Iterator[Finding]:
        """The loss is flat and large, and the same on data that was held out."""
        from trueloop.doctor.course import is_plain
        from trueloop.doctor.rules.underfitting import FLAT, LARGE, LIKE, STEPS, Underfitting

        rows, losses = self._rows(), [epoch.loss for epoch in self._epochs]
        if not rows or self._began or len(losses) < 4 or not self._evaluations or self._epochs[-1].step < STEPS:
            return
        first, before, after = rows[0].loss or 0.0, losses[len(losses) // 2], losses[-1]
        held_out = self._evaluations[-1].metrics["loss"]
        if self._trace.findings or min(losses) <= 0 or not is_plain(self._trace, self._trace.optimizers[0]):
            return
        if after >= LARGE * first and before - after <= FLAT * before and abs(held_out - after) <= LIKE * after:
            yield Underfitting(self._trace).finding(
                f"it underfits: the training loss is {after:.4g} and falls no more; it began at {first:.4g}",
                f"in the second half of {_count(self._epochs)} it went from {before:.4g} to {after:.4g}; the last "
                f"validation loss is {held_out:.4g}",
                place=self._place(),
            )

    def _weights_gone(self) -> Iterator[Finding]:
        """The best evaluation was earlier, and there are no checkpoints."""
        from trueloop.doctor.rules.last_weights_kept import BEFORE, ROUNDS, WORSE, LastWeightsKept

        losses = [one.metrics["loss"] for one in self._evaluations]
        if self._plan is None or self._plan.saves is not None or len(losses) < ROUNDS:
            return
        best = min(range(len(losses)), key=losses.__getitem__)
        if best > len(losses) - 1 - BEFORE or not losses[-1] > WORSE * losses[best] > 0:
            return
        yield LastWeightsKept(self._trace).finding(
            f"the best validation was number {best + 1} of {len(losses)}; its weights are gone",
            f"validation loss {losses[best]:.4g} after step {self._evaluations[best].step}, {losses[-1]:.4g} at the "
            "end",
            help="give fit(out=…) a folder, where the best checkpoint is kept; or stop early: observers=[EarlyStop()]",
            place=self._place(),
        )

    def _not_evaluated(self) -> Iterator[Finding]:
        from trueloop.doctor.rules.no_validation import STEPS, TIMES, NoValidation

        steps = self._epochs[-1].step - self._began if self._epochs else 0
        if not self._evaluations and len(self._epochs) >= TIMES and steps >= STEPS:
            yield NoValidation(self._trace).finding(
                "the model is never evaluated on held-out samples",
                f"{steps} steps were taken in {_count(self._epochs)}, and fit() was given no validation data",
                help="keep some samples apart, and give them to fit() as its second argument",
                place=self._place(),
            )

    def _place(self) -> Place | None:
        return self._trace.optimizers[0].last_step_place if self._trace.optimizers else None


def _count(epochs: list[EpochEnded]) -> str:
    return f"{len(epochs)} epoch{'s' * (len(epochs) > 1)}"
