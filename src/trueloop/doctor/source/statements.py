"""Statements, in the order in which they would run, and both ways of a condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import libcst as cst

from trueloop.doctor.source.assigning import assign, combine
from trueloop.doctor.source.contexts import gradients, try_block, with_block
from trueloop.doctor.source.definitions import class_def, function_def
from trueloop.doctor.source.events import Kept
from trueloop.doctor.source.imports import import_from, import_names
from trueloop.doctor.source.loops import for_loop, while_loop
from trueloop.doctor.source.machine import End, Machine
from trueloop.doctor.source.units import statements_of
from trueloop.doctor.source.values import Constant, Object, Tensor, Unknown, Value, options, truth

SAID = ("said",)
"""Under this key what is not known keeps the comparison that it came from."""


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
    cst.Del: _nothing,
    cst.Global: _global,
    cst.Nonlocal: _nonlocal,
    cst.Import: _import,
    cst.ImportFrom: _import_from,
    cst.If: _if,
    cst.For: for_loop,
    cst.While: while_loop,
    cst.With: with_block,
    cst.Try: try_block,
    cst.TryStar: try_block,
    cst.Match: _match,
    cst.FunctionDef: function_def,
    cst.ClassDef: class_def,
    cst.TypeAlias: _nothing,
}
