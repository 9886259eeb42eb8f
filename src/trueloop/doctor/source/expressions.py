"""Expressions: what each stands for now. Calls are in ``calls.py``."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import libcst as cst

from trueloop.doctor.source.assigning import OPERATORS, arithmetic, assign, keep
from trueloop.doctor.source.attributes import attribute
from trueloop.doctor.source.calls import call
from trueloop.doctor.source.elements import elements, part
from trueloop.doctor.source.loops import loop
from trueloop.doctor.source.machine import End, Machine
from trueloop.doctor.source.results import mixed
from trueloop.doctor.source.statements import SAID, asked
from trueloop.doctor.source.values import (
    NONE,
    Constant,
    Either,
    Function,
    Items,
    Named,
    Scope,
    Unknown,
    Value,
    join,
    truth,
)


def evaluate(m: Machine, node: cst.CSTNode) -> Value:
    """What an expression stands for; what happens on the way is told."""
    m.burn()
    how = _EXPRESSIONS.get(type(node))
    return how(m, node) if how is not None else Unknown()


def _name(m: Machine, node: cst.Name) -> Value:
    return look_up(m.frame.scope, node.value)


_BUILTIN = {"True": Constant(True), "False": Constant(False), "None": NONE}


def look_up(scope: Scope | None, name: str) -> Value:
    """A name in its scope and those around it; a builtin, or unknown if it is nowhere."""
    if name in _BUILTIN:
        return _BUILTIN[name]
    here = scope
    while here is not None:
        if name in here.outer:
            here = here.outer[name]
        if name in here.names:
            return here.names[name]
        here = here.parent
    return Named(f"builtins.{name}") if name in _BUILTINS else Unknown(name)


_BUILTINS = frozenset(dir(builtins))


def _attribute(m: Machine, node: cst.Attribute) -> Value:
    return attribute(m, evaluate(m, node.value), node.attr.value, node)


def _integer(m: Machine, node: cst.Integer | cst.Float | cst.Imaginary) -> Value:
    return Constant(node.evaluated_value)


def _string(m: Machine, node: cst.SimpleString | cst.ConcatenatedString) -> Value:
    return Constant(node.evaluated_value)


def _formatted(m: Machine, node: cst.FormattedString) -> Value:
    shown = [evaluate(m, one.expression) for one in node.parts if isinstance(one, cst.FormattedStringExpression)]
    return Unknown(kind="str", attrs={"shown": tuple(shown)})


def _sequence(m: Machine, node: cst.Tuple | cst.List | cst.Set) -> Value:
    kind = {cst.Tuple: "tuple", cst.List: "list", cst.Set: "set"}[type(node)]
    found: list[Value] = []
    spread: list[Value] = []  # by a star, of a length that is not known
    for one in node.elements:
        value = evaluate(m, one.value)
        if not isinstance(one, cst.StarredElement):
            found.append(value)
        elif isinstance(value, Items) and value.items is not None and value.attrs.get("each") is None:
            found += value.items
        else:
            spread.append(value)
    if spread:
        each = Unknown(via="each", inputs=tuple(spread))
        return Items(kind, node, m.at, {"items": tuple(found), "each": each})
    return Items(kind, node, m.at, {"items": tuple(found)})


def _dict(m: Machine, node: cst.Dict) -> Value:
    pairs: dict[Any, Value] = {}
    known = True
    for one in node.elements:
        if isinstance(one, cst.DictElement):
            key, value = evaluate(m, one.key), evaluate(m, one.value)
            if isinstance(key, Constant) and isinstance(key.value, (str, int, float)):
                pairs[key.value] = value
            else:
                known = False
                pairs[len(pairs), "?"] = value
        elif isinstance(one, cst.StarredDictElement):
            value = evaluate(m, one.value)
            if isinstance(value, Items) and value.pairs is not None:
                pairs |= value.pairs
            else:
                known = False
    if known:
        return Items("dict", node, m.at, {"pairs": pairs})
    return Items("dict", node, m.at, {"items": tuple(pairs.values()), "each": Unknown()})


def _binary(m: Machine, node: cst.BinaryOperation) -> Value:
    one, other = evaluate(m, node.left), evaluate(m, node.right)
    return arithmetic(m, OPERATORS.get(type(node.operator), "op"), one, other, node)


def _unary(m: Machine, node: cst.UnaryOperation) -> Value:
    value = evaluate(m, node.expression)
    if isinstance(node.operator, cst.Not):
        answer = truth(value)
        return Unknown(via="not", inputs=(value,)) if answer is None else Constant(not answer)
    if isinstance(value, Constant) and isinstance(value.value, int) and isinstance(node.operator, cst.BitInvert):
        return Constant(~int(value.value))
    if isinstance(value, Constant) and isinstance(value.value, (int, float)):
        return Constant(-value.value if isinstance(node.operator, cst.Minus) else +value.value)
    return mixed(m, "neg", (value,), {}, node)


def _boolean(m: Machine, node: cst.BooleanOperation) -> Value:
    one = evaluate(m, node.left)
    answer = truth(one)
    is_and = isinstance(node.operator, cst.And)
    if answer is not None:
        return evaluate(m, node.right) if answer is is_and else one
    other = evaluate(m, node.right)
    if truth(other) is (not is_and) and isinstance(other, Constant):
        return other  # `unknown and False` is false, `unknown or True` is true
    if is_and:
        return Unknown(via="and", inputs=(one, other))
    joined: Value = join(one, other)
    return joined


def _comparison(m: Machine, node: cst.Comparison) -> Value:
    one = evaluate(m, node.left)
    values = [evaluate(m, target.comparator) for target in node.comparisons]
    if len(values) == 1:
        answer = _compare(type(node.comparisons[0].operator), one, values[0])
        if answer is not None:
            return Constant(answer)
    made = mixed(m, "compare", (one, *values), {}, node)
    if isinstance(made, Unknown):
        made.attrs[SAID] = m.frame.unit.text(node)
    return made


def _compare(how: type, one: Value, other: Value) -> bool | None:
    if how in (cst.Is, cst.IsNot) and isinstance(other, Constant) and other.value is None:
        if isinstance(one, (Unknown, Either)):
            return None
        return (isinstance(one, Constant) and one.value is None) is (how is cst.Is)
    if how in (cst.In, cst.NotIn) and isinstance(one, Constant) and isinstance(other, Items):
        known = other.items if other.pairs is None else tuple(Constant(key) for key in other.pairs)
        if known is None or other.attrs.get("each") is not None or not all(isinstance(o, Constant) for o in known):
            return None
        return (one.value in [o.value for o in known if isinstance(o, Constant)]) is (how is cst.In)
    if not isinstance(one, Constant) or not isinstance(other, Constant):
        return None
    a, b = one.value, other.value
    try:
        if how is cst.Equal:
            return bool(a == b)
        if how is cst.NotEqual:
            return bool(a != b)
        if how is cst.LessThan:
            return bool(a < b)
        if how is cst.GreaterThan:
            return bool(a > b)
        if how is cst.LessThanEqual:
            return bool(a <= b)
        if how is cst.GreaterThanEqual:
            return bool(a >= b)
    except TypeError:
        return None
    return None


def _conditional(m: Machine, node: cst.IfExp) -> Value:
    answer = truth(evaluate(m, node.test))
    if answer is not None:
        return evaluate(m, node.body if answer else node.orelse)
    found: list[Value] = []

    def arm(which: cst.BaseExpression) -> Callable[[], End]:
        def run() -> End:
            found.append(evaluate(m, which))
            return None

        return run

    key, turned = asked(m, node.test)
    arms = [arm(node.body), arm(node.orelse)]
    m.part(key, arms[::-1] if turned else arms)
    joined: Value = join(found[0], found[1])
    return joined


def _lambda(m: Machine, node: cst.Lambda) -> Value:
    defaults = {one.name.value: evaluate(m, one.default) for one in node.params.params if one.default is not None}
    return Function("lambda", node, m.frame.scope, m.frame.unit, defaults=defaults)


def _subscript(m: Machine, node: cst.Subscript) -> Value:
    value = evaluate(m, node.value)
    keys: list[Value] = []
    for one in node.slice:
        if isinstance(one.slice, cst.Index):
            keys.append(evaluate(m, one.slice.value))
        elif isinstance(one.slice, cst.Slice):
            bounds = (one.slice.lower, one.slice.upper, one.slice.step)
            known = tuple(NONE if bound is None else evaluate(m, bound) for bound in bounds)
            keys.append(Unknown(via="slice", attrs={"bounds": known}))
    key = keys[0] if len(keys) == 1 else Items("tuple", node, m.at, {"items": tuple(keys)})
    return part(m, value, key, node)


def _comprehension(m: Machine, node: cst.ListComp | cst.SetComp | cst.GeneratorExp) -> Value:
    kind = {cst.ListComp: "list", cst.SetComp: "set", cst.GeneratorExp: "generator"}[type(node)]
    made = Items(kind, node, m.at, {"items": ()})
    once = _through(m, node, node.for_in, lambda: keep(m, made, evaluate(m, node.elt)))
    if once and made.attrs.get("each") is not None:  # one for each, of a length that is not known
        each = made.items[-1] if made.items else Unknown()
        return Items(kind, node, m.at, {"each": each})
    return Items(kind, node, m.at, {"items": made.items or ()})


def _dict_comprehension(m: Machine, node: cst.DictComp) -> Value:
    made = Items("dict", node, m.at, {"items": ()})
    keys: list[Value] = []

    def one() -> None:
        keys.append(evaluate(m, node.key))
        keep(m, made, evaluate(m, node.value))

    open_end = _through(m, node, node.for_in, one) or node.for_in.inner_for_in is not None
    names = [key.value for key in keys if isinstance(key, Constant) and isinstance(key.value, (str, int, float))]
    found = made.items or ()
    if not open_end and len(set(names)) == len(keys) == len(found):
        return Items("dict", node, m.at, {"pairs": dict(zip(names, found, strict=True))})
    return Items("dict", node, m.at, {"each": found[-1] if found else Unknown()})


def _through(m: Machine, node: cst.CSTNode, clause: cst.CompFor, body: Callable[[], None]) -> bool:
    """Goes through a comprehension's clauses as through loops; whether the length is not known."""
    over = evaluate(m, clause.iter)
    turns = elements(m, over, clause.iter)
    known = isinstance(over, Items) and over.attrs.get("each") is None and len(turns) == len(over.all())

    def bind(value: Value) -> Callable[[], None]:
        return lambda: assign(m, clause.target, value)

    def inside() -> End:
        answers = [truth(evaluate(m, condition.test)) for condition in clause.ifs]
        if False in answers:
            return None
        if clause.inner_for_in is not None:
            _through(m, node, clause.inner_for_in, body)
        else:
            body()
        return None

    if turns:
        loop(m, clause, over, [bind(value) for value in turns], inside)
    if not known:
        return True
    return bool(clause.ifs)


