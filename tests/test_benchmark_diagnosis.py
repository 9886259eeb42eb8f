"""The benchmark's table of tools that diagnose: read, edit, count, keep. No tool is run."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.cases import diagnosis
from benchmarks.diagnosis import look, mldoct, store, torch_audit, torch_preflight, traincheck, trueloop
from benchmarks.diagnosis.case import Case, places, read_cases
from benchmarks.diagnosis.look import Look
from benchmarks.machine import Disturbance

BUGGY = "# expect: broadcast-loss [run,source]\n# accept: input-ignored\n# allow: not-learning\n"
SCRIPT = (
    "from torch import optim\nnet = Net()\ndef go():\n    opt = optim.Adam(net.parameters(), lr=1)\n    opt.step()\n"
)
PREFLIGHT = look.tool(torch_preflight)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind, text in (("buggy", BUGGY), ("clean", "# expect: nothing\n# allow: no-validation\n")):
        (tmp_path / kind).mkdir()
        for name in ("one", "two"):
            (tmp_path / kind / f"{name}.py").write_text(text + "print(1)\n")
    return tmp_path


def test_headers_are_read(folder: Path) -> None:
    cases = read_cases(folder)
    assert sorted(case.name for case in cases) == ["buggy/one", "buggy/two", "clean/one", "clean/two"]
    buggy = next(case for case in cases if case.name == "buggy/one")
    assert buggy.names == {"broadcast-loss", "input-ignored"}
    assert buggy.ways == {"run", "source"}
    assert not next(case for case in cases if case.name == "clean/one").buggy


def test_the_order_is_the_same_wherever_the_cases_lie(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = folder.rename(tmp_path_factory.mktemp("elsewhere") / "cases")
    again = [case.name for case in read_cases(there)]
    assert sorted(again) != again
    assert again == [case.name for case in read_cases(there)]


@pytest.mark.parametrize(
    ("made", "model", "optimizer"),
    [
        ("opt = torch.optim.SGD(net.parameters(), lr=1)", "net", "opt"),
        ("self.opt = Adam([*self.a.parameters(), *self.b.parameters()])", "self.a", "self.opt"),
        ("net = nn.Sequential(x)\nopt = optim.AdamW(groups, lr=1)", "net", "opt"),
    ],
)
def test_optimizers_are_found_with_their_models(made: str, model: str, optimizer: str) -> None:
    (place,) = places(made)
    assert (place.model, place.optimizer) == (model, optimizer)


def test_torch_audit_stands_behind_the_optimizer_and_its_lines_are_counted() -> None:
    source, edits = torch_audit.edited(SCRIPT)
    assert edits == 4
    body = ast.unparse(ast.parse(source).body[-1]).splitlines()
    assert body[2].strip().startswith("_auditor = autopatch(net, optimizer=opt, every_n_steps=1")
    assert body[-1].strip() == "opt.step()"


def test_a_future_import_stays_first() -> None:
    source, _ = torch_audit.edited("from __future__ import annotations\n" + SCRIPT)
    compile(source, "script.py", "exec")


def test_a_script_without_optimizer_is_left_alone() -> None:
    assert torch_audit.edited("print(1)\n") == ("print(1)\n", 0)


def test_torch_preflights_report_is_read_by_its_mapping() -> None:
    case = Case(Path("buggy/a.py"), frozenset({"missing-zero-grad"}), frozenset({"source"}))
    assert diagnosis.hit(case, Look([("TG003", "error")]), PREFLIGHT)
    assert not diagnosis.hit(case, Look([("TG001", "error")]), PREFLIGHT)


def test_every_rule_that_a_mapping_names_is_in_the_catalogue() -> None:
    asked = [sys.executable, "-m", "trueloop", "rules"]
    known = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    source_only = {"not-seeded", "loss-divided-after-backward"}
    for tool in (torch_preflight, torch_audit, mldoct, traincheck, trueloop):
        named = {name for names in look.tool(tool).MEANS.values() for name in names}
        assert named - source_only <= set(known), tool.__name__


@pytest.mark.parametrize(
    ("shown", "about"),
    [
        ("Optimizer.zero_grad() always precedes Adam.step()", "zero_grad"),
        ("Adam.step() changes Parameter.data: non-zero --> non-zero", "parameter"),
        ("Sequential.forward() always calls Dropout.forward()", "layers"),
        ("library.custom_op() receives distinct arguments at each step", "other"),
    ],
)
def test_invariants_are_put_down_to_what_they_speak_of(shown: str, about: str) -> None:
    assert traincheck.speaks_of(shown) == about


def test_mldoctors_table_and_alerts_are_read() -> None:
    table = (
        "│ WARNING │ Dataloader 'x' bottleneck: num_workers=0. │ fix │\n│ INFO │ No gradient clipping detected. │ fix │"
    )
    assert mldoct.read(table, "CRITICAL INSTABILITY DETECTED") == [
        ("num_workers", "warning"),
        ("missing_clip", "note"),
        ("nan_inf", "error"),
    ]


def test_what_was_said_is_kept_for_its_version(tmp_path: Path) -> None:
    said = Look([("TG003", "error")], 1.5, 1.25, plain=(3.0, 2.5))
    store.keep("tool", "1", "buggy/a", said, tmp_path)
    store.keep("tool", "1", "buggy/b", Look(failed="why"), tmp_path)
    version, looks = store.load("tool", None, tmp_path)
    assert version == "1"
    assert looks["buggy/b"].failed == "why"
    assert list(looks["buggy/a"].findings[0]) == ["TG003", "error"]
    assert (looks["buggy/a"].seconds, list(looks["buggy/a"].plain or ())) == (1.5, [3.0, 2.5])
    assert store.load("tool", "2", tmp_path) == ("2", {})
    store.keep("tool", "2", "buggy/a", said, tmp_path)
    assert list(store.load("tool", None, tmp_path)[1]) == ["buggy/a"]


def test_a_command_that_goes_on_too_long_is_ended(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with pytest.raises(subprocess.TimeoutExpired):
        look.run([sys.executable, "-c", code], tmp_path, patience=0.5)


def test_the_table_counts_by_the_rules_it_states(folder: Path) -> None:
    cases = read_cases(folder)
    ours = {
        "buggy/one": Look([("broadcast-loss", "error")], 1.1, 1.1, plain=(1.0, 1.0)),
        "buggy/two": Look([("input-ignored", "warning")], 1.1, 1.1),
        "clean/one": Look([("no-validation", "note")], 1.1, 1.1),
        "clean/two": Look([], 1.1, 1.1),
    }
    theirs = {
        "buggy/one": Look([("TG003", "error")], 2.0, 2.0, plain=(1.0, 1.0)),
        "clean/one": Look([("TG007", "warning")], 2.0, 2.0),
        "clean/two": Look(failed="it broke"),
    }
    told = [
        diagnosis.Told(diagnosis.OURS, "", ours),
        diagnosis.Told(PREFLIGHT, "0.5.0", theirs),
        diagnosis.Told(look.tool(traincheck), "", {}, "not installed: pip could not install traincheck"),
    ]
    text = diagnosis.section(diagnosis.Diagnosis(cases, told, Disturbance()))
    assert "| **trueloop doctor** | **1.00** (2 of 2) |" in text
    assert "| **0** of 2 | 0 | 0 | **1.10** |" in text
    assert "| torch-preflight | **0.00** (0 of 1) |" in text
    assert "| **1** of 1 | 0 | 0 | **2.00** |" in text  # TG007 is advice on speed
    assert "TrainCheck | not installed: pip could not install traincheck" in text
    assert "- **ahead** in recall: 1.00; the best peer has 0.00 (torch-preflight)" in text
    assert "- a tie in lines to edit" in text
    assert "torch-preflight could not look at 1: clean/two" in text


def test_what_ours_missed_is_told_with_who_found_it(folder: Path) -> None:
    cases = [case for case in read_cases(folder) if case.buggy]
    case = Case(cases[0].path, frozenset({"missing-zero-grad"}), frozenset({"run"}))
    told = [
        diagnosis.Told(diagnosis.OURS, "", {case.name: Look([("broadcast-loss", "error")])}),
        diagnosis.Told(PREFLIGHT, "0.5.0", {case.name: Look([("TG003", "error")])}),
    ]
    text = diagnosis.section(diagnosis.Diagnosis([case], told, Disturbance()))
    assert f"- missed by ours: {case.name}; found by torch-preflight" in text
