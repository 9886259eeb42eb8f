"""Statements, in the order in which they would run: both ways of a condition, twice through a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import libcst as cst
from libcst.helpers import get_full_name_for_node

from trueloop.doctor.source.assigning import assign, combine
from trueloop.doctor.source.elements import elements
from trueloop.doctor.source.events import Iterated, Operated
from trueloop.doctor.source.imports import import_from, import_names
from trueloop.doctor.source.machine import MISSING, End, Machine, Way
from trueloop.doctor.source.units import statements_of
from trueloop.doctor.source.values import (
    Class,
    Constant,
    Function,
    Named,
    Object,
    Scope,
    Turn,
    Unknown,
    Value,
    truth,
)

TURNS = 2  # through each loop: the second shows what comes after what across them


def perform(m: Machine, statements: Sequence[cst.CSTNode]) -> End:
    """Runs statements until one ends the piece."""
    for statement in statements:
        m.burn()
        if isinstance(statement, cst.SimpleStatementLine):
            for small in statement.body:
                end = _STATEMENTS[type(small)](m, small)
                if end is not None:
                    return end
        else:
            end = _STATEMENTS[type(statement)](m, statement)
            if end is not None:
                return end
    return None


def _body(m: Machine, block: cst.BaseSuite) -> End:
    return perform(m, statements_of(block))


def _expression(m: Machine, node: cst.Expr) -> End:
    value = m.evaluate(m, node.value)
    if isinstance(value, Object) and value.cls == "torch.set_grad_enabled":
        m.write(m.state, "grad", gradients(value))  # as a statement it holds from here on
    return None


def _assign(m: Machine, node: cst.Assign) -> End:
    value = m.evaluate(m, node.value)
    for target in node.targets:
        assign(m, target.target, value)
    return None


def _annotated(m: Machine, node: cst.AnnAssign) -> End:
    if node.value is not None:
        assign(m, node.target, m.evaluate(m, node.value))
    return None


def _augmented(m: Machine, node: cst.AugAssign) -> End:
    combine(m, node)
    return None


def _return(m: Machine, node: cst.Return) -> End:
    m.frame.returned.append(m.evaluate(m, node.value) if node.value is not None else Constant(None))
    m.frame.exits.append(m.written(m.frame.mark))
    return "return"


def _break(m: Machine, node: cst.Break) -> End:
    if m.ways:
        m.ways[-1].breaks.append(m.written(m.ways[-1].mark))
    return "break"


def _continue(m: Machine, node: cst.Continue) -> End:
    if m.ways:
        m.ways[-1].continues.append(m.written(m.ways[-1].turn_mark))
    return "continue"


def _raise(m: Machine, node: cst.Raise) -> End:
    if node.exc is not None:
        m.evaluate(m, node.exc)
    return "raise"


def _nothing(m: Machine, node: cst.CSTNode) -> End:
    return None


def _assert(m: Machine, node: cst.Assert) -> End:
    m.evaluate(m, node.test)
    return None


def _global(m: Machine, node: cst.Global) -> End:
    top = m.frame.scope
    while top.parent is not None:
        top = top.parent
    for name in node.names:
        m.frame.scope.outer[name.name.value] = top
    return None


def _nonlocal(m: Machine, node: cst.Nonlocal) -> End:
    for name in node.names:
        scope = m.frame.scope.parent
        while scope is not None and name.name.value not in scope.names:
            scope = scope.parent
        if scope is not None:
            m.frame.scope.outer[name.name.value] = scope
    return None


def _import(m: Machine, node: cst.Import) -> End:
    import_names(m, node)
    return None


def _import_from(m: Machine, node: cst.ImportFrom) -> End:
    import_from(m, node)
    return None


def _if(m: Machine, node: cst.If) -> End:
    answer = truth(m.evaluate(m, node.test))
    otherwise = node.orelse

    def yes() -> End:
        return _body(m, node.body)

    def no() -> End:
        if isinstance(otherwise, cst.If):
            return _if(m, otherwise)
        return _body(m, otherwise.body) if otherwise is not None else None

    if answer is not None:
        return yes() if answer else no()
    key, turned = asked(m, node.test)
    return m.part(key, (no, yes) if turned else (yes, no))


def asked(m: Machine, test: cst.BaseExpression) -> tuple[str, bool]:
    """A condition's text without its ``not``, and whether it is turned round by one."""
    turned = False
    while isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
        test, turned = test.expression, not turned
    if isinstance(test, cst.Comparison) and len(test.comparisons) == 1:
        operator = test.comparisons[0].operator
        if isinstance(operator, (cst.NotEqual, cst.IsNot, cst.NotIn)):
            right = m.frame.unit.text(test.comparisons[0].comparator)
            word = {cst.NotEqual: "==", cst.IsNot: "is", cst.NotIn: "in"}[type(operator)]
            return f"{m.frame.unit.text(test.left)} {word} {right}", not turned
    return m.frame.unit.text(test), turned


