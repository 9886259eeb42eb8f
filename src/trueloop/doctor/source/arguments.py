"""What a call gives for an argument, and calls with another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import behind, put
from trueloop.doctor.source.fixes import Edit

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program

WHOLE = frozenset(("Name", "Attribute", "Call", "Subscript", "Integer", "Float", "List", "Dict", "SimpleString"))


def given(call: object, name: str, place: int | None = None) -> Any:
    """The value that a call gives for an argument, by name or by place; None if it gives none, or that is not known."""
    args: Any = getattr(call, "args", ())
    named = next((one.value for one in args if one.keyword is not None and one.keyword.value == name), None)
    if named is not None or place is None or any(one.star or one.keyword is not None for one in args[: place + 1]):
        return named
    return args[place].value if place < len(args) else None


def with_argument(program: Program, call: cst.CSTNode, name: str, text: str, place: int | None = None) -> Edit | None:
    """An argument of a call: in the place of what is given for it, or behind all others."""
    value, args = given(call, name, place), getattr(call, "args", ())
    if value is not None:
        return put(program, value, text)
    if not args or any(one.star for one in args):
        return None
    return behind(program, args[-1], f", {name}={text}")


def atom(program: Program, node: cst.CSTNode) -> str:
    """A node's text, in brackets where an operator or a dot beside it would tear it apart."""
    text = program.unit.text(node)
    return text if kind(node) in WHOLE or text.startswith("(") else f"({text})"
