"""Asks every rule that can be known from the text about a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import libcst as cst

from trueloop.doctor import catalogue
from trueloop.doctor.findings import Finding
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
    return found_in(Unit(source.path, cst.parse_module(source.text), folders_of(source.path, root), source.text))


def found_in(unit: Unit, *, strict: bool = False, beyond: bool = True) -> list[Checked]:
    """The same, of a file that is parsed already.

    Args:
        unit: the file.
        strict: raises the reader's and the rules' own errors, for their tests.
        beyond: also the errors and warnings that only show where this file calls its neighbours: a model of one goes
            into a loss of another. They are told at the neighbour's line, without a fix.
    """
    program = read(unit, strict=strict)
    found: dict[tuple[str, int | None], Checked] = {}
    outside: dict[tuple[str, str, int], Finding] = {}
    for ask in readers():
        try:
            for checked in ask(program):
                finding = checked.finding
                if finding.place is None or finding.place.file == unit.path:
                    found.setdefault((finding.name, finding.line), checked)
                elif finding.level != "note":
                    outside.setdefault((finding.place.file, finding.name, finding.place.line), finding)
        except Exception:  # a rule that fails says nothing; the others are asked all the same
            if strict:
                raise
            program.left_out += 1
    left = _not_told_there(program, outside) if beyond else []
    return sorted(found.values(), key=lambda one: (one.finding.line or 0, one.finding.code)) + left


def _not_told_there(program: Program, outside: dict[tuple[str, str, int], Finding]) -> list[Checked]:
    """Of what was found in neighbours: what each of them, read by itself, does not show."""
    units = [program.neighbours[file] for file in {file for file, _, _ in outside}]
    known = {
        (unit.path, checked.finding.name, checked.finding.line)
        for unit in units
        if worth_reading(unit.code)
        for checked in found_in(unit, beyond=False)
    }
    return [Checked(finding) for key, finding in sorted(outside.items()) if key not in known]


def readers() -> tuple[Callable[[Program], Iterator[Checked]], ...]:
    """The rules' functions that read."""
    return tuple(file.in_source for file in catalogue.files() if hasattr(file, "in_source"))
