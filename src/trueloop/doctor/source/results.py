"""What an operation gives: a tensor with its inputs, or the unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.values import Constant, Either, Items, Object, Tensor, Unknown, Value
from trueloop.doctor.source.values import options as alternatives

if TYPE_CHECKING:
    import libcst as cst

CUTS = frozenset(["detach", "item", "tolist", "numpy", "data", "grad", "shape", "size"])
"""After these there is no graph."""

STEPS = frozenset(
    [
        "argmax",
        "argmin",
        "argsort",
        "compare",
        "eq",
        "ne",
        "gt",
        "lt",
        "ge",
        "le",
        "long",
        "int",
        "bool",
        "isnan",
        "isinf",
        "multinomial",
        "topk_indices",
    ]
)
"""These have no gradient: what they give is whole numbers or truth values."""


def result(
    m: Machine,
    op: str,
    inputs: tuple[Value, ...],
    options: dict[str, Value],
    node: cst.CSTNode,
    *,
    layer: Object | None = None,
    graph: bool | None = False,
) -> Tensor:
    """A tensor that an operation makes.

    Args:
        m: the machine.
        op: the operation's name.
        inputs: what it was made of.
        options: what else was given, by name.
        node: where.
        layer: the layer or loss that did it.
        graph: whether the operation itself brings parameters in.
    """
    if op in CUTS or op in STEPS or m.state["grad"] is False:
        carries: bool | None = False
    else:
        carries = any_of([graph, *(graph_of(one) for one in (*inputs, *options.values()))])
        if m.state["grad"] is None and carries:
            carries = None
    return Tensor(op, inputs, options, carries, node, m.at, layer)


def mixed(m: Machine, op: str, inputs: tuple[Value, ...], options: dict[str, Value], node: cst.CSTNode) -> Value:
    """A tensor if one of the inputs is one, else unknown: with its inputs, for who asks what went into it."""
    if any(isinstance(one, Tensor) for value in inputs for one in alternatives(value)):
        return result(m, op, inputs, options, node)
    return Unknown(via=op, inputs=inputs)


def graph_of(value: Value | None) -> bool | None:
    """Whether a value carries a graph; None if that is not known."""
    if value is None or isinstance(value, Constant):
        return False
    if isinstance(value, Tensor):
        return value.graph
    if isinstance(value, Items):
        return any_of([graph_of(one) for one in value.all()])
    if isinstance(value, Either):
        answers = {graph_of(one) for one in value.options}
        return answers.pop() if len(answers) == 1 else None
    if isinstance(value, Unknown) and value.via in CUTS:
        return False
    return None


def any_of(answers: list[bool | None]) -> bool | None:
    """Whether one of them is true; None if that hangs on one that is not known.

    Example:
        >>> any_of([False, None]), any_of([None, True]), any_of([False])
        (None, True, False)
    """
    if True in answers:
        return True
    return None if None in answers else False
