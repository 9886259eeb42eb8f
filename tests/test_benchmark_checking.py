"""The benchmark's table of tools that read: what they say is read, and what it means. No tool is run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cases import checking
from benchmarks.cases.checking import MEANS, OURS, PEERS, Checking, Told, section
from benchmarks.diagnosis import store
from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.look import Look

from trueloop.doctor.pages import codes

PREFLIGHT, TORCHFIX = PEERS
CASES = [
    Case(Path("a/buggy/unsafe-load--plain.py"), frozenset({"unsafe-load"}), frozenset({"source"})),
    Case(Path("a/buggy/missing-zero-grad--plain.py"), frozenset({"missing-zero-grad"}), frozenset({"source", "run"})),
    Case(Path("a/clean/right.py"), frozenset(), frozenset()),
]


def test_what_their_findings_mean_are_rules_of_ours() -> None:
    assert {name for means in MEANS.values() for names in means.values() for name in names} <= set(codes())
    assert set(MEANS) == {reader.package for reader in PEERS}


def test_answers_are_read() -> None:
    assert OURS.rows('{"findings": [{"file": "/x/buggy/a.py", "name": "unsafe-load", "level": "note"}]}') == [
        ("/x/buggy/a.py", "unsafe-load", "note")
    ]
    told = 'reading\n{"diagnostics": [{"path": "buggy/a.py", "code": "TG003", "severity": "error"}]}'
    assert PREFLIGHT.rows(told) == [("buggy/a.py", "TG003", "error")]
    told = "/x/buggy/a.py:24:13: TOR102 [*] `torch.load` without `weights_only` parameter\nFinished checking 2 files.\n"
    assert TORCHFIX.rows(told) == [("/x/buggy/a.py", "TOR102", "warning")]


def test_hits_and_alarms_are_counted() -> None:
    quiet = {case.name: Look() for case in CASES}
    ours = quiet | {
        "buggy/unsafe-load--plain": Look([("unsafe-load", "warning")]),
        "clean/right": Look([("x", "note")]),
    }
    ours |= {"buggy/missing-zero-grad--plain": Look([("missing-zero-grad", "error")])}
    theirs = quiet | {"buggy/unsafe-load--plain": Look([("TOR102", "warning")]), "clean/right": Look([("y", "error")])}
    told = section(
        Checking(CASES, [Told(OURS, "1", ours), Told(PREFLIGHT, "", {}, "not asked yet"), Told(TORCHFIX, "2", theirs)])
    )
    assert "| **trueloop check** | **1.00** (2 of 2) | 2 of 2 | **0** of 1 | 3 |" in told
    assert "| TorchFix | **0.50** (1 of 2) | 1 of 2 | **1** of 1 | 3 |" in told
    assert "- **MISSED** recall beside TorchFix's: 1.00 to 0.50" in told
    assert "- **reached** false alarms beside TorchFix's: 0 to 1" in told
    assert "| torch-preflight | not asked yet |" in told


def test_kept_answers_are_of_scripts_that_there_are() -> None:
    names = {f"{file.parent.name}/{file.stem}" for file in checking.OWN_CASES.glob("*/*.py")}
    _, looks = store.load("torchfix", None)
    assert names & set(looks)
