"""Where values go: names, attributes, parts; and what is put into what was there before."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import libcst as cst

from trueloop.doctor.source.elements import parts
from trueloop.doctor.source.events import GradientsUsed, Kept, Operated, Remembered, Zeroed
from trueloop.doctor.source.freezing import freeze
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import owner
from trueloop.doctor.source.modules import parts as parts_of
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.results import mixed
from trueloop.doctor.source.values import (
    Class,
    Constant,
    Either,
    Items,
    Module,
    Object,
    Super,
    Tensor,
    Unknown,
    Value,
    constant,
    truth,
)

LONGEST = 64


def assign(m: Machine, target: cst.CSTNode, value: Value) -> None:
    """``target = value``"""
    name = _last_name(target)
    if "best" in name.lower() and m.loops:
        m.tell(Remembered(target, m.at, name, value))
    if isinstance(target, cst.Name):
        scope = m.frame.scope.outer.get(target.value, m.frame.scope)
        if isinstance(value, Unknown) and not value.name:
            value.name = target.value
        m.write(scope.names, target.value, value)
    elif isinstance(target, (cst.Tuple, cst.List)):
        _unpack(m, target, value)
    elif isinstance(target, cst.Attribute):
        set_attribute(m, m.evaluate(m, target.value), target.attr.value, value, target)
    elif isinstance(target, cst.Subscript):
        _set_part(m, target, value)
    elif isinstance(target, cst.StarredElement):
        assign(m, target.value, value)


def _last_name(target: cst.CSTNode) -> str:
    """``best`` of ``best`` and of ``self.best``."""
    if isinstance(target, cst.Attribute):
        return target.attr.value
    return target.value if isinstance(target, cst.Name) else ""


def _unpack(m: Machine, target: cst.Tuple | cst.List, value: Value) -> None:
    targets = list(target.elements)
    starred = next((n for n, one in enumerate(targets) if isinstance(one, cst.StarredElement)), None)
    if starred is None:
        for one, each in zip(targets, parts(m, value, len(targets), target), strict=True):
            assign(m, one.value, each)
        return
    known = value.items if isinstance(value, Items) else None
    after = len(targets) - starred - 1
    for number, one in enumerate(targets):
        if number == starred:
            rest = known[starred : len(known) - after] if known is not None else None
            attrs: dict[Any, Any] = {"items": rest} if rest is not None else {"each": Unknown(of=value, via="each")}
            assign(m, one.value, Items("list", target, m.at, attrs))
        else:
            place = number if number < starred else number - len(targets)
            there = known is not None and -len(known) <= place < len(known)
            assign(m, one.value, known[place] if known is not None and there else Unknown(of=value, via="[]"))


def set_attribute(m: Machine, of: Value, name: str, value: Value, node: cst.CSTNode) -> None:
    """``of.name = value``"""
    if name == "grad":
        m.tell(Zeroed(node, m.at, of) if _clears(value) else GradientsUsed(node, m.at, of))
        return
    if name == "requires_grad":
        freeze(m, of, constant(value) is False)
        if isinstance(of, Tensor) and constant(value) is True:
            m.write(of.attrs, "asked", Constant(True))
    whole = owner(of) if name == "training" else None
    if whole is not None:
        for one in parts_of(whole) if whole is not of else (whole,):  # which of several parts is not known
            if isinstance(one, Object):
                m.write(one.attrs, "training", truth(value) if whole is of else None)
        return
    if name == "data" and isinstance(of, (Tensor, Unknown)):
        return
    if isinstance(of, Either):
        return
    if isinstance(value, Unknown) and not value.name:
        value.name = name
    if isinstance(of, (Object, Unknown, Tensor, Class)):
        m.write(of.attrs, name, value)
    elif isinstance(of, Module):
        m.write(of.scope.names, name, value)
    elif isinstance(of, Super):
        set_attribute(m, of.of, name, value, node)


def _clears(value: Value) -> bool:
    return not (isinstance(value, Tensor) and value.op not in ("zeros_like", "zeros"))


def _set_part(m: Machine, target: cst.Subscript, value: Value) -> None:
    into = m.evaluate(m, target.value)
    slices = [s.slice for s in target.slice]
    key = m.evaluate(m, slices[0].value) if len(slices) == 1 and isinstance(slices[0], cst.Index) else Unknown()
    m.tell(Kept(target, m.at, "[]", into, value, None))
    if isinstance(into, Object):
        children = into.attrs.get("children")
        if isinstance(children, Items):
            into = children
    if not isinstance(into, Items):
        return
    at = key.value if isinstance(key, Constant) else None
    if into.pairs is not None and isinstance(at, (str, int)):
        m.write(into.attrs, "pairs", {**into.pairs, at: value})
    elif into.items is not None and isinstance(at, int) and -len(into.items) <= at < len(into.items):
        known = list(into.items)
        known[at] = value
        m.write(into.attrs, "items", tuple(known))
    else:
        keep(m, into, value)


def keep(m: Machine, into: Items, value: Value) -> None:
    """Adds a value to a list, set or dict whose other values stay."""
    if into.pairs is not None:
        known = tuple(into.pairs.values())
        m.write(into.attrs, "pairs", None)
        m.write(into.attrs, "items", known[:LONGEST])
        m.write(into.attrs, "each", value)
    elif into.items is not None and len(into.items) < LONGEST:
        inside = len(m.loops) > len(into.at.loops)
        # a list that grows in a loop has a length that is not known
        m.write(into.attrs, "items", (*into.items, value))
        if inside:
            m.write(into.attrs, "each", value)
    else:
        m.write(into.attrs, "each", value)


def combine(m: Machine, node: cst.AugAssign) -> None:
    """``target += value``"""
    value = m.evaluate(m, node.value)
    before = m.evaluate(m, node.target)
    if isinstance(before, Items) and isinstance(node.operator, cst.AddAssign):
        for one in value.all() if isinstance(value, Items) else (value,):
            m.tell(Kept(node, m.at, "+=", before, one, None))
            keep(m, before, one)
        return
    op = OPERATORS.get(type(node.operator), "op")
    after = arithmetic(m, op, before, value, node)
    if op == "sub" and isinstance(before, (Unknown, Tensor)) and _by_gradient(value):
        m.tell(GradientsUsed(node, m.at, before))
    if (
        m.state["grad"] is True
        and isinstance(before, (Unknown, Tensor))
        and any(_is_gradient(v) for v in ancestors(value))
    ):
        m.tell(Operated(node, m.at, "Tensor.change", (before, value), {}, after, m.frame.function))
    m.tell(Kept(node, m.at, "+=" if op == "add" else op, before, value, after))
    if isinstance(node.target, cst.Attribute) and node.target.attr.value == "grad":
        return
    assign(m, node.target, after)


def _is_gradient(value: Value) -> bool:
    return (isinstance(value, Tensor) and value.op == "grad") or (isinstance(value, Unknown) and value.via == "grad")


def _by_gradient(value: Value, depth: int = 4) -> bool:
    if isinstance(value, Tensor):
        return value.op == "grad" or (depth > 0 and any(_by_gradient(one, depth - 1) for one in value.inputs))
    return isinstance(value, Unknown) and value.name == "grad"


def arithmetic(m: Machine, op: str, one: Value, other: Value, node: cst.CSTNode) -> Value:
    """``one op other``"""
    if isinstance(one, Constant) and isinstance(other, Constant):
        known = _PYTHON.get(op)
        small = all(not isinstance(v.value, (int, str)) or len(str(v.value)) < 20 for v in (one, other))
        if known is not None and small and op != "pow":
            try:
                return Constant(known(one.value, other.value))
            except Exception:  # as the script would fail there, or never come there
                return Unknown()
        return Unknown()
    if isinstance(one, Items) and isinstance(other, Items) and op == "add":
        if one.items is None or other.items is None:
            either = Unknown(via="each", inputs=(*one.all(), *other.all()))
            return Items(one.kind, node, m.at, {"each": either})
        return Items(one.kind, node, m.at, {"items": (*one.items, *other.items)})
    if isinstance(one, Items) and op == "mul":
        each = one.all()[0] if len(one.all()) == 1 else Unknown()
        return Items(one.kind, node, m.at, {"each": each})
    made = mixed(m, op, (one, other), {}, node)
    if op == "div" and isinstance(one, Tensor):
        m.tell(Operated(node, m.at, "Tensor.div", (one, other), {}, made, m.frame.function))
    return made


OPERATORS: dict[type, str] = {
    cst.AddAssign: "add",
    cst.SubtractAssign: "sub",
    cst.MultiplyAssign: "mul",
    cst.DivideAssign: "div",
    cst.FloorDivideAssign: "floordiv",
    cst.MatrixMultiplyAssign: "matmul",
    cst.PowerAssign: "pow",
    cst.ModuloAssign: "mod",
    cst.Add: "add",
    cst.Subtract: "sub",
    cst.Multiply: "mul",
    cst.Divide: "div",
    cst.FloorDivide: "floordiv",
    cst.MatrixMultiply: "matmul",
    cst.Power: "pow",
    cst.Modulo: "mod",
}

_PYTHON: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
}
