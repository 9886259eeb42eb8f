"""What each process of a trial does: trains from the beginning, or to the middle, or on from there; and records it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trueloop.checkpoint.resume import Stateful, capture
from trueloop.data.arrays import is_arrays
from trueloop.data.feed import feed
from trueloop.errors import ArgumentError
from trueloop.events import Event, RunEnded, StepEnded
from trueloop.objective import Batch, Computed
from trueloop.seeds import deterministic, seed_all
from trueloop.verify_resume.record import Record, Window, bits, bits_of_batch, entries
from trueloop.verify_resume.unsaved import of_data, unsaved

if TYPE_CHECKING:  # the trainer imports this
    from trueloop.trainer import Trainer

UNBROKEN, AGAIN, HALFWAY, RESUMED = "unbroken", "again", "halfway", "resumed"
OWN, OWN_RESUMED = "own", "own-resumed"
"""The last two: by a loop of one's own, saved in the middle of an accumulation window."""

KILLED = 9
"""The exit code of the run that ends in the middle, as it would by ``kill -9``: nothing is closed or flushed."""

ELSEWHERE = 1_000_003
"""The seed of a process that resumes: none of its random numbers may be those of the run that it goes on with."""

LEFT_ASIDE = ("out", "saving", "save_every_steps", "resume", "about", "progress")
"""Arguments of ``fit`` that a trial has no use for."""


def play(
    role: str,
    trainer: Trainer,
    train: Any,
    val: Any,
    how: Mapping[str, Any],
    folder: Path,
    verify_steps: int | None = None,
) -> None:
    """Does a process's part, and writes its record to ``folder / f"{role}.json"``.

    Args:
        role: one of those above.
        trainer: as it was made, nothing trained yet.
        train: as for ``fit``.
        val: as for ``fit``.
        how: the arguments of ``fit``.
        folder: of the trial, for records and the checkpoint.
        verify_steps: optimizer steps in all; None chooses.
    """
    how = {name: value for name, value in how.items() if name not in LEFT_ASIDE}
    observers = how.pop("observers", ())
    record = _begun(trainer, train, how, verify_steps)
    record.left_aside = [
        getattr(observer, "__name__", type(observer).__name__) for observer in observers if not _takes_part(observer)
    ]
    if how.get("epochs") is None and how.get("steps") is None:
        how["steps"] = record.last
    if role in (RESUMED, OWN_RESUMED):
        seed_all(ELSEWHERE)
        _scramble(trainer)
        trainer.resume(folder / (HALFWAY if role == RESUMED else OWN))
    recorder = _Recorder(role, trainer, record, of_data(train), folder)
    if role in (OWN, OWN_RESUMED):
        _own_loop(role, trainer, train, how, recorder)
    else:
        _fit(trainer, train, val, how, [*filter(_takes_part, observers), recorder], recorder)
    record.write(folder / f"{role}.json")


