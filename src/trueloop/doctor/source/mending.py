"""Small fixes for rules: a line before or after a statement, a piece replaced. None where that is not simple."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.doctor.source.fixes import Edit, Fix

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program


def line_after(program: Program, event: Any, text: str, title: str) -> Fix | None:
    """A new line after a statement that is a line of its own, with its indentation."""
    lines = _own_lines(program, event)
    if lines is None:
        return None
    _, last, indent = lines
    return Fix(title, False, (Edit((last + 1, 0), (last + 1, 0), f"{indent}{text}\n"),))


def line_before(program: Program, event: Any, text: str, title: str, *, safe: bool = False) -> Fix | None:
    """A new line before a statement that begins its line, with its indentation."""
    span = program.unit.span(event.node)
    line = program.lines[span.start.line - 1]
    indent = line[: len(line) - len(line.lstrip())]
    if event.at.unit is not program.unit or line.lstrip().startswith(("elif", "else", "except", "finally", "@")):
        return None
    if span.start.column != len(indent):
        return None
    return Fix(title, safe, (Edit((span.start.line, 0), (span.start.line, 0), f"{indent}{text}\n"),))


def replaced(program: Program, node: cst.CSTNode, text: str, title: str, *, safe: bool = False) -> Fix | None:
    """A node's text replaced."""
    span = program.unit.span(node)
    edit = Edit((span.start.line, span.start.column), (span.end.line, span.end.column), text)
    return Fix(title, safe, (edit,))


def argument(node: cst.CSTNode, name: str) -> cst.CSTNode | None:
    """The value that a call gives for an argument by its name."""
    args: Any = getattr(node, "args", ())
    return next((one.value for one in args if one.keyword is not None and one.keyword.value == name), None)


def moved_after(program: Program, event: Any, other: Any, title: str) -> Fix | None:
    """One line moved behind another of the same block."""
    return _moved(program, event, other, title, 1)


def moved_before(program: Program, event: Any, other: Any, title: str) -> Fix | None:
    """One line moved before another of the same block."""
    return _moved(program, event, other, title, 0)


def _moved(program: Program, event: Any, other: Any, title: str, end: int) -> Fix | None:
    one, two = _own_lines(program, event), _own_lines(program, other)
    if one is None or two is None or one[2] != two[2] or event.at.calls != other.at.calls:
        return None
    text = "".join(f"{line}\n" for line in program.lines[one[0] - 1 : one[1]])
    taken = Edit((one[0], 0), (one[1] + 1, 0), "")
    line = (two[1] if end else two[0]) + end
    put = Edit((line, 0), (line, 0), text)
    return Fix(title, False, (taken, put) if one[0] < two[0] else (put, taken))


def _own_lines(program: Program, event: Any) -> tuple[int, int, str] | None:
    """First and last line of a call that stands on lines of its own, and their indentation."""
    if event.at.unit is not program.unit:
        return None
    span = program.unit.span(event.node)
    first, last = program.lines[span.start.line - 1], program.lines[span.end.line - 1]
    indent = first[: len(first) - len(first.lstrip())]
    rest = last[span.end.column :].split("#")[0].strip()
    if span.start.column != len(indent) or rest or span.end.line >= len(program.lines) + 1:
        return None
    return span.start.line, span.end.line, indent


def said(event: Any) -> str:
    """What a step's optimizer is called in the text: ``self.opt`` in ``scaler.step(self.opt)``."""
    node = event.node
    if getattr(event, "scaler", None) is not None and node.args:
        return str(event.at.unit.text(node.args[0].value))
    thing = getattr(getattr(node, "func", None), "value", None)
    return "" if thing is None else str(event.at.unit.text(thing))


def removed(program: Program, call: cst.CSTNode, value: cst.CSTNode, title: str, *, safe: bool = False) -> Fix | None:
    """An argument of a call taken out, if it is the only one."""
    given: Any = getattr(call, "args", ())
    if len(given) != 1:
        return None
    span = program.unit.span(given[0])
    return Fix(title, safe, (Edit((span.start.line, span.start.column), (span.end.line, span.end.column), ""),))
