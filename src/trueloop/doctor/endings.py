"""How a network ends: the last operation before a loss, over which dimension, and losses that are written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.graph import SHAPE_ONLY, Graph, Node, computed, origin

if TYPE_CHECKING:
    from torch import Tensor

CLAMPS = frozenset(("Clamp", "ClampMin", "ClampMax"))
SOFTMAXES = frozenset(("Softmax", "LogSoftmax"))
LINEAR = frozenset(("Addmm", "Mm", "Bmm", "Baddbmm", "Addmv", "Mv", "Linear", "Convolution", "MkldnnConvolution"))
"""Layers that give raw scores."""
ELEMENTWISE = frozenset(
    (
        *("Mean", "Sum", "Neg", "Add", "Sub", "Rsub", "Mul", "Div", "Pow", "Abs", "Sqrt", "Log", "Cosh"),
        *(
            "Where",
            "Maximum",
            "Minimum",
            "Clamp",
            "ClampMin",
            "ClampMax",
            "HuberLoss",
            "SmoothL1Loss",
            "MseLoss",
            "NllLoss",
        ),
    )
)
"""What a loss that is written by hand is made of, between the difference and the scalar."""
STEPS = 200
"""Nodes that are walked at most below a loss; such losses have some ten."""


def ending(tensor: Tensor) -> Node | None:
    """The last operation that made the values: views, copies, casts and clamps are looked through.

    Example:
        >>> import torch
        >>> logits = torch.ones(4, 2, requires_grad=True)
        >>> ending(torch.softmax(logits, 1).clamp(1e-7, 1)).op
        'Softmax'
    """
    node = origin(tensor)
    while node is not None and node.op in CLAMPS:
        node = computed(next(iter(node.inputs), None))
    return node


def softmax_behind(tensor: Tensor) -> tuple[Node, bool] | None:
    """The softmax that made the values, also where its logarithm was taken (of it plus a small number).

    Returns:
        The softmax, and whether the values are logarithms; None if no softmax stands there.

    Example:
        >>> import torch
        >>> node, log = softmax_behind(torch.log(torch.softmax(torch.ones(4, 2, requires_grad=True), 1) + 1e-9))
        >>> node.op, log
        ('Softmax', True)
    """
    node = ending(tensor)
    log = node is not None and node.op == "Log"
    while node is not None and node.op in ("Log", "Add", *CLAMPS) and log:
        below = [one for one in node.inputs if one is not None]
        node = computed(below[0]) if len(below) == 1 else None
    if node is None or node.op not in SOFTMAXES:
        return None
    return node, log or node.op == "LogSoftmax"


def dimension(node: Node) -> int | None:
    """The dimension that a softmax runs over, counted from the front; None where torch does not say.

    Example:
        >>> import torch
        >>> dimension(ending(torch.log_softmax(torch.ones(4, 2, requires_grad=True), -1)))
        1
    """
    dim, shape = node.saved("dim"), node.shape
    if not isinstance(dim, int) or shape is None:
        return None
    dim -= 2**64 if dim >= 2**63 else 0  # torch shows it unsigned
    return dim + len(shape) if dim < 0 else dim


def class_dimension(tensor: Tensor) -> int:
    """Where torch's losses expect the classes: (classes,), (samples, classes) or (samples, classes, …)."""
    return 1 if tensor.dim() > 1 else 0


class Residual(NamedTuple):
    """A difference or a product of what was predicted with data, on the way to the loss."""

    node: Node
    predicted: Node
    """The side that needs a gradient."""
    first: bool
    """It is the first operand."""
    by: Node | None
    """The operation that takes the result."""

    @property
    def data(self) -> Tensor | None:
        """The other side, where the graph tells it: a product keeps it, a difference is kept by what squares it."""
        import torch

        if self.node.op == "Mul":
            kept = self.node.saved("other" if self.first else "self")
            return kept if isinstance(kept, torch.Tensor) else None
        made = computed(self.predicted)
        difference = self.by.saved("self") if self.by is not None and self.by.op in ("Pow", "Abs", "Mul") else None
        values = made.saved("result") if made is not None else None
        if not isinstance(difference, torch.Tensor) or not isinstance(values, torch.Tensor):
            return None
        if difference.numel() != values.numel():
            return None
        values = values.reshape(difference.shape)
        return values - difference if self.first else values + difference


def residuals(graph: Graph) -> Iterator[Residual]:
    """The differences and products in a loss that is written by hand, one side of which needs no gradient.

    Nothing is told of a loss that also compares predictions with each other: there all pairs are meant.

    Example:
        >>> import torch
        >>> guess = torch.ones(4, 1, requires_grad=True)
        >>> loss = ((guess * 2 - torch.zeros(4)) ** 2).mean()
        >>> [(found.node.op, found.node.shape) for found in residuals(Graph((loss.grad_fn,)))]
        [('Sub', (4, 4)), ('Mul', (4, 1))]
    """
    found: list[Residual] = []
    rest: list[tuple[Node, Node | None]] = [(Node(root), None) for root in graph.roots if root is not None]
    known = {node.raw for node, _ in rest}
    for node, by in rest:  # the list grows while it is read
        if node.op not in ELEMENTWISE and node.op not in SHAPE_ONLY:
            continue
        inputs = node.inputs
        below = [one for one in inputs if one is not None]
        if node.op in ("Sub", "Mul") and len(inputs) == 2:
            shapes = {one.shape for one in below}
            if len(below) == 2 and len(shapes) == 2 and node.shape not in shapes:
                return
            if len(below) == 1:
                found.append(Residual(node, below[0], inputs[0] is not None, by))
        for one in below:
            if one.raw not in known and len(known) < STEPS:
                known.add(one.raw)
                rest.append((one, node))
    yield from found
