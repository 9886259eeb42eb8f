"""``trueloop doctor --examine RECIPE [--flags]``: asks a recipe's model, loss and data by experiments."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueloop.cli.doctor import FAILED, FOUND, output_file, place_for, put
from trueloop.cli.find import find
from trueloop.errors import ArgumentError, TrueloopError

if TYPE_CHECKING:
    from trueloop.cli.find import RecipeFunction
    from trueloop.doctor.settings import Settings
    from trueloop.examine.result import Examination, Examined
    from trueloop.examine.subject import Limits


def run(given: argparse.Namespace) -> int:
    """Examines a recipe.

    Args:
        given: the doctor's flags; behind them the recipe, and its own.

    Returns:
        The exit code, as for a script: 2 also where the user's code raised in an examination.
    """
    if given.module or not given.script:
        raise ArgumentError("expected a recipe, got none: trueloop doctor --examine RECIPE [its own flags]")
    from trueloop.parallel.world import check_alone

    if os.environ.get("RANK", "0") != "0":  # the first one says why; torchrun would end it if this one failed before
        return 0
    check_alone("an examination")
    reference, *flags = given.script
    output = output_file(given.output)
    from trueloop.cli.flags import parse
    from trueloop.doctor import settings as kept
    from trueloop.doctor.output import screen, written
    from trueloop.doctor.pages import codes
    from trueloop.examine.same_step import CODE, NAME
    from trueloop.examine.subject import Limits

    found = find(reference)
    arguments = parse(found, flags, verb="doctor --examine")
    settings = kept.read(Path.cwd(), {**codes(), NAME: CODE}).flagged(
        {key: getattr(given, key) for key in ("select", "ignore", "fail_on", "show_passed", "max_steps", "max_seconds")}
    )
    default = Limits()
    limits = Limits(given.max_steps or default.steps, given.max_seconds or default.seconds)
    with place_for(given.format, output) as stream:
        try:
            examined = _examined(found, arguments, settings, limits)
        except TrueloopError:
            raise
        except Exception:
            traceback.print_exc()
            return FAILED
        colours, width = screen(stream if output is None else None)
        if given.format == "text":
            whole = examined.text(colours=colours, width=width, show_passed=settings.show_passed)
        else:
            whole = written(examined.report(), given.format)
        put(whole, examined.report(), output, stream)
    if any(one.broke is not None for one in examined.examinations):
        return FAILED
    return FOUND * settings.fails(examined.findings)


def _examined(found: RecipeFunction, arguments: dict[str, Any], settings: Settings, limits: Limits) -> Examined:
    from trueloop.cli.flags import build
    from trueloop.examine.whole import examine
    from trueloop.seeds import seed_all

    seed_all(0)  # where the recipe sets no seed of its own
    recipe = build(found, arguments)
    how = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    trainer, train, val = (how.pop(name) for name in ("trainer", "train", "val"))
    for name in ("test", "classes"):
        how.pop(name)
    with _waiting() as told:
        return examine(
            trainer, train, val, how, limits=limits, select=settings.select, ignore=settings.ignore, told=told
        )


@contextmanager
def _waiting() -> Iterator[Callable[[Examination], None]]:
    """Says on a terminal which examination was made last, so that nobody waits before a still screen."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""

    def told(one: Examination) -> None:
        if clear:
            print(f"{clear}{one.name}: {one.verdict}", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        print(clear, end="", file=sys.stderr, flush=True)
