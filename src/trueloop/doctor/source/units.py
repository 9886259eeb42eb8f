"""The files of a program: each parsed once, its positions computed once and only when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from trueloop.doctor.source.relevance import worth_following

LARGEST = 200_000  # bytes of a neighbour: what is larger is a library's
SMALL = 8_000  # what is smaller is read without a word of torch in it: meters and modes are kept in such files


@dataclass(eq=False, repr=False)
class Unit:
    """One file.

    Args:
        path: where it lies, as findings name it.
        tree: what it says.
        package: its dotted name's front, for relative imports; empty for a script.
        folders: where the modules that it imports may lie.
        source: its text, if that is at hand: to write it out again from the tree takes longer than all the reading.
    """

    path: str
    tree: cst.Module
    folders: tuple[Path, ...] = ()
    source: str = ""
    texts: dict[int, str] = field(default_factory=dict)
    _positions: Mapping[Any, Any] | None = None

    @cached_property
    def code(self) -> str:
        """The file's text."""
        return self.source or self.tree.code

    @cached_property
    def lines(self) -> list[str]:
        """Its lines."""
        return self.code.splitlines()

    def span(self, node: cst.CSTNode) -> CodeRange:
        """Where a node stands: lines from 1, columns from 0, the end exclusive."""
        if self._positions is None:
            wrapper = MetadataWrapper(self.tree, unsafe_skip_copy=True)
            self._positions = wrapper.resolve(PositionProvider)
        found: CodeRange = self._positions[node]
        return found

    def text(self, node: cst.CSTNode) -> str:
        """A node as it is written."""
        known = self.texts.get(id(node))
        if known is None:
            known = self.texts[id(node)] = self.tree.code_for_node(node).strip()
        return known


def statements_of(block: cst.BaseSuite) -> Sequence[cst.CSTNode]:
    """The statements of a body, also of one that stands on its head's line."""
    if isinstance(block, cst.SimpleStatementSuite):
        return (cst.SimpleStatementLine(block.body),)
    return block.body


def beside(name: str, level: int, unit: Unit) -> Path | None:
    """The file of an imported module, if it lies next to this one or under the root; None for libraries."""
    parts = name.split(".") if name else []
    if level:
        here = Path(unit.path).parent
        for _ in range(level - 1):
            here = here.parent
        return _file(here, parts)
    return next((file for folder in unit.folders if (file := _file(folder, parts)) is not None), None)


def _file(folder: Path, parts: list[str]) -> Path | None:
    path = folder.joinpath(*parts)
    for file in (path.with_suffix(".py") if parts else path / "__init__.py", path / "__init__.py"):
        if file.is_file():
            return file
    return None


@lru_cache(maxsize=64)
def parsed(path: Path, modified: float) -> cst.Module | None:
    """A neighbour's tree; None if it cannot be read, does not parse, or has nothing that matters here."""
    try:
        data = path.read_bytes()
        if len(data) > LARGEST or (len(data) > SMALL and not worth_following(data.decode("utf-8", "replace"))):
            return None
        return cst.parse_module(data)
    except (OSError, ValueError, cst.ParserSyntaxError, RecursionError, UnicodeDecodeError):
        return None
