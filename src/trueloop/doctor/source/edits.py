"""Edits of a program's statements, of which fixes are made: lines put in, taken out, indented, pieces replaced.

Each gives None where the edit is not simple; ``together`` makes a fix of several, if all of them are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.fixes import Edit, Fix, lines_of

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program

Edits = list[Edit] | None


def together(title: str, *parts: Edit | list[Edit] | None, safe: bool = False) -> Fix | None:
    """A fix of these edits; None if there is one that cannot be made."""
    edits: list[Edit] = []
    for part in parts:
        if part is None:
            return None
        edits += [part] if isinstance(part, Edit) else part
    return Fix(title, safe, tuple(edits)) if edits else None


def put(program: Program, node: cst.CSTNode, text: str) -> Edit | None:
    """A node's text replaced."""
    if not _is_here(program, node):
        return None
    start, end = ends(program, node)
    return Edit(start, end, text)


def behind(program: Program, node: cst.CSTNode, text: str) -> Edit | None:
    """Text right behind a node."""
    if not _is_here(program, node):
        return None
    _, end = ends(program, node)
    return Edit(end, end, text)


def before(program: Program, node: cst.CSTNode, text: str) -> Edit | None:
    """Lines before the statement that a node is in; on the same line where several statements share it."""
    small = blocks.small(program.unit, node)
    if small is not None and not _has_own_line(program, small, first=True):
        start, _ = ends(program, small)
        return None if "\n" in text else Edit(start, start, f"{text}; ")
    whole = blocks.statement(program.unit, node)
    if whole is None:
        return None
    line = first_line(program, whole)
    return Edit((line, 0), (line, 0), _indented(text, indent(program, whole)))


def after(program: Program, node: cst.CSTNode, text: str) -> Edit | None:
    """Lines after the small statement that a node is in, which must go on to there; or after a whole compound one."""
    small = blocks.small(program.unit, node)
    if small is None and kind(node) not in _COMPOUND:
        return None
    if small is not None:
        if kind(small) in ("Return", "Raise", "Break", "Continue"):
            return None
        if not _has_own_line(program, small, first=False):
            _, end = ends(program, small)
            return None if "\n" in text else Edit(end, end, f"; {text}")
    whole = blocks.statement(program.unit, node)
    if whole is None:
        return None
    _, (line, column) = ends(program, whole)
    line += column > 0  # a block that ends with its last line's end
    return Edit((line, 0), (line, 0), _indented(text, indent(program, whole)))


def called(program: Program, node: cst.CSTNode, text: str) -> Edit | None:
    """The brackets that ``opt.step`` lacks, where that is a line beside the statement that a node is in."""
    whole = blocks.statement(program.unit, node)
    lines: list[Any] = [] if whole is None else list(blocks.block(program.unit, whole))
    for line in lines:
        alone: Any = line.body[0] if kind(line) == "SimpleStatementLine" and len(line.body) == 1 else None
        if kind(alone) == "Expr" and f"{program.unit.text(alone.value)}()" == text:
            return behind(program, alone.value, "()")
    return None


def at_head(program: Program, compound: cst.CSTNode, text: str) -> Edit | None:
    """Lines at the head of a loop's or function's body, after its docstring."""
    body: Any = getattr(compound, "body", None)
    if not _is_here(program, compound) or body is None:
        return None
    statements = list(body.body)
    rest = statements[1:] if kind(compound) == "FunctionDef" and _is_docstring(statements[0]) else statements
    if kind(body) != "IndentedBlock":
        return before(program, statements[0], text)
    if not rest:
        return after(program, statements[0].body[0], text)
    line = first_line(program, rest[0]) - len(rest[0].leading_lines)
    return Edit((line, 0), (line, 0), _indented(text, indent(program, rest[0])))


