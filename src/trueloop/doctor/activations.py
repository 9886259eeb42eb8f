"""The activations of a network, read from the graph before a backward: what each made, and which layers it is between.

Activations keep what they made for their own gradient, so nothing has to be hooked, and functional forms
(``torch.relu``) and modules (``nn.ReLU``) are one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.endings import LINEAR
from trueloop.doctor.findings import Place
from trueloop.doctor.graph import SHAPE_ONLY, Graph, Node, computed
from trueloop.doctor.readings import readable
from trueloop.doctor.samples import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.facts import Called, ModuleCalled

LARGEST = 5_000
"""Larger graphs are left alone: they would be walked too often."""
NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "NativeGroupNorm", "NativeLayerNorm")
_NAME, _INPUTS, _OUTPUT = "trueloop module", "trueloop inputs", "trueloop output"


class Activation(NamedTuple):
    """One activation between two layers."""

    node: Node
    key: tuple[Any, ...]
    """The same for the same layer at another step."""
    label: str
    """How to call it in a sentence."""
    result: Tensor
    """What it made; live."""
    after: frozenset[str]
    """The operations that take what it made."""
    features: int
    """The dimension of ``result`` that counts its units."""
    fan_in: int | None
    """How many inputs a unit has; None where that cannot be told."""

    @property
    def place(self) -> Place | None:
        """Its line, in the first steps."""
        return self.node.place


def tag_module(fact: ModuleCalled) -> None:
    """Leaves a module's name in the graph, at what it made; the innermost module is told first, and stays."""
    first = getattr(fact.output, "grad_fn", None)
    if first is not None and _NAME in first.metadata:
        return  # by another rule, or by the module inside
    for tensor in tensors_in(fact.output, limit=2):
        about = _metadata(tensor)
        if about is not None and _NAME not in about:
            about[_NAME] = fact.name or type(fact.module).__name__
            # Numbers, not the nodes: a node in another's metadata may close a circle that nobody frees (in-place).
            given = [t.grad_fn for t in tensors_in(fact.inputs, limit=4)]
            about[_INPUTS] = max(
                (f._sequence_nr() for f in given if f is not None and f is not tensor.grad_fn), default=-1
            )


def in_module(node: Node | None) -> str:
    """`` in the module 'head.2'`` for a sentence, where the operation ran in one that was heard; else nothing."""
    name = None if node is None else node.raw.metadata.get(_NAME)
    return f" in the module {name!r}" if name else ""


def tag_output(fact: Called) -> None:
    """Marks in the graph what a root module gave: it belongs to the task, not between layers."""
    for tensor in tensors_in(fact.output, limit=4):
        about = _metadata(tensor)
        if about is not None:
            about[_OUTPUT] = True


def activations(graph: Graph, *ops: str) -> list[Activation]:
    """The activations of these kinds that stand between layers: a layer with weights follows, in the same model.

    Example:
        >>> import torch
        >>> from trueloop.doctor.graph import graph_of
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1), torch.nn.ReLU())
        >>> found = activations(graph_of(net(torch.ones(2, 3))), "Relu")
        >>> [(one.result.shape[one.features], one.fan_in) for one in found]
        [(4, 3)]
    """
    import torch

    if len(graph.nodes) > LARGEST:
        return []
    found: list[Activation] = []
    nodes = [node for node in graph.nodes if node.op in ops]
    if not nodes:
        return found
    takers = _takers(graph)
    beyond = _beyond_the_last_layer(graph)
    count: dict[tuple[Any, ...], int] = {}
    for node in reversed(nodes):  # from the first layer on
        if node.raw in beyond or node.raw.metadata.get(_OUTPUT):
            continue
        result = node.saved("result")
        if not isinstance(result, torch.Tensor) or result.dim() < 2 or not readable(result):
            continue
        layer = computed(next(iter(node.inputs), None))
        while layer is not None and layer.op in NORMS:
            layer = computed(next(iter(layer.inputs), None))
        name = node.raw.metadata.get(_NAME)
        before = None if layer is None else layer.raw.metadata.get(_NAME)
        features = 1 if layer is not None and "Convolution" in layer.op else result.dim() - 1
        shape = (node.op, name, before, result.shape[features])
        count[shape] = count.get(shape, 0) + 1
        of = f"{name!r}" if name else f"after {before!r}" if before else f"number {count[shape]}"
        key = shape if name or before else (*shape, count[shape])
        label = f"{node.op} {of}"
        found.append(Activation(node, key, label, result, frozenset(takers[node.raw]), features, _fan_in(layer)))
    return found


def _metadata(tensor: Tensor) -> dict[str, Any] | None:
    """What the graph keeps beside the operation that made a tensor; torch's stubs call it a method."""
    node: Any = tensor.grad_fn
    return None if node is None else node.metadata


def _takers(graph: Graph) -> dict[Any, set[str]]:
    """What takes the result of each operation; views and copies are looked through."""
    takers: dict[Any, set[str]] = {node.raw: set() for node in graph.nodes}
    for node in graph.nodes:
        if node.op in SHAPE_ONLY:
            continue
        for below in node.inputs:
            rest = [below]
            while rest:
                one = rest.pop()
                if one is not None and one.raw in takers and node.op not in takers[one.raw]:
                    takers[one.raw].add(node.op)
                    if one.op in SHAPE_ONLY:
                        rest.extend(one.inputs)
    return takers


def _beyond_the_last_layer(graph: Graph) -> set[Any]:
    """What stands between the last layers with weights and the loss."""
    rest = [Node(root) for root in graph.roots if root is not None]
    known = {node.raw for node in rest}
    for node in rest:  # the list grows while it is read
        if node.op not in LINEAR:
            for below in node.inputs:
                if below is not None and below.raw not in known:
                    known.add(below.raw)
                    rest.append(below)
    return known


def _fan_in(layer: Node | None) -> int | None:
    """How many inputs a unit of a layer has, by its weights; None where they are not trained, or not next to it."""
    if layer is None or not layer.shape:
        return None
    units = layer.shape[1 if "Convolution" in layer.op else -1]
    for below in layer.inputs:
        weight = computed(below)
        parameter = None if weight is None else weight.parameter
        if parameter is not None and parameter.dim() > 1:
            return parameter.numel() // max(units, 1)
    return None
