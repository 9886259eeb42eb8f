"""``trueloop train RECIPE [--flags]``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from trueloop.cli.find import bundled, find
from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.loop import Observer
    from trueloop.recipe import Recipe


def run(arguments: Sequence[str]) -> int:
    """Trains a recipe; prints the plan, the progress, a summary, the confusion matrix and the run's folder."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    reference, *flags = arguments
    if reference.startswith("-"):
        raise ArgumentError(
            f"expected the recipe before its flags, got {reference!r}: trueloop train RECIPE {reference} …"
        )
    from trueloop.cli.flags import build, describe, parse

    found = find(reference)
    given = parse(found, flags, extra=[_out_flag(found.name)])
    out = given.pop("out") or _free(Path("runs"), found.name)
    recipe = build(found, given)
    try:
        about = {"recipe": describe(found, _without_out(flags), given)}
        recipe.fit(out=out, about=about, observers=_tensorboard(out))
    except KeyboardInterrupt:
        print(f"run: {out}")
        raise
    _report(recipe)
    print(f"run: {out}")
    return 0


def _out_flag(name: str) -> inspect.Parameter:
    import tyro

    text = f"the run's folder; by default runs/{name}-<date>-<time>"
    wanted = Annotated[Path | None, tyro.conf.arg(help=text, metavar="FOLDER", help_behavior_hint="")]
    return inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=wanted)


def _without_out(flags: Sequence[str]) -> list[str]:
    """The recipe's own flags: a run that is opened again has its folder."""
    kept, skip = [], False
    for flag in flags:
        if skip:
            skip = False
        elif flag == "--out":
            skip = True
        elif not flag.startswith("--out="):
            kept.append(flag)
    return kept


def _free(parent: Path, name: str) -> Path:
    """A folder that is not there yet, called by the recipe and the local time."""
    stem = f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{i}" for i in range(2, 100))]
    return next(parent / name for name in names if not (parent / name).exists())


def _tensorboard(out: Path) -> list[Observer]:
    """Event files for TensorBoard, where its package is installed."""
    if find_spec("tensorboard") is None:
        return []
    from trueloop.observers.tensorboard import TensorBoard

    return [TensorBoard(out / "tensorboard")]


def _report(recipe: Recipe) -> None:
    if recipe.classes is None or recipe.val is None:
        return
    from rich.console import Console

    from trueloop.cli.classes import count
    from trueloop.report.confusion import confusion

    try:
        counts = count(recipe.trainer, recipe.val, recipe.batch_size, len(recipe.classes))
        Console().print(confusion(counts, recipe.classes))
    except ArgumentError as error:  # the run is over and whole: what cannot be drawn is no error of its own
        print(f"no confusion matrix: {error}")


def _help() -> str:
    known = bundled()
    width = max(map(len, known), default=0)
    return "\n".join(
        [
            "usage: trueloop train RECIPE [--flags]",
            "",
            "RECIPE is a name from below, file.py:function, or package.module:function, where the function returns a",
            "trueloop.Recipe. Its parameters are the flags: trueloop train RECIPE --help",
            "",
            *(f"  {name:<{width}}  {summary}" for name, summary in known.items()),
        ]
    )
