"""Digits: how the held-out part is taken."""

from __future__ import annotations

import torch

from trueloop.recipes.digits import digits


def test_a_stratified_fifth_is_held_out() -> None:
    recipe = digits(seed=3)
    train, val = recipe.train[1].bincount(), recipe.val[1].bincount()
    assert int(train.sum() + val.sum()) == 1_797
    assert torch.all((val - (train + val) / 5).abs() <= 1)
    assert len(recipe.classes or ()) == 10


def test_no_image_is_on_both_sides() -> None:
    recipe = digits()
    held_out = {image.numpy().tobytes() for image in recipe.val[0]}
    shared = [image for image in recipe.train[0] if image.numpy().tobytes() in held_out]
    assert not shared  # scikit-learn's digits hold no image twice
