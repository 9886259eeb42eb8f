"""Backwards that reach no weights: the loss has no graph, or one that begins at a tensor made from numbers.

Two rules ask for it, one for each cause: the forward pass ran without gradients, or its result was made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardBegun, ModuleCalled, Stepping
from trueloop.doctor.findings import Place
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.seen import Pass

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

IN_A_ROW = 3
"""So many steps with nothing else, where no backward has reached any weights before."""
IN_A_ROW_LATER = 10
"""So many where some have: a loss of zero for a batch without objects is made from a number on purpose."""


class Hollow:
    """Counts an optimizer's steps to which no gradient came, because backward ended at a tensor that is no weight."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._row: dict[int, int] = {}  # optimizer -> such steps in a row
        self._empty = False
        """The last backward was hollow, and none other since the last step."""
        self._inner: Pass | None = None  # the last pass in which a module gave out a graph
        self.reached = False
        """Some backward has reached weights."""
        self.told = False
        self.steps = 0
        """Steps looked at."""
        self.place: Place | None = None
        """The last hollow backward."""
        self.without_grad: Pass | None = None
        """The pass that ran without gradients before it, if one did."""
        self.cut = False
        """A graph had been made before it, and was thrown away."""

    def inside(self, fact: ModuleCalled) -> None:
        """A module gave something out."""
        if not self.told and any(tensor.requires_grad for tensor in tensors_in(fact.output, 2)):
            self._inner = fact.of

    def backward(self, fact: BackwardBegun) -> bool:
        """Whether this backward will reach no weights. Asked on steps that are looked at closely."""
        from torch import nn

        if self.told:
            return False
        leaves = fact.graph.parameters
        if all(loss.grad_fn is None for loss in fact.losses):
            hollow = not any(isinstance(loss, nn.Parameter) for loss in fact.losses)
        elif not fact.graph.whole or any(isinstance(leaf, nn.Parameter) for leaf in leaves.values()):
            hollow = False
        else:
            held = {id(p) for seen in self._trace.optimizers for p in seen.parameters()}
            hollow = bool(leaves) and not any(key in held for key in leaves)
        if not hollow:
            self.reached, self._empty = True, False
            return False
        self._empty = True
        self.place = fact.place
        able = [one for one in fact.passes if _could_learn(one)]
        bright = [one for one in able if one.needs_grad or one is self._inner]
        dark = [one for one in able if not one.needs_grad]
        self.cut = bool(bright) or not fact.passes
        self.without_grad = dark[-1] if dark and not bright else None
        return True

    def step(self, fact: Stepping) -> bool:
        """Whether enough steps went by without a gradient."""
        if self.told or self.place is None:
            self._empty = False
            return False
        self.steps += 1
        number = fact.optimizer.number
        self._row[number] = self._row.get(number, 0) + 1 if self._empty else 0
        self._empty = False
        self.told = self._row[number] >= (IN_A_ROW_LATER if self.reached else IN_A_ROW)
        return self.told


def _could_learn(one: Pass) -> bool:
    module = one.model.module
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())
