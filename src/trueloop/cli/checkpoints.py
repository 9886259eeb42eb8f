"""``trueloop checkpoints RUN``."""

from __future__ import annotations

import json as json_format
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from trueloop.checkpoint.layout import FOLDER, checkpoints_of
from trueloop.errors import ArgumentError, RunFolderError

if TYPE_CHECKING:
    from trueloop.checkpoint.store import Entry


def run(arguments: Sequence[str]) -> int:
    """Lists the checkpoints of a run."""
    tyro.cli(checkpoints, prog="trueloop checkpoints", args=list(arguments))
    return 0


def checkpoints(
    run: Annotated[Path, tyro.conf.Positional],
    best: Annotated[str | None, tyro.conf.arg(metavar="METRIC", help_behavior_hint="")] = None,
    mode: Annotated[Literal["min", "max"] | None, tyro.conf.arg(help_behavior_hint="")] = None,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """The checkpoints of a run, oldest first: step, epoch, when and why each was saved, size, metrics.

    Only their manifests are read; `trueloop verify` checks every byte.

    Args:
        run: the run's folder.
        best: the metric that says which one is the best; by default the one that the run saves its best by, or loss.
        mode: whether less (min) or more (max) of it is better; needed with --best, unless it is loss.
        json: print JSON instead, for programs.
    """
    from trueloop.checkpoint.store import entries

    folder = folder_of(run)
    found = entries(folder)
    ranking = _ranking(run, best, mode)
    top, last = _best(found, ranking), _last(found)
    aside = sorted(path.name for path in folder.glob("*-step-*") if path.is_dir() and not path.name.startswith("."))
    if json:
        listed = [{**_fields(entry), "best": entry is top, "last": entry is last} for entry in found]
        print(json_format.dumps({"folder": str(folder), "checkpoints": listed, "set_aside": aside}, indent=2))
        return
    if not found:
        print(f"no checkpoints in {folder}")
    for line in _table(found, {id(last): "last", id(top): f"best {ranking.metric}"}, both=top is last):
        print(line)
    for entry in found:
        if entry.problem is not None:
            print(f"{entry.path.name} is damaged: {entry.problem}")
        elif entry.exact is not None:
            print(f"{entry.path.name} does not resume exactly: {entry.exact}")
    for name in aside:
        print(f"{name} was set aside, and is not resumed from: {name.partition('-step-')[0]}")


class Ranking(NamedTuple):
    """Which checkpoint is the best."""

    metric: str
    mode: Literal["min", "max"]


def folder_of(run: Path) -> Path:
    """Where the checkpoints of a run are.

    Args:
        run: the run's folder, or the one with its checkpoints.

    Raises:
        RunFolderError: there is no such folder, or it holds no checkpoints.

    Example:
        >>> folder_of(Path("nowhere"))
        Traceback (most recent call last):
        trueloop.errors.RunFolderError: expected the folder of a run, got 'nowhere': there is none
    """
    if not run.is_dir():
        raise RunFolderError(f"expected the folder of a run, got {str(run)!r}: there is none")
    checkpoints = checkpoints_of(run)
    if checkpoints.is_dir():
        return checkpoints
    raise RunFolderError(
        f"expected the folder of a run with checkpoints, got one without a folder {FOLDER!r}", file=run
    )


def size(count: int) -> str:
    """Bytes for a reader.

    Example:
        >>> size(999), size(1_234_567)
        ('999 B', '1.23 MB')
    """
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _ranking(run: Path, best: str | None, mode: Literal["min", "max"] | None) -> Ranking:
    if best is None:
        saving = _saving(run)
        best, mode = saving.get("best") or "loss", mode or saving.get("mode")
    if mode is None and best != "loss":
        raise ArgumentError(f"is more {best} better, or less? Say --mode max or --mode min")
    return Ranking(best, mode or "min")


def _saving(run: Path) -> Mapping[str, Any]:
    """By what the run saves its best, as ``run.json`` says it; nothing if it does not."""
    from trueloop.observers.run_folder import describe

    try:
        settings = describe(run).get("settings")
    except RunFolderError:  # a folder of checkpoints alone is listed too
        return {}
    saving = settings.get("saving") if isinstance(settings, dict) else None
    return saving if isinstance(saving, dict) else {}


def _best(found: Sequence[Entry], ranking: Ranking) -> Entry | None:
    """Of equals the first."""
    whole = [entry for entry in found if entry.problem is None and _value(entry, ranking) is not None]
    sign = 1 if ranking.mode == "min" else -1
    return min(whole, key=lambda entry: sign * (_value(entry, ranking) or 0.0), default=None)


def _value(entry: Entry, ranking: Ranking) -> float | None:
    value = entry.metrics.get(ranking.metric)
    return value if value is not None and math.isfinite(value) else None


def _last(found: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in reversed(found) if entry.problem is None), None)


def _table(found: Sequence[Entry], marks: Mapping[int, str], *, both: bool) -> list[str]:
    """Written by hand: a name must not be broken where the line ends."""
    if not found:
        return []
    whole = [entry for entry in found if entry.problem is None]
    metrics = sorted({name for entry in whole for name in entry.metrics}, key=lambda name: (name != "loss", name))
    rows = [["step", "epoch", "saved", "size", *metrics, "why", ""]]
    for entry in found:
        if entry.problem is not None:
            rows.append([str(entry.step), "", "", "", *("" for _ in metrics), "damaged", ""])
            continue
        figures = [_figure(entry.metrics.get(name)) for name in metrics]
        mark = marks.get(id(entry), "") + (", last" if both and id(entry) in marks else "")
        rows.append(
            [str(entry.step), str(entry.epoch), _when(entry.saved), size(entry.bytes), *figures, entry.why, mark]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {0, 1, 3, *range(4, 4 + len(metrics))}
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _when(saved: str) -> str:
    """In the reader's time zone."""
    try:
        return f"{datetime.fromisoformat(saved).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return saved


def _fields(entry: Entry) -> dict[str, Any]:
    metrics = {name: value if math.isfinite(value) else None for name, value in entry.metrics.items()}
    return {
        "path": str(entry.path),
        "step": entry.step,
        "number": entry.number,
        "epoch": entry.epoch,
        "saved": entry.saved,
        "why": entry.why,
        "metrics": metrics,
        "exact": entry.exact,
        "bytes": entry.bytes,
        "problem": entry.problem,
    }
