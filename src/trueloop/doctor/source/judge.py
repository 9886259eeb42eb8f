"""From what the rules found to what is said: one cause one finding, and what comments keep back is kept back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from trueloop.doctor import suppress
from trueloop.doctor.findings import Finding
from trueloop.doctor.pages import codes, pages
from trueloop.doctor.precedence import nearest_to_the_cause
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.read import Source


class Judged(NamedTuple):
    """What is said, by file and line, and what is not."""

    left: list[Checked]
    kept_back: list[Finding]


def judged(
    found: Sequence[tuple[Source, Sequence[Checked]]], speak: Collection[str] | None = None, *, whole: bool = True
) -> Judged:
    """What is to be said of several sources.

    Args:
        found: each source and what was found in it.
        speak: the rules that are asked for, by name; None takes all.
        whole: also say which comments keep nothing back, which can only be said of all files together.

    Example:
        >>> twice = [Checked(Finding("broadcast-loss", 304, "error", "certain", "shapes differ"))] * 2
        >>> len(judged([(Source("a.py", ""), twice)]).left)
        1
    """
    fixes = {_bare(checked.finding): checked.fix for _, those in found for checked in those if checked.fix}
    findings = list(dict.fromkeys(finding for _, those in found for finding in _causes(those)))
    texts = {source.path: source.text for source, _ in found}
    commented = [path for path, text in texts.items() if "trueloop:" in text]
    if not findings and not commented:
        return Judged([], [])
    # a rule that also listens may have a use for the comment when it does
    reading = {page.name for page in pages() if page.seen_by == ("source",)} if whole else set[str]()
    kept = suppress.apply(findings, commented if whole else (), known=codes(), judged=reading, sources=texts)
    order = {path: number for number, path in enumerate(texts)}
    known = set(findings)
    left = [finding for finding in kept.findings if whole or finding in known]  # the others are on comments
    left.sort(key=lambda finding: (order.get(finding.file or "", len(order)), finding.file or "", finding.line or 0))
    return Judged(
        [Checked(finding, fixes.get(_bare(finding))) for finding in left if speak is None or finding.name in speak],
        [finding for finding in kept.kept_back if speak is None or finding.name in speak],
    )


def _causes(those: Iterable[Checked]) -> list[Finding]:
    return nearest_to_the_cause(list(dict.fromkeys(checked.finding for checked in those)))


def _bare(finding: Finding) -> Finding:
    """The finding without what it explains, by which it is known again."""
    return replace(finding, explains=())
