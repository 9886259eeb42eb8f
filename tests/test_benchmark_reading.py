"""The section on what the check costs and says of others' sources: what was read by hand is told from what was not."""

from __future__ import annotations

from benchmarks.cases import reading
from benchmarks.cases.reading import Reading, Readings
from benchmarks.machine import Disturbance


def section(*findings: tuple[str, str]) -> str:
    folder = Reading("torch", files=10, lines=4_000, seconds=2.0, findings=list(findings))
    dense = Reading("cases", files=10, lines=1_000, seconds=1.0)
    return reading.section(Readings([folder], dense, {"--help": 0.1}, Disturbance()))


def test_lines_a_minute_are_of_one_core() -> None:
    assert "**reached** lines a minute a core, over all: 120,000" in section()
    assert "**MISSED** lines a minute a core, short scripts that only train (cases): 60,000" in section()


def test_a_finding_counts_as_false_until_its_reason_is_written_down() -> None:
    known = next(iter(reading.TRUE))
    text = section((known, "warning"), ("torch/new.py missing-zero-grad", "error"), ("torch/new.py not-seeded", "note"))
    assert "| torch | 10 | 4,000 | 120,000 | 2 | 1 | 1 | 1 |" in text
    assert f"- {known}: {reading.TRUE[known]}" in text
    assert "- torch/new.py missing-zero-grad: not read by hand yet" in text