def _for(m: Machine, node: cst.For) -> End:
    over = m.evaluate(m, node.iter)
    turns = elements(m, over, node.iter)
    if not turns:
        return _body(m, node.orelse.body) if node.orelse is not None else None
    binds: list[Callable[[], None]] = []
    for element in turns:

        def bind(element: Value = element) -> None:
            assign(m, node.target, element)

        binds.append(bind)
    end = loop(m, node, over, binds, lambda: _body(m, node.body))
    if end is None and node.orelse is not None:
        return _body(m, node.orelse.body)
    return end


def _while(m: Machine, node: cst.While) -> End:
    answer = truth(m.evaluate(m, node.test))
    if answer is False:
        return None

    def bind() -> None:
        m.evaluate(m, node.test)

    end = loop(m, node, None, [bind] * TURNS, lambda: _body(m, node.body))
    if end is None and node.orelse is not None:
        return _body(m, node.orelse.body)
    return end


def loop(
    m: Machine, node: cst.CSTNode, over: Value | None, binds: Sequence[Callable[[], None]], body: Callable[[], End]
) -> End:
    """Runs a loop's turns, and joins the states that ``continue`` and ``break`` lead out with."""
    around, conditions = m.loops, m.branches
    m.loop_number += 1
    m.tell(Iterated(node, m.at, over, m.loop_number))
    number = m.loop_number
    way = Way(len(m.trail), len(m.trail))
    m.ways.append(way)
    end: End = None
    for turn, bind in enumerate(binds):
        m.burn()
        m.loops = (*around, Turn(number, node, turn))
        m.branches = conditions
        way.turn_mark, way.continues = len(m.trail), []
        bind()
        end = body()
        m.meet(way.turn_mark, way.continues, here=end in (None, "continue"))
        if end in ("break", "return", "raise"):
            break
    m.ways.pop()
    m.loops, m.branches = around, conditions
    m.meet(way.mark, way.breaks, here=end != "break")
    # what ends in the first turn on every path ends the function; a later turn's end only shows that one may come
    return end if end in ("return", "raise") and not way.breaks else None


def _with(m: Machine, node: cst.With) -> End:
    before = m.state["grad"]
    changed = False
    entered: list[Unknown] = []
    for item in node.items:
        value = m.evaluate(m, item.item)
        if isinstance(value, Unknown) and value.name == "detect_anomaly":
            entered.append(value)
        if item.asname is not None:
            assign(m, item.asname.name, _entered(value))
        grad = gradients(value)
        if grad is not MISSING:
            m.write(m.state, "grad", grad)
            changed = True
    end = _body(m, node.body)
    for value in entered:
        name = f"{value.name}.__exit__"
        m.tell(Operated(node, m.at, name, (value,), {}, value, m.frame.function))
    if changed:
        m.write(m.state, "grad", before)
    return end


def _entered(value: Value) -> Value:
    """What ``with … as`` gives: for most, the thing itself."""
    return value if isinstance(value, Object) and isinstance(value.cls, str) else Unknown(of=value, via="with")


def gradients(value: Value) -> Any:
    """What a context or decorator makes of grad mode: True, False, None if not known; MISSING if nothing."""
    name = value.kind if isinstance(value, Object) else value.name if isinstance(value, Named) else ""
    if name in ("torch.no_grad", "torch.inference_mode"):
        mode = value.option("mode", 0) if isinstance(value, Object) and name.endswith("inference_mode") else None
        return False if mode is None else (None if truth(mode) is None else not truth(mode))
    if name == "torch.enable_grad":
        return True
    if name == "torch.set_grad_enabled" and isinstance(value, Object):
        mode = value.option("mode", 0)
        return None if mode is None else truth(mode)
    return MISSING


