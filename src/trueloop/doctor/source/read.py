"""What is read: a Python file, a notebook's cells as one program, or standard input; and how it is written back."""

from __future__ import annotations

import errno
import io
import json
import linecache
import os
import stat
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trueloop.doctor.findings import Place
from trueloop.doctor.source import notebook
from trueloop.doctor.source.fixes import Edit, apply, lines_of
from trueloop.doctor.source.notebook import Cell

STDIN = "<stdin>"
_BOM = "\ufeff"


class Unread(NamedTuple):
    """What could not be read as Python.

    Args:
        path: its name.
        line: where it stops being so: a line of the program, or of the file if there is none; 0 if that is not known.
        message: why, in a sentence.
    """

    path: str
    line: int
    message: str


@dataclass(frozen=True)
class Source:
    """A program's text, and where it comes from.

    Args:
        path: the file; ``<stdin>`` for standard input.
        text: the program, its line ends as they are in the file, without a byte order mark. For a notebook it is all
            cells of code, one below the other, with comments for what is not Python.
        encoding: the file's.
        raw: what stands in the file: for a notebook its JSON, else the same as ``text`` but for a byte order mark.
        cells: a notebook's; empty for a file.

    Example:
        >>> Source("train.py", "x = 1\\n").edited([Edit((1, 4), (1, 5), "2")]).text
        'x = 2\\n'
    """

    path: str
    text: str
    encoding: str = "utf-8"
    raw: str = ""
    cells: tuple[Cell, ...] = ()

    def edited(self, edits: Iterable[Edit]) -> Source:
        """The source after edits of its ``text``.

        Raises:
            ValueError: two edits overlap, or one goes over cells or through what is not Python.
        """
        if not self.cells:
            text = apply(self.text, edits)
            raw = (_BOM if self.raw.startswith(_BOM) else "") + text
            return Source(self.path, text, self.encoding, raw)
        by_cell: dict[int, list[Edit]] = {}
        for edit in edits:
            number, own = self._own(edit)
            by_cell.setdefault(number, []).append(own)
        raw = self.raw
        for number in sorted(by_cell, reverse=True):  # from the last, so that the places of the others stay
            cell = self.cells[number]
            raw = notebook.rewritten(raw, cell, apply(cell.text, by_cell[number]))
        return _of_notebook(self.path, raw, self.encoding) or self

    def as_bytes(self) -> bytes:
        """What is to stand in the file.

        Raises:
            UnicodeEncodeError: the file's encoding has no bytes for a letter.
        """
        return (self.raw or self.text).encode(self.encoding)

    def place(self, line: int) -> Place:
        """Where people find a line of the program: in a notebook, by cell and line in it.

        Example:
            >>> raw = '{"cells": [{"cell_type": "code", "source": "a"}, {"cell_type": "code", "source": "b\\\\nc"}]}'
            >>> of_bytes(raw.encode(), "x.ipynb").place(3)
            Place(file='x.ipynb:cell 2', line=2)
        """
        cell = self._cell(line)
        return Place(self.path, line) if cell is None else Place(_shown(self.path, cell), line - cell.first + 1)

    def place_in_file(self, line: int) -> Place:
        """Where machines find it: by the line of the file, which for a notebook is one of its JSON."""
        cell = self._cell(line)
        if cell is None:
            return Place(self.path, line)
        return Place(self.path, notebook.line_in_json(self.raw, cell, line - cell.first + 1))

    def show(self) -> None:
        """Has ``linecache`` know the lines as they are here, for the report's excerpts: the disk may hold others."""
        for name, text in (*self.parts(), (self.path, self.raw or self.text)):
            _remember(name, text)

    def parts(self) -> list[tuple[str, str]]:
        """The file, or each cell, by its name and text: what a diff compares."""
        return [(_shown(self.path, cell), cell.text) for cell in self.cells] or [(self.path, self.raw or self.text)]

    def _cell(self, line: int) -> Cell | None:
        return next((cell for cell in reversed(self.cells) if cell.first <= line), None)

    def _own(self, edit: Edit) -> tuple[int, Edit]:
        """The index of the cell that an edit belongs to, and the edit in the cell's own lines."""
        number = max(index for index, cell in enumerate(self.cells) if cell.first <= edit.start[0])
        cell = self.cells[number]
        if edit.start == edit.end == (cell.first, 0) and number and (edit.text[:1] in " \t" or not _is_same(cell, 1)):
            number -= (
                1  # a cell cannot begin within a block, and a magic must stay the first: the end of the one before
            )
            cell = self.cells[number]
        start, end = ((line - cell.first + 1, column) for line, column in (edit.start, edit.end))
        if end[0] > cell.lines + 1 or (end[0] == cell.lines + 1 and end[1]):
            raise ValueError(f"expected an edit within cell {cell.number}, got one up to line {edit.end[0]}")
        touched = range(start[0], end[0] + (end[1] > 0))
        python = [_is_same(cell, line) for line in range(1, cell.lines + 1)]
        if not any(python) or not all(python[line - 1] for line in touched if line <= cell.lines):
            raise ValueError(f"expected an edit of Python, got one of a magic in cell {cell.number}")
        last = len(lines_of(cell.text)) + 1
        return number, Edit(start if start[0] <= last else (last, 0), end if end[0] <= last else (last, 0), edit.text)


