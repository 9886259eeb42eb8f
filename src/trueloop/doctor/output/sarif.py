"""``--format sarif``: the Static Analysis Results Interchange Format 2.1.0, for code scanning of many hosts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trueloop import __version__
from trueloop.doctor.findings import Finding, Place, plain
from trueloop.doctor.output import Report, Sentence, repository, shown_path
from trueloop.doctor.pages import Page, markdown, pages

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def write(report: Report) -> str:
    """One log with one run.

    Example:
        >>> json.loads(write(Report()))["version"]
        '2.1.0'
    """
    known = [page for page in pages() if page.name in {finding.name for finding in report.findings}]
    root = repository(report)
    order = {page.name: number for number, page in enumerate(known)}
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "trueloop", "version": __version__, "rules": [_rule(page) for page in known]}},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"%SRCROOT%": {"uri": root.as_uri() + "/"}},
        "results": [_result(finding, order, root) for finding in report.findings],
    }
    if report.script is not None:
        run["invocations"] = [_invocation(report)]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(page: Page) -> dict[str, Any]:
    return {
        "id": page.name,
        "shortDescription": {"text": plain(page.summary)},
        "fullDescription": {"text": plain(page.about.get("Why it matters") or page.summary)},
        "help": {"text": plain(page.about.get("Fix") or page.summary), "markdown": markdown(page)},
        "defaultConfiguration": {"level": page.level},
        "properties": {"code": page.code, "tags": ["pytorch", "training"]},
    }


def _result(finding: Finding, order: dict[str, int], root: Path) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.name,
        "level": finding.level,
        "message": {"text": plain("\n".join(filter(None, [finding.message, *finding.evidence, finding.help])))},
        "partialFingerprints": {"ruleAndSource/v1": _fingerprint(finding, root)},
        "properties": {"code": finding.code, "certainty": finding.certainty, "explains": list(finding.explains)},
    }
    if finding.name in order:
        result["ruleIndex"] = order[finding.name]
    if finding.step is not None:
        result["properties"]["step"] = finding.step
    if finding.place is not None:
        result["locations"] = [{"physicalLocation": _location(finding.place, root)}]
    if finding.related:
        result["relatedLocations"] = [
            {"id": number, "physicalLocation": _location(place, root), "message": {"text": label}}
            for number, (place, label) in enumerate(finding.related, 1)
        ]
    return result


def _location(place: Place, root: Path) -> dict[str, Any]:
    shown = shown_path(place.file, root)
    if Path(shown).is_absolute():
        artifact = {"uri": Path(shown).as_uri()}
    else:
        artifact = {"uri": Path("/", shown).as_uri().removeprefix("file:///"), "uriBaseId": "%SRCROOT%"}
    region: dict[str, Any] = {"startLine": place.line}
    if place.source:
        region["snippet"] = {"text": place.source}
    return {"artifactLocation": artifact, "region": region}


def _fingerprint(finding: Finding, root: Path) -> str:
    """Stays the same when lines are added above."""
    source = finding.place.source if finding.place is not None else ""
    file = shown_path(finding.place.file, root) if finding.place is not None else ""
    return hashlib.sha256(f"{finding.name}\0{file}\0{source}".encode(errors="surrogatepass")).hexdigest()[:32]


def _invocation(report: Report) -> dict[str, Any]:
    script = report.script or {}
    told: dict[str, Any] = {"executionSuccessful": not script.get("failed", False)}
    if script.get("exit") is not None:
        told["exitCode"] = script["exit"]
    if script.get("error"):
        told["exitCodeDescription"] = script["error"]
    if report.unseen:
        told["toolExecutionNotifications"] = [_notification(sentence) for sentence in report.unseen]
    return told


def _notification(sentence: Sentence) -> dict[str, Any]:
    about = f"{sentence.name}: " if sentence.name else ""
    return {"level": "note", "message": {"text": f"{about}{sentence.text}"}}