def without(program: Program, node: cst.CSTNode) -> Edit | None:
    """The small statement that a node is in, taken out."""
    small = blocks.small(program.unit, node)
    line = None if small is None else blocks.statement(program.unit, small)
    if small is None or line is None:
        return None
    own = _has_own_line(program, small, first=True) and _has_own_line(program, small, first=False)
    if not own or len(blocks.block(program.unit, line)) == 1:
        return put(program, small, "pass")
    (start, _), (end, _) = ends(program, line)
    return Edit((start, 0), (end + 1, 0), "")


def wrapped(program: Program, first: cst.CSTNode, last: cst.CSTNode, header: str) -> Edits:
    """Statements of one block put under a header, one step further in; lines within texts stay as they are."""
    if not (_is_here(program, first) and _is_here(program, last)):
        return None
    (start, _), (end, column) = (first_line(program, first), 0), ends(program, last)[1]
    end -= column == 0
    lines, step, kept = _lines(program.unit.tree), program.unit.tree.default_indent, _in_texts(program, start, end)
    edits = [Edit((start, 0), (start, 0), f"{indent(program, first)}{header}\n{step}")]
    edits += [
        Edit((line, 0), (line, 0), step)
        for line in range(start + 1, end + 1)
        if line not in kept and lines[line - 1].strip()
    ]
    return edits


def unwrapped(program: Program, compound: cst.CSTNode) -> Edits:
    """A header taken off, its body one step further out."""
    body: Any = getattr(compound, "body", None)
    if not _is_here(program, compound) or kind(body) != "IndentedBlock":
        return None
    outer, inner = indent(program, compound), indent(program, body.body[0])
    start = first_line(program, compound)
    inside, (end, column) = first_line(program, body.body[0]), ends(program, body.body[-1])[1]
    end -= column == 0
    lines, kept = _lines(program.unit.tree), _in_texts(program, inside, end)
    edits = [Edit((start, 0), (inside, len(inner) - len(outer)), "")]
    for line in range(inside + 1, end + 1):
        if line not in kept and lines[line - 1].strip():
            if not lines[line - 1].startswith(inner):
                return None
            edits.append(Edit((line, 0), (line, len(inner) - len(outer)), ""))
    return edits


def moved(program: Program, node: cst.CSTNode, to: cst.CSTNode, *, behind: bool) -> Edits:
    """A whole statement moved before another, or behind it, with that one's indentation."""
    if not (_is_here(program, node) and _is_here(program, to)) or len(blocks.block(program.unit, node)) == 1:
        return None
    (start, _), (end, column) = (first_line(program, node), 0), ends(program, node)[1]
    end -= column == 0
    was, now = indent(program, node), indent(program, to)
    taken = _lines(program.unit.tree)[start - 1 : end]
    if was != now and (
        _in_texts(program, start, end) or any(line.strip() and line[: len(was)] != was for line in taken)
    ):
        return None
    text = "".join(now + line[len(was) :] if line.strip() else line for line in taken)
    text = text if text.endswith(("\n", "\r")) else f"{text}\n"
    (first, _), (last, column) = (first_line(program, to), 0), ends(program, to)[1]
    place = last + (column > 0) if behind else first
    return [Edit((start, 0), (end + 1, 0), ""), Edit((place, 0), (place, 0), text)]


def indent(program: Program, statement: cst.CSTNode) -> str:
    """The white space that a statement's lines begin with."""
    line = _lines(program.unit.tree)[first_line(program, statement) - 1]
    return line[: len(line) - len(line.lstrip())]


def first_line(program: Program, statement: Any) -> int:
    """The line on which a statement begins: a function's with its decorators."""
    decorators = getattr(statement, "decorators", ())
    return program.unit.span(decorators[0] if decorators else statement).start.line