def _try(m: Machine, node: cst.Try | cst.TryStar) -> End:
    mark = len(m.trail)
    end = _body(m, node.body)
    body_end = end
    if end is None and isinstance(node, cst.Try) and node.orelse is not None:
        end = _body(m, node.orelse.body)
    if node.handlers:
        unit = m.frame.unit

        def through() -> End:
            return end if body_end != "raise" else "raise"

        def handler(one: cst.ExceptHandler | cst.ExceptStarHandler) -> Callable[[], End]:
            def run() -> End:
                if one.name is not None:
                    assign(m, one.name.name, Unknown())
                return _body(m, one.body)

            return run

        arms = [through, *(handler(one) for one in node.handlers)]
        end = m.part(f"try {id(node)} {unit.path} {mark}", arms)
    if node.finalbody is not None:
        last = _body(m, node.finalbody.body)
        end = last or end
    return end


def _match(m: Machine, node: cst.Match) -> End:
    m.evaluate(m, node.subject)

    def arm(case: cst.MatchCase) -> Callable[[], End]:
        def run() -> End:
            for name in _captured(case.pattern):
                m.write(m.frame.scope.names, name, Unknown(name))
            return _body(m, case.body)

        return run

    return m.part(f"match {m.frame.unit.text(node.subject)}", [*(arm(case) for case in node.cases), lambda: None])


def _captured(pattern: cst.CSTNode) -> list[str]:
    found = []
    if isinstance(pattern, (cst.MatchAs, cst.MatchStar)) and pattern.name is not None:
        found.append(pattern.name.value)
    for child in pattern.children:
        found += _captured(child)
    return found


def _delete(m: Machine, node: cst.Del) -> End:
    return None


def _function(m: Machine, node: cst.FunctionDef) -> End:
    function = define(m, node, None)
    m.functions.append(function)
    value: Value = function
    m.write(m.frame.scope.names, node.name.value, value)
    return None


def define(m: Machine, node: cst.FunctionDef, owner: Class | None) -> Function:
    """A function's value: its defaults are evaluated here, and its decorators are read."""
    decorators = []
    grad: bool | None = None
    for decorator in node.decorators:
        said = decorator.decorator
        named = get_full_name_for_node(said) or ""
        decorators.append(named)
        if named.rpartition(".")[2] in ("no_grad", "inference_mode", "enable_grad", "set_grad_enabled"):
            found = gradients(m.evaluate(m, said))
            grad = found if found is not MISSING else None
    defaults = {
        one.name.value: m.evaluate(m, one.default)
        for one in (*node.params.posonly_params, *node.params.params, *node.params.kwonly_params)
        if one.default is not None
    }
    return Function(
        node.name.value,
        node,
        m.frame.scope,
        m.frame.unit,
        owner,
        defaults,
        tuple(decorators),
        grad,
    )


def _class(m: Machine, node: cst.ClassDef) -> End:
    bases = tuple(m.evaluate(m, base.value) for base in node.bases)
    names: dict[Any, Value] = {}
    made = Class(node.name.value, node, bases, names, m.frame.unit)
    outside = m.frame.scope
    m.frame.scope = Scope(names, outside)
    try:
        if isinstance(node.body, cst.IndentedBlock):
            for statement in node.body.body:
                if isinstance(statement, cst.FunctionDef):
                    m.frame.scope = outside  # a method does not see its class's names
                    names[statement.name.value] = define(m, statement, made)
                    m.frame.scope = Scope(names, outside)
                else:
                    perform(m, (statement,))
    finally:
        m.frame.scope = outside
    m.classes.append(made)
    m.write(m.frame.scope.names, node.name.value, made)
    return None


_STATEMENTS: dict[type, Callable[[Machine, Any], End]] = {
    cst.Expr: _expression,
    cst.Assign: _assign,
    cst.AnnAssign: _annotated,
    cst.AugAssign: _augmented,
    cst.Return: _return,
    cst.Break: _break,
    cst.Continue: _continue,
    cst.Raise: _raise,
    cst.Pass: _nothing,
    cst.Assert: _assert,
    cst.Del: _delete,
    cst.Global: _global,
    cst.Nonlocal: _nonlocal,
    cst.Import: _import,
    cst.ImportFrom: _import_from,
    cst.If: _if,
    cst.For: _for,
    cst.While: _while,
    cst.With: _with,
    cst.Try: _try,
    cst.TryStar: _try,
    cst.Match: _match,
    cst.FunctionDef: _function,
    cst.ClassDef: _class,
    cst.TypeAlias: _nothing,
}
