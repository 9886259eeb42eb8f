"""``--format json``: findings, what was checked, what could not be seen, how the script ended."""

from __future__ import annotations

import json

from trueloop.doctor.output import Report


def write(report: Report) -> str:
    """One object; its ``findings`` have the keys of ``Finding.as_dict``.

    Example:
        >>> list(json.loads(write(Report())))
        ['findings', 'passed', 'unseen', 'ignored', 'script', 'steps', 'complete']
    """
    whole = {
        "findings": [finding.as_dict() for finding in report.findings],
        "passed": [sentence._asdict() for sentence in report.passed],
        "unseen": [sentence._asdict() for sentence in report.unseen],
        "ignored": [finding.as_dict() for finding in report.kept_back],
        "script": report.script,
        "steps": report.steps,
        "complete": report.over,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
