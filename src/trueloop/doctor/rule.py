"""What a rule is: one mistake, described, and a small state machine that knows it when it sees it."""

from __future__ import annotations

import inspect
import re
from abc import ABC
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from trueloop.doctor.findings import Certainty, Finding, Level, Place

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace


class Rule(ABC):
    """The base of every dynamic rule; one is made for each run that is listened to.

    A rule's file opens with a docstring, from which its page is made: the first line says what is wrong, then come
    paragraphs that begin with ``Sees:``, ``Why it matters:``, ``Usual causes:`` and ``Fix:``. The class reacts to facts
    by methods that are named in ``facts.REACTIONS`` (``def stepped(self, fact: Stepped) -> Iterator[Finding]``), and
    ``self.trace`` knows what came before. ``FIRES`` and ``SILENT`` are small scripts, by name, that the tests run.
    """

    name: ClassVar[str]
    code: ClassVar[int]
    level: ClassVar[Level]
    certainty: ClassVar[Certainty]
    seen_by: ClassVar[tuple[str, ...]] = ("run",)
    """``run``, ``source`` or both."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def finding(
        self,
        message: str,
        *evidence: str,
        place: Place | None,
        meaning: str = "",
        help: str = "",
        level: Level | None = None,
        certainty: Certainty | None = None,
        related: Iterable[tuple[Place | None, str]] = (),
        step: int | None = None,
    ) -> Finding:
        """A finding of this rule, here and now."""
        about = about_of(type(self))
        return Finding(
            name=self.name,
            code=self.code,
            level=level or self.level,
            certainty=certainty or self.certainty,
            message=message,
            evidence=evidence,
            meaning=meaning or about.get("Why it matters", ""),
            help=help or about.get("Fix", ""),
            place=place,
            step=self.trace.step if step is None else step,
            epoch=self.trace.epoch,
            related=tuple((where, label) for where, label in related if where is not None),
        )

    def passed(self) -> str | None:
        """What was looked at and found right, in a sentence, for ``--show-passed``; None if nothing was looked at."""
        return None

    def unseen(self) -> str | None:
        """What this rule would have needed and did not get (too few steps, a compiled model), in one sentence."""
        return None


def about_of(rule: Any) -> dict[str, str]:
    """The parts of a rule's docstring by their headings; the first line under ``""``.

    Args:
        rule: a rule's class, or the module of its file.

    Example:
        >>> from trueloop.doctor.rules import missing_zero_grad as file
        >>> sorted(about_of(file))
        ['', 'Fix', 'Sees', 'Usual causes', 'Why it matters']
    """
    module = inspect.getmodule(rule)
    text = inspect.cleandoc((module.__doc__ if module else "") or "")
    parts: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", text):
        flat = " ".join(paragraph.split())
        heading, colon, rest = flat.partition(":")
        known = heading in ("Sees", "Why it matters", "Usual causes", "Fix")
        if not parts:
            parts[""] = flat
        elif colon and known:
            parts[heading] = rest.strip()
        else:
            last = list(parts)[-1]
            parts[last] = f"{parts[last]} {flat}".strip()
    return parts
