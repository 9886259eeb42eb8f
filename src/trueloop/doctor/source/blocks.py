"""Where a piece of code stands: its statement, and the blocks, loops and functions around it.

LibCST is not imported before somebody asks: rules import this, and the doctor imports rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.units import Unit

LOOPS = frozenset(("For", "While"))
FUNCTIONS = frozenset(("FunctionDef", "Lambda"))
NESTED = frozenset(("Lambda", "ListComp", "SetComp", "DictComp", "GeneratorExp", "IfExp", "BooleanOperation"))
"""What is in these is done never, once or often: no line before or after it is done as often."""


def kind(node: object) -> str:
    """A node's class: ``For``."""
    return type(node).__name__


def around(unit: Unit, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """What a node stands in, the innermost first; nothing for one of another file."""
    parents = _parents(unit.tree)
    above = parents.get(id(node))
    while above is not None:
        yield above
        above = parents.get(id(above))


def within(unit: Unit, node: cst.CSTNode, whole: cst.CSTNode) -> bool:
    """Whether a node is another one, or stands in it."""
    return node is whole or any(one is whole for one in around(unit, node))


def small(unit: Unit, node: cst.CSTNode) -> cst.CSTNode | None:
    """The small statement (an assignment, a call) that a node stands in; None in a head, a lambda, a comprehension."""
    below = node
    for one in around(unit, node):
        if kind(one) in ("SimpleStatementLine", "SimpleStatementSuite"):
            return below
        if kind(one) in NESTED or kind(one) in ("IndentedBlock", "Module"):
            return None
        below = one
    return None


def statement(unit: Unit, node: cst.CSTNode) -> cst.CSTNode | None:
    """The statement around a node that is a line, or several, of a block; None for a node of another file."""
    below = node
    for one in around(unit, node):
        if kind(one) in ("IndentedBlock", "Module"):
            return below
        below = one
    return None


def block(unit: Unit, node: cst.CSTNode) -> Sequence[cst.CSTNode]:
    """A statement and its neighbours."""
    above: Any = next(around(unit, node), None)
    return above.body if kind(above) in ("IndentedBlock", "Module") else (node,)


def holder(unit: Unit, node: cst.CSTNode) -> cst.CSTNode | None:
    """The compound statement that a statement is in the body of: a loop, a ``with``, an arm of an ``if``."""
    return next((one for one in around(unit, node) if kind(one) not in ("IndentedBlock", "SimpleStatementSuite")), None)


def function(unit: Unit, node: cst.CSTNode) -> cst.CSTNode | None:
    """The function or lambda that a node is in; None at the top level."""
    return next((one for one in around(unit, node) if kind(one) in FUNCTIONS), None)


def loops(unit: Unit, node: cst.CSTNode) -> list[cst.CSTNode]:
    """The loops of its function that a node is in, the innermost first."""
    found = []
    for one in around(unit, node):
        if kind(one) in FUNCTIONS:
            break
        if kind(one) in LOOPS:
            found.append(one)
    return found


def names(node: cst.CSTNode) -> set[str]:
    """The names, also of attributes, that a piece of code has."""
    return {str(one.value) for one in walk(node) if kind(one) == "Name"}  # type: ignore[attr-defined]


def dotted(unit: Unit, node: cst.CSTNode) -> set[str]:
    """The names that a piece of code uses, and those of their parts: ``self``, ``self.opt``."""
    found: set[str] = set()
    left: list[Any] = [node]
    while left:
        one = left.pop()
        if kind(one) == "Arg":
            left.append(one.value)  # its keyword is no name of this place
            continue
        if kind(one) in ("Name", "Attribute"):
            found.add(unit.text(one))
        left += [one.value] if kind(one) == "Attribute" else _children(one)
    return found


def stored(unit: Unit, node: cst.CSTNode) -> set[str]:
    """The names that a piece of code gives a new value to."""
    found: set[str] = set()
    for one in walk(node):
        target = getattr(one, "target", None)
        if target is not None:
            parts = [part.value for part in walk(target) if kind(part) in ("Element", "StarredElement")]  # type: ignore[attr-defined]
            found |= {unit.text(part) for part in (parts or [target])}
    return found


def holds(unit: Unit, whole: cst.CSTNode, event: Any) -> bool:
    """Whether something happens in a statement: in its text, or in what is called there."""
    return any(within(unit, node, whole) for node in (event.node, *event.at.calls))


@lru_cache(maxsize=8)
def _parents(tree: cst.Module) -> dict[int, cst.CSTNode]:
    return {id(child): node for node in walk(tree) for child in _children(node)}


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A node and all in it."""
    left = [node]
    while left:
        one = left.pop()
        yield one
        left += _children(one)


def _children(node: cst.CSTNode) -> list[cst.CSTNode]:
    found: list[cst.CSTNode] = []
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, (list, tuple)):
            found += [one for one in value if _is_node(one)]
        elif _is_node(value):
            found.append(value)
    return found


def _is_node(value: object) -> bool:
    return hasattr(value, "visit")  # isinstance asks an abstract class, ten times as long


@cache
def _fields(of: Any) -> tuple[str, ...]:
    """Where a node of this kind has others; what stands between them (spaces, comments, commas) is left out."""
    return tuple(field.name for field in dataclasses.fields(of) if not field.name.startswith(_BETWEEN))


_BETWEEN = (
    *("whitespace", "leading", "trailing", "header", "footer", "lines_", "first_line", "empty_", "indent", "newline"),
    *("lpar", "rpar", "lbracket", "rbracket", "lbrace", "rbrace", "comma", "semicolon", "colon", "dot", "equal"),
)
