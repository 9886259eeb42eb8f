"""Statements, in the order in which they would run: both ways of a condition, twice through a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import libcst as cst
from libcst.helpers import get_full_name_for_node

from trueloop.doctor.source.assigning import assign, combine
from trueloop.doctor.source.elements import elements
from trueloop.doctor.source.events import Iterated, Kept, Operated
from trueloop.doctor.source.imports import import_from, import_names
from trueloop.doctor.source.machine import MISSING, End, Machine, Way
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.units import statements_of
from trueloop.doctor.source.values import (
    Bound,
    Class,
    Constant,
    Function,
    Items,
    Method,
    Named,
    Object,
    Scope,
    Tensor,
    Turn,
    Unknown,
    Value,
    options,
    truth,
)

SAID = ("said",)
"""Under this key what is not known keeps the comparison that it came from."""

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
    before = _added_to(m, node)
    value = m.evaluate(m, node.value)
    inputs = value.inputs if isinstance(value, (Tensor, Unknown)) else ()
    if before is not None and len(inputs) == 2 and not m.inside:
        added = inputs[0] if inputs[1] is before else inputs[1]
        m.tell(Kept(node, m.at, "=+", before, added, value))
    for target in node.targets:
        assign(m, target.target, value)
    return None


def _added_to(m: Machine, node: cst.Assign) -> Value | None:
    """What a name stands for in ``name = name + …``, which is ``name += …``; None for all other assignments."""
    sum_of = node.value
    if not isinstance(sum_of, cst.BinaryOperation) or not isinstance(sum_of.operator, cst.Add):
        return None
    target = node.targets[0].target
    for side in (sum_of.left, sum_of.right):
        if len(node.targets) == 1 and isinstance(target, (cst.Name, cst.Attribute)) and target.deep_equals(side):
            return m.evaluate(m, side)
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
    return _behind(m, test) or m.frame.unit.text(test), turned


def _behind(m: Machine, test: cst.BaseExpression) -> str:
    """The comparison that a condition's names stand for: ``is_last or done`` by what was asked for each."""
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.Or):
        sides = [_behind(m, side) for side in (test.left, test.right)]
        texts = [side or m.frame.unit.text(one) for side, one in zip(sides, (test.left, test.right), strict=True)]
        return " or ".join(texts) if any(sides) else ""
    if not isinstance(test, cst.Name):
        return ""
    said = [one.attrs.get(SAID) for one in options(m.evaluate(m, test)) if isinstance(one, Unknown)]
    return " or ".join(str(one) for one in said) if said and all(said) else ""


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
    way = Way(len(m.trail), len(m.trail), conditions)
    m.ways.append(way)
    exact = isinstance(over, Items) and over.attrs.get("each") is None and len(binds) == len(over.all())
    end: End = None
    for turn, bind in enumerate(binds):
        m.burn()
        m.loops = (*around, Turn(number, node, turn))
        m.branches = conditions
        if turn and not exact:
            _uncount(m, way.turn_mark)
        way.turn_mark, way.continues = len(m.trail), []
        bind()
        end = body()
        m.meet(way.turn_mark, way.continues, here=end in (None, "continue"))
        if end in ("break", "return", "raise"):
            break
    m.ways.pop()
    m.loops, m.branches = around, conditions
    m.meet(way.mark, way.breaks, here=end != "break")
    if not exact:
        _uncount(m, way.mark)
    # what ends in the first turn on every path ends the function; a later turn's end only shows that one may come
    return end if end in ("return", "raise") and not way.breaks else None


def _uncount(m: Machine, mark: int) -> None:
    """A number that was changed since a mark is another one in each turn: which one is not known."""
    before: dict[tuple[int, Any], tuple[dict[Any, Any], Any, Any]] = {}
    for where, key, old in m.trail[mark:]:
        before.setdefault((id(where), key), (where, key, old))
    for where, key, old in before.values():
        was, now = _number(old), _number(where.get(key))
        if was is not None and now is not None and was != now:
            m.write(where, key, Unknown(str(key), kind="int"))


def _number(value: Any) -> float | None:
    known = value.value if isinstance(value, Constant) else None
    return known if isinstance(known, (int, float)) and not isinstance(known, bool) else None


def through(m: Machine, node: cst.CSTNode, over: Value, step: Callable[[Value], object]) -> None:
    """Goes through a thing as a library's loop does, with two of its elements."""
    now: list[Value] = []

    def bind(element: Value) -> Callable[[], None]:
        return lambda: now.append(element)

    def turn() -> End:
        step(now[-1])
        return None

    loop(m, node, over, [bind(element) for element in elements(m, over, node)[:TURNS]], turn)


def _with(m: Machine, node: cst.With) -> End:
    return _within(m, node, 0)


