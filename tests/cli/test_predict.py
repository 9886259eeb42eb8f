from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trueloop.cli.classes import count, predict_classes
from trueloop.cli.find import find
from trueloop.errors import ArgumentError

Command = Callable[..., Any]


@pytest.fixture
def run(command: Command, tiny: str, tmp_path: Path) -> Path:
    assert command("train", tiny, "--out", "run").code == 0
    return tmp_path / "run"


def by_hand(run: Path, x: torch.Tensor) -> torch.Tensor:
    weights = load_file(run / "model.safetensors")
    return torch.nn.functional.linear(x, weights["0.weight"], weights["0.bias"])


def test_the_validation_data_by_default(command: Command, run: Path, tiny: str) -> None:
    ended = command("predict", str(run))
    assert ended.code == 0, ended.err
    written = np.load(run / "predictions.npz")
    x, _ = find(tiny).function().val
    expected = by_hand(run, x)
    assert torch.allclose(torch.from_numpy(written["outputs"]), expected, rtol=0, atol=1e-6)
    assert written["predicted"].tolist() == expected.argmax(1).tolist()
    assert written["classes"].tolist() == ["below", "above"]
    assert f"outputs (16, 2), predicted (16,), classes (2,) in {run}/predictions.npz" in ended.out.replace("\n", "")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_inputs_from_a_file(command: Command, run: Path, tmp_path: Path, kind: str) -> None:
    x = np.array([[1.0, 2.0], [-3.0, 0.5], [0.25, 0.0]], dtype=np.float32)
    np.save("x.npy", x) if kind == "npy" else np.savez("x.npz", x=x)
    ended = command("predict", str(run), "--input", f"x.{kind}", "--output", "deep/y.npz")
    assert ended.code == 0, ended.err
    written = np.load(tmp_path / "deep" / "y.npz")
    assert torch.allclose(torch.from_numpy(written["outputs"]), by_hand(run, torch.from_numpy(x)), rtol=0, atol=1e-6)


def test_doubles_are_taken_as_the_weights_are_and_it_is_said(command: Command, run: Path) -> None:
    np.save("x.npy", np.zeros((3, 2)))
    ended = command("predict", str(run), "--input", "x.npy")
    assert ended.code == 0, ended.err
    assert "inputs float64 are taken as float32" in ended.out


def test_a_recipe_without_classes_writes_outputs_only(command: Command, tiny: str, tmp_path: Path) -> None:
    command("train", "mine.py:regression", "--out", "line")
    assert command("predict", "line").code == 0
    assert np.load(tmp_path / "line" / "predictions.npz").files == ["outputs"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"no array", "cannot be read"),
        (np.array(["a", "b"]), "expected arrays of numbers, got <U1"),
        (np.array([{}], dtype=object), "cannot be read"),
    ],
)
def test_inputs_that_cannot_be(command: Command, run: Path, content: Any, message: str) -> None:
    if isinstance(content, bytes):
        Path("x.npy").write_bytes(content)
    elif content is not None:
        np.save("x.npy", content)
    ended = command("predict", str(run), "--input", "x.npy")
    assert ended.code == 2
    assert message in ended.error
    assert "x.npy" in ended.error


def test_an_output_that_is_no_npz(command: Command, run: Path) -> None:
    ended = command("predict", str(run), "--output", "y.csv")
    assert ended.code == 2
    assert "as a file .npz" in ended.error


def test_counts_are_those_of_a_loop_by_hand(tiny: str) -> None:
    recipe = find(tiny).function()
    x, y = recipe.train
    counts = count(recipe.trainer, recipe.train, 7, 2)
    predicted = recipe.trainer.model(x).argmax(1)
    expected = [[int(((y == true) & (predicted == taken)).sum()) for taken in (0, 1)] for true in (0, 1)]
    assert counts == expected


def test_a_class_that_never_comes_has_its_row_and_column(tiny: str) -> None:
    recipe = find(tiny).function()
    (row, *rest) = count(recipe.trainer, (torch.zeros(3, 2), torch.tensor([0, 0, -100])), None, 3)
    assert (sum(row), len(row), rest) == (2, 3, [[0, 0, 0], [0, 0, 0]])


def test_more_classes_than_the_recipe_names(tiny: str) -> None:
    recipe = find(tiny).function()
    with pytest.raises(ArgumentError, match="classes from 0 to 1, as many as the recipe names, got class 2"):
        count(recipe.trainer, (torch.zeros(3, 2), torch.tensor([0, 2, 1])), None, 2)


@pytest.mark.parametrize("outputs", [torch.zeros(2, 3, 4), (torch.zeros(2), torch.zeros(2))])
def test_outputs_of_no_classifier(outputs: Any) -> None:
    with pytest.raises(ArgumentError, match="outputs \\(samples, classes\\) of a classifier"):
        predict_classes(outputs)
