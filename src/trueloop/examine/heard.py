"""The loss functions of torch that an objective calls, heard by the doctor's ear; and what guessing would give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from trueloop.doctor.endings import class_dimension
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.listen import listening
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.trace import Trace

CLASSES = ("cross_entropy", "nll_loss")
BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
NUMBERS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


class Guess(NamedTuple):
    """What a model that does not look at its input gets."""

    chance: float
    """Without knowing the targets: equal chances; for numbers, their variance over all of them."""
    constant: float
    """With the best constant answer: the entropy of the shares; for numbers, their variance at each place."""
    words: str
    """The first of them in words."""


@contextmanager
def losses_heard() -> Iterator[list[LossCalled]]:
    """The calls of torch's loss functions inside, in their order.

    Example:
        >>> with losses_heard() as calls:
        ...     _ = torch.nn.MSELoss()(torch.zeros(2), torch.ones(2))
        >>> [call.kind for call in calls]
        ['mse_loss']
    """
    with listening([_Losses]) as trace:
        yield next(rule.calls for rule in trace.rules if isinstance(rule, _Losses))


class _Losses(Rule):
    """Keeps what it hears; it never finds anything."""

    name, code, level, certainty = "losses-heard", 0, "note", "certain"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.calls: list[LossCalled] = []

    def loss_called(self, fact: LossCalled) -> None:
        if fact.error is None and fact.output is not None and not fact.target.requires_grad:
            self.calls.append(fact)


def guess(call: LossCalled) -> Guess | None:
    """What a model gets on these targets that does not look at its input.

    Returns:
        None where it is not known: weights, sums, other losses.

    Example:
        >>> with losses_heard() as calls:
        ...     _ = torch.nn.functional.cross_entropy(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        >>> [round(value, 3) for value in guess(calls[0])[:2]]
        [0.693, 0.562]
    """
    options = call.options
    if options.get("reduction", "mean") != "mean" or options.get("weight") is not None:
        return None
    if options.get("pos_weight") is not None or not readable(call.input) or not readable(call.target):
        return None
    target = call.target.detach()
    if call.kind in CLASSES:
        return _of_classes(call, target)
    if call.kind in BINARY:
        constant = _entropy(torch.stack([p := _by_place(target).mean(0), 1 - p]))
        return Guess(math.log(2), constant, "chance is 0.693")
    if call.kind == "mse_loss" and target.is_floating_point():
        places = _by_place(target)
        constant = float((places - places.mean(0)).square().mean())
        spread = float(target.double().var(correction=0))
        return Guess(spread, constant, f"always guessing the mean of the targets gives {spread:.4g}")
    return None


def counted(call: LossCalled) -> Tensor:
    """The targets of a loss over classes that count, flat: those to be ignored are left out."""
    flat = call.target.detach().flatten().long()
    return flat[(flat != call.options.get("ignore_index", -100)) & (flat >= 0)]


def classes_of(call: LossCalled) -> int:
    """How many classes a loss over classes tells apart."""
    return int(call.input.shape[class_dimension(call.input)])


def _of_classes(call: LossCalled, target: Tensor) -> Guess | None:
    classes = max(classes_of(call), 2)
    if target.is_floating_point():
        shares = target.double().movedim(class_dimension(target), -1).flatten(0, -2).mean(0)
    else:
        kept = counted(call)
        if not len(kept):
            return None
        shares = kept.bincount(minlength=classes).double() / len(kept)
    return Guess(math.log(classes), _entropy(shares), f"chance over {classes} classes is {math.log(classes):.3g}")


def _by_place(target: Tensor) -> Tensor:
    """Samples by places: a constant answer has a number for each."""
    return target.double().reshape(len(target), -1) if target.dim() else target.double().reshape(1, 1)


def _entropy(shares: Tensor) -> float:
    """Over dimension 0, in nats; the mean over the others."""
    return float(-torch.xlogy(shares, shares).sum(0).mean())
