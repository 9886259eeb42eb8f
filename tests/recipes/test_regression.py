"""The ten-feature regression."""

from __future__ import annotations

from trueloop.recipes.regression import regression


def test_it_is_the_seed_example() -> None:
    recipe = regression()
    assert recipe.train[0].shape == (1_000, 10)
    assert sum(p.numel() for p in recipe.trainer.model.parameters()) == 61
    assert recipe.batch_size == 32
    plan = recipe.trainer.plan(recipe.train, epochs=1, batch_size=32)
    assert plan.groups[0].lr == 1e-3
    assert any("MSELoss" in part for part in plan.ritual)
    assert any("Adam" in part for part in plan.ritual)
