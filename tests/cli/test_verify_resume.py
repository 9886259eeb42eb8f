"""The command: recipes made again in new interpreters."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trueloop.cli.verify_resume import child
from trueloop.verify_resume import tried
from trueloop.verify_resume.processes import Process, forked

Command = Callable[..., Any]

RECIPES = '''
import torch
import trueloop as tl


def recipe(x, y, epochs):
    trainer = tl.Trainer(torch.nn.Linear(1, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=1e-5))
    return tl.Recipe(trainer, train=(x, y), epochs=epochs, batch_size=4)


def clean(epochs: int = 1, samples: int = 30) -> tl.Recipe:
    """Seeded.

    Args:
        samples: how many there are.
    """
    tl.seed_all(3)
    x = torch.randn(samples, 1)
    return recipe(x, 2 * x, epochs)


def unseeded(epochs: int = 4) -> tl.Recipe:
    x = torch.randn(30, 1)
    return recipe(x, 2 * x, epochs)


def hashed(epochs: int = 4) -> tl.Recipe:
    tl.seed_all(3)
    x = torch.tensor([[float(ord(name))] for name in set("abcdefghijklmnop")])
    return recipe(x, x, epochs)


def broken(epochs: int = 4) -> tl.Recipe:
    raise RuntimeError("no data here")
'''


@pytest.fixture(autouse=True)
def _recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(RECIPES)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_a_clean_recipe_is_exact_with_its_flags(command: Command, tmp_path: Path) -> None:
    ended = command("verify-resume", "mine.py:clean", "--samples=24", "--verify-steps", "4", "--epochs", "2")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("exact: killed after step 2, in the middle of an epoch, and resumed in a new process")
    assert "the epoch of 6 steps did not end within the trial" in ended.out
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_data_that_a_new_process_makes_anew_is_named(tmp_path: Path) -> None:
    described = {"reference": f"{tmp_path}/mine.py:unseeded", "flags": [], "arguments": {"epochs": 4}}

    def start(role: str, folder: Path) -> Process:  # in forks, which have imported torch
        (folder / "job.json").write_text(json.dumps({"recipe": described, "verify_steps": 4}))
        return forked(partial(child, role, folder), folder / f"{role}.log")

    verdict = tried(start)
    assert not verdict.exact
    assert verdict.lines == (
        "NOT exact: the resumed run got another batch at step 3",
        "the data is other data in the new process: seed what makes it (the recipe's first line: tl.seed_all(seed))",
    )


def test_an_order_by_hash_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    ended = command("verify-resume", "mine.py:hashed", "--verify-steps", "4")
    assert ended.code == 1
    assert ended.out.startswith(
        "NOT exact: two runs from the same beginning, neither of them resumed, were given other"
    )
    assert "the order of a set of strings" in ended.out


def test_a_recipe_that_fails_is_an_error_with_its_traceback(command: Command) -> None:
    ended = command("verify-resume", "mine.py:broken")
    assert ended.code == 2
    assert "the unbroken run of the trial raised RuntimeError: no data here" in ended.error
    assert "in broken" in ended.error


def test_the_help_has_the_recipes_flags_and_its_own(command: Command) -> None:
    ended = command("verify-resume", "mine.py:clean", "--help")
    assert ended.code == 0
    assert "--samples INT" in ended.out
    assert "--verify-steps STEPS" in ended.out
    assert command("verify-resume").code == 2
    assert "usage: trueloop verify-resume RECIPE" in command("verify-resume", "--help").out


def test_flags_before_the_recipe_are_told(command: Command) -> None:
    ended = command("verify-resume", "--verify-steps", "4")
    assert ended.code == 2
    assert "expected the recipe before its flags, got '--verify-steps'" in ended.error
