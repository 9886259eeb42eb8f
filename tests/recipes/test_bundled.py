"""The bundled recipes as the command line sees them: names, summaries, typed and documented parameters."""

from __future__ import annotations

import importlib
import inspect
import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

import trueloop as tl
from trueloop.cli.find import bundled, find
from trueloop.cli.flags import parse

NAMES = ("char_lm", "digits", "fashion_mnist", "regression")


def function(name: str) -> Callable[..., tl.Recipe]:
    found: Callable[..., tl.Recipe] = getattr(importlib.import_module(f"trueloop.recipes.{name}"), name)
    return found


def test_they_are_listed() -> None:
    assert set(NAMES) <= set(bundled())


@pytest.mark.parametrize("name", NAMES)
def test_each_is_summed_up_in_a_line(name: str) -> None:
    assert re.fullmatch(r"[A-Z].{30,100}\.", bundled()[name])


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_is_typed_documented_and_has_a_default(name: str) -> None:
    described = function(name).__doc__ or ""
    for parameter in inspect.signature(function(name)).parameters.values():
        assert parameter.annotation is not parameter.empty
        assert parameter.default is not parameter.empty
        assert re.search(rf"^ +{parameter.name}: \S", described, re.MULTILINE), f"{parameter.name} is not documented"


@pytest.mark.parametrize("name", NAMES)
def test_help_names_each_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(find(name), ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for parameter in inspect.signature(function(name)).parameters:
        assert f"--{parameter.replace('_', '-')}" in text


def test_flags_reach_the_recipe() -> None:
    given = parse(find("fashion_mnist"), ["--epochs", "2", "--lr", "1e-3", "--batch-size", "64", "--precision", "bf16"])
    assert given == {"epochs": 2, "lr": 1e-3, "batch_size": 64, "precision": "bf16", "seed": 0}


@pytest.mark.parametrize("name", ["digits", "regression", "char_lm"])
def test_the_seed_decides_the_first_weights_and_the_data(name: str) -> None:
    def made(seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        random.seed()
        np.random.seed()
        torch.seed()
        recipe = function(name)(seed=seed)
        data = [recipe.train] if isinstance(recipe.train, torch.Tensor) else list(recipe.train)
        return list(recipe.trainer.model.parameters()), data

    first, again, other = made(1), made(1), made(2)
    assert all(
        torch.equal(a, b) for part, same in zip(first, again, strict=True) for a, b in zip(part, same, strict=True)
    )
    assert not all(torch.equal(a, b) for a, b in zip(first[0], other[0], strict=True))
