"""A run's folder, opened again: its recipe with its weights."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.recipe import Recipe


def reopen(run: Path) -> Recipe:
    """The recipe that made the run, called with the run's arguments; its model holds the run's weights.

    Raises:
        RunFolderError: the folder holds no run.
        ArgumentError: the run was not made by ``trueloop train``, or its recipe has changed.
        DataError: there are no weights, or they are of another architecture.
    """
    from trueloop.checkpoint.weights import NAME, load_weights
    from trueloop.cli.flags import again
    from trueloop.observers.run_folder import describe

    facts = describe(run)
    described = facts.get("settings", {}).get("recipe")
    if described is None:
        raise ArgumentError(
            "the run was not made by `trueloop train`, so its recipe is not known; evaluate it where it was made: "
            "checkpoint.weights.load_weights(model, file), trainer.evaluate(data)",
            file=run,
        )
    weights = run.resolve() / NAME
    made_in = Path(facts.get("folder", "."))
    with contextlib.chdir(made_in) if made_in.is_dir() else contextlib.nullcontext():  # its paths begin there
        recipe = again(described)
    load_weights(recipe.trainer.model, weights)
    return recipe
