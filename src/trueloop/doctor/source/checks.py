"""Asks every rule that can be known from the text about a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import libcst as cst

from trueloop.doctor import catalogue
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.program import Program, folders_of, read
from trueloop.doctor.source.relevance import worth_reading
from trueloop.doctor.source.units import Unit

if TYPE_CHECKING:
    from trueloop.doctor.source.read import Source


def check(source: Source, *, root: Path | None = None) -> list[Checked]:
    """The mistakes that can be read in a file, in the order of its lines.

    Args:
        source: the file, or a notebook as one program.
        root: the folder under which the modules that it imports may lie; without it, those next to it only.

    Raises:
        libcst.ParserSyntaxError: the text is not Python.
    """
    if not worth_reading(source.text):
        return []
    return found_in(Unit(source.path, cst.parse_module(source.text), folders_of(source.path, root)))


def found_in(unit: Unit, *, strict: bool = False) -> list[Checked]:
    """The same, of a file that is parsed already.

    Args:
        unit: the file.
        strict: raises the reader's and the rules' own errors, for their tests.
    """
    program = read(unit, strict=strict)
    found: dict[tuple[str, int | None], Checked] = {}
    for ask in readers():
        try:
            for checked in ask(program):
                place = checked.finding.place
                if place is None or place.file == unit.path:  # what stands elsewhere is told where it stands
                    found.setdefault((checked.finding.name, checked.finding.line), checked)
        except Exception:  # a rule that fails says nothing; the others are asked all the same
            if strict:
                raise
            program.left_out += 1
    return sorted(found.values(), key=lambda one: (one.finding.line or 0, one.finding.code))


def readers() -> tuple[Callable[[Program], Iterator[Checked]], ...]:
    """The rules' functions that read."""
    return tuple(file.in_source for file in catalogue.files() if hasattr(file, "in_source"))