def spelled(program: Program, name: str) -> tuple[str, list[Edit]]:
    """How a thing of a library's is written in this file, and the import that has to be added for it, if there is none.

    Example:
        >>> import libcst as cst
        >>> from trueloop.doctor.source.program import Program
        >>> from trueloop.doctor.source.units import Unit
        >>> program = Program(Unit("a.py", cst.parse_module("import torch as th\\nfrom torch import nn\\n")))
        >>> spelled(program, "torch.no_grad"), spelled(program, "torch.nn.ModuleList")
        (('th.no_grad', []), ('nn.ModuleList', []))
    """
    known = _imported(program)
    front, rest = name, list[str]()
    while front:
        if front in known:
            return ".".join([known[front], *rest]), []
        front, _, last = front.rpartition(".")
        rest.insert(0, last)
    statements: list[Any] = [one for one in program.unit.tree.body if kind(one) == "SimpleStatementLine"]
    first = next((one for one in statements if _imports(one)), None)
    line = _after_head(program) if first is None else first_line(program, first)
    return name, [Edit((line, 0), (line, 0), f"import {name.partition('.')[0]}\n")]


def _imported(program: Program) -> dict[str, str]:
    """What is imported at the top level: full name -> what it is called here."""
    found: dict[str, str] = {}
    for statement in program.unit.tree.body:
        for one in getattr(statement, "body", ()) if kind(statement) == "SimpleStatementLine" else ():
            if kind(one) == "Import":
                for alias in one.names:
                    name = program.unit.text(alias.name)
                    found[name if alias.asname else name.partition(".")[0]] = _called(program, alias)
            elif kind(one) == "ImportFrom" and one.module is not None and not one.relative:
                module = program.unit.text(one.module)
                for alias in one.names if isinstance(one.names, (list, tuple)) else ():
                    found.setdefault(f"{module}.{program.unit.text(alias.name)}", _called(program, alias))
    return found


def _called(program: Program, alias: Any) -> str:
    return program.unit.text(alias.asname.name if alias.asname else alias.name).partition(".")[0]


def _imports(statement: Any) -> bool:
    return kind(statement.body[0]) in ("Import", "ImportFrom") and not _is_of_future(statement)


def _is_of_future(statement: Any) -> bool:
    first: Any = statement.body[0] if kind(statement) == "SimpleStatementLine" else None
    return kind(first) == "ImportFrom" and getattr(first.module, "value", "") == "__future__"


def _after_head(program: Program) -> int:
    """The line after the docstring and what comes from ``__future__``: Python wants these first."""
    line = 1
    for statement in program.unit.tree.body:
        if not _is_docstring(statement) and not _is_of_future(statement):
            break
        line = ends(program, statement)[1][0] + 1
    return line


_COMPOUND = frozenset(("For", "While", "If", "With", "Try", "TryStar", "FunctionDef", "ClassDef", "Match"))


def _has_own_line(program: Program, small: cst.CSTNode, *, first: bool) -> bool:
    """Whether a small statement is the first (or the last) of its line, which is no other statement's head."""
    above: Any = next(blocks.around(program.unit, small), None)
    return kind(above) == "SimpleStatementLine" and above.body[0 if first else -1] is small


def _is_here(program: Program, node: cst.CSTNode) -> bool:
    return next(blocks.around(program.unit, node), None) is not None


def _is_docstring(statement: Any) -> bool:
    first: Any = statement.body[0] if kind(statement) == "SimpleStatementLine" else None
    return kind(first) == "Expr" and kind(first.value) in ("SimpleString", "ConcatenatedString")


def ends(program: Program, node: cst.CSTNode) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a node begins and where it ends, as edits have it."""
    span = program.unit.span(node)
    return (span.start.line, span.start.column), (span.end.line, span.end.column)


def _indented(text: str, by: str) -> str:
    return "".join(f"{by}{line}\n" for line in text.split("\n"))


def _in_texts(program: Program, first: int, last: int) -> set[int]:
    """The lines that begin within a text of several lines: their white space is the text's."""
    return {line for line in _text_lines(program) if first < line <= last}


def _text_lines(program: Program) -> set[int]:
    found: set[int] = set()
    for node in blocks.walk(program.unit.tree):
        if kind(node) in ("SimpleString", "FormattedString"):
            (start, _), (end, _) = ends(program, node)
            found.update(range(start + 1, end + 1))
    return found


@lru_cache(maxsize=8)
def _lines(tree: cst.Module) -> list[str]:
    return lines_of(tree.code)
