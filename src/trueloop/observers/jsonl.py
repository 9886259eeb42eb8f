"""The run's record: ``events.jsonl``, one JSON object a line, one line an event."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from trueloop.errors import TrueloopError
from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded, RunStarted, Saved, SaveFailed, StepEnded
from trueloop.observers.read import SECONDS_PENDING, STEPS_PENDING, read

UNWRITTEN_BYTES = 64 * 2**20
"""So much of a record is kept in memory while its disk is full: half a million steps."""


class Jsonl:
    """Writes each event as a line ``{"event": "StepEnded", "time": …, "step": …, …}``.

    Args:
        path: the file; appended to if it is there (a resumed run goes on in its own record).
        clock: seconds since 1970 (UTC).

    ``time`` is in seconds since 1970 (UTC). JSON has no NaN: such a figure is null, and ``nonfinite`` says which:
    ``{"loss": null, "nonfinite": {"loss": "nan"}}``; a nested one by its path, ``"metrics.loss"``.

    Steps are kept as references and written in batches: when 256 are pending, when a second has passed, at every other
    event. Each batch reaches the system in one write, so that a killed run keeps its record.

    A disk that is full later on is told once, and tried again at each writing.

    Raises:
        TrueloopError: the file cannot be written at the beginning, or at the end (it names the file and the step).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "events.jsonl")
        >>> record = Jsonl(path)
        >>> record(EpochEnded(epoch=0, step=8, loss=float("nan"), samples=100, seconds=1.5))
        >>> record.close()
        >>> line = json.loads(path.read_text())
        >>> line["event"], line["loss"], line["nonfinite"]
        ('EpochEnded', None, {'loss': 'nan'})
    """

    def __init__(self, path: Path | str, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        self._file: FileIO | None = None
        self._pending: list[tuple[StepEnded, float]] = []
        self._oldest = 0.0
        self._unwritten = b""
        self._began = self._told = False

    def __call__(self, event: Event) -> None:
        match event:
            case StepEnded():
                now = self._clock()
                pending = self._pending
                if not pending:
                    self._oldest = now
                pending.append((event, now))
                if now - self._oldest >= SECONDS_PENDING or len(pending) >= STEPS_PENDING:
                    self._write("")
            case RunEnded():
                self._write(_line(event, self._clock()))
                self.close()
            case _:
                self._write(_line(event, self._clock()))

    def state_dict(self) -> dict[str, int]:
        """How long the record is, with what a full disk has not taken yet; what is pending is written first."""
        self._write("")
        return {"bytes": (self.path.stat().st_size if self.path.exists() else 0) + len(self._unwritten)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Cuts the record back to where it was: the steps after that come again.

        What is cut off is kept beside it, in ``<name>.abandoned``.
        """
        self.close()
        if not self.path.exists() or self.path.stat().st_size <= state["bytes"]:
            return
        try:
            with self.path.open("r+b") as file, Path(f"{self.path}.abandoned").open("ab") as beside:
                file.seek(state["bytes"])
                shutil.copyfileobj(file, beside)
                beside.flush()
                os.fsync(beside.fileno())
                file.truncate(state["bytes"])
        except OSError as error:
            raise TrueloopError(
                f"the run's record cannot be cut back to the checkpoint: {error.strerror or error}", file=self.path
            ) from error

    def close(self) -> None:
        """Write what is pending and close the file; a later event opens it again."""
        self._write("")
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._unwritten:
            raise TrueloopError("the run's record could not be written to its end: the disk is full", file=self.path)

    def _write(self, line: str) -> None:
        text = _step_lines(self._pending) + line
        step = self._pending[-1][0].step if self._pending else None
        self._pending.clear()
        self._unwritten += text.encode()
        if not self._unwritten:
            return
        try:
            if self._file is None:
                self._file = _open(self.path)
            while self._unwritten:  # a raw write may be short
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
            self._began = True
        except OSError as error:
            self._failed(error, step)

    def _failed(self, error: OSError, step: int | None) -> None:
        """A disk that is full for a minute must not end a run of days: what was begun is tried again."""
        what = f"the run's record cannot be written: {error.strerror or error}; free some space"
        if not self._began or len(self._unwritten) > UNWRITTEN_BYTES:
            self._unwritten = b""
            self.close()
            raise TrueloopError(f"{what} or choose another folder, and run again", step=step, file=self.path) from error
        if not self._told:
            warnings.warn(
                f"{what}: it is kept in memory, and written as soon as there is some ({self.path})", stacklevel=2
            )
        self._told = True


def _open(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileIO(path, "a+")
    if file.seek(0, 2) > 0:  # a kill in the middle of a write leaves half a line: ours must not grow out of it
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _step_lines(pending: list[tuple[StepEnded, float]]) -> str:
    tensors = [event.loss for event, _ in pending]
    for event, _ in pending:
        if event.grad_norm is not None:
            tensors.append(event.grad_norm)
        if event.terms:
            tensors.extend(event.terms.values())
    values = read(tensors)
    rest = iter(values[len(pending) :])
    lines = []
    for (event, now), loss in zip(pending, values, strict=False):
        grad_norm = None if event.grad_norm is None else next(rest)
        terms = {name: next(rest) for name in event.terms} if event.terms else {}
        lines.append(_step_line(event, now, loss, grad_norm, terms))
    return "".join(lines)


def _step_line(event: StepEnded, now: float, loss: float, grad_norm: float | None, terms: dict[str, float]) -> str:
    # By hand, for json.dumps takes 8 times as long; the repr of a finite float is JSON.
    if terms or not (math.isfinite(loss) and math.isfinite(grad_norm or 0.0) and math.isfinite(event.lr)):
        return _dump("StepEnded", now, event._asdict() | {"loss": loss, "grad_norm": grad_norm, "terms": terms})
    norm = "null" if grad_norm is None else repr(grad_norm)
    return (
        f'{{"event": "StepEnded", "time": {now:.6f}, "step": {event.step}, "epoch": {event.epoch}, "loss": {loss!r}, '
        f'"samples": {event.samples}, "lr": {event.lr!r}, "grad_norm": {norm}, '
        f'"terms": {{}}, "skipped": {"true" if event.skipped else "false"}}}\n'
    )


def _line(event: RunStarted | EvalEnded | EpochEnded | Saved | SaveFailed | Found | RunEnded, now: float) -> str:
    fields = event._asdict()
    match event:
        case RunStarted():
            fields["plan"] = event.plan.lines()
        case EvalEnded():
            fields["metrics"] = dict(event.metrics)
        case Saved():
            fields["path"] = str(event.path)
        case Found():
            fields["finding"] = event.finding.as_dict()
    return _dump(type(event).__name__, now, fields)


def _dump(name: str, now: float, fields: Mapping[str, Any]) -> str:
    nonfinite: dict[str, str] = {}
    record = {"event": name, "time": round(now, 6)} | {key: _finite(fields[key], key, nonfinite) for key in fields}
    if nonfinite:
        record["nonfinite"] = nonfinite
    return json.dumps(record, allow_nan=False, ensure_ascii=False, default=str) + "\n"


def _finite(value: Any, path: str, nonfinite: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item, f"{path}.{key}", nonfinite) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite[path] = str(float(value))
        return None
    return value
