"""``trueloop verify RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from trueloop.cli.checkpoints import folder_of, size
from trueloop.errors import CheckpointError

DAMAGED = 1
"""The exit code if a checkpoint is not as it was written."""


def run(arguments: Sequence[str]) -> int:
    """Checks every byte of a run's checkpoints."""
    return tyro.cli(verify, prog="trueloop verify", args=list(arguments))


def verify(run: Annotated[Path, tyro.conf.Positional]) -> int:
    """Checks every byte of a run's checkpoints against the hashes that were taken when they were written.

    The exit code is 0 if all of them are whole, and 1 if one is damaged. Files that were not written with a checkpoint
    are named; they are not read, and change nothing.

    Args:
        run: the run's folder, or that of one checkpoint.
    """
    from trueloop.checkpoint.layout import MANIFEST, parse_folder_name
    from trueloop.checkpoint.store import damage, entries, unlisted

    if parse_folder_name(run.resolve().name) or (run / MANIFEST).exists():
        folder, paths = run.resolve().parent, [run.resolve()]
    else:
        folder = folder_of(run)
        paths = [entry.path for entry in entries(folder)]
    if not paths:
        raise CheckpointError("expected checkpoints to verify, found none", file=folder)
    bad = 0
    for path in paths:
        problem = damage(path)
        bad += problem is not None
        if problem is not None:
            print(f"{path.name}  DAMAGED: {problem}")
            continue
        strangers = unlisted(path)
        own = [file for file in path.iterdir() if file.name not in strangers]
        print(f"{path.name}  whole, {size(sum(file.stat().st_size for file in own))}")
        if strangers:
            print(f"{path.name}  warning: also in its folder, and not known to {MANIFEST}: {', '.join(strangers)}")
    checkpoints = "1 checkpoint" if len(paths) == 1 else f"{len(paths)} checkpoints"
    print(f"{checkpoints} in {folder}: {f'{bad} damaged' if bad else 'every byte is as it was written'}")
    return DAMAGED if bad else 0
