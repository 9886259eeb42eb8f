"""Every rule's small scripts to be read: those that must fire do, by name; the silent ones give no error."""

from __future__ import annotations

import textwrap
from types import ModuleType
from typing import Any

import libcst as cst
import pytest

from trueloop.doctor import catalogue
from trueloop.doctor.rule import Rule, about_of
from trueloop.doctor.source.checks import found_in
from trueloop.doctor.source.fixes import Checked, apply
from trueloop.doctor.source.units import Unit

FILES = [file for file in catalogue.files() if hasattr(file, "in_source")]


def scripts(kind: str) -> list[Any]:
    return [pytest.param(file, name, id=f"{title(file)}-{name}") for file in FILES for name in getattr(file, kind)]


def title(file: ModuleType) -> str:
    return file.__name__.rpartition(".")[2]


def rule_of(file: ModuleType) -> type[Rule]:
    found: type[Rule] = next(
        thing
        for thing in vars(file).values()
        if isinstance(thing, type) and issubclass(thing, Rule) and thing.__module__ == file.__name__
    )
    return found


def read(text: str) -> list[Checked]:
    return found_in(Unit("script.py", cst.parse_module(textwrap.dedent(text))), strict=True)


@pytest.mark.parametrize(("file", "name"), scripts("READ_FIRES"))
def test_fires(file: ModuleType, name: str) -> None:
    found = [checked for checked in read(file.READ_FIRES[name]) if checked.finding.name == rule_of(file).name]
    assert found
    for finding, _ in found:
        assert finding.message
        assert finding.evidence
        assert finding.meaning
        assert finding.help
        assert finding.place is not None


@pytest.mark.parametrize(("file", "name"), scripts("READ_SILENT"))
def test_silent(file: ModuleType, name: str) -> None:
    found = [checked.finding for checked in read(file.READ_SILENT[name])]
    assert [(finding.name, finding.line) for finding in found if finding.level != "note"] == []
    assert rule_of(file).name not in [finding.name for finding in found]


RUN = [file for file in catalogue.files() if hasattr(file, "SILENT")]
QUIET = [pytest.param(file.SILENT[name], id=f"{title(file)}-{name}") for file in RUN for name in file.SILENT]
PRELUDE = """
import copy, math, random
import numpy as np
import torch
from torch import nn, optim
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
"""


@pytest.mark.parametrize("script", QUIET)
def test_what_is_right_when_it_runs_is_right_when_it_is_read(script: str) -> None:
    found = [checked.finding for checked in read(PRELUDE + textwrap.dedent(script))]
    assert [(finding.name, finding.line) for finding in found if finding.level != "note"] == []


@pytest.mark.parametrize(("file", "name"), scripts("READ_FIRES"))
def test_a_fix_mends_it(file: ModuleType, name: str) -> None:
    text = textwrap.dedent(file.READ_FIRES[name])
    for finding, fix in read(text):
        if fix is not None and finding.name == rule_of(file).name:
            mended = apply(text, fix.edits)
            left = [checked.finding for checked in read(mended)]
            assert (finding.name, finding.line) not in [(other.name, other.line) for other in left]


@pytest.mark.parametrize("file", FILES, ids=title)
def test_a_rule_is_described(file: ModuleType) -> None:
    assert set(about_of(file)) == {"", "Sees", "Why it matters", "Usual causes", "Fix"}
    assert file.READ_FIRES
    assert file.READ_SILENT
    assert "source" in rule_of(file).seen_by


def test_a_forward_without_gradients_is_told_once() -> None:
    found = read("""
        import torch
        from torch import nn
        x = torch.randn(200, 4)
        y = (x[:, 0] > 0).long()
        net = nn.Linear(4, 2)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(20):
            opt.zero_grad()
            with torch.no_grad():
                out = net(x)
            loss = nn.functional.cross_entropy(out, y)
            loss.requires_grad_(True)
            loss.backward()
            opt.step()
    """)
    errors = [one.finding.name for one in found if one.finding.level == "error"]
    assert errors == ["training-under-no-grad"]  # the targets are cast: that cuts no graph off
