"""``trueloop verify-resume RECIPE [--flags]``."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from trueloop.cli.find import find
from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from trueloop.verify_resume.processes import Process

INEXACT = 1
"""The exit code if a resume changes something."""

USAGE = """usage: trueloop verify-resume RECIPE [--flags]

Trains a recipe for some steps: to the end, twice; and killed in the middle of an epoch, and resumed in a new process.
Says whether every bit is the same, or what differs and why. The exit code is 0 if all is the same, else 1.

RECIPE and its flags are those of trueloop train; and
  --verify-steps STEPS      optimizer steps of each run; by default two short epochs and more, or 16 steps
  --verify-timeout SECONDS  for one of the runs; by default 1800"""


def run(arguments: Sequence[str]) -> int:
    """Tries whether a recipe's run is resumed exactly; nothing of it is left on the disk."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    reference, *flags = arguments
    if reference.startswith("-"):
        raise ArgumentError(
            f"expected the recipe before its flags, got {reference!r}: trueloop verify-resume RECIPE {reference} …"
        )
    from trueloop.cli.flags import describe, parse

    own, flags = _own_flags().parse_known_args(flags)
    found = find(reference)
    given = parse(found, flags, extra=_described(), verb="verify-resume")
    for name in _OWN:
        given.pop(name)
    job = {"recipe": describe(found, flags, given), "verify_steps": own.verify_steps}

    from trueloop.verify_resume import tried
    from trueloop.verify_resume.trial import TIMEOUT

    def start(role: str, folder: Path) -> Process:
        print(_ROLES[role], file=sys.stderr, flush=True)
        (folder / _JOB).write_text(json.dumps(job), encoding="utf-8")
        return _started(role, folder)

    verdict = tried(start, TIMEOUT if own.verify_timeout is None else own.verify_timeout)
    print(verdict)
    return 0 if verdict.exact else INEXACT


def child(role: str, folder: Path) -> None:
    """In a new process: makes the recipe, and plays its role in the trial."""
    from dataclasses import fields

    from trueloop.cli.flags import again
    from trueloop.seeds import seed_all
    from trueloop.verify_resume.roles import ELSEWHERE, OWN_RESUMED, RESUMED, play
    from trueloop.verify_resume.trial import playing

    with playing(role, folder):
        job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
        seed_all(ELSEWHERE if role in (RESUMED, OWN_RESUMED) else 0)  # where the recipe sets no seed of its own
        recipe = again(job["recipe"])
        how = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
        trainer, train, val = (how.pop(name) for name in ("trainer", "train", "val"))
        for name in ("test", "classes"):
            how.pop(name)
        play(role, trainer, train, val, how, folder, job["verify_steps"])


_JOB = "job.json"
_ROLES = {
    "unbroken": "a run to the end",
    "again": "the same again",
    "halfway": "the same, killed in the middle",
    "resumed": "resumed from there",
    "own": "a loop of one's own, saved in an accumulation window",
    "own-resumed": "resumed from there",
}
"""What is said before each process of a trial."""
_OWN = {
    "verify_steps": (int, "STEPS", "optimizer steps of each run; by default two short epochs and more, or 16 steps"),
    "verify_timeout": (float, "SECONDS", "for one of the runs; by default 1800"),
}


def _own_flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trueloop verify-resume", add_help=False, allow_abbrev=False)
    for name, (kind, _, _) in _OWN.items():
        parser.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name, type=kind)
    return parser


def _described() -> list[inspect.Parameter]:
    """The same for the help of the recipe's own flags."""
    import tyro

    def flag(name: str, kind: Any, metavar: str, text: str) -> inspect.Parameter:
        wanted = Annotated[kind | None, tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint="")]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=wanted)

    return [flag(name, *about) for name, about in _OWN.items()]


def _started(role: str, folder: Path) -> Process:
    from trueloop.verify_resume.processes import interpreted

    # Each process hashes strings in another way, as it would in life: what depends on it must show.
    seed = os.environ.get("PYTHONHASHSEED") or str(1 + sum(role.encode()))
    # -P: no torch.py of the working directory. At the path's end, trueloop is found wherever this process has it from.
    command = ["-P", "-c", _CHILD, str(Path(__file__).parents[2]), role, str(folder)]
    return interpreted(command, folder / f"{role}.log", {"PYTHONHASHSEED": seed})


_CHILD = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from trueloop.cli.verify_resume import child
child(sys.argv[2], Path(sys.argv[3]))
"""
