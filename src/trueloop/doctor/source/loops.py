"""Loops: each is gone through twice, and the states that ``break`` and ``continue`` lead out with are joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trueloop.doctor.source.assigning import assign
from trueloop.doctor.source.elements import TURNS, elements
from trueloop.doctor.source.events import Iterated
from trueloop.doctor.source.machine import End, Machine, Way
from trueloop.doctor.source.units import statements_of
from trueloop.doctor.source.values import Constant, Items, Turn, Unknown, Value, truth

if TYPE_CHECKING:
    import libcst as cst


def for_loop(m: Machine, node: cst.For) -> End:
    """``for … in …``, with its ``else``."""
    over = m.evaluate(m, node.iter)

    def bind(element: Value) -> Callable[[], None]:
        return lambda: assign(m, node.target, element)

    binds = [bind(element) for element in elements(m, over, node.iter)]
    if not binds:
        return _otherwise(m, node)
    return loop(m, node, over, binds, lambda: m.perform(m, statements_of(node.body)), lambda: _otherwise(m, node))


def while_loop(m: Machine, node: cst.While) -> End:
    """``while …``, with its ``else``."""
    if truth(m.evaluate(m, node.test)) is False:
        return _otherwise(m, node)

    def bind() -> None:
        m.evaluate(m, node.test)

    turns = [bind] * TURNS
    return loop(m, node, None, turns, lambda: m.perform(m, statements_of(node.body)), lambda: _otherwise(m, node))


def _otherwise(m: Machine, node: cst.For | cst.While) -> End:
    return None if node.orelse is None else m.perform(m, statements_of(node.orelse.body))


def through(m: Machine, node: cst.CSTNode, over: Value, step: Callable[[Value], object]) -> None:
    """Goes through a thing as a library's loop does, with two of its elements."""
    now: list[Value] = []

    def bind(element: Value) -> Callable[[], None]:
        return lambda: now.append(element)

    def turn() -> End:
        step(now[-1])
        return None

    loop(m, node, over, [bind(element) for element in elements(m, over, node)[:TURNS]], turn)


def loop(
    m: Machine,
    node: cst.CSTNode,
    over: Value | None,
    binds: Sequence[Callable[[], None]],
    body: Callable[[], End],
    otherwise: Callable[[], End] = lambda: None,
) -> End:
    """Runs a loop's turns, and joins the states that ``continue`` and ``break`` lead out with.

    Args:
        m: the machine.
        node: the loop.
        over: what it goes through; None for ``while``.
        binds: what each turn begins with.
        body: a turn's rest.
        otherwise: its ``else``: where no ``break`` has led out.
    """
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
    here, last = end != "break", end in ("return", "raise")
    if end in (None, "continue"):
        end = otherwise()  # what ends it ends the piece that the loop stands in
        here, last = end is None, True
    m.meet(way.mark, way.breaks, here=here)
    if not exact:
        _uncount(m, way.mark)
    # what ends in the first turn on every path ends the function; a later turn's end only shows that one may come
    return end if last and not way.breaks else None


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
