"""Which checkpoints stay: what nobody asked to keep is removed, and what is in the way is set aside.

A removal renames first, so that one which is cut off leaves no half of a checkpoint under a checkpoint's name.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from trueloop.checkpoint import layout
from trueloop.checkpoint.disk import DISK, Disk
from trueloop.checkpoint.store import cause, discard, entries, inside
from trueloop.errors import ArgumentError, CheckpointError


def retain(
    folder: Path,
    *,
    keep_last: int,
    keep_best: int = 0,
    best: str = "loss",
    mode: Literal["min", "max"] = "min",
    keep_every: int | None = None,
    disk: Disk = DISK,
) -> list[Path]:
    """Remove the checkpoints that nobody asked to keep. Call it when the newest is whole.

    Of several of one step the newest counts, and the others go. Damaged ones do not count and are not removed: they
    are evidence.

    Args:
        folder: ``RUN/checkpoints``.
        keep_last: so many of the newest, at least 1.
        keep_best: so many of the best by a metric; those that do not have it, or a NaN, are none.
        best: the metric.
        mode: ``min`` if less is better, else ``max``.
        keep_every: those whose step it divides, for ever.
        disk: what does the removing.

    Returns:
        The folders that were removed.

    Raises:
        CheckpointError: some could not be removed; the others were.

    Example:
        >>> import tempfile
        >>> from trueloop.checkpoint.store import Snapshot, write
        >>> folder = Path(tempfile.mkdtemp())
        >>> for step, loss in [(1, 0.2), (2, 0.9), (3, 0.8), (4, 0.7)]:
        ...     _ = write(folder, Snapshot(step, 0, "every step", {"loss": loss}, None, {}, {}))
        >>> [path.name for path in retain(folder, keep_last=1, keep_best=1)]
        ['step-00000002', 'step-00000003']
    """
    for name, value, least in (("keep_last", keep_last, 1), ("keep_best", keep_best, 0), ("keep_every", keep_every, 1)):
        if value is not None and value < least:
            raise ArgumentError(f"{name} must be at least {least}, got {name}={value}")
    if mode not in ("min", "max"):
        raise ArgumentError(f"mode must be 'min' or 'max', got mode={mode!r}")
    whole = [entry for entry in entries(folder) if entry.problem is None]
    by_step = {entry.step: entry for entry in whole}  # of one step the newest
    metric = {step: entry.metrics.get(best, math.nan) for step, entry in by_step.items()}
    sign = 1 if mode == "min" else -1
    # Of equals the earliest is the best: the others did not better it.
    ranked = sorted((step for step in by_step if not math.isnan(metric[step])), key=lambda step: sign * metric[step])
    kept = {*list(by_step)[-keep_last:], *ranked[:keep_best]}
    if keep_every is not None:
        kept |= {step for step in by_step if step % keep_every == 0}
    unwanted = [entry.path for entry in whole if entry.step not in kept or by_step[entry.step] is not entry]
    return _each(unwanted, lambda path: discard(path, disk))


def sweep(folder: Path, disk: Disk = DISK) -> list[Path]:
    """Remove what a killed process left behind of saves and removals. Only for who holds the run's lock.

    Returns:
        What was removed.

    Raises:
        CheckpointError: some could not be removed; the others were.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".writing-step-00000120-4711").mkdir()
        >>> [path.name for path in sweep(folder)]
        ['.writing-step-00000120-4711']
    """
    return _each([path for path in inside(folder) if path.name.startswith((layout.WRITING, layout.GONE))], disk.remove)


def set_aside(path: Path, word: str, disk: Disk = DISK) -> Path:
    """Give a checkpoint a name by which it is none any more; nothing of it is lost.

    Args:
        path: its folder.
        word: why, e.g. ``damaged`` or ``abandoned``.
        disk: what does the renaming.

    Returns:
        Its new folder, ``{word}-step-…``.

    Raises:
        CheckpointError: it could not be renamed.

    Example:
        >>> import tempfile
        >>> from trueloop.checkpoint.store import Snapshot, write
        >>> path = write(Path(tempfile.mkdtemp()), Snapshot(120, 0, "asked", {}, None, {}, {}))
        >>> set_aside(path, "damaged").name
        'damaged-step-00000120'
    """
    if not re.fullmatch(r"[a-z]+", word) or word == "step":
        raise ArgumentError(f"expected one lower-case word that is not step, got {word!r}")
    number, new = 1, path.with_name(f"{word}-{path.name}")
    while os.path.lexists(new):
        number += 1
        new = path.with_name(f"{word}-{path.name}.{number}")
    try:
        disk.rename(path, new)
        disk.sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint could not be set aside: {cause(error)}", file=path) from error
    return new


def _each(paths: Iterable[Path], remove: Callable[[Path], None]) -> list[Path]:
    removed, failed = [], []
    for path in paths:
        try:
            remove(path)
            removed.append(path)
        except (OSError, RuntimeError) as error:
            failed.append((path, error))
    if failed:
        names = "; ".join(f"{path.name}: {cause(error)}" for path, error in failed)
        raise CheckpointError(
            f"what is not needed any more could not be removed: {names}; remove it by hand, or mend the disk",
            file=failed[0][0].parent,
        ) from failed[0][1]
    return removed
