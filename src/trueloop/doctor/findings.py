"""What the doctor says: one mistake, its evidence, what it means, and how to mend it."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

Level = Literal["error", "warning", "note"]
"""``error``: the result is wrong or the run dies; ``warning``: a real defect; ``note``: could be better."""

Certainty = Literal["certain", "measured", "likely"]
"""``certain``: it follows from what was seen (order, state, graph); ``measured``: numbers over this run say so;
``likely``: it is what such a trace nearly always means."""

LEVELS: tuple[Level, ...] = ("note", "warning", "error")
"""From mild to grave."""


class Place(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def source(self) -> str:
        """The line itself, stripped; empty where the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()


@dataclass(frozen=True)
class Finding:
    """One mistake that was seen.

    Args:
        name: the rule's, as in ``# trueloop: ignore[name]``.
        code: the rule's number.
        level: how grave it is.
        certainty: how it is known.
        message: one sentence: what is wrong here, with the names and numbers of this run.
        evidence: what was seen, a sentence each, with numbers.
        meaning: what it does to the training.
        help: how to mend it, in this script's own names where they are known.
        place: the user's line; None where no line of the user's has to do with it.
        step: optimizer steps taken when it was seen.
        epoch: the epoch (0-based) in which it was seen; None if the script has no epochs that can be told.
        related: other lines that belong to it, each with a word on what it is.
        explains: names of other findings that come of this one and are therefore not told.

    Example:
        >>> Finding("missing-zero-grad", 101, "error", "certain", "gradients add up", place=Place("train.py", 12)).line
        12
    """

    name: str
    code: int
    level: Level
    certainty: Certainty
    message: str
    evidence: tuple[str, ...] = ()
    meaning: str = ""
    help: str = ""
    place: Place | None = None
    step: int | None = None
    epoch: int | None = None
    related: tuple[tuple[Place, str], ...] = ()
    explains: tuple[str, ...] = field(default=())

    @property
    def file(self) -> str | None:
        """The user's file."""
        return None if self.place is None else self.place.file

    @property
    def line(self) -> int | None:
        """The line in it, from 1."""
        return None if self.place is None else self.place.line

    def explaining(self, names: tuple[str, ...]) -> Finding:
        """The same finding, which also explains those named."""
        return replace(self, explains=tuple(dict.fromkeys((*self.explains, *names))))

    def as_dict(self) -> dict[str, Any]:
        """As in ``--format json``.

        Example:
            >>> found = Finding("missing-zero-grad", 101, "error", "certain", "they add up", place=Place("a.py", 3))
            >>> [found.as_dict()[key] for key in ("name", "line", "evidence")]
            ['missing-zero-grad', 3, []]
            >>> Finding.from_dict(found.as_dict()) == found
            True
        """
        return {
            "name": self.name,
            "code": self.code,
            "level": self.level,
            "certainty": self.certainty,
            "file": self.file,
            "line": self.line,
            "source": self.place.source if self.place else "",
            "message": plain(self.message),
            "evidence": [plain(one) for one in self.evidence],
            "meaning": plain(self.meaning),
            "help": plain(self.help),
            "step": self.step,
            "epoch": self.epoch,
            "related": [{"file": place.file, "line": place.line, "label": label} for place, label in self.related],
            "explains": list(self.explains),
        }

    @staticmethod
    def from_dict(told: Mapping[str, Any]) -> Finding:
        """What ``as_dict`` has made a dict of."""
        place = None if told["file"] is None else Place(told["file"], told["line"])
        related = tuple((Place(one["file"], one["line"]), one["label"]) for one in told["related"])
        same = {key: told[key] for key in ("name", "code", "level", "certainty", "message", "meaning", "help")}
        same |= {"step": told["step"], "epoch": told["epoch"], "place": place, "related": related}
        return Finding(**same, evidence=tuple(told["evidence"]), explains=tuple(told["explains"]))


def plain(text: str) -> str:
    """Code as rules write it, between two backquotes, is between one.

    Example:
        >>> plain("call ``step()``")
        'call `step()`'
    """
    return text.replace("``", "`")
