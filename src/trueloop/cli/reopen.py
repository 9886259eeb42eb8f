"""A run's folder, opened again: its recipe with its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    weights = run.resolve() / NAME
    with recipe_of(run) as (recipe, _):
        for line in load_weights(recipe.trainer.model, weights):
            print(line)
    return recipe


@contextlib.contextmanager
def recipe_of(run: Path) -> Iterator[tuple[Recipe, dict[str, Any]]]:
    """The recipe that made the run, called again where it was called first, and the run's settings.

    Inside, the working directory is the one that the run was started in, if it is there still: its paths begin there.

    Raises:
        RunFolderError: the folder holds no run.
        ArgumentError: the run was not made by ``trueloop train``, or its recipe has changed.
    """
    from trueloop.cli.flags import again
    from trueloop.observers.run_folder import describe

    facts = describe(run)
    settings: dict[str, Any] = facts.get("settings", {})
    if settings.get("recipe") is None:
        raise ArgumentError(
            "the run was not made by `trueloop train`, so its recipe is not known; go on with it where it was made: "
            "trainer.fit(…, resume=folder), and for its weights alone "
            "trueloop.checkpoint.weights.load_weights(model, file)",
            file=run,
        )
    made_in = Path(facts.get("folder", "."))
    with contextlib.chdir(made_in) if made_in.is_dir() else contextlib.nullcontext():
        yield again(settings["recipe"]), settings
