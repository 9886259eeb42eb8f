"""A notebook's cells as one program, and a cell that is written back without touching the rest of the JSON.

What is not Python (``%magic``, ``!shell``, ``help?``, cells of another language) becomes a comment, so that each line
of a cell is a line of the program.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from trueloop.doctor.source.fixes import lines_of, same_at_start

PYTHON_MAGICS = {"capture", "debug", "prun", "python", "python3", "pypy", "time", "timeit", "ipytest"}
"""``%%magics`` whose cell is Python all the same."""

_DECODER = json.JSONDecoder()


class Cell(NamedTuple):
    """A cell of code.

    Args:
        number: from 1, among the cells of code.
        text: as it stands in the notebook.
        program: the same with comments for what is not Python; ends in a line break.
        first: the line of the program at which it begins, from 1.
        span: where the value of its ``source`` stands in the JSON.
    """

    number: int
    text: str
    program: str
    first: int
    span: tuple[int, int]

    @property
    def lines(self) -> int:
        """How many lines of the program it has."""
        return len(lines_of(self.program))


def cells(raw: str) -> tuple[Cell, ...] | None:
    """The cells of code of a notebook.

    Args:
        raw: the notebook's JSON.

    Returns:
        The cells; None if they are not Python's.

    Raises:
        ValueError: it is no notebook of format 4.

    Example:
        >>> raw = '{"cells": [{"cell_type": "code", "source": ["%matplotlib inline\\\\n", "x = 1"]}], "nbformat": 4}'
        >>> cells(raw)[0].program
        '# %matplotlib inline\\nx = 1\\n'
    """
    whole = json.loads(raw)
    if not isinstance(whole, dict) or not isinstance(whole.get("cells"), list):
        raise ValueError("expected a notebook of format 4, which has a list of cells; open it in Jupyter and save it")
    if _language(whole) not in ("python", "ipython", ""):
        return None
    found, first = list[Cell](), 1
    for kind, source, span in _sources(raw):
        if kind == "code":
            program = as_python(source)
            found.append(Cell(len(found) + 1, source, program, first, span))
            first += found[-1].lines
    return tuple(found)


def rewritten(raw: str, cell: Cell, text: str) -> str:
    """The notebook's JSON with another text in one cell; lines that stay keep their bytes.

    Example:
        >>> raw = '{"cells": [{"cell_type": "code", "source": ["a\\\\n",  "b"]}], "nbformat": 4}'
        >>> rewritten(raw, cells(raw)[0], "a\\nc")
        '{"cells": [{"cell_type": "code", "source": ["a\\\\n",  "c"]}], "nbformat": 4}'
    """
    start, end = cell.span
    before = raw[start:end]
    ascii_only = before.isascii() and "\\u" in before

    def literal(line: str) -> str:
        return json.dumps(line, ensure_ascii=ascii_only)

    if not before.startswith("["):
        return raw[:start] + literal(text) + raw[end:]
    items = list(_items(raw, start))
    old, new = [json.loads(raw[slice(*item)]) for item in items], lines_of(text)
    same = same_at_start(old, new)
    same_end = same_at_start(old[same:][::-1], new[same:][::-1])
    literals = [raw[slice(*item)] for item in items]
    tail = literals[len(literals) - same_end :] if same_end else []
    literals = literals[:same] + [literal(line) for line in new[same : len(new) - same_end]] + tail
    opening = raw[start + 1 : items[0][0]] if items else ""
    between = raw[items[0][1] : items[1][0]] if len(items) > 1 else f",{opening or ' '}"
    closing = raw[items[-1][1] : end - 1] if items else ""
    return raw[:start] + f"[{opening}{between.join(literals)}{closing}]" + raw[end:]


def line_in_json(raw: str, cell: Cell, line: int) -> int:
    """The line of the JSON at which a line of a cell (from 1) stands."""
    at = cell.span[0]
    if raw.startswith("[", at):
        items = list(_items(raw, at))
        if len(items) == len(lines_of(cell.text)):
            at = items[min(line, len(items)) - 1][0] if items else at
    return raw.count("\n", 0, at) + 1


def as_python(text: str) -> str:
    """A cell's text with comments for what is not Python, as many lines, and a line break at its end.

    Example:
        >>> as_python("!pip install x\\\\\\n  y\\nfor i in range(2):\\n    %time f(i)\\nfiles = !ls")
        '# !pip install x\\\\\\n#   y\\nfor i in range(2):\\n    pass  # %time f(i)\\nfiles = None  # !ls\\n'
    """
    lines = lines_of(text) or [""]
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%"):
        magic = first[2:].split()
        if not magic or magic[0] not in PYTHON_MAGICS:
            return "".join(f"# {line}" for line in _ended(lines))
    masked, quote, depth, continued, magical = list[str](), "", 0, False, False
    for line in _ended(lines):
        if (magical and continued) or (not quote and not depth and not continued and _is_magic(line)):
            masked.append(_commented(line, magical and continued))
            magical, continued = True, _without_end(line).endswith("\\")
            continue
        magical = False
        if not quote and not depth and not continued and (assigned := _assigned(line)):
            masked.append(assigned)
            continue
        masked.append(line)
        quote, depth, continued = _after(line, quote, depth)
    return "".join(masked)


def _ended(lines: list[str]) -> list[str]:
    last = lines[-1]
    return lines if last[-1:] in ("\n", "\r") else [*lines[:-1], f"{last}\n"]


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")


def _is_magic(line: str) -> bool:
    code = line.strip()
    if code.startswith(("%", "!", "?")):
        return True
    return code.endswith("?") and "#" not in code and not code.startswith(("'", '"'))


def _commented(line: str, goes_on: bool) -> str:
    code = line.lstrip(" \t")
    indent = line[: len(line) - len(code)]
    if goes_on or not indent:
        return f"# {line}"
    return f"{indent}pass  # {code}"  # a block must not become empty


def _assigned(line: str) -> str:
    """``files = !ls`` or ``t = %timeit -o f()`` with None for its value; empty if it is no such line."""
    name, equals, rest = line.partition("=")
    value = rest.lstrip(" \t")
    if equals and value.startswith(("!", "%")) and _is_target(name):
        return f"{name}={rest[: len(rest) - len(value)]}None  # {value}"
    return ""


def _is_target(text: str) -> bool:
    try:
        return [type(node) for node in ast.parse(f"{text.strip()} = None").body] == [ast.Assign]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _after(line: str, quote: str, depth: int) -> tuple[str, int, bool]:
    """What is open after a line: which quotes, how many brackets, and whether a backslash joins the next line."""
    code, at = _without_end(line), 0
    while at < len(code):
        letter = code[at]
        if quote:
            if letter == "\\":
                at += 1
            elif code.startswith(quote, at):
                at += len(quote) - 1
                quote = ""
        elif letter in "\"'":
            quote = letter * 3 if code.startswith(letter * 3, at) else letter
            at += len(quote) - 1
        elif letter == "#":
            return quote, depth, False
        else:
            depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        at += 1
    continued = code.endswith("\\")
    if len(quote) == 1 and not continued:
        quote = ""  # it is not closed, which is no Python; the next line is another's
    return quote, depth, continued


def _language(whole: dict[str, Any]) -> str:
    metadata = whole.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for part, key in (("language_info", "name"), ("kernelspec", "language")):
        about = metadata.get(part)
        if isinstance(about, dict) and isinstance(about.get(key), str):
            return str(about[key]).lower()
    return ""


def _sources(raw: str) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Of each cell: its kind, its text, and where the value of ``source`` stands."""
    for key, start, _ in _members(raw, _skip(raw, 0)):
        if key != "cells":
            continue
        for at, _ in _items(raw, start):
            kind, source, span = "", "", None
            for name, first, last in _members(raw, at) if raw[at] == "{" else ():
                if name == "cell_type":
                    kind = str(json.loads(raw[first:last]))
                elif name == "source":
                    value, span = json.loads(raw[first:last]), (first, last)
                    source = "".join(map(str, value)) if isinstance(value, list) else str(value)
            if span is not None:
                yield kind, source, span


def _members(raw: str, at: int) -> Iterator[tuple[str, int, int]]:
    """The keys of an object that begins at a place, and where their values stand."""
    at = _skip(raw, at + 1)
    while raw[at] != "}":
        key, at = _DECODER.raw_decode(raw, at)
        start = _skip(raw, _skip(raw, at) + 1)
        _, end = _DECODER.raw_decode(raw, start)
        yield key, start, end
        at = _skip(raw, end)
        at = _skip(raw, at + 1) if raw[at] == "," else at


def _items(raw: str, at: int) -> Iterator[tuple[int, int]]:
    """Where the items of a list that begins at a place stand."""
    at = _skip(raw, at + 1)
    while raw[at] != "]":
        _, end = _DECODER.raw_decode(raw, at)
        yield at, end
        at = _skip(raw, end)
        at = _skip(raw, at + 1) if raw[at] == "," else at


def _skip(raw: str, at: int) -> int:
    while raw[at] in " \t\r\n":
        at += 1
    return at