def _walrus(m: Machine, node: cst.NamedExpr) -> Value:
    value = evaluate(m, node.value)
    assign(m, node.target, value)
    return value


def _await(m: Machine, node: cst.Await) -> Value:
    return evaluate(m, node.expression)


def _yield(m: Machine, node: cst.Yield) -> Value:
    if m.frame.yielded is None:
        m.frame.yielded = []
    if isinstance(node.value, cst.From):
        value = evaluate(m, node.value.item)
        m.frame.yielded += elements(m, value, node)[:1]
    elif node.value is not None:
        m.frame.yielded.append(evaluate(m, node.value))
    if m.frame.body is not None:
        m.frame.body(m.frame.yielded[-1] if m.frame.yielded else NONE)
    return Unknown()


def _call(m: Machine, node: cst.Call) -> Value:
    return call(m, node)


_EXPRESSIONS: dict[type, Callable[[Machine, Any], Value]] = {
    cst.Name: _name,
    cst.Attribute: _attribute,
    cst.Integer: _integer,
    cst.Float: _integer,
    cst.Imaginary: _integer,
    cst.SimpleString: _string,
    cst.ConcatenatedString: _string,
    cst.FormattedString: _formatted,
    cst.Tuple: _sequence,
    cst.List: _sequence,
    cst.Set: _sequence,
    cst.Dict: _dict,
    cst.BinaryOperation: _binary,
    cst.UnaryOperation: _unary,
    cst.BooleanOperation: _boolean,
    cst.Comparison: _comparison,
    cst.IfExp: _conditional,
    cst.Lambda: _lambda,
    cst.Subscript: _subscript,
    cst.ListComp: _comprehension,
    cst.SetComp: _comprehension,
    cst.GeneratorExp: _comprehension,
    cst.DictComp: _dict_comprehension,
    cst.NamedExpr: _walrus,
    cst.Await: _await,
    cst.Yield: _yield,
    cst.Call: _call,
}
