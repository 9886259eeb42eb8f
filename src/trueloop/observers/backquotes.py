"""Findings as ``trueloop doctor`` words them: code, which rules write between two backquotes, is between one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding


def plain(text: str) -> str:
    """The same text with single backquotes.

    Example:
        >>> plain("call ``step()``")
        'call `step()`'
    """
    return text.replace("``", "`")


def as_dict(finding: Finding) -> dict[str, Any]:
    """A finding as ``trueloop doctor --format json`` has it; lines of code stay as they are."""
    told = finding.as_dict()
    sentences = {key: plain(told[key]) for key in ("message", "meaning", "help")}
    return told | sentences | {"evidence": [plain(one) for one in finding.evidence]}
