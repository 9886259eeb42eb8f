"""What the recipes promise, end to end: how good a model they make."""

from __future__ import annotations

import pytest
import torch

import trueloop as tl
from trueloop.data.sources.fashion_mnist import places
from trueloop.recipes.digits import digits
from trueloop.recipes.fashion_mnist import fashion_mnist
from trueloop.recipes.regression import regression

has_fashion = any(folder.is_dir() and list(folder.glob("t10k-images*")) for folder in places())
has_bf16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def test_digits_reaches_97_percent_of_the_held_out_fifth() -> None:
    result = digits().fit(progress=False)
    assert result.metrics["accuracy"] >= 0.97


def test_regression_explains_the_target() -> None:
    result = regression().fit(progress=False)
    assert result.metrics["r2"] > 0.98
    losses = [event.loss for event in result.history if isinstance(event, tl.EpochEnded)]
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.data
@pytest.mark.skipif(not has_fashion, reason="apt-get install dataset-fashion-mnist, or set TRUELOOP_DATA")
def test_fashion_mnist_reaches_85_percent_of_the_test_images_in_an_epoch() -> None:
    recipe = fashion_mnist(epochs=1, precision="bf16" if has_bf16 else "fp32")
    recipe.fit(progress=False)
    assert recipe.trainer.evaluate(recipe.test)["accuracy"] >= 0.85


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not has_fashion, reason="apt-get install dataset-fashion-mnist, or set TRUELOOP_DATA")
def test_fashion_mnist_reaches_91_percent_of_the_test_images_in_5_epochs() -> None:
    recipe = fashion_mnist(epochs=5, precision="bf16" if has_bf16 else "fp32")  # bf16: a minute and a half on one core
    result = recipe.fit(progress=False)
    assert result.epochs == 5
    assert result.metrics["accuracy"] >= 0.91
    assert recipe.trainer.evaluate(recipe.test)["accuracy"] >= 0.91


@pytest.mark.data
@pytest.mark.skipif(not has_fashion, reason="apt-get install dataset-fashion-mnist, or set TRUELOOP_DATA")
def test_fashion_mnist_is_normalised_by_its_training_part() -> None:
    recipe = fashion_mnist()
    assert len(recipe.train[0]) == 55_000
    assert len(recipe.val[0]) == 5_000
    assert len(recipe.test[0]) == 10_000
    assert abs(recipe.train[0].mean().item()) < 1e-4
    assert recipe.train[0].std().item() == pytest.approx(1.0, abs=1e-4)
    assert abs(recipe.val[0].mean().item()) > 1e-4  # its own statistics were not looked at
    assert set(recipe.val[1].bincount().tolist()) == {500}
