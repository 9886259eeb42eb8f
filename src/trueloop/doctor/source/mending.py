"""Small fixes for rules: a line before or after a statement, a piece replaced. None where that is not simple."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.arguments import atom
from trueloop.doctor.source.edits import after, before, moved, put, together
from trueloop.doctor.source.fixes import Edit, Fix

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program


def line_after(program: Program, event: Any, text: str, title: str) -> Fix | None:
    """A new line after the statement that an event is in, with its indentation."""
    return together(title, after(program, event.node, text))


def line_before(program: Program, event: Any, text: str, title: str, *, safe: bool = False) -> Fix | None:
    """A new line before the statement that an event is in, with its indentation."""
    return together(title, before(program, event.node, text), safe=safe)


def replaced(program: Program, node: cst.CSTNode, text: str, title: str, *, safe: bool = False) -> Fix | None:
    """A node's text replaced."""
    return together(title, put(program, node, text), safe=safe)


def moved_after(program: Program, event: Any, other: Any, title: str) -> Fix | None:
    """The line of an event moved behind another one's; both happen in one function and one loop."""
    pair = _side_by_side(program, event, other)
    return None if pair is None else together(title, moved(program, *pair, behind=True))


def moved_before(program: Program, event: Any, other: Any, title: str) -> Fix | None:
    """The line of an event moved before another one's; both happen in one function and one loop."""
    pair = _side_by_side(program, event, other)
    return None if pair is None else together(title, moved(program, *pair, behind=False))


def _side_by_side(program: Program, event: Any, other: Any) -> tuple[cst.CSTNode, cst.CSTNode] | None:
    """The statements of two events in the function that both come about in, if the first may move to the second."""
    depth = 0
    for one, two in zip(event.at.calls, other.at.calls, strict=False):
        if one is not two:
            break
        depth += 1
    mine, its = _line_at(program, event, depth), _line_at(program, other, depth)
    if mine is None or its is None or mine is its:
        return None
    unit = program.unit
    if blocks.loops(unit, mine) != blocks.loops(unit, its) or not is_alone(mine):
        return None
    while next(blocks.around(unit, mine)) not in blocks.around(unit, its):  # under a condition of its own
        arm: Any = blocks.holder(unit, mine)
        if blocks.kind(arm) != "If" or arm.orelse is not None or len(blocks.block(unit, mine)) != 1:
            return None
        mine = arm
    return None if blocks.within(unit, its, mine) or _is_torn(program, mine, its) else (mine, its)


def _line_at(program: Program, event: Any, depth: int) -> cst.CSTNode | None:
    """The statement in which something happens at a depth of calls: of a function called there, only its one line."""
    node, calls = event.node, event.at.calls
    if len(calls) == depth + 1:
        inner: Any = blocks.function(program.unit, node)
        body = getattr(getattr(inner, "body", None), "body", ())
        if len(body) != 1:
            return None
        node = calls[depth]
    elif len(calls) != depth:
        return None
    return None if blocks.small(program.unit, node) is None else blocks.statement(program.unit, node)


def is_alone(statement: Any) -> bool:
    """Whether it is one line's only statement, or ``if …: one`` on one line."""
    if blocks.kind(statement) == "If" and statement.orelse is None:
        return len(statement.body.body) == 1
    return blocks.kind(statement) == "SimpleStatementLine" and len(statement.body) == 1


def _is_torn(program: Program, mine: cst.CSTNode, its: cst.CSTNode) -> bool:
    """Whether a name that a statement uses or sets changes, or is used, on its way to another."""
    unit = program.unit
    siblings = list(blocks.block(unit, mine))
    target = next((n for n, one in enumerate(siblings) if blocks.within(unit, its, one)), None)
    if target is None:
        return True
    first, last = sorted((siblings.index(mine), target))
    between = siblings[first + 1 : last] + ([] if siblings[target] is its else [siblings[target]])
    used, changed = blocks.dotted(unit, mine), blocks.stored(unit, mine)
    return any(used & blocks.stored(unit, one) or changed & blocks.dotted(unit, one) for one in between)


def said(event: Any) -> str:
    """What a step's optimizer is called in the text: ``self.opt`` in ``scaler.step(self.opt)``."""
    node = event.node
    if getattr(event, "scaler", None) is not None and node.args:
        return str(event.at.unit.text(node.args[0].value))
    thing = getattr(getattr(node, "func", None), "value", None)
    return "" if thing is None else str(event.at.unit.text(thing))


def removed(program: Program, call: cst.CSTNode, title: str, *, safe: bool = False) -> Fix | None:
    """A call's only argument taken out; None if it has others."""
    given: Any = getattr(call, "args", ())
    return together(title, put(program, given[0], ""), safe=safe) if len(given) == 1 else None


def is_plain(name: str) -> bool:
    """Whether an expression can be written a second time: a name, an attribute, a part by a number or a text.

    Example:
        >>> is_plain("self.opt"), is_plain("opts[0]"), is_plain("next(opts)"), is_plain("")
        (True, True, False, False)
    """
    return bool(name) and "(" not in name and ":=" not in name


def scaler_of(backward: Any) -> str:
    """What the scaler is called in ``scaler.scale(loss).backward()``; empty where it is written otherwise."""
    thing = getattr(getattr(backward.node, "func", None), "value", None)
    scaler = getattr(getattr(thing, "func", None), "value", None)
    return "" if scaler is None or not backward.scaled else str(backward.at.unit.text(scaler))


def divided(program: Program, backward: Any, by: str) -> Edit | None:
    """Backward on the loss by so many: ``(loss / k).backward()``, ``scaler.scale(loss / k).backward()``."""
    func = getattr(backward.node, "func", None)
    loss: Any = getattr(func, "value", None)
    named = getattr(getattr(func, "attr", None), "value", "") == "backward"
    if not named or not is_plain(by) or any(one.keyword is None for one in backward.node.args):
        return None
    if backward.scaled:
        args: Any = getattr(loss, "args", ())
        inside = args[0].value if len(args) == 1 and args[0].keyword is None else None
        return None if inside is None else put(program, inside, f"{atom(program, inside)} / {by}")
    return put(program, loss, f"({atom(program, loss)} / {by})")
