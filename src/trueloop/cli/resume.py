"""``trueloop resume RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro


def run(arguments: Sequence[str]) -> int:
    """Goes on with a run that was stopped, to the end that it would have had."""
    return tyro.cli(resume, prog="trueloop resume", args=list(arguments))


def resume(
    run: Annotated[Path, tyro.conf.Positional],
    step: Annotated[
        int | None, tyro.conf.arg(name="from", metavar="STEP", help_behavior_hint="(default: the newest whole one)")
    ] = None,
) -> int:
    """Goes on with a run from its newest whole checkpoint, as if it had never been stopped.

    Args:
        run: the run's folder, as `trueloop train` made it.
        step: the checkpoint to go on from, by its optimizer steps.
    """
    from trueloop.cli.reopen import recipe_of
    from trueloop.cli.train import run_again

    run = run.resolve()
    with recipe_of(run) as (recipe, settings):
        return run_again(recipe, run, settings, step)
