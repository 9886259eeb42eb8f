"""Every rule's own scripts: those that must fire do, by name; the silent ones give no error and no warning."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from trueloop.doctor import catalogue
from trueloop.doctor.rehearsal import rehearse
from trueloop.doctor.rule import Rule, about_of

FILES = [file for file in catalogue.files() if hasattr(file, "FIRES")]
SAMPLE = 2
"""So many scripts of each kind are run in the ordinary suite; `make proof` runs them all."""


def scripts(kind: str) -> list[Any]:
    return [
        pytest.param(file, name, marks=pytest.mark.slow if number >= SAMPLE else ())
        for file in FILES
        for number, name in enumerate(getattr(file, kind))
    ]


FIRES, SILENT = scripts("FIRES"), scripts("SILENT")


def rule_of(file: ModuleType) -> type[Rule]:
    return next(rule for rule in catalogue.dynamic_rules() if rule.__module__ == file.__name__)


def title(value: object) -> str:
    return value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else str(value).replace(" ", "-")


@pytest.mark.parametrize(("file", "name"), FIRES, ids=title)
@pytest.mark.filterwarnings("ignore")
def test_fires(file: ModuleType, name: str) -> None:
    trace = rehearse(file.FIRES[name], f"{title(file)}-{title(name)}")
    assert not trace.silenced
    found = [finding for finding in trace.findings if finding.name == rule_of(file).name]
    assert found, f"got {[finding.name for finding in trace.findings]}"
    assert all(finding.message and finding.evidence and finding.meaning and finding.help for finding in found)
    assert all(finding.place is not None and finding.place.source for finding in found), "a finding names its line"


@pytest.mark.parametrize(("file", "name"), SILENT, ids=title)
@pytest.mark.filterwarnings("ignore")
def test_silent(file: ModuleType, name: str) -> None:
    trace = rehearse(file.SILENT[name], f"{title(file)}-{title(name)}")
    assert not trace.silenced
    assert trace.error is None
    assert [(f.name, f.message) for f in trace.findings if f.level != "note"] == []
    assert rule_of(file).name not in [finding.name for finding in trace.findings]


@pytest.mark.parametrize("file", FILES, ids=title)
def test_a_rule_is_described(file: ModuleType) -> None:
    assert set(about_of(file)) == {"", "Sees", "Why it matters", "Usual causes", "Fix"}
    assert file.FIRES, "a rule without a script that fires is not known to work"
    assert file.SILENT, "a rule without a script that stays silent is not known to be quiet"
