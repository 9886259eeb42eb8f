"""Parameters that get gradients though nobody uses them: no optimizer holds them, and nothing else changes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, StateLoaded
from trueloop.doctor.parts import own_part
from trueloop.doctor.seen import OptimizerSeen

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.trace import Trace

FEW = 16
"""A raw tensor of at most so many numbers may be a parameter; larger ones may be data, or a disturbance of it."""


@dataclass
class Reached:
    """How often backwards reached a parameter, and a figure of its values when that was first seen."""

    times: int
    figure: float


class Untended:
    """The parameters that backwards reach and that no optimizer has ever held.

    Args:
        trace: whose optimizers are asked.
    """

    def __init__(self, trace: Trace) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        self._trace = trace
        self._reached: Any = WeakTensorKeyDictionary()
        self._held: Any = WeakTensorKeyDictionary()  # what some optimizer held once
        self._holding = (-1, -1)
        self._awake: set[int] = set()  # models that were called in train mode
        self.backwards = 0
        """Backwards that were looked at."""

    def backward(self, fact: BackwardBegun) -> None:
        """Counts what a backward is about to reach."""
        self._hold(self._trace.optimizers)
        self.backwards += 1
        self._awake.update(one.model.number for one in fact.passes if one.training)
        for leaf in fact.graph.parameters.values():
            if counts(leaf) and leaf not in self._held:
                seen = self._reached.get(leaf)
                if seen is None:
                    self._reached[leaf] = Reached(1, figure(leaf))
                else:
                    seen.times += 1

    def loaded(self, fact: StateLoaded) -> None:
        """Weights that are loaded come from a training elsewhere: to leave them as they are may be meant."""
        for name, parameter in fact.module.named_parameters():
            if name in fact.state:
                self._held[parameter] = True

    def given(self, tensors: Iterable[Any]) -> None:
        """Leaves that are data: a model's inputs, or what gradients are taken of."""
        from torch import Tensor

        for one in tensors:
            if isinstance(one, Tensor) and one.requires_grad and one.is_leaf:
                self._held[one] = True

    def parameters(self, times: int) -> list[Tensor]:
        """Those that were reached so often, are in no optimizer now, and have not changed since.

        A model that is called in eval mode alone (a judge of another model's output) is left out.
        """
        self._holding = (-1, -1)
        self._hold(self._trace.optimizers)
        found = [
            parameter
            for parameter, seen in self._reached.items()
            if seen.times >= times
            and parameter.requires_grad
            and parameter not in self._held
            and figure(parameter) == seen.figure
        ]
        if not found:
            return []
        resting = {
            id(parameter)
            for seen in self._trace.models
            if seen.number not in self._awake and (module := seen.module) is not None
            for parameter in module.parameters()
        }
        return [parameter for parameter in reversed(found) if id(parameter) not in resting]  # as in the model

    def _hold(self, optimizers: Iterable[OptimizerSeen]) -> None:
        holding = (len(self._trace.optimizers), sum(len(seen.groups()) for seen in optimizers))
        if holding != self._holding:
            self._holding = holding
            for seen in self._trace.optimizers:
                for parameter in seen.parameters():
                    self._held[parameter] = True


def counts(leaf: Tensor) -> bool:
    """Whether a leaf is a parameter, or a few numbers that stand for one: a raw log-variance, a coefficient.

    Example:
        >>> import torch
        >>> counts(torch.zeros(2, requires_grad=True)), counts(torch.zeros(8, 4, requires_grad=True))
        (True, False)
    """
    from torch import nn

    return isinstance(leaf, nn.Parameter) or (leaf.dim() <= 1 and leaf.numel() <= FEW)


def figure(parameter: Tensor) -> float:
    """A number that changes when the values do; not even equal to itself where they were freed.

    FSDP2 gathers weights for a pass and frees them after it: the backward reaches those, the optimizer holds others.

    Example:
        >>> import torch
        >>> weight = torch.ones(3)
        >>> before = figure(weight)
        >>> _ = weight.mul_(0.9)
        >>> figure(weight) == before
        False
    """
    values = own_part(parameter)
    if values.untyped_storage().nbytes() < values.numel() * values.element_size():  # reading it would crash
        return math.nan
    flat = values.reshape(-1)
    return float(flat.double().square().sum() + flat[: (flat.numel() + 1) // 2].double().sum())


def named(trace: Trace, parameters: Iterable[Tensor], most: int = 4) -> str:
    """Names of parameters for a sentence: ``fc.weight, fc.bias and 3 more``."""
    names = [trace.name_of(parameter) for parameter in parameters]
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
