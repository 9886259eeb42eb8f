"""``trueloop train RECIPE [--flags]``."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from trueloop.cli.find import bundled, find
from trueloop.errors import ArgumentError, Preempted
from trueloop.events import Event, Saved, SaveFailed

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
    from trueloop.cli.processes import is_restart, launch, taken_from

    flags, started = taken_from(flags)
    if "processes" in started:
        where = (
            [] if _names_out(flags) else ["--out", str(_free(Path("runs"), _stem(reference)))]
        )  # also after a restart
        return launch(["train", reference, *flags, *where], **started)
    if "restarts" in started:
        raise ArgumentError("--restarts goes with --processes N; with torchrun, it is --max-restarts N")
    found = find(reference)
    given = parse(found, flags, extra=[_flag(_called(name), *about) for name, about in _OWN.items()])
    own = {name: given.pop(_called(name)) for name in _OWN}
    if own["out"] is None and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise ArgumentError("torchrun --max-restarts goes with --out FOLDER: a restart would not know where to go on")
    out = _agreed_on(own.pop("out") or _free(Path("runs"), found.name))
    saving = {name: value for name, value in own.items() if value is not None}
    recipe = build(found, given)
    about = {"recipe": describe(found, _without(flags, _OWN), given)}
    goes_on = is_restart() and _is_of(out, about["recipe"])
    return run_once(recipe, out, about, saving, resume="auto" if goes_on else None)


def run_once(
    recipe: Recipe, out: Path, about: Mapping[str, Any], saving: Mapping[str, Any], resume: str | None = None
) -> int:
    """Trains a recipe in its folder; whatever ends it, the folder is printed, and how to go on.

    Returns:
        The exit code: 0, or 1 for a run of which no checkpoint could be saved.
    """
    from trueloop.checkpoint.saving import Saving

    how: dict[str, Any] = {"saving": Saving(**saving)} if saving else {}
    if not _first():
        recipe.fit(out=out, about=about, resume=resume, **how)
        return 0
    saves: list[Saved | SaveFailed] = []

    def note(event: Event) -> None:
        if isinstance(event, (Saved, SaveFailed)):
            saves.append(event)

    try:
        recipe.fit(out=out, about=about, observers=[*_tensorboard(out), note], resume=resume, **how)
    except (KeyboardInterrupt, Preempted):
        print(f"run: {out}\nto go on: trueloop resume {out}")
        raise
    report(recipe)
    print(f"run: {out}")
    failed = [event for event in saves if isinstance(event, SaveFailed)]
    if not failed or len(failed) < len(saves):
        return 0
    last = failed[-1]
    print(f"error: no checkpoint could be saved; the last one, of step {last.step:,}: {last.reason}", file=sys.stderr)
    return 1


def _first() -> bool:
    """Whether this process prints and writes: the only one, or the first of several."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from trueloop.parallel.world import world

    return world().first


def _agreed_on(out: Path) -> Path:
    """The same folder in every process: its name may come from a clock."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return out
    from trueloop.parallel.reduce import of_the_first

    return Path(of_the_first(str(out)))


def run_again(recipe: Recipe, run: Path, settings: Mapping[str, Any], step: int | None) -> int:
    """The same for a run that goes on, from ``step`` or from its newest whole checkpoint."""
    about, saving = {"recipe": settings["recipe"]}, settings.get("saving", {})
    if step is not None:
        recipe.trainer.resume(run, step=step)
    return run_once(recipe, run, about, saving, resume="auto" if step is None else None)


_OWN: dict[str, tuple[Any, str, str]] = {
    "out": (Path, "FOLDER", "the run's folder; by default runs/RECIPE-<date>-<time>"),
    "every_steps": (int, "STEPS", "checkpoints: optimizer steps between two of them"),
    "every_minutes": (float, "MINUTES", "checkpoints: minutes between two of them; by default 10"),
    "every_epochs": (int, "EPOCHS", "checkpoints: epochs between two of them"),
    "best": (str, "METRIC", "checkpoints: one at each new best value of this metric"),
    "mode": (Literal["min", "max"], "{min,max}", "checkpoints: which way --save-best is better"),
    "keep_last": (int, "NUMBER", "checkpoints: how many of the newest are kept; by default 2"),
    "keep_best": (int, "NUMBER", "checkpoints: how many of the best are kept; by default 1"),
    "keep_every": (int, "STEPS", "checkpoints: those at multiples of so many steps are kept for ever"),
}
"""Flags of every recipe: ``--out``, and those of ``checkpoint.saving.Saving``, each called ``--save-…``."""


def _called(name: str) -> str:
    return name if name == "out" else f"save_{name}"


def _flag(name: str, kind: Any, metavar: str, text: str) -> inspect.Parameter:
    import tyro

    wanted = Annotated[kind | None, tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint="")]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=wanted)


def _without(flags: Sequence[str], own: Iterable[str]) -> list[str]:
    """The recipe's own flags: a run that is opened again has its folder."""
    names = {f"--{_called(name).replace('_', '-')}" for name in own}
    names |= {name.replace("-", "_").replace("__", "--") for name in names}
    kept, skip = [], False
    for flag in flags:
        if skip:
            skip = False
        elif flag in names:
            skip = True
        elif flag.partition("=")[0] not in names:
            kept.append(flag)
    return kept


def _is_of(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether a restart goes on in a folder: the one that it has begun, and not one that made the first start fail."""
    from trueloop.observers.run_folder import describe

    if not (out / "run.json").exists():
        return True
    return bool(describe(out).get("settings", {}).get("recipe") == json.loads(json.dumps(recipe)))


def _names_out(flags: Sequence[str]) -> bool:
    return any(flag.partition("=")[0] in ("--out", "-h", "--help") for flag in flags)


def _stem(reference: str) -> str:
    """A recipe's name."""
    return reference.rpartition(":")[2]


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


def report(recipe: Recipe) -> None:
    """The confusion matrix, where there are classes."""
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