def _within(m: Machine, node: cst.With, number: int) -> End:
    """Enters one item of ``with`` after the other, then runs the body, and leaves them."""
    if number == len(node.items):
        return _body(m, node.body)
    item = node.items[number]
    before = m.state["grad"]
    also = _on_every_way_out(m)
    ends: list[End] = []
    mark = len(m.trail)

    def inside() -> None:
        nonlocal mark
        ends.append(_within(m, node, number + 1))
        mark = len(m.trail)

    m.bodies[id(item.item)] = _as_body(m, item, inside)
    value = m.evaluate(m, item.item)
    m.bodies.pop(id(item.item), None)
    if ends:  # the body ran where the user's generator yields
        also(mark)
        return ends[0] if len(set(ends)) == 1 else None
    found = value.cls.find("__enter__") if isinstance(value, Object) and isinstance(value.cls, Class) else None
    entered = m.invoke(m, Bound(found, value), (), {}, item.item) if isinstance(found, Function) else _entered(value)
    if item.asname is not None:
        assign(m, item.asname.name, entered)
    grad = gradients(value)
    if grad is not MISSING:
        m.write(m.state, "grad", grad)
    for given in value.inputs if isinstance(value, Unknown) and value.via == "call" else ():
        for one in parts(given):  # `with evaluating(model)`: which mode it is in now is not known
            m.write(one.attrs, "training", None)
    inside()
    leave = value.cls.find("__exit__") if isinstance(value, Object) and isinstance(value.cls, Class) else None
    if isinstance(leave, Function):
        m.invoke(m, Bound(leave, value), (Constant(None),) * 3, {}, item.item)
    if isinstance(value, Unknown) and value.name == "detect_anomaly":
        m.tell(Operated(node, m.at, f"{value.name}.__exit__", (value,), {}, value, m.frame.function))
    if grad is not MISSING:
        m.write(m.state, "grad", before)
    also(mark)
    return ends[0]


def _as_body(m: Machine, item: cst.WithItem, inside: Callable[[], None]) -> Callable[[Value], None]:
    """The body of ``with`` as a function that its generator calls, in the frame in which it stands."""
    depth, around = len(m.frames), (m.calls, m.ways, m.loops)

    def run(value: Value) -> None:
        frames, there = m.frames[depth:], (m.calls, m.ways, m.loops)
        del m.frames[depth:]
        m.calls, m.ways, m.loops = around
        if item.asname is not None:
            assign(m, item.asname.name, value)
        inside()
        m.frames += frames
        m.calls, m.ways, m.loops = there

    return run


def _on_every_way_out(m: Machine) -> Callable[[int], None]:
    """Has what is done after a mark be done as well where ``return``, ``break`` or ``continue`` leave from here on."""
    outs = [m.frame.exits, *((m.ways[-1].breaks, m.ways[-1].continues) if m.ways else ())]
    known = [len(out) for out in outs]

    def also(mark: int) -> None:
        done = m.written(mark)
        for out, count in zip(outs, known, strict=True):
            for exit in out[count:]:
                exit.update(done)

    return also


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
    also = _on_every_way_out(m)
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
        before = len(m.trail)
        last = _body(m, node.finalbody.body)
        also(before)
        end = last or end
    return end


def _match(m: Machine, node: cst.Match) -> End:
    subject = m.evaluate(m, node.subject)

    def arm(case: cst.MatchCase) -> Callable[[], End]:
        def run() -> End:
            whole = isinstance(case.pattern, cst.MatchAs) and case.pattern.pattern is None
            for name in _captured(case.pattern):
                m.write(m.frame.scope.names, name, subject if whole else Unknown(name))
            return _body(m, case.body)

        return run

    arms: list[Callable[[], End]] = []
    for case in node.cases:
        answer = _fits(m, case.pattern, subject)
        if answer is not False:
            arms.append(arm(case))
        if answer is True and case.guard is None:
            break
    else:
        arms.append(lambda: None)
    return arms[0]() if len(arms) == 1 else m.part(f"match {m.frame.unit.text(node.subject)}", arms)


def _fits(m: Machine, pattern: cst.MatchPattern, subject: Value) -> bool | None:
    """Whether a value is one of a pattern's; None if that is not known."""
    if isinstance(pattern, cst.MatchAs) and pattern.pattern is None:
        return True
    if isinstance(pattern, cst.MatchOr):
        answers = {_fits(m, one.pattern, subject) for one in pattern.patterns}
        return True if True in answers else None if None in answers else False
    if not isinstance(pattern, cst.MatchValue) or not isinstance(subject, Constant):
        return None
    value = m.evaluate(m, pattern.value)
    return subject.value == value.value if isinstance(value, Constant) else None


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
    for decorator in node.decorators:
        said = decorator.decorator
        if isinstance(said, cst.Call) and isinstance(said.func, cst.Attribute) and said.func.attr.value == "on":
            of = m.evaluate(m, said.func.value)  # `@trainer.on(event)`: an ignite engine will call it
            if isinstance(of, Object):
                m.invoke(m, Method(of, "add_event_handler"), (Unknown("event"), function), {}, node)
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
    scope, unit = m.frame.scope, m.frame.unit
    made = Function(node.name.value, node, scope, unit, owner, defaults, tuple(decorators), grad)
    around = made
    for decorator in reversed(node.decorators):
        around = _decorated(m, decorator.decorator, around)
    return made if around is made else replace(made, around=around)


def _decorated(m: Machine, said: cst.BaseExpression, function: Function) -> Function:
    """What a decorator of the user's makes of a function; the function itself for those of libraries."""
    maker = said.func if isinstance(said, cst.Call) else said
    if not isinstance(maker, (cst.Name, cst.Attribute)) or not isinstance(m.evaluate(m, maker), Function):
        return function
    decorator = m.evaluate(m, said)
    made = m.invoke(m, decorator, (function,), {}, said) if isinstance(decorator, Function) else None
    return made if isinstance(made, Function) else function


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
