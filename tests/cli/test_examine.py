"""``trueloop doctor --examine RECIPE``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trueloop

Command = Callable[..., Any]

RECIPES = '''
import torch
import trueloop as tl

def leaking(epochs: int = 1, shared: int = 20) -> tl.Recipe:
    """Two classes.

    Args:
        shared: samples that stand on both sides.
    """
    print("made with", shared)
    x = torch.randn(96, 6)
    y = (x.sum(1) > 0).long()
    trainer = tl.Trainer(torch.nn.Linear(6, 2), torch.nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.5))
    train, val = (x[:64], y[:64]), (x[64 - shared:], y[64 - shared:])
    return tl.Recipe(trainer, train, val, epochs=epochs, batch_size=16)

class Breaks(torch.nn.Linear):
    def forward(self, x):
        if not self.training:
            raise ValueError("not in eval mode")
        return super().forward(x)

def breaking() -> tl.Recipe:
    x = torch.randn(96, 6)
    trainer = tl.Trainer(Breaks(6, 2), torch.nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.5))
    return tl.Recipe(trainer, (x, x.argmax(1) % 2), (x + 1, x.argmax(1) % 2), epochs=1, batch_size=16)

def raising() -> tl.Recipe:
    raise ValueError("no data today")
'''


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(RECIPES)
    return tmp_path


def doctor(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trueloop", "doctor", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_a_recipe_is_examined_with_its_own_flags(recipes: Path) -> None:
    ended = doctor(recipes, "--select=leak-between-splits", "--examine", "mine.py:leaking", "--shared", "12")
    assert (ended.returncode, ended.stdout) == (1, "made with 12\n")
    assert "error[leak-between-splits] (501): 12 of 44 validation samples" in ended.stderr
    assert ended.stderr.endswith("trueloop doctor --examine: found 1 error; 0 of 1 examinations passed\n")
    ended = doctor(recipes, "--format=json", "--ignore=501", "--max-steps=60", "--examine", "mine.py:leaking")
    assert ended.returncode == 0
    report = json.loads(ended.stdout)
    assert report["findings"] == []
    assert {one["name"] for one in report["passed"]} >= {"one-batch", "gradients", "labels"}
    assert "made with 20" in ended.stderr


def test_formats_output_levels_and_settings(recipes: Path) -> None:
    (recipes / "pyproject.toml").write_text("[tool.trueloop]\nselect = ['501']\nshow-passed = true\n")
    ended = doctor(recipes, "--format=github", "--output=found.txt", "--examine", "mine.py:leaking")
    assert (ended.returncode, ended.stdout) == (1, "made with 20\n")
    assert ended.stderr.startswith("trueloop doctor --examine: found 1 error; written to ")
    assert (recipes / "found.txt").read_text().startswith("::error title=leak-between-splits (501)::20 of 52 ")
    ended = doctor(recipes, "--examine", "mine.py:leaking", "--shared=0")
    assert ended.returncode == 0
    assert "passed   splits" in ended.stderr
    ended = doctor(recipes, "--fail-on=error", "--examine", "mine.py:leaking", "--shared=1")
    assert ended.returncode == 0  # one sample is a note
    assert "note[leak-between-splits]" in ended.stderr


def test_what_breaks(recipes: Path) -> None:
    ended = doctor(recipes, "--max-steps=60", "--select=512,310", "--examine", "mine.py:breaking")
    assert ended.returncode == 2
    assert "unknown  same-evaluation" in ended.stderr
    assert "ValueError: not in eval mode" in ended.stderr
    assert "1 of 2 examinations passed" in ended.stderr
    ended = doctor(recipes, "--examine", "mine.py:raising")
    assert ended.returncode == 2
    assert "ValueError: no data today" in ended.stderr
    assert "Traceback" in ended.stderr


def test_wrong_requests(command: Command, recipes: Path) -> None:
    assert command("doctor", "--examine").code == 2
    assert "unrecognized arguments: --epochs" in command("doctor", "--examine", "--epochs", "3").error
    assert "did you mean" in command("doctor", "--examine", "mine.py:leakin").error.lower()
    assert command("doctor", "--output=no/where.txt", "--examine", "mine.py:leaking").code == 2