def middle(per_epoch: int | None, run_steps: int | None, wanted: int | None = None) -> tuple[int, int]:
    """The step to stop after, in the middle of an epoch if it has one, and the last step of all.

    Args:
        per_epoch: optimizer steps an epoch; None where that is not known.
        run_steps: those of the whole run.
        wanted: those of the trial; None takes two epochs and more where they are short, else 16 steps.

    Example:
        >>> middle(5, None), middle(430, 4300), middle(5, 7), middle(4, None, wanted=8), middle(1, None)
        ((7, 14), (8, 16), (3, 7), (5, 8), (3, 6))
    """
    if wanted is not None and (type(wanted) is not int or wanted < 2):
        raise ArgumentError(
            f"verify_steps must be 2 or more, got verify_steps={wanted!r}: one before the save, one after"
        )
    last = wanted or _LONG
    if wanted is None and per_epoch is not None and per_epoch <= _SHORT:
        last = max(6, 2 * (per_epoch + per_epoch // 2))
    if run_steps is not None:
        last = min(last, run_steps)
    if last < 2:
        raise ArgumentError(
            f"the run must have 2 steps or more to be stopped between them, got {run_steps}; give it more"
        )
    halfway = last // 2
    if per_epoch is not None and per_epoch > 1 and halfway % per_epoch == 0:
        halfway += 1
    return halfway, last


_SHORT = 24
"""Steps of an epoch that is tried whole."""
_LONG = 16
_WRITERS = ("trueloop.observers.jsonl", "trueloop.observers.progress")
_READING = ("batch_size", "shuffle", "workers", "worker_timeout")


class _OverError(Exception):
    """The last step of the trial was taken."""


class _Recorder:
    """Sees each batch before it is used, and each event."""

    def __init__(self, role: str, trainer: Trainer, record: Record, data: Mapping[str, Any], folder: Path) -> None:
        self.record = record
        self._role, self._trainer, self._folder = role, trainer, folder
        choices = trainer.choices
        parts = {"model": trainer.model, "loss": choices.loss, "penalty": choices.settings.penalty}
        self._roots = {**parts, "schedule": choices.schedule, **data}
        self._batches: list[str] = []

    def given(self, batch: Batch) -> None:
        """A batch that is trained on next."""
        if "began" not in self.record.moments:
            self._look("began")
        elif self.record.saved_after == len(self.record.windows) and "halfway" not in self.record.moments:
            self._look("halfway")
        self._batches.append(bits_of_batch(batch))

    def took(self, step: int, epoch: int, loss: Tensor) -> None:
        """What was given since the last call has been trained on."""
        self.record.windows.append(Window(step, epoch, self._batches, bits(loss)))
        self._batches = []

    def save(self) -> None:
        """Here the run that is resumed goes on."""
        self.record.saved_after = len(self.record.windows)
        if self._role in (HALFWAY, OWN):
            self._trainer.save(self._folder / self._role)

    def ended(self) -> None:
        """The state at the end."""
        self._look("ended")

    def __call__(self, event: Event) -> None:
        match event:
            case StepEnded():
                self.took(event.step, event.epoch, event.loss)
                if not event.skipped and event.step == self.record.halfway:
                    self.save()
                    if self._role == HALFWAY:
                        self._die()
                if not event.skipped and event.step >= self.record.last:
                    self.ended()
                    raise _OverError
            case RunEnded() if event.status in ("finished", "stopped") and "ended" not in self.record.moments:
                self.ended()  # before its time: an observer has stopped it, or a stream was short

    def _look(self, moment: str) -> None:
        if self._role == HALFWAY:
            self.record.moments[moment] = {}
            return
        trees = capture(self._trainer._session.parts)
        trees["state"].pop("settings")  # what it was asked for, and not what it has become
        trees["state"]["observers"].pop("Collector", None)  # holds seconds
        trees["optimizer"] = _by_parameter(self._trainer, trees["optimizer"])
        self.record.moments[moment] = entries(trees)
        if moment != "ended":
            self.record.unsaved[moment] = unsaved(self._roots)

    def _die(self) -> None:
        self.record.write(self._folder / f"{self._role}.json")
        run = self._trainer._session.run
        if run is not None:
            run.feed.close()  # workers that lose their parent leave shared memory behind
        os._exit(KILLED)


def _begun(trainer: Trainer, train: Any, how: Mapping[str, Any], verify_steps: int | None) -> Record:
    source = feed(train, **{"batch_size": None, **_reading(how)})
    source.close()
    accumulate = trainer.choices.accumulate
    per_epoch = None if source.batches is None else -(-source.batches // accumulate)
    epochs, steps = how.get("epochs"), how.get("steps")
    run_steps = epochs * per_epoch if epochs is not None and per_epoch is not None else steps
    halfway, last = middle(per_epoch, run_steps, verify_steps)
    data = bits_of_batch(train) if is_arrays(train) else None
    return Record(halfway, last, per_epoch, accumulate, source.inexact, data)


def _reading(how: Mapping[str, Any]) -> dict[str, Any]:
    return {name: how[name] for name in _READING if name in how}


def _takes_part(observer: object) -> bool:
    """Observers that hold state may decide something; the others only watch, and may write to the user's files."""
    return isinstance(observer, Stateful) and type(observer).__module__ not in _WRITERS


def _scramble(trainer: Trainer) -> None:
    """Noise in place of all weights and statistics: what a resume does not put back must show."""
    criterion = trainer.setup.objective.criterion if trainer.setup.objective is not None else None
    parts = [trainer.model] + ([criterion] if isinstance(criterion, nn.Module) else [])
    with torch.no_grad():
        for part in parts:
            for tensor in (*part.parameters(), *part.buffers()):
                if tensor.is_floating_point() and tensor.layout is torch.strided:
                    tensor.copy_(torch.rand(tensor.shape))


def _fit(
    trainer: Trainer, train: Any, val: Any, how: Mapping[str, Any], observers: Sequence[Any], recorder: _Recorder
) -> None:
    form = trainer.setup.training_objective

    def compute(model: nn.Module, batch: Batch) -> Computed:
        if torch.is_grad_enabled():  # else this is an evaluation
            recorder.given(batch)
        return form.compute(model, batch)

    trainer.setup.objective = replace(form, compute=compute)
    with contextlib.suppress(_OverError):
        trainer.fit(train, val, **how, observers=observers, progress=False)


def _own_loop(role: str, trainer: Trainer, train: Any, how: Mapping[str, Any], recorder: _Recorder) -> None:
    """The loop that a user would write for the same objective."""
    form, record, seed = trainer.setup.training_objective, recorder.record, how.get("seed")
    if role == OWN and seed is not None:
        seed_all(seed)
    per_epoch = record.per_epoch or 1
    epochs = how["epochs"] if how.get("epochs") is not None else -(-how["steps"] // per_epoch)
    reading = {**_reading(how), **({} if seed is None else {"seed": seed})}
    try:
        with deterministic(trainer.choices.deterministic):
            for epoch in trainer.epochs(epochs):
                for batch in trainer.batches(train, **reading):
                    recorder.given(batch)
                    computed = form.compute(trainer.model, batch)
                    step = trainer.step + 1
                    ended = trainer.update(computed.loss, count=computed.count if computed.counted else None)
                    recorder.took(step, epoch, computed.loss)
                    if ended is None and record.saved_after is None and trainer.step >= record.halfway:
                        recorder.save()
                    if ended is not None and ended.step >= record.last:
                        recorder.ended()
                        return
            recorder.ended()
    except ArgumentError as error:  # an optimizer that asks for the loss itself, a schedule that waits for evaluations
        record.refused = str(error)


def _by_parameter(trainer: Trainer, optimizers: Mapping[str, Any]) -> dict[str, Any]:
    """The state of each optimizer, with the parameters' names in place of its numbers for them."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    renamed = {}
    for key, saved in optimizers.items():
        parameters = [p for group in trainer.setup.optimizers[key].param_groups for p in group["params"]]
        indices = [index for group in saved["param_groups"] for index in group["params"]]
        called = {index: names.get(id(p), str(index)) for index, p in zip(indices, parameters, strict=True)}
        own = {called.get(index, str(index)): value for index, value in saved["state"].items()}
        renamed[key or "state"] = {"groups": saved["param_groups"], **own}
    return renamed
