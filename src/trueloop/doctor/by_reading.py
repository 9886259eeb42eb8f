"""What stands in the text of a script that was run, and cannot be heard: which split chose a model, what a file loads.

Reading is the check's affair (``source/``). Here, its findings are set beside those of a run.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from trueloop.doctor.catalogue import rules_by_code
from trueloop.doctor.findings import Finding

READ = "read in the text: this run did not show it, and need not have come there"
"""The last piece of such a finding's evidence."""
SECONDS = 2.0
"""Files that are not read by then are not: a run of many of the user's own modules must not wait for it."""


class ByReading(NamedTuple):
    """What the files of a run say.

    Args:
        findings: of rules that have not judged by what they heard.
        unread: how many files there was no time for.
    """

    findings: list[Finding]
    unread: int


def by_reading(files: Sequence[str], judged: Collection[str], *, trained: bool = True) -> ByReading:
    """Reads files, and leaves what could be heard to those who listened.

    Code that is read need not have run. So, where there was a training to hear, only the script's own file is taken at
    its word, and only for what nobody could hear; all else is a note.

    Args:
        files: the script's own, the most important first.
        judged: the rules that have found something, or found it right, by name: what was heard goes before.
        trained: there was a training to hear.

    Example:
        >>> by_reading(["nowhere.py"], judged=())
        ByReading(findings=[], unread=0)
    """
    unheard = {rule.name for rule in rules_by_code() if "run" not in rule.seen_by}
    until, findings = time.monotonic() + SECONDS, list[Finding]()
    for number, file in enumerate(files):
        if number and time.monotonic() > until:
            return ByReading(findings, len(files) - number)
        for finding in read_in(file):
            told = replace(finding, evidence=(*finding.evidence, READ))
            if trained and (number or finding.name not in unheard):
                told = replace(told, level="note")
            if finding.name not in judged and told not in findings:  # one of another file is told in both
                findings.append(told)
    return ByReading(findings, 0)


@cache
def read_in(file: str) -> tuple[Finding, ...]:
    """What `trueloop check` finds in a file; nothing, if it cannot be read."""
    try:
        from trueloop.doctor.source.look import look_at  # LibCST takes a while, and a script may end before

        return tuple(checked.finding for checked in look_at(file).found)
    except Exception:  # the script may have left the interpreter in any state
        return ()
