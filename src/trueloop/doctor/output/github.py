"""``--format github``: workflow commands, which GitHub shows as annotations on the lines of a pull request."""

from __future__ import annotations

from pathlib import Path

from trueloop.doctor.findings import Finding, plain
from trueloop.doctor.output import Report, repository, shown_path

KINDS = {"error": "error", "warning": "warning", "note": "notice"}


def write(report: Report) -> str:
    """A line a finding.

    Example:
        >>> from trueloop.doctor.findings import Place
        >>> place = Place("train.py", 12)
        >>> found = Finding("broadcast-loss", 304, "error", "certain", "shapes differ", help="squeeze it", place=place)
        >>> print(write(Report([found])), end="")
        ::error file=train.py,line=12,title=broadcast-loss (304)::shapes differ%0Ahelp: squeeze it
    """
    root = repository(report)
    return "".join(f"{_command(finding, root)}\n" for finding in report.findings)


def _command(finding: Finding, root: Path) -> str:
    properties = {"title": f"{finding.name} ({finding.code})"}
    if finding.place is not None:
        where = {"file": shown_path(finding.place.file, root), "line": str(finding.place.line)}
        properties = where | properties
    text = "\n".join(
        [
            finding.message,
            *(f"evidence: {one}" for one in finding.evidence),
            *([f"help: {finding.help}"] if finding.help else []),
        ]
    )
    given = ",".join(
        f"{key}={_escaped(value).replace(':', '%3A').replace(',', '%2C')}" for key, value in properties.items()
    )
    return f"::{KINDS[finding.level]} {given}::{_escaped(plain(text))}"


def _escaped(text: str) -> str:
    """As @actions/core does it; in properties, a colon and a comma as well."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
