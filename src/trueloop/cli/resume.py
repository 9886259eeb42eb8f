"""``trueloop resume RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro


def run(arguments: Sequence[str]) -> int:
    """Goes on with a run that was stopped, to the end that it would have had."""
    from trueloop.cli.processes import launch, taken_from

    arguments, started = taken_from(arguments)
    if "processes" in started and not {"-h", "--help"} & set(arguments):
        return launch(["resume", *arguments], **started)
    return tyro.cli(resume, prog="trueloop resume", args=list(arguments))


def resume(
    run: Annotated[Path, tyro.conf.Positional],
    step: Annotated[
        int | None, tyro.conf.arg(name="from", metavar="STEP", help_behavior_hint="(default: the newest whole one)")
    ] = None,
) -> int:
    """Goes on with a run from its newest whole checkpoint, as if it had never been stopped.

    On several processes of this machine, be it one that was begun on another number of them: --processes N, and
    --restarts N to start all again when one dies.

    Args:
        run: the run's folder, as `trueloop train` made it.
        step: the checkpoint to go on from, by its optimizer steps.
    """
    from trueloop.cli.processes import is_restart
    from trueloop.cli.reopen import recipe_of
    from trueloop.cli.train import run_again

    run = run.resolve()
    with recipe_of(run) as (recipe, settings):
        return run_again(recipe, run, settings, None if is_restart() else step)
