from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def test_a_run_prints_plan_epochs_summary_confusion_and_its_folder(command: Command, tiny: str, tmp_path: Path) -> None:
    ended = command("train", tiny, "--epochs", "3", "--out", "run")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "plan"
    assert [line.split(" · ")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert any(line.startswith("finished · 15 steps in ") for line in lines)
    assert any(line.split() == ["true", "↓", "below", "above", "recall"] for line in lines)
    assert any(re.fullmatch(r"accuracy \d+\.\d\d % of 16 samples", line) for line in lines)
    assert lines[-1] == "run: run"
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {"run.json", "events.jsonl", "model.safetensors"}


def test_the_folder_says_how_to_make_the_recipe_again(command: Command, tiny: str, tmp_path: Path) -> None:
    command("train", tiny, "--lr", "0.25", "--out", "run", "--kind", "deep")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["settings"]["recipe"] == {
        "reference": f"{tmp_path}/mine.py:tiny",
        "flags": ["--lr", "0.25", "--kind", "deep"],
        "arguments": {"epochs": 2, "lr": 0.25, "kind": "deep", "bias": True},
    }


def test_the_folder_is_named_by_recipe_and_time(command: Command, tiny: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("train", tiny).code == 0
    names = sorted(folder.name for folder in (tmp_path / "runs").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"tiny-\d{8}-\d{6}(-\d)?", name) for name in names), names


def test_a_recipes_parameters_are_flags_with_their_descriptions(command: Command, tiny: str) -> None:
    ended = command("train", tiny, "--help")
    text = " ".join(ended.out.replace("│", " ").split())
    assert ended.code == 0
    assert "usage: trueloop train tiny" in text
    assert "Two classes that a line tells apart." in text
    assert "--epochs INT how often it sees the data. (default: 2)" in text
    assert "--kind {linear,deep}" in text
    assert "--bias, --no-bias" in text
    assert "--out FOLDER the run's folder; by default runs/RECIPE-<date>-<time>" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny"], "unknown recipe 'tiny'"),
        (["mine.py:tny"], "did you mean 'tiny'?"),
        (["--epochs", "3"], "expected the recipe before its flags, got '--epochs'"),
        (["mine.py:tiny", "--epoch", "3"], "--epochs INT"),
        (["mine.py:tiny", "--lr", "fast"], "could not convert string to float: 'fast'"),
        (["mine.py:tiny", "--kind", "wide"], "Expected one of ('linear', 'deep')"),
        (["mine.py:tiny", "--epochs", "0"], "epochs must be a positive whole number, got epochs=0"),
        (["mine.py:unfinished"], "expected unfinished() to return a trueloop.Recipe, got int"),
        (["mine.py:nameless"], "a recipe's parameters are flags and have names; *layers: int"),
        (["mine.py:greedy"], "--out is a flag of every recipe"),
        (["mine.py:wrong_loss"], "X has 3 samples, y has 2"),
    ],
)
def test_what_cannot_be_is_said_with_exit_code_2(
    command: Command, tiny: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    ended = command("train", *arguments)
    assert ended.code == 2
    assert message in ended.error
    assert "Traceback" not in ended.err
    assert not list((tmp_path / "runs").glob("*/model.safetensors"))


def test_without_a_recipe_it_lists_them_with_exit_code_2(command: Command) -> None:
    ended = command("train")
    assert ended.code == 2
    assert ended.out.startswith("usage: trueloop train RECIPE")


def test_a_folder_that_holds_another_run_is_not_touched(command: Command, tiny: str, tmp_path: Path) -> None:
    command("train", tiny, "--out", "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    ended = command("train", tiny, "--out", "run")
    assert ended.code == 2
    assert "holds another run" in ended.error
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("out", [["--out", ""], ["--out="], ["--out", "..", "--lr", "0.1"]], ids=str)
def test_a_folder_that_cannot_be_meant_is_refused(
    command: Command, tiny: str, out: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ended = command("train", f"../{tiny}", *out)
    assert ended.code == 2
    expected = "got one that the working directory lies in" if ".." in out else "a path after --out, got an empty text"
    assert expected in ended.error
    assert sorted(file.name for file in tmp_path.rglob("*") if "pycache" not in str(file)) == ["here", "mine.py"]


def test_an_empty_text_may_be_given_for_a_text(command: Command, tiny: str, tmp_path: Path) -> None:
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\n\ndef named(title: str = 'x') -> tl.Recipe:\n    assert title == ''\n    return regression()\n")
    assert command("train", "mine.py:named", "--title", "", "--out", "run").code == 0


def test_ctrl_c_ends_with_130_and_a_complete_record(command: Command, tiny: str, tmp_path: Path) -> None:
    ended = command("train", "mine.py:stopped_by_hand", "--out", "run")
    assert ended.code == 130
    assert "interrupted · 1 step in" in ended.out
    assert ended.out.endswith("run: run\nto go on: trueloop resume run\n")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["status"], facts["steps"]) == ("interrupted", 1)
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event for event in events if event != "Saved"] == ["RunStarted", "StepEnded", "RunEnded"]


def test_a_recipe_without_classes_has_no_confusion_matrix(command: Command, tiny: str) -> None:
    ended = command("train", "mine.py:regression")
    assert ended.code == 0
    assert "recall" not in ended.out
