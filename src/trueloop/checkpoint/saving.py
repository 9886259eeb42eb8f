"""When a run is saved, and by whom: the loop's events pass through here, and checkpoints are made between them.

Whenever an event is out, a run stands whole: its state is copied then (the one thing that training waits for), and a
thread writes the copy while training goes on. What has become of it is told at a later event.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trueloop.checkpoint import retention, store
from trueloop.checkpoint.copies import Copies
from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.encode import pack
from trueloop.checkpoint.finite import StaysFinite
from trueloop.checkpoint.layout import FOLDER
from trueloop.checkpoint.resume import FILES
from trueloop.checkpoint.signals import Asked, ending
from trueloop.errors import ArgumentError, CheckpointError
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, RunStarted, Saved, SaveFailed, StepEnded, Stop

Events = Generator[Event, Stop | None, None]
Capture = Callable[[], Mapping[str, Mapping[str, Any]] | None]

AS_AN_EXCEPTION_LEFT = (
    "it was saved as an exception left a step: random numbers, BatchNorm's statistics and the epoch's mean loss may "
    "have moved since the step before"
)


@dataclass(frozen=True)
class Saving:
    """When checkpoints are made, and which of them are kept.

    Whatever is chosen, a run is saved before its first step, at SIGTERM and SIGUSR1 (it then exits with code 75, so
    that a scheduler starts it again), at Ctrl-C, before an exception leaves, and at its end.

    Args:
        every_steps: optimizer steps between two checkpoints; None for none.
        every_minutes: minutes between two; None for none.
        every_epochs: epochs between two; None for none.
        best: a metric of the evaluations; each new best value is saved. None saves none for that.
        mode: ``min`` or ``max``: which way is better. None means ``min`` for ``loss``; any other metric must say.
        keep_last: how many of the newest are kept.
        keep_best: how many of the best are kept, where ``best`` is given.
        keep_every: checkpoints at multiples of so many steps are kept for ever; None for none.
        on_failure: what a checkpoint that cannot be written does to the run: it goes on (this is told), or stops.

    Example:
        >>> Saving(every_steps=500, best="accuracy", mode="max").describe()
        'every 500 steps, every 10 minutes, on a new best accuracy; keeps the last 2 and the best 1'
    """

    every_steps: int | None = None
    every_minutes: float | None = 10.0
    every_epochs: int | None = None
    best: str | None = None
    mode: Literal["min", "max"] | None = None
    keep_last: int = 2
    keep_best: int = 1
    keep_every: int | None = None
    on_failure: Literal["go on", "stop"] = "go on"

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_epochs", "keep_every", "keep_last", "keep_best"):
            value, least = getattr(self, name), 0 if name == "keep_best" else 1
            optional = name not in ("keep_last", "keep_best")
            if not (optional and value is None) and (type(value) is not int or value < least):
                raise ArgumentError(f"{name} must be a whole number, at least {least}, got {name}={value!r}")
        if self.every_minutes is not None and not 0 < self.every_minutes < math.inf:
            raise ArgumentError(
                f"every_minutes must be above 0, got every_minutes={self.every_minutes!r}; None for none"
            )
        if self.mode not in ("min", "max", None):
            raise ArgumentError(f"mode must be 'min' or 'max', got mode={self.mode!r}")
        if self.best not in (None, "loss") and self.mode is None:
            raise ArgumentError(f"is more {self.best!r} better, or less? Say mode='max' or mode='min' to Saving")
        if self.on_failure not in ("go on", "stop"):
            raise ArgumentError(f"on_failure must be 'go on' or 'stop', got on_failure={self.on_failure!r}")

    def describe(self) -> str:
        """When, in words, for the plan."""
        every = [
            f"every {'' if count == 1 else f'{count:g} '}{unit}{'' if count == 1 else 's'}"
            for count, unit in (
                (self.every_steps, "step"),
                (self.every_minutes, "minute"),
                (self.every_epochs, "epoch"),
            )
            if count is not None
        ]
        every += [] if self.best is None else [f"on a new best {self.best}"]
        kept = f"keeps the last {self.keep_last}"
        kept += f" and the best {self.keep_best}" if self.best is not None and self.keep_best else ""
        kept += f", and every {self.keep_every}th step for ever" if self.keep_every is not None else ""
        return f"{', '.join(every) or 'at the end'}; {kept}"


class Saver:
    """Makes the checkpoints of one run.

    Args:
        out: the run's folder; its lock is held by the caller.
        saving: when, and which are kept.
        capture: gives the run's state, as ``resume.capture`` does; None where it has not moved since it was read.
        unfit: why the state is not fit to be saved when an exception leaves a step (the optimizer was in the middle of
            its own); None if it is.
        asked: what signals have asked for.
        weights: the names of the model's weights: a checkpoint in which one of them is not finite any more is not
            written, so that it pushes out none that is good.
        disk: where to write.
        shards: called with each snapshot; gives what has all processes write, where tensors lie in parts on them.
    """

    def __init__(
        self,
        out: Path,
        saving: Saving,
        capture: Capture,
        *,
        unfit: Callable[[], str | None] = lambda: None,
        asked: Asked | None = None,
        weights: Collection[str] = (),
        disk: Disk | None = None,
        shards: Callable[[store.Snapshot], store.WriteShards | None] = lambda snapshot: None,
    ) -> None:
        self._check_finite = StaysFinite(weights)
        self.folder = out / FOLDER
        self.saving, self.asked = saving, asked or Asked()
        self._capture, self._unfit = capture, unfit
        self._disk, self._shards = disk or Disk(), shards
        self._copies = fresh_copies()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: tuple[int, str, Future[Path]] | None = None
        self._warned = False  # of what retention could not remove
        self._next_time = math.inf
        self._current = False  # whether the newest copy is of this very moment
        self._copied = -1  # the step of the newest copy
        self._evaluated: EvalEnded | None = None
        self._best: float | None = None
        self._epoch = 0
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and the last evaluation."""
        best = (
            None if self._best is None else {"metric": self.saving.best, "mode": self.saving.mode, "value": self._best}
        )
        return {"best": best, "evaluated": None if self._evaluated is None else self._evaluated._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
        best = state["best"]
        if best is not None and (best["metric"], best["mode"]) == (self.saving.best, self.saving.mode):
            self._best = best["value"]
        self._evaluated = None if state["evaluated"] is None else EvalEnded(**state["evaluated"])

    def after(self, event: Event, stop: Stop | None) -> Sequence[Event]:
        """What is to be told after ``event``, which every observer has seen by now, one of them replying ``stop``."""
        writing = self._writing
        told: Sequence[Event] = self._told() if writing is not None and writing[2].done() else ()
        why = self.saw(event)
        if not self.asked.compares:  # else they end as one, and it is saved then
            why = self.asked.signal or why
        if why is None or stop is not None:  # with a stop the run ends here, and is saved then
            return told
        if not self.asked.are_alike():
            return told
        return [*told, *self._save(why)]

    def end(self, event: RunEnded, *, at_an_event: bool) -> list[Event]:
        """The last checkpoint, and what has become of it: it is awaited.

        Args:
            event: the run's last one.
            at_an_event: what ended the run came while an event was out: the run stands whole.
        """
        told = self._told()
        in_a_step = event.status in ("failed", "interrupted") and not at_an_event
        if self._current or self.asked.is_void:
            pass
        elif in_a_step and (event.status == "interrupted" or self._copied == self._step):
            pass  # the newest checkpoint is as good, or better: of the same step, and exact
        elif not in_a_step:
            told += self._save("the end" if event.status == "finished" else self.asked.signal or event.reason)
        elif (unfit := self._unfit()) is not None:
            told.append(SaveFailed(self._step, f"not saved when the exception left: {unfit}"))
        else:
            told += self._save(event.reason, exact=AS_AN_EXCEPTION_LEFT)
        return [*told, *self._told()]

    def close(self) -> None:
        """Waits for the thread: nothing is written any more when this returns or raises, and the lock may go."""
        try:
            self._told()  # not by joining the thread: a Ctrl-C in a join has it marked as ended (python/cpython#90882)
        except KeyboardInterrupt:
            self.close()
            raise
        self._pool.shutdown()

    def _save(self, why: str, *, exact: str | None = None) -> list[Event]:
        """Copies the run's state and has it written; waits for the one before, and gives what has become of that."""
        told = self._told()
        captured = self._capture()
        self._current, self._copied = True, self._step
        self._wait_minutes()
        if captured is None:
            return told
        evaluated = self._evaluated
        metrics = evaluated.metrics if evaluated is not None and evaluated.step == self._step else {}
        snapshot = snapshot_of(captured, self._copies, self._step, self._epoch, why, metrics, exact)
        self._writing = (self._step, why, self._pool.submit(self._write, snapshot, self._shards(snapshot)))
        return told

    def saw(self, event: Event) -> str | None:
        """Takes note of an event; gives why a checkpoint is due after it, if one is."""
        self._current = False
        saving = self.saving
        match event:
            case StepEnded():
                self._step = event.step
                if saving.every_steps and event.step % saving.every_steps == 0 and not event.skipped:
                    return f"every {saving.every_steps} steps"
                if time.monotonic() >= self._next_time:
                    if not self.asked.compares or self.asked.compare is not None:
                        return f"every {saving.every_minutes:g} minutes"
                    self.asked.to_compare = True  # at one of the next steps
            case EvalEnded():
                self._evaluated = event
                return self._new_best(event)
            case EpochEnded():
                self._epoch = event.epoch + 1
                if saving.every_epochs and self._epoch % saving.every_epochs == 0:
                    return f"every {saving.every_epochs} epochs"
            case RunStarted():
                self._step, self._epoch = event.step, event.epoch
                self._wait_minutes()
                self._current = bool(store.entries(self.folder))  # the run goes on from the newest of them
                self._copied = self._step if self._current else -1
                return None if self._current else "the beginning"
        return None

    def _new_best(self, event: EvalEnded) -> str | None:
        best = self.saving.best
        if best is None or best not in event.metrics:
            return None
        value = event.metrics[best]
        before = self._best if self._best is not None else math.inf if self.saving.mode != "max" else -math.inf
        better = value > before if self.saving.mode == "max" else value < before  # False for NaN
        if better:
            self._best = value
        return f"best {best}" if better else None

    def _wait_minutes(self) -> None:
        if self.saving.every_minutes is not None:
            self._next_time = time.monotonic() + 60 * self.saving.every_minutes

    def _told(self) -> list[Event]:
        """What has become of the checkpoint that was being written, if one was; waits for it."""
        if self._writing is None:
            return []
        step, why, writing = self._writing
        told: Event
        try:
            told = Saved(step, writing.result(), why)  # a Ctrl-C meanwhile leaves it as one that is still written
        except CheckpointError as error:
            told = SaveFailed(step, str(error))
        except Exception as error:  # whatever it is, it came from a thread, and must not end the run from there
            told = SaveFailed(step, f"{type(error).__name__}: {error}")
        self._writing = None
        if isinstance(told, SaveFailed):
            self._current, self._copied = False, -1
        return [told]

    def _write(self, snapshot: store.Snapshot, shards: store.WriteShards | None) -> Path:
        """In the thread: the checkpoint, and then what is not to be kept any more."""
        with contextlib.nullcontext() if shards is None else contextlib.closing(shards):
            self._check_finite(snapshot.tensors.get(FILES["model"], {}))
            path = store.write(self.folder, snapshot, self._disk, shards)
        try:
            self._retain()
        except (OSError, CheckpointError) as error:  # it is tried again after the next one
            if not self._warned:
                self._warned = True
                warnings.warn(f"the disk fills with old checkpoints: {error}", stacklevel=2)
        return path

    def _retain(self) -> None:
        saving = self.saving
        retention.retain(
            self.folder,
            keep_last=saving.keep_last,
            keep_best=saving.keep_best if saving.best is not None else 0,
            best=saving.best or "loss",
            mode=saving.mode or "min",
            keep_every=saving.keep_every,
            disk=self._disk,
        )


def fresh_copies() -> dict[str, Copies]:
    """Memory for copies of the state, none of it in use yet."""
    return {tree: Copies() for tree in FILES}


def snapshot_of(
    captured: Mapping[str, Mapping[str, Any]],
    copies: Mapping[str, Copies],
    step: int,
    epoch: int,
    why: str,
    metrics: Mapping[str, float] | None = None,
    exact: str | None = None,
) -> store.Snapshot:
    """A copy of what was captured, ready to be written."""
    trees, tensors = {}, {}
    for name, tree in captured.items():
        trees[name], tensors[FILES[name]] = pack(tree, copies[name])
    for one in copies.values():
        one.wait()
    kept = {file: those for file, those in tensors.items() if those}
    return store.Snapshot(step, epoch, why, dict(metrics or {}), exact, trees, kept)


def saved(events: Events, saver: Saver) -> Events:
    """The same events, with checkpoints made between them, and ``Saved`` and ``SaveFailed`` told as they come.

    Args:
        events: a run's, as ``loop.train`` gives them.
        saver: makes the checkpoints.
    """
    try:
        yield from _saved(events, saver)
    finally:
        saver.close()


def _saved(events: Events, saver: Saver) -> Events:
    told: deque[Event] = deque()
    stop: Stop | None = None
    error: BaseException | None = None  # to be thrown into the run, which stands whole
    at_once = False  # a second Ctrl-C came while a checkpoint was made: no other one is begun
    while True:
        own = bool(told)
        if own:
            event = told.popleft()
        else:
            try:
                event = events.send(stop) if error is None else events.throw(error)
            except StopIteration:
                return
            if isinstance(event, RunEnded):
                whole = error is not None or saver.asked.stands_whole
                yield from _ended(events, event, saver, at_an_event=whole and not at_once)
                return
        try:
            reply = yield event
        except GeneratorExit:
            events.close()
            raise
        except BaseException as raised:
            error = raised
            if not own:
                saver.saw(event)
            continue
        stop = stop or reply
        if isinstance(event, SaveFailed) and saver.saving.on_failure == "stop" and error is None:
            error = CheckpointError(event.reason)
        if own:
            continue
        try:
            if facts := saver.after(event, stop):
                told.extend(facts)
            if saver.asked.signal is not None:
                error = ending(saver.asked.signal)
        except BaseException as raised:  # a state_dict that raises, a second Ctrl-C
            error, at_once = raised, isinstance(raised, KeyboardInterrupt)


def _ended(events: Events, event: RunEnded, saver: Saver, *, at_an_event: bool) -> Events:
    """The last checkpoint, what has become of it, and the run's last event; then the run's error, if it has one."""
    error: BaseException | None = None
    told: list[Event]
    try:
        told = saver.end(event, at_an_event=at_an_event)
    except KeyboardInterrupt as raised:  # what is being written is awaited by close(), and nobody is told
        told, error = [], raised
    except BaseException as raised:
        told, error = [SaveFailed(event.step, f"{type(raised).__name__}: {raised}")], raised
    last = told[-1] if told else None
    must_be_saved = saver.saving.on_failure == "stop" and event.status not in ("failed", "interrupted")
    if must_be_saved and isinstance(last, SaveFailed) and error is None:
        error = CheckpointError(last.reason)
    for fact in (*told, event):
        try:
            yield fact
        except GeneratorExit:
            events.close()
            raise
        except BaseException as raised:
            error = raised
    with contextlib.suppress(StopIteration):
        if error is None:
            next(events)
        else:
            events.throw(error)
