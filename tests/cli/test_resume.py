"""``trueloop resume RUN``: a run made by ``trueloop train``, gone on with as if it had never been stopped."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trueloop as tl
from trueloop.checkpoint import store
from trueloop.checkpoint.lock import lock
from trueloop.errors import REQUEUE
from trueloop.observers.run_folder import claim, describe
from trueloop.testing import mlp, regression

Command = Callable[..., Any]

RECIPE = '''
import pathlib
import signal

import torch

import trueloop as tl
from trueloop.testing import classification, mlp


def stoppable(epochs: int = 3, at: int = 0, by: str = "SIGTERM", lr: float = 0.05) -> tl.Recipe:
    """Five steps an epoch; a signal comes in the step ``at``, if it is not 0."""
    torch.manual_seed(1)

    def sees(event):
        sent = pathlib.Path(f"sent-{at}")  # once: a step that comes again is let pass
        if isinstance(event, tl.StepEnded) and event.step == at and not sent.exists():
            sent.touch()
            signal.raise_signal(signal.Signals[by])

    classes = pathlib.Path("classes.txt").read_text().split() if pathlib.Path("classes.txt").exists() else None
    trainer = tl.Trainer(
        mlp(outputs=2, dropout=0.3),
        torch.nn.CrossEntropyLoss(),
        tl.optim.adam(lr=lr),
        schedule=tl.schedules.one_cycle(),
    )
    return tl.Recipe(
        trainer, classification(20, classes=2), classification(6, classes=2, seed=1), epochs=epochs, batch_size=4,
        seed=4, observers=[sees], classes=classes,
    )
'''


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(RECIPE)
    return "mine.py:stoppable"


def edit(tmp_path: Path, old: str, new: str) -> None:
    """Changes the recipe, as if in another process: what was imported is forgotten."""
    file = tmp_path / "mine.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")) == str(file)]:
        del sys.modules[name]


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["event"] == "StepEnded"]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def steps(run: Path) -> list[int]:
    return [entry.step for entry in store.entries(run / "checkpoints")]


@pytest.fixture
def whole(command: Command, recipe: str, tmp_path: Path) -> Path:
    """The run that was never stopped."""
    assert command("train", recipe, "--out", "whole").code == 0
    return tmp_path / "whole"


CODES = {"SIGTERM": REQUEUE, "SIGUSR1": REQUEUE, "SIGINT": 130}


@pytest.mark.parametrize("by", CODES)
def test_what_was_stopped_says_how_to_go_on_and_ends_as_if_it_had_not(
    by: str, command: Command, recipe: str, whole: Path, tmp_path: Path
) -> None:
    ended = command("train", recipe, "--at", "7", "--by", by, "--out", "run")
    assert ended.code == CODES[by]
    assert ended.out.endswith("run: run\nto go on: trueloop resume run\n")
    run = tmp_path / "run"
    assert steps(run)[-1] == 7
    resumed = command("resume", "run")
    assert resumed.code == 0, resumed.err
    assert f"goes on after step 7, from {run}/checkpoints/step-00000007" in " ".join(resumed.out.split())
    assert resumed.out.endswith(f"run: {run}\n")
    assert weights(run) == weights(whole)
    assert losses(run) == losses(whole)
    facts = describe(run)
    assert facts["status"] == "finished"
    assert [one["step"] for one in facts["resumed"]] == [7]


def test_what_was_stopped_twice(command: Command, recipe: str, whole: Path, tmp_path: Path) -> None:
    assert command("train", recipe, "--at", "3", "--out", "run").code == REQUEUE
    edit(tmp_path, "    torch.manual_seed(1)", "    torch.manual_seed(1)\n    at = 9")
    assert command("resume", "run").code == REQUEUE
    assert command("resume", "run").code == 0
    assert (weights(tmp_path / "run"), losses(tmp_path / "run")) == (weights(whole), losses(whole))


def test_from_an_earlier_step(command: Command, recipe: str, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command("train", recipe, "--at", "9", "--out", "run", "--save-every-steps", "2", "--save-keep-last", "9")
    assert steps(run) == [0, 2, 4, 6, 8, 9]
    ended = command("resume", "run", "--from", "4")
    assert ended.code == 0, ended.err
    assert (weights(run), losses(run)) == (weights(whole), losses(whole))
    aside = sorted(path.name for path in (run / "checkpoints").glob("abandoned-*"))
    assert aside == [f"abandoned-step-0000000{step}" for step in (6, 8, 9)]
    assert steps(run) == [0, 2, 4, 6, 8, 10, 12, 14, 15], "saved as it was asked for at the start"


def test_the_flags_of_the_run_are_those_it_was_started_with(command: Command, recipe: str, tmp_path: Path) -> None:
    command("train", recipe, "--epochs", "2", "--lr", "0.01", "--out", "whole")
    command("train", recipe, "--epochs", "2", "--lr", "0.01", "--at", "4", "--out", "run")
    assert command("resume", "run").code == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_from_anywhere_the_recipe_finds_its_files(
    command: Command, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "classes.txt").write_text("above below")
    command("train", recipe, "--at", "4", "--out", "run")
    (tmp_path / "else" / "where").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "else" / "where")
    ended = command("resume", "../../run")
    assert ended.code == 0, ended.err
    assert any(line.split() == ["true", "↓", "above", "below", "recall"] for line in ended.out.splitlines())


def test_a_run_that_was_moved(command: Command, recipe: str, whole: Path, tmp_path: Path) -> None:
    command("train", recipe, "--at", "4", "--out", "run")
    shutil.move("run", "moved")
    assert command("resume", "moved").code == 0
    assert weights(tmp_path / "moved") == weights(whole)
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    command: Command, recipe: str, whole: Path, tmp_path: Path
) -> None:
    settings = describe(whole)["settings"]
    run = claim(tmp_path / "run", settings)
    (run / "events.jsonl").write_text('{"event": "RunSta')
    ended = command("resume", "run")
    assert ended.code == 0, ended.err
    assert (weights(run), losses(run)) == (weights(whole), losses(whole))


def test_a_finished_run_stays_as_it_is(command: Command, recipe: str, whole: Path) -> None:
    before = {path.name: path.read_bytes() for path in (whole / "checkpoints").rglob("*") if path.is_file()}
    record, final = losses(whole), weights(whole)
    ended = command("resume", "whole")
    assert ended.code == 0
    assert (losses(whole), weights(whole)) == (record, final)
    assert {path.name: path.read_bytes() for path in (whole / "checkpoints").rglob("*") if path.is_file()} == before


def test_a_damaged_newest_is_named(command: Command, recipe: str, whole: Path, tmp_path: Path) -> None:
    command("train", recipe, "--at", "7", "--out", "run", "--save-every-steps", "2")
    (tmp_path / "run" / "checkpoints" / "step-00000007" / "state.json").unlink()
    with pytest.warns(UserWarning, match="step-00000007 is damaged and was passed over: state.json is missing"):
        ended = command("resume", "run")
    assert ended.code == 0
    assert "step-00000007 is damaged and was passed over: state.json is missing" in " ".join(ended.out.split())
    assert weights(tmp_path / "run") == weights(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "expected the folder of a run, one with a run.json, got"),
        (["run", "--from", "5"], "there is no checkpoint of step 5; choose among"),
        (["run", "--from", "soon"], "soon"),
        ([], "Missing from trueloop resume"),
    ],
)
def test_what_cannot_be_is_said_with_exit_code_2(
    command: Command, recipe: str, arguments: list[str], message: str
) -> None:
    command("train", recipe, "--at", "3", "--out", "run")
    ended = command("resume", *arguments)
    assert ended.code == 2
    assert message in ended.error
    assert "Traceback" not in ended.err


def test_a_run_that_no_recipe_made_is_gone_on_with_where_it_was_made(command: Command, tmp_path: Path) -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    trainer.fit(regression(8), epochs=1, batch_size=4, out=tmp_path / "run", progress=False)
    ended = command("resume", "run")
    assert ended.code == 2
    assert "trainer.fit(…, resume=folder)" in ended.error


def test_a_recipe_whose_network_has_changed(command: Command, recipe: str, tmp_path: Path) -> None:
    command("train", recipe, "--at", "3", "--out", "run")
    edit(tmp_path, "mlp(outputs=2", "mlp(width=9, outputs=2")
    ended = command("resume", "run")
    assert ended.code == 2
    assert "0.weight" in ended.err
    assert describe(tmp_path / "run")["status"] == "preempted", "nothing was touched"


def test_a_recipe_whose_rate_has_changed_is_used_and_said(command: Command, recipe: str, tmp_path: Path) -> None:
    command("train", recipe, "--at", "3", "--out", "run")
    edit(tmp_path, "adam(lr=lr)", "adam(lr=2 * lr)")
    ended = command("resume", "run")
    assert ended.code == 0
    assert "lr was 0.05, is 0.1: the new one is used" in " ".join(ended.out.split())


def test_a_run_that_goes_on_elsewhere_is_left_alone(command: Command, recipe: str, tmp_path: Path) -> None:
    command("train", recipe, "--at", "3", "--out", "run")
    with lock(tmp_path / "run"):
        ended = command("resume", "run")
    assert ended.code == 2
    assert "trains in this folder already" in ended.error
    assert steps(tmp_path / "run")[-1] == 3


def test_help(command: Command) -> None:
    ended = command("resume", "--help")
    text = " ".join(ended.out.replace("│", " ").split())
    assert ended.code == 0
    assert "--from STEP" in text
    assert "the checkpoint to go on from, by its optimizer steps" in text


def test_the_order_of_two_runs_in_one_process_does_not_matter(command: Command, recipe: str, tmp_path: Path) -> None:
    """Nothing of the run before it is left in the process: seeds, handlers, threads, the working directory."""
    before = (Path.cwd(), torch.get_num_threads())
    command("train", recipe, "--at", "3", "--out", "one")
    command("train", recipe, "--at", "5", "--out", "two")
    for name in ("two", "one"):
        assert command("resume", name).code == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert (Path.cwd(), torch.get_num_threads()) == before
