"""Can one batch be learned by heart? A model that cannot is broken; one that can may still have data of no use."""

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from trueloop.data.device import batch_length
from trueloop.data.nested import leaves, mapped
from trueloop.doctor.rules.learning_rate_too_high import LearningRateTooHigh
from trueloop.doctor.rules.loss_is_constant import LossIsConstant
from trueloop.doctor.rules.not_learning import ABOVE, BELOW, NotLearning
from trueloop.examine.heard import guess, losses_heard
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject
from trueloop.finite import NotFinite
from trueloop.objective import Batch

SAMPLES, TARGETS, FEWEST = 16, 256, 2
"""So many samples of the batch are to be learned, or fewer where each has many targets (tokens, pixels), but not fewer
than two: few are quicker to learn, and a small model can hold them."""
LEARNED = 0.5
"""Of what the best constant answer would give (or of the first loss, where that is not known): learned, or well on
the way, which no model comes to that does not look at its input. A guess."""
ENOUGH = 0.1
"""… and here the trial ends before its limits."""
STEPS = 50
"""With fewer, nobody is called unable to learn."""
RISEN = 2.0
RATES = (1e-3, 1e-2)
"""Of a plain Adam, which is tried where the trainer's own optimizer does not do it."""
LAST = 5


@dataclass
class _Trial:
    """One optimizer's losses on the same batch."""

    name: str
    losses: list[float]
    finite: bool = True
    ended_by_time: bool = False

    @property
    def last(self) -> float:
        return fmean(self.losses[-LAST:]) if self.finite else float("inf")

    def __str__(self) -> str:
        end = f"{self.last:.4g}" if self.finite else "a value that is not finite"
        return f"{self.name}: from {self.losses[0]:.4g} to {end} in {len(self.losses)} steps"


def one_batch(subject: Subject) -> Examination:
    """Trains on a few samples of one batch: with the trainer's optimizer, and if need be with a plain Adam."""
    batches = subject.first()
    if not batches:
        return unknown("no batch came")
    batch, floor, targets = _cut(subject, batches[0])
    limits = subject.limits
    limit = f"limit: {limits.steps} steps or {limits.seconds:g} s a trial"
    before = copy.deepcopy(subject.model.state_dict())

    def goal(first: float) -> float:
        return first if floor is None or floor <= 0 else floor

    trials = [_tried(subject, batch, None, "the trainer's own optimizer", goal)]
    own = trials[0]
    first = own.losses[0]
    samples = f"{batch_length(batch)} samples"
    if first <= 0:
        return unknown(f"on one batch the loss goes from {first:.4g} to {own.last:.4g}; how low it can get is unknown")
    if own.last < LEARNED * goal(first):
        return passed(f"{samples} are learned by heart with {own} ({limit})")
    slow = own.ended_by_time and own.last < BELOW * goal(first)  # it learns, and others would take as long
    for rate in () if slow else RATES:
        subject.model.load_state_dict(before)
        trials.append(_tried(subject, batch, rate, f"Adam at {rate:g}", goal))
        if trials[-1].last < LEARNED * goal(first):
            return _other_learns(samples, own, trials[-1], goal(first), limit)
    evidence = [*map(str, trials), limit]
    best = min(trial.last for trial in trials)
    if all(trial.finite and len({*trial.losses}) == 1 and len(trial.losses) > LAST for trial in trials):
        message = f"the loss of one batch is {first:.6g} at each step, whatever the weights"
        return failed(found(LossIsConstant, message, *evidence))
    stuck = floor is not None and floor > 0 and BELOW * floor <= best <= ABOVE * floor
    weights = sum(p.numel() for p in subject.model.parameters() if p.requires_grad)
    enough = all(len(trial.losses) >= STEPS for trial in trials)
    if floor is None or not stuck or not enough:
        return unknown(f"{samples} were not learned by heart, which need not say much: {'; '.join(evidence)}")
    if weights < targets:
        return unknown(f"{weights} weights need not be able to learn {targets} targets by heart: {'; '.join(evidence)}")
    return failed(
        found(
            NotLearning,
            f"one batch cannot be learned by heart: for {samples} the loss stays at that of a constant answer",
            *evidence,
            f"the best constant answer on these samples gives {floor:.4g}",
            help="what the loss sees does not depend on the input: look for a detached or zeroed input, outputs and "
            "targets that do not belong together, units that are all dead, gradients that vanish",
        )
    )


def _other_learns(samples: str, own: _Trial, other: _Trial, goal: float, limit: str) -> Examination:
    if own.finite and own.last <= RISEN * max(own.losses[0], goal):
        return passed(f"{samples} are learned by heart with {other}; with {own} ({limit})")
    return failed(
        found(
            LearningRateTooHigh,
            f"on one batch of {samples}, the loss rises with the trainer's own optimizer, and falls with {other.name}",
            str(own),
            str(other),
            limit,
        )
    )


def _cut(subject: Subject, batch: Batch) -> tuple[Batch, float | None, int]:
    """The first samples of a batch where it can be cut, what a constant answer gives on them, and how many targets."""
    size = batch_length(batch)
    tensors = [leaf for leaf in leaves(batch) if isinstance(leaf, Tensor)]
    floor, targets = _floor(subject, batch)
    wanted = max(FEWEST, min(SAMPLES, TARGETS * size // max(targets, 1)))
    if size > wanted and all(leaf.dim() and len(leaf) == size for leaf in tensors):
        smaller = mapped(lambda leaf: leaf[:wanted] if isinstance(leaf, Tensor) else leaf, batch)
        with contextlib.suppress(Exception):  # it must have all of them: the batch itself may still do
            return smaller, *_floor(subject, smaller)
    return batch, floor, targets


def _floor(subject: Subject, batch: Batch) -> tuple[float | None, int]:
    """Known where the loss is one of torch's, and nothing but that."""
    kept = copy.deepcopy(subject.model.state_dict())
    with losses_heard() as calls:
        computed = subject.objective.compute(subject.model, batch)
    subject.model.load_state_dict(kept)  # BatchNorm's statistics
    call = calls[0] if len(calls) == 1 else None
    if (
        call is None
        or call.output is None
        or call.output.dim()
        or float(call.output.detach()) != float(computed.loss.detach())
    ):
        return None, 0
    known = guess(call)
    return (None if known is None else known.constant), call.target.numel()


def _tried(subject: Subject, batch: Batch, rate: float | None, name: str, goal: Any) -> _Trial:
    """Trains on this batch alone; ``rate`` is that of a plain Adam, None the trainer's optimizer."""
    adam = None
    if rate is not None:
        adam = torch.optim.Adam([p for p in subject.model.parameters() if p.requires_grad], lr=rate)
    ritual = subject.ritual(adam)
    trial = _Trial(name, [])
    until = time.monotonic() + subject.limits.seconds
    for _ in range(subject.limits.steps):
        try:
            trial.losses.append(float(ritual.take(subject.objective, [batch], 0).loss))
        except NotFinite:
            trial.finite = False
            trial.losses = trial.losses or [float("nan")]
            break
        trial.ended_by_time = time.monotonic() > until
        if trial.ended_by_time or trial.last < ENOUGH * goal(trial.losses[0]):
            break
    return trial
