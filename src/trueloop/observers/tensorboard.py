"""TensorBoard event files, written with the ``tensorboard`` package's own records."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueloop.errors import MissingExtraError, TrueloopError
from trueloop.events import EvalEnded, Event, RunEnded, RunStarted, StepEnded
from trueloop.observers.read import SECONDS_PENDING, STEPS_PENDING, read

if TYPE_CHECKING:
    from torch import Tensor

_POINTS_A_BATCH = 64  # one point costs 20 µs (its checksum is computed in Python): no more than 5 µs a step, then

_Point = tuple[int, float, dict[str, float]]
"""Step, seconds since 1970, scalars by their tags."""


class TensorBoard:
    """Writes ``loss/train``, ``lr`` and ``grad_norm`` of the steps, and ``<metric>/val`` of each evaluation.

    Args:
        folder: where the event file goes; made if it is not there. Look at it with ``tensorboard --logdir FOLDER``.
        clock: seconds since 1970 (UTC).

    Points are written in batches: when 256 steps are pending, when a second has passed, at every evaluation. A batch
    holds at most 64 points, evenly chosen, its last step always among them: TensorBoard itself draws no more than
    1,000 of a run; ``events.jsonl`` has every step.

    Raises:
        MissingExtraError: the package ``tensorboard`` is not installed.
        TrueloopError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> watch = TensorBoard(folder)
        >>> watch(EvalEnded(step=8, epoch=0, metrics={"loss": 0.5}, samples=100, seconds=0.1))
        >>> watch(RunEnded(step=8, epoch=1, reason="finished", seconds=1.0))
        >>> [file.name.split(".")[:3] for file in folder.iterdir()]
        [['events', 'out', 'tfevents']]
    """

    def __init__(self, folder: Path | str, clock: Callable[[], float] = time.time) -> None:
        try:
            import tensorboard  # noqa: F401  # said here, and not after the first epoch
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self.folder = Path(folder)
        self._clock = clock
        self._records: _Records | None = None
        self._pending: list[tuple[StepEnded, float]] = []
        self._oldest = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case StepEnded():
                now = self._clock()
                pending = self._pending
                if not pending:
                    self._oldest = now
                pending.append((event, now))
                if now - self._oldest >= SECONDS_PENDING or len(pending) >= STEPS_PENDING:
                    self._put(self._steps())
            case EvalEnded():
                scalars = {f"{name}/val": value for name, value in event.metrics.items()}
                self._put([*self._steps(), (event.step, self._clock(), scalars)])
            case RunStarted():
                self._put([])  # opens the file, for a folder that cannot be written is best said now
                if event.step and self._records is not None:
                    self._records.restart(event.step + 1)
            case RunEnded():
                self.close()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._put(self._steps())
        if self._records is not None:
            self._records.close()
            self._records = None

    def _steps(self) -> list[_Point]:
        every = -(-len(self._pending) // _POINTS_A_BATCH) or 1
        chosen = self._pending[::-1][::every][::-1]  # counted from the end, so that the last one is among them
        self._pending.clear()
        tensors: list[Tensor] = [event.loss for event, _ in chosen]
        tensors += [event.grad_norm for event, _ in chosen if event.grad_norm is not None]
        values = read(tensors)
        norms = iter(values[len(chosen) :])
        points = []
        for (event, now), loss in zip(chosen, values, strict=False):
            scalars = {"loss/train": loss, "lr": event.lr}
            if event.grad_norm is not None:
                scalars["grad_norm"] = next(norms)
            points.append((event.step, now, scalars))
        return points

    def _put(self, points: list[_Point]) -> None:
        try:
            if self._records is None:
                self._records = _Records(self.folder)
            for point in points:
                self._records.write(*point)
            self._records.flush()
        except OSError as error:
            raise TrueloopError(
                f"TensorBoard's events cannot be written: {error.strerror or error}; free some space or choose another "
                "folder, and run again",
                step=points[-1][0] if points else None,
                file=self.folder,
            ) from error


class _Records:
    """One event file. The package's ``EventFileWriter`` does the same with a thread and a queue, at 4 times the cost.

    Its name and its first record are as there (tensorboard 2.21, summary/writer/event_file_writer.py).
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Message
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.time_ns()}"
        self._message: Any = Message
        self._summary: Any = Summary
        self._writer: Any = RecordWriter((folder / name).open("wb"))
        self._writer.write(Message(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def write(self, step: int, now: float, scalars: dict[str, float]) -> None:
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        message = self._message(step=step, wall_time=now, summary=self._summary(value=values))
        self._writer.write(message.SerializeToString())

    def restart(self, step: int) -> None:
        """Has readers drop what other files of the folder say of this step and later ones: they come again."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        message = self._message(step=step, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        self._writer.write(message.SerializeToString())

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