def of_file(path: str | os.PathLike[str]) -> Source | Unread | None:
    """A file or notebook; None if it is a notebook of another language, or without code.

    Example:
        >>> of_file("nowhere.py")
        Unread(path='nowhere.py', line=0, message='No such file or directory')
    """
    try:
        return of_bytes(bytes_of(path), os.fspath(path))
    except OSError as error:
        return Unread(os.fspath(path), 0, error.strerror or str(error))


def bytes_of(path: str | os.PathLike[str]) -> bytes:
    """What stands in a file.

    Raises:
        OSError: it cannot be read, or is none: a pipe would keep us waiting, and can be read only once.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no regular file; what comes from a pipe is read by `trueloop check -`")
    return Path(path).read_bytes()


def of_bytes(content: bytes, path: str = STDIN) -> Source | Unread | None:
    """What a file's bytes say.

    Args:
        content: all of them.
        path: the file's name; one that ends in ``.ipynb`` is a notebook.

    Example:
        >>> of_bytes("# coding: latin-1\\nx = 'é'\\n".encode("latin-1")).encoding
        'iso-8859-1'
    """
    try:
        if path.endswith(".ipynb"):
            return _of_notebook(path, content.decode("utf-8"), "utf-8")
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        encoding = "utf-8" if encoding == "utf-8-sig" else encoding
        raw = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Unread(path, line, f"it is not {error.encoding}: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return Unread(path, error.lineno, f"it is no notebook, which is JSON: {error.msg}")
    except (SyntaxError, LookupError, ValueError, RecursionError) as error:
        return Unread(path, 0, str(error) or "it is nested too deeply")
    if "\0" in raw:
        return Unread(path, raw.count("\n", 0, raw.index("\0")) + 1, "it holds a null byte, which no Python file does")
    return Source(path, raw.removeprefix(_BOM), encoding, raw)


def _of_notebook(path: str, raw: str, encoding: str) -> Source | None:
    bare = raw.removeprefix(_BOM)
    found = notebook.cells(bare)
    if not found:
        return None
    moved = len(raw) - len(bare)
    cells = tuple(cell._replace(span=(cell.span[0] + moved, cell.span[1] + moved)) for cell in found)
    return Source(path, "".join(cell.program for cell in cells), encoding, raw, cells)


def _shown(path: str, cell: Cell) -> str:
    return f"{path}:cell {cell.number}"


def _is_same(cell: Cell, line: int) -> bool:
    """Whether a line of a cell (from 1) is its own, and no comment in the place of a magic."""
    own, program = lines_of(cell.text), lines_of(cell.program)
    return line > len(own) or own[line - 1].rstrip("\r\n") == program[line - 1].rstrip("\r\n")


def _remember(file: str, text: str) -> None:
    # without a time of change, linecache keeps it whatever the disk says
    text = text.removeprefix(_BOM)
    linecache.cache[file] = (len(text), None, [line.rstrip("\r\n") + "\n" for line in lines_of(text)], file)
