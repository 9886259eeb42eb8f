"""Reading an autograd graph: which operations made a tensor, over which shapes, and where they stand in the code.

Nodes know their operation (``SoftmaxBackward0``), what they saved, and the shape of what they made. In the first steps
the doctor has torch keep the line of each node as well (as anomaly mode does), so that a finding can point at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trueloop.doctor.findings import Place
from trueloop.doctor.places import in_traceback

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 20_000
"""Nodes that are walked at most; a graph of a large model has some thousands."""

SHAPE_ONLY = frozenset(
    (
        "View",
        "ReshapeAlias",
        "Reshape",
        "UnsafeView",
        "Squeeze",
        "Unsqueeze",
        "Permute",
        "Transpose",
        "T",
        "Clone",
        "Alias",
        "Contiguous",
        "Expand",
        "Slice",
        "Select",
        "Index",
        "IndexSelect",
        "AsStrided",
        "ToCopy",
        "Unbind",
        "Split",
        "SplitWithSizes",
        "Chunk",
        "Narrow",
        "Movedim",
        "MovedimInt",
        "UnsafeSplit",
        "CopySlices",
        "Flatten",
        "Unflatten",
        "Cat",
        "Stack",
        "Gather",
    )
)
"""Operations that move values about and do not change them."""


_ops: dict[str, str] = {}  # torch's name -> ours


@dataclass(frozen=True)
class Node:
    """An operation in the graph."""

    raw: Any
    """torch's ``grad_fn``."""

    @property
    def op(self) -> str:
        """The operation without its ending: ``Softmax`` of ``SoftmaxBackward0``, ``AccumulateGrad`` of a parameter."""
        name = self.raw.name()
        known = _ops.get(name)
        if known is None:
            known = _ops[name] = name.partition("Backward")[0].rpartition("::")[2] or name
        return known

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of what the operation made (its first output); None where torch does not say."""
        try:
            return tuple(int(n) for n in self.raw._input_metadata[0].shape)
        except (AttributeError, IndexError, RuntimeError, TypeError):
            return None

    @property
    def inputs(self) -> list[Node | None]:
        """The operations that made its inputs; None for one that needs no gradient (data, targets)."""
        return [None if node is None else Node(_through(node)) for node, _ in self.raw.next_functions]

    @property
    def place(self) -> Place | None:
        """The user's line, where torch was asked to keep it."""
        return in_traceback(self.raw.metadata.get("traceback_", ()))

    @property
    def parameter(self) -> Tensor | None:
        """The leaf itself, of an ``AccumulateGrad``."""
        return getattr(self.raw, "variable", None)

    def saved(self, name: str) -> Any:
        """What the operation saved under a name (``result``, ``dim`` …); None if it did not, or it is freed.

        Nor what hooks keep for it: to ask for it would have ``torch.utils.checkpoint`` make the forward pass again.
        """
        try:
            if getattr(getattr(self.raw, f"_raw_saved_{name}", None), "unpack_hook", None) is not None:
                return None
            return getattr(self.raw, f"_saved_{name}", None)
        except RuntimeError:  # the graph was freed
            return None


@dataclass(frozen=True)
class Graph:
    """The graph that a backward goes through."""

    roots: tuple[Any, ...]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, from the loss down, each once; parameters are ``AccumulateGrad`` nodes."""
        found: dict[Any, None] = {}
        rest = [_through(root) for root in self.roots if root is not None]
        for node in rest:  # the list grows while it is read: breadth first
            if node not in found and len(found) < LIMIT:
                found[node] = None
                below = (_through(one) for one, _ in node.next_functions if one is not None)
                rest.extend(one for one in below if one not in found)
        return tuple(Node(node) for node in found)

    @property
    def whole(self) -> bool:
        """False where the graph was too large to be walked to its end."""
        return len(self.nodes) < LIMIT

    @cached_property
    def parameters(self) -> dict[int, Tensor]:
        """The leaves that will get a gradient, by ``id``."""
        leaves = (node.parameter for node in self.nodes if node.op.endswith("AccumulateGrad"))
        return {id(leaf): leaf for leaf in leaves if leaf is not None}

    def of(self, *ops: str) -> Iterator[Node]:
        """The nodes of these operations (``Relu``, ``Softmax`` …), nearest to the loss first."""
        return (node for node in self.nodes if node.op in ops)


def graph_of(*tensors: Tensor) -> Graph:
    """The graph behind tensors.

    Example:
        >>> import torch
        >>> weight = torch.ones(3, requires_grad=True)
        >>> [node.op for node in graph_of((weight * 2).relu().sum()).nodes]
        ['Sum', 'Relu', 'Mul', 'AccumulateGrad']
    """
    return Graph(tuple(tensor.grad_fn for tensor in tensors))


def origin(tensor: Tensor) -> Node | None:
    """The operation that computed a tensor's values: views, copies and casts are looked through.

    Returns:
        None for a leaf, or a tensor without a graph.

    Example:
        >>> import torch
        >>> logits = torch.ones(4, 2, requires_grad=True)
        >>> origin(torch.softmax(logits, 1).view(8)).op
        'Softmax'
    """
    return None if tensor.grad_fn is None else computed(Node(_through(tensor.grad_fn)))


def _through(node: Any) -> Any:
    """What is below our own DDP's node, by which a loss takes another number along (``parallel/replicate.py``)."""
    return node.next_functions[0][0] if type(node).__name__ == "_CarriedBackward" else node


def computed(node: Node | None) -> Node | None:
    """The first operation from here down that is not a mere view, copy or cast."""
    while node is not None and (node.op in SHAPE_ONLY or node.op.rstrip("0123456789") in SHAPE_ONLY):
        node = next(iter(node.inputs), None)
    return node
