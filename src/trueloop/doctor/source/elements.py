"""What comes out of a thing when it is gone through: the turns of a loop, the parts of a tuple."""

from __future__ import annotations

import libcst as cst

from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.values import (
    Constant,
    Either,
    Items,
    Object,
    Tensor,
    Unknown,
    Value,
)

TURNS = 2  # through each loop: the second shows what comes after what across them
UNROLLED = 4  # a list of so many known things is gone through one by one


def elements(m: Machine, over: Value, node: cst.CSTNode) -> list[Value]:
    """The values that a loop's turns see: each one of a short known list, else two that stand for all.

    Args:
        m: the machine.
        over: what is gone through.
        node: where that is written.
    """
    if isinstance(over, Items):
        if over.pairs is not None:
            keys: list[Value] = [Constant(key) for key in over.pairs]
            return keys if len(keys) <= UNROLLED else keys[:TURNS]
        if over.items is not None and over.attrs.get("each") is None:
            return list(over.items) if len(over.items) <= UNROLLED else list(over.items[:TURNS])
    if isinstance(over, Constant) and isinstance(over.value, (str, tuple, range)) and len(over.value) == 0:
        return []
    return [element(m, over, node) for _ in range(TURNS)]


def element(m: Machine, over: Value, node: cst.CSTNode) -> Value:
    """One value that stands for what comes out of a thing."""
    if isinstance(over, Items):
        each = over.attrs.get("each")
        if each is not None and not over.items:
            return anew(m, each, node)
        everything = over.all()
        if everything and len({id(one.node) if isinstance(one, Object) else id(one) for one in everything}) == 1:
            return everything[-1]  # all were made at the same place
        return Unknown(of=over, via="each", inputs=everything)
    if isinstance(over, Tensor):
        op = "fetched" if over.op == "iterator" else "getitem"
        options: dict[str, Value] = {"iterator": over} if op == "fetched" else {}
        return Tensor(op, (over.inputs[0] if op == "fetched" else over,), options, over.graph, node, m.at)
    if isinstance(over, Object) and over.kind.startswith("torch.utils.data."):
        return Tensor("fetched", (over,), {}, False, node, m.at)
    if isinstance(over, Either):
        return Unknown(of=over, via="each", inputs=over.options)
    return Unknown(of=over, via="each")


def anew(m: Machine, value: Value, node: cst.CSTNode) -> Value:
    """The same kind of thing once more: a batch that a later turn fetches is not the batch before."""
    if isinstance(value, Tensor) and value.op == "fetched":
        return Tensor("fetched", value.inputs, {}, False, node, m.at)
    if isinstance(value, Items) and value.items is not None:
        return Items(value.kind, value.node, m.at, {"items": tuple(anew(m, one, node) for one in value.items)})
    return value


def parts(m: Machine, value: Value, count: int, node: cst.CSTNode) -> list[Value]:
    """A value taken apart into so many."""
    if isinstance(value, Items) and value.items is not None and len(value.items) == count:
        return list(value.items)
    return [part(m, value, Constant(number), node) for number in range(count)]


def part(m: Machine, value: Value, key: Value, node: cst.CSTNode) -> Value:
    """``value[key]``"""
    at = key.value if isinstance(key, Constant) else None
    if isinstance(value, Items):
        if value.pairs is not None and isinstance(at, (str, int, bool, float)) and at in value.pairs:
            return value.pairs[at]
        factory = value.attrs.get("factory")
        if factory is not None and value.pairs is not None and isinstance(at, str):
            made = m.invoke(m, factory, (), {}, node)
            if isinstance(made, Items):
                made = Items(made.kind, node, value.at, made.attrs)  # it lives as long as the dict does
            m.write(value.attrs, "pairs", {**value.pairs, at: made})
            return made
        known = value.items
        if (
            known is not None
            and value.attrs.get("each") is None
            and isinstance(at, int)
            and -len(known) <= at < len(known)
        ):
            return known[at]
        each = value.attrs.get("each")
        if isinstance(each, Object) and value.kind == "dict" and each.kind.startswith("torch.utils.data."):
            one = value.attrs.get(("[]", at)) if at is not None else None
            if one is None:  # the loader of one key is not that of another
                one = value.attrs[("[]", at)] = Unknown(of=value, via="[]")
            return one if isinstance(one, Value) else Unknown()
        if each is not None and not known:
            return value if isinstance(key, Unknown) and key.via == "slice" else anew(m, each, node)
        return Unknown(of=value, via="[]", inputs=value.all())
    if isinstance(value, Tensor):
        options = {"key": key}
        return Tensor("getitem", (value,), options, value.graph, node, m.at)
    if isinstance(value, Object):
        children = value.attrs.get("children")
        if isinstance(children, Items) and children.items is not None and isinstance(at, int):
            known = children.items
            return known[at] if -len(known) <= at < len(known) else Unknown(of=value, via="[]")
        if value.kind.startswith("torch.utils.data."):
            return Tensor("fetched", (value,), {"key": key}, False, node, m.at)
    if isinstance(value, Constant) and isinstance(value.value, (str, tuple)) and isinstance(at, int):
        try:
            return Constant(value.value[at])
        except IndexError:
            return Unknown()
    if isinstance(value, Either):
        return Unknown(of=value, via="[]", inputs=value.options)
    if isinstance(value, Unknown) and isinstance(at, (str, int)):
        known_part = value.attrs.get(("[]", at))
        if known_part is None:
            known_part = value.attrs[("[]", at)] = Unknown(str(at), value, "[]")
        return known_part
    return Unknown(of=value, via="[]", attrs={("key",): key})
