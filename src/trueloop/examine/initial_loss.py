"""Is the loss at initialisation that of an uninformed model?"""

from __future__ import annotations

import math
from statistics import fmean

from trueloop.doctor.facts import LossCalled
from trueloop.doctor.rules.initial_loss_off import FEWEST, TIMES, VARIANCES, InitialLossOff
from trueloop.examine.heard import guess, losses_heard
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject

BATCHES = 4


def initial_loss(subject: Subject) -> Examination:
    """Compares the loss of the first batches, before any step, with that of guessing.

    A loss below that of guessing is right: weights that were trained before know already.
    """
    heard: list[list[LossCalled]] = []
    values = []
    with losses_heard() as calls:
        for batch in subject.first(BATCHES):
            values.append(float(subject.objective.compute(subject.model, batch).loss.detach()))
            heard.append(calls[:])
            calls.clear()
    if not values:
        return unknown("no batch came")
    mean = fmean(values)
    if not math.isfinite(mean):
        return unknown(f"the first losses are not finite: {', '.join(f'{value:.4g}' for value in values)}")
    alone = [calls[0] for calls in heard if len(calls) == 1]
    if len(alone) < len(heard) or alone[0].target.numel() < FEWEST:
        return unknown(f"the first loss is {mean:.4g}; what guessing would give is not known for this loss")
    guesses = [guess(call) for call in alone]
    known = [one for one in guesses if one is not None and one.chance > 0]
    if len(known) < len(guesses):
        return unknown(f"the first loss is {mean:.4g}; what guessing would give is not known for this loss")
    kind, chance = alone[0].kind, fmean(one.chance for one in known)
    own = fmean(float(call.output.detach()) for call in alone if call.output is not None)
    if own <= (VARIANCES if kind == "mse_loss" else TIMES) * chance:
        return passed(f"the first loss is {own:.4g}; {known[0].words}")
    return failed(
        found(
            InitialLossOff,
            f"the first {kind} is {own:.4g}, far above that of a model that knows nothing",
            known[0].words,
            f"over the first {len(values)} batches, before any step",
            place=alone[0].place,
        )
    )
