"""``trueloop evaluate RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from trueloop.cli.reopen import reopen
from trueloop.errors import ArgumentError


def run(arguments: Sequence[str]) -> int:
    """Evaluates a run's weights on the validation data of its recipe, and on its test data if it has some."""
    tyro.cli(evaluate, prog="trueloop evaluate", args=list(arguments))
    return 0


def evaluate(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """The loss and metrics of a run's weights, on its recipe's validation data, and on its test data if it has some.

    Args:
        run: the run's folder, as `trueloop train` made it.
    """
    from rich.console import Console
    from rich.table import Table

    recipe = reopen(run)
    parts = {name: data for name, data in (("val", recipe.val), ("test", recipe.test)) if data is not None}
    if not parts:
        raise ArgumentError("expected a recipe with val or test data, got one with neither", file=run)
    figures = {name: recipe.trainer.evaluate(data, batch_size=recipe.batch_size) for name, data in parts.items()}
    table = Table(box=None, padding=(0, 1))
    table.add_column("")
    metrics = list(dict.fromkeys(metric for part in figures.values() for metric in part))
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for name, values in figures.items():
        table.add_row(name, *(f"{values[metric]:.6g}" for metric in metrics))
    Console().print(table)
