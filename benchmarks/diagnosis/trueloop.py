"""Ours: ``trueloop doctor`` on the script as it is."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.look import Look, run

NAME = "**trueloop doctor**"
PACKAGE = "trueloop"
HOW = "`trueloop doctor --format json script.py`; no mapping: the finding must have the expected name"
EDITS = "none"
RUNS = True
MEANS: dict[str, tuple[str, ...]] = {}
ADVICE: tuple[str, ...] = ()


def look(case: Case, python: Path, work: Path) -> Look:
    report = work / "report.json"
    ended = run([python.parent / "trueloop", "doctor", "--format", "json", "--output", report, case.path.name], work)
    if not report.exists():
        return Look(failed=(ended.out.strip().splitlines() or ["no report"])[-1][:150])
    findings = json.loads(report.read_text())["findings"]
    return Look([(found["name"], found["level"]) for found in findings], ended.seconds, ended.cpu)
