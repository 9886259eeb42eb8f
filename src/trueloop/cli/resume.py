"""``trueloop resume RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro


def run(arguments: Sequence[str]) -> int:
    """Goes on with a run that was stopped, to the end that it would have had."""
    tyro.cli(resume, prog="trueloop resume", args=list(arguments))
    return 0


def resume(
    run: Annotated[Path, tyro.conf.Positional],
    step: Annotated[
        int | None, tyro.conf.arg(name="from", metavar="STEP", help_behavior_hint="(default: the newest whole one)")
    ] = None,
) -> None:
    """Goes on with a run from its newest whole checkpoint, as if it had never been stopped.

    Args:
        run: the run's folder, as `trueloop train` made it.
        step: the checkpoint to go on from, by its optimizer steps.
    """
    from trueloop.cli.reopen import recipe_of
    from trueloop.cli.train import report, run_again

    run = run.resolve()
    with recipe_of(run) as (recipe, settings):
        run_again(recipe, run, settings, step)
        report(recipe)
    print(f"run: {run}")
