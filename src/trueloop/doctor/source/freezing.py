"""Which layers a loop over parameters freezes: all, those whose names it asks for, or it is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import libcst as cst

from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import is_module, owner
from trueloop.doctor.source.values import Branch, Items, Object, Unknown, Value


def freeze(m: Machine, of: Value, frozen: bool | None) -> None:
    """``parameter.requires_grad = not frozen``, of a parameter that stands for several."""
    whole = owner(of)
    if whole is None:
        return
    asks = _asks(m, of)
    for path, one in _named(whole, "", set()):
        answers = {None} if asks is None else {asks(f"{path}{name}") for name in ("weight", "bias")}
        if answers != {False}:
            m.write(one.attrs, "frozen", True if frozen and answers == {True} else None)


def _asks(m: Machine, of: Value) -> Callable[[str], bool] | None:
    """What the loop asks of a parameter's name; None if it does not go over all of a module's, or asks for more."""
    loop = m.loops[-1].node if m.loops else None
    over = loop.iter if isinstance(loop, cst.For) else None
    method = over.func.attr.value if isinstance(over, cst.Call) and isinstance(over.func, cst.Attribute) else ""
    each = of.of if isinstance(of, Unknown) and of.via == "each" else of
    whole = isinstance(each, Unknown) and each.via == "parameters" and is_module(each.of)
    if not isinstance(loop, cst.For) or not whole or method not in ("parameters", "named_parameters"):
        return None
    conditions = m.branches[len(m.ways[-1].conditions) :] if m.ways else ()
    if not conditions:
        return lambda name: True
    target = loop.target.elements[0].value if isinstance(loop.target, cst.Tuple) else None
    asked = target.value if isinstance(target, cst.Name) and len(conditions) == 1 else ""
    return _by_name(conditions[0], asked) if asked else None


def _by_name(condition: Branch, asked: str) -> Callable[[str], bool] | None:
    """``name.startswith("encoder")`` or ``"fc" in name``, and whether that is to be so."""
    try:
        test = cst.parse_expression(condition.key)
    except cst.ParserSyntaxError:
        return None
    wanted = condition.arm == 0
    if isinstance(test, cst.Call) and isinstance(test.func, cst.Attribute) and len(test.args) == 1:
        start, of = _text(test.args[0].value), test.func.value
        if start and test.func.attr.value == "startswith" and isinstance(of, cst.Name) and of.value == asked:
            return lambda name: name.startswith(start) is wanted
    if isinstance(test, cst.Comparison) and len(test.comparisons) == 1:
        piece, other = _text(test.left), test.comparisons[0]
        said = isinstance(other.comparator, cst.Name) and other.comparator.value == asked
        if piece and said and isinstance(other.operator, cst.In):
            return lambda name: (piece in name) is wanted
    return None


def _text(node: cst.BaseExpression) -> str:
    value = node.evaluated_value if isinstance(node, cst.SimpleString) else ""
    return value if isinstance(value, str) else ""


def _named(module: Value, path: str, seen: set[int]) -> Iterator[tuple[str, Object]]:
    """A module and all that it holds, each with its name from above, as ``named_modules`` has it."""
    if id(module) in seen or not isinstance(module, Object) or not is_module(module):
        return
    seen.add(id(module))
    yield path, module
    for name, value in list(module.attrs.items()):
        if isinstance(value, Object):
            yield from _named(value, f"{path}{name}.", seen)
        elif isinstance(value, Items) and name == "children":
            for number, one in enumerate(value.all()):
                yield from _named(one, f"{path}{number}.", seen)
