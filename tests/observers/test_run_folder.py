from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

import trueloop
from trueloop.errors import RunFolderError
from trueloop.events import EvalEnded, RunEnded, RunStarted, Status
from trueloop.observers import RunRecord, claim, note
from trueloop.observers.run_folder import describe, start_over


def test_the_folder_says_all_that_made_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    out = claim("runs/deep/first", {"epochs": 3, "seed": 7, "data": Path("x"), "clip": math.inf, "betas": (0.9, 0.99)})
    facts = json.loads((tmp_path / "runs/deep/first/run.json").read_text())
    assert out == Path("runs/deep/first")
    assert facts["settings"] == {"epochs": 3, "seed": 7, "data": "x", "clip": "inf", "betas": [0.9, 0.99]}
    assert (facts["status"], facts["seed"], facts["folder"]) == ("running", 7, str(tmp_path))
    assert facts["versions"]["torch"] == str(torch.__version__)
    assert facts["versions"]["numpy"] == numpy.__version__
    assert facts["versions"]["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert facts["versions"]["trueloop"] == trueloop.__version__
    assert facts["command"] == [sys.executable, *sys.argv]
    assert facts["git"] == {"commit": head, "dirty": False}
    assert facts["threads"]["torch"] == torch.get_num_threads()
    assert facts["started"].endswith("+00:00")


def test_changes_to_tracked_files_are_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("x = 1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command], check=True)
    (tmp_path / "train.py").write_text("x = 2")
    assert describe(claim("run", {}))["git"]["dirty"] is True


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe(claim("run", {}))["git"] is None


def test_a_folder_that_holds_another_run_is_left_as_it_is(tmp_path: Path) -> None:
    claim(tmp_path, {"epochs": 1})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunFolderError, match="holds another run; choose another folder"):
        claim(tmp_path, {"epochs": 2})
    assert (tmp_path / "run.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_record_without_a_description_is_another_run_too(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="holds another run"):
        claim(tmp_path, {})


def test_a_folder_with_other_files_is_fine(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path, {}) == tmp_path


def test_weights_that_are_there_are_not_replaced(tmp_path: Path) -> None:
    """Those that somebody downloaded, or that ``trueloop export`` wrote here."""
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(RunFolderError, match=r"holds a model\.safetensors, which this run would replace"):
        claim(tmp_path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("out", ["..", "../..", "../../below"])
def test_a_folder_that_the_working_directory_lies_in_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    here = tmp_path / "below" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(RunFolderError, match="one that the working directory lies in"):
        claim(out, {})
    assert list(tmp_path.rglob("*")) == [tmp_path / "below", here]
    assert claim(".", {}) == Path()
    assert claim("../beside", {}).is_dir()


def test_what_several_tries_had_written_is_kept_try_by_try(tmp_path: Path) -> None:
    for number, names in enumerate((["events.jsonl"], ["events.jsonl", "model.safetensors"], [])):
        claim(tmp_path, {"try": number})
        for name in names:
            (tmp_path / name).write_text(f"{name} of {number}")
        start_over(tmp_path)
    kept = {file.name.removeprefix("abandoned-"): file.read_text() for file in tmp_path.iterdir()}
    tries = [json.loads(kept.pop(name))["settings"]["try"] for name in ("run.json", "run.json.2", "run.json.3")]
    assert tries == [0, 1, 2]
    assert kept == {
        "events.jsonl": "events.jsonl of 0",
        "events.jsonl.2": "events.jsonl of 1",
        "model.safetensors.2": "model.safetensors of 1",
    }


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RunFolderError, match=r"got a file.*/out\)"):
        claim(tmp_path / "out", {})
    with pytest.raises(RunFolderError, match="cannot be written"):
        claim(tmp_path / "out" / "below", {})
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(RunFolderError, match="cannot be written"):  # nobody, root included, makes files in there
        claim("/proc/trueloop", {})


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("finished", "finished"),
        ("interrupted", "interrupted"),
        ("failed: ValueError: no", "failed"),
        ("loss has not improved", "stopped"),
    ],
)
def test_the_end_is_written_down(
    tmp_path: Path, started: RunStarted, evaluated: Callable[..., EvalEnded], reason: str, status: Status
) -> None:
    record = RunRecord(claim(tmp_path, {"epochs": 2}))
    record(started)
    record(evaluated(3, 0.5, accuracy=math.nan))
    record(RunEnded(6, 2, reason, 1.23456, status))
    facts = describe(tmp_path)
    assert (facts["status"], facts["reason"], facts["steps"], facts["epochs"]) == (status, reason, 6, 2)
    assert (facts["seconds"], facts["metrics"]) == (1.235, {"loss": 0.5, "accuracy": None})
    assert (facts["settings"], facts["data_seed"]) == ({"epochs": 2}, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_note_adds_to_what_is_there(tmp_path: Path) -> None:
    claim(tmp_path, {"epochs": 2})
    note(tmp_path, {"recipe": {"reference": "digits"}})
    facts = describe(tmp_path)
    assert (facts["settings"], facts["recipe"]) == ({"epochs": 2}, {"reference": "digits"})


def test_a_folder_without_a_run_or_with_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"one with a run\.json"):
        describe(tmp_path / "none")
    (tmp_path / "run.json").write_text('{"status": ')
    with pytest.raises(RunFolderError, match="cannot be read"):
        describe(tmp_path)
