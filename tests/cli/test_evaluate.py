from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def run(command: Command, tiny: str, tmp_path: Path) -> Path:
    assert command("train", tiny, "--out", "run", "--kind", "deep", "--epochs", "4").code == 0
    return tmp_path / "run"


def recorded(run: Path) -> dict[str, float]:
    """The last evaluation's metrics, from the run's record."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    metrics: dict[str, float] = [line["metrics"] for line in lines if line["event"] == "EvalEnded"][-1]
    return metrics


def test_the_weights_give_what_the_run_recorded(command: Command, run: Path) -> None:
    ended = command("evaluate", str(run))
    assert ended.code == 0, ended.err
    head, val, test = (line.split() for line in ended.out.splitlines())
    assert head == ["loss"]
    assert val == ["val", f"{recorded(run)['loss']:.6g}"]
    assert test[0] == "test"


def test_a_changed_default_does_not_change_an_old_run(command: Command, run: Path, tmp_path: Path) -> None:
    before = command("evaluate", str(run)).out
    source = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine2.py").write_text(source.replace("bias: bool = True", "bias: bool = False"))
    edit(run, lambda recipe: recipe.update(reference=str(tmp_path / "mine2.py") + ":tiny"))
    assert command("evaluate", str(run)).out == before


def test_a_recipe_that_has_lost_a_parameter(command: Command, run: Path) -> None:
    edit(run, lambda recipe: recipe["arguments"].update(width=3))
    ended = command("evaluate", str(run))
    assert ended.code == 2
    assert "recipe 'tiny' no longer has the parameters width" in ended.error


def test_weights_of_another_architecture(command: Command, run: Path) -> None:
    edit(run, lambda recipe: (recipe["flags"].clear(), recipe["arguments"].update(kind="linear")))
    ended = command("evaluate", str(run))
    assert ended.code == 2
    assert "of another architecture" in ended.error


def test_damaged_weights(command: Command, run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"not weights")
    ended = command("evaluate", str(run))
    assert ended.code == 2
    assert "model.safetensors" in ended.error


def test_a_run_that_was_not_made_by_the_command(command: Command, run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    del facts["settings"]["recipe"]
    (run / "run.json").write_text(json.dumps(facts))
    ended = command("evaluate", str(run))
    assert ended.code == 2
    assert "was not made by `trueloop train`" in ended.error


def test_a_folder_without_a_run(command: Command, tmp_path: Path) -> None:
    assert "one with a run.json" in command("evaluate", str(tmp_path)).error


def test_an_unknown_flag(command: Command, run: Path) -> None:
    assert command("evaluate", str(run), "--fast").code == 2


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((run / "run.json").read_text())
    change(facts["settings"]["recipe"])
    (run / "run.json").write_text(json.dumps(facts))
