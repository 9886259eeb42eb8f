"""How runs end, in good order or not: what is saved then, what is told of it, and what leaves ``fit``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.checkpoint import store
from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.layout import GONE
from trueloop.checkpoint.lock import lock
from trueloop.checkpoint.saving import Saver, Saving, saved
from trueloop.checkpoint.signals import Asked, listening
from trueloop.cli.main import main
from trueloop.errors import CheckpointError, Preempted, TrueloopError
from trueloop.events import Event, RunEnded, RunStarted, Saved, SaveFailed, StepEnded
from trueloop.loop import Observer
from trueloop.observers import Jsonl
from trueloop.observers.run_folder import RunRecord, claim, describe
from trueloop.testing import FULL, Recorder, mlp, regression, same_bits

STEPS = 12
"""Of a run here: 3 epochs of 4."""

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


def trainer(loss: Any = None) -> tl.Trainer:
    return tl.Trainer(mlp(dropout=0.3), loss or nn.MSELoss(), tl.optim.sgd(lr=0.05))


def fit(out: Path | None, *observers: Observer, **how: Any) -> tl.Trainer:
    one = trainer()
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "seed": 5, "progress": False, **how}
    one.fit(regression(16), out=out, observers=observers, **settings)
    return one


def fit_on(
    disk: Disk, out: Path, *observers: Observer, loss: Any = None, asked: Asked | None = None, **saving: Any
) -> None:
    """What ``fit`` does in a folder, on a disk of ours; the checkpoints hold the weights alone."""
    one, asked = trainer(loss), asked or Asked()

    def state() -> dict[str, dict[str, Any]]:
        return {"model": dict(one.model.state_dict()), "optimizer": {}, "state": {}}

    saver = Saver(
        claim(out, {}), Saving(**{"every_minutes": None, "keep_last": 99, **saving}), state, asked=asked, disk=disk
    )
    with listening(asked):
        events = one.train(regression(16), epochs=3, batch_size=4, seed=5)
        tl.watch(saved(events, saver), [RunRecord(out), *observers])


def at(step: int, act: Callable[[], object]) -> Observer:
    def observer(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step == step:
            act()

    return observer


def raising(error: BaseException, step: int) -> Callable[[nn.Module, Any], Tensor]:
    """A loss that raises in a step."""
    steps_begun = iter(range(1, STEPS + 1))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if next(steps_begun) == step:
            raise error
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    return loss


def sends(number: signal.Signals) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


def entries(out: Path) -> list[store.Entry]:
    return store.entries(out / "checkpoints")


def steps(out: Path) -> list[int]:
    return [entry.step for entry in entries(out)]


def told(record: Recorder) -> list[tuple[str, int]]:
    """What was told of checkpoints, and the end."""
    return [
        (type(event).__name__, event.step)
        for event in record.events
        if isinstance(event, (Saved, SaveFailed, RunEnded))
    ]


class FullFor(Disk):
    """Full for so many saves of one step; -1: for all of them.

    Args:
        step: whose checkpoint finds no room.
        saves: how often.
    """

    def __init__(self, step: int, saves: int = -1) -> None:
        super().__init__(before=self._look)
        self._name, self._left = f"step-{step:08d}", saves

    def _look(self, operation: str, path: Path) -> None:
        if operation == "fsync" and self._name in path.parent.name and self._left:
            self._left -= 1
            raise FULL


# --- the last save fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_failure", ["go on", "stop"])
def test_a_last_save_that_fails_is_an_error_where_the_run_is_to_stop(on_failure: str, folder: Path) -> None:
    record = Recorder()
    leaves = pytest.raises(CheckpointError, match=rf"No space left on device.*step {STEPS}")
    with leaves if on_failure == "stop" else contextlib.nullcontext():
        fit_on(FullFor(STEPS), folder / "run", record, every_steps=8, on_failure=on_failure)
    assert told(record) == [("Saved", 0), ("Saved", 8), ("SaveFailed", STEPS), ("RunEnded", STEPS)]
    assert steps(folder / "run") == [0, 8]


def test_an_earlier_save_that_failed_is_no_error_once_the_last_state_is_on_the_disk(folder: Path) -> None:
    record = Recorder()
    fit_on(FullFor(STEPS, saves=1), folder / "run", record, every_epochs=3, on_failure="stop")
    assert told(record)[-3:] == [("SaveFailed", STEPS), ("Saved", STEPS), ("RunEnded", STEPS)]
    assert describe(folder / "run")["status"] == "finished"


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt("mine")], ids=["failed", "interrupted"])
def test_the_error_that_ended_a_run_goes_before_that_of_its_last_save(error: BaseException, folder: Path) -> None:
    record = Recorder()
    with pytest.raises(type(error), match="mine"):
        fit_on(FullFor(5), folder / "run", record, loss=raising(error, 6), every_steps=5, on_failure="stop")
    assert told(record)[-2:] == [("SaveFailed", 5), ("RunEnded", 5)]


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (FullFor(5), [("SaveFailed", 5), ("Saved", 6)]),  # told when SIGTERM has come, and the next one is whole
        (FullFor(6, saves=1), [("SaveFailed", 6), ("Saved", 6)]),  # which is tried twice
    ],
    ids=["the one before", "the first try"],
)
def test_a_run_that_is_saved_at_sigterm_is_started_again_whatever_failed_before(
    disk: Disk, expected: list[tuple[str, int]], folder: Path
) -> None:
    record, out = Recorder(), folder / "run"
    with pytest.raises(Preempted):
        fit_on(disk, out, at(6, sends(signal.SIGTERM)), record, every_steps=5, on_failure="stop")
    assert told(record)[-3:] == [*expected, ("RunEnded", 6)]
    assert describe(out)["status"] == "preempted"
    assert (entries(out)[-1].step, entries(out)[-1].why) == (6, "SIGTERM")


def test_a_run_that_cannot_be_saved_at_sigterm_is_not_started_again_where_it_is_to_stop(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="No space left on device"):
        fit_on(FullFor(5), folder / "run", at(5, sends(signal.SIGTERM)), on_failure="stop")
    assert steps(folder / "run") == [0]


# --- Ctrl-C while a checkpoint is being written ---------------------------------------------------------------------


class Impatient(Disk):
    """Presses Ctrl-C again, some times, while a checkpoint is written that training waits for: at its first file.

    Args:
        asked: where the first Ctrl-C is seen.
        step: of the checkpoint.
        presses: how often.
    """

    def __init__(self, asked: Asked, step: int, presses: int) -> None:
        super().__init__(before=self._press)
        self._asked, self._name, self._left = asked, f"step-{step:08d}", presses

    def _press(self, operation: str, path: Path) -> None:
        if operation != "open" or self._name not in path.parent.name or not self._left:
            return
        while self._asked.signal is None:
            time.sleep(0.001)
        heard = signal.getsignal(signal.SIGINT)
        while self._left:
            self._left -= 1
            time.sleep(0.1)  # so that it comes while the other thread waits; elsewhere it may change nothing either
            if signal.getsignal(signal.SIGINT) is heard:  # else the run is over, and pytest would hear it
                os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)


@pytest.mark.parametrize("presses", [1, 4])
@pytest.mark.parametrize(("waits_for", "expected"), [(4, [0, 4]), (5, [0, 4, 5])], ids=["the one before", "the last"])
def test_ctrl_c_again_while_a_checkpoint_is_written(
    waits_for: int, expected: list[int], presses: int, folder: Path
) -> None:
    out, record, asked = folder / "run", Recorder(), Asked()
    weights: dict[int, Tensor] = {}

    def note(event: Event) -> None:
        if isinstance(event, (RunStarted, StepEnded)):
            weights[event.step] = whole.model.state_dict()["0.weight"].clone()

    whole = trainer()
    tl.watch(whole.train(regression(16), epochs=3, batch_size=4, seed=5), [note])
    out.mkdir()
    with lock(out):
        with pytest.raises(KeyboardInterrupt):
            fit_on(
                Impatient(asked, waits_for, presses), out, record, at(5, sends(signal.SIGINT)),
                asked=asked, every_steps=4,
            )  # fmt: skip
        assert not [one for one in threading.enumerate() if one.name.startswith("checkpoint")], "the lock is ours still"
    assert record.ended.status == "interrupted"
    assert describe(out)["status"] == "interrupted"
    assert steps(out) == expected, "what was begun is whole, and no other one is begun"
    for entry in entries(out):
        held = store.read(entry.path).tensors["model.safetensors"]["0.weight"]
        assert torch.equal(held, weights[entry.step]), f"a checkpoint of step {entry.step} with the weights of another"


# --- signals in the last moments ------------------------------------------------------------------------------------


def is_last_save(event: Event) -> bool:
    return isinstance(event, Saved) and event.why == "the end"


def is_end(event: Event) -> bool:
    return isinstance(event, RunEnded)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("when", [is_last_save, is_end])
def test_a_signal_in_the_last_moments_is_obeyed(
    when: Callable[[Event], bool], number: signal.Signals, folder: Path
) -> None:
    def send(event: Event) -> None:
        if when(event):
            signal.raise_signal(number)

    out, before = folder / "run", signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Preempted):
        fit(out, send)
    assert signal.getsignal(number) == before
    assert describe(out)["status"] == "finished"
    assert (steps(out)[-1], (out / "model.safetensors").is_file()) == (STEPS, True)
    record = Recorder()
    fit(out, record, resume="auto")  # as a scheduler would
    assert record.kinds == ["RunStarted", "RunEnded"]


# --- a full disk ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def room(size: int) -> Iterator[None]:
    """Inside, the system lets no file of this process grow beyond ``size`` bytes: the last write may be cut short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stepped(step: int) -> StepEnded:
    return StepEnded(step, 0, torch.tensor(0.5), 4, 0.1, None, {}, False)


def ended(step: int) -> RunEnded:
    return RunEnded(step, 1, "finished", 1.0)


def recorded(file: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [(line["event"], line["step"]) for line in lines if line["event"] in ("StepEnded", "EpochEnded")]


def an_epoch(record: Jsonl, first: int) -> list[tuple[str, int]]:
    """Tells two steps and the epoch's end, which is written at once; gives what is to be read of it."""
    record(stepped(first))
    record(stepped(first + 1))
    record(tl.EpochEnded(0, first + 1, 0.5, 8, 1.0))
    return [("StepEnded", first), ("StepEnded", first + 1), ("EpochEnded", first + 1)]


def test_a_record_waits_for_room_and_then_has_each_line_once(folder: Path) -> None:
    record = Jsonl(file := folder / "events.jsonl")
    expected = an_epoch(record, 1)
    with room(file.stat().st_size + 10):
        with pytest.warns(UserWarning, match="kept in memory"):
            expected += an_epoch(record, 3)
        expected += an_epoch(record, 5)  # and not a second time
    assert file.read_bytes()[-1:] != b"\n", "the line in which the disk was full is cut off"
    expected += an_epoch(record, 7)
    assert recorded(file) == expected
    record(ended(8))
    assert recorded(file) == expected


def test_a_record_that_cannot_be_ended_says_so(folder: Path) -> None:
    record = Jsonl(file := folder / "events.jsonl")
    expected = an_epoch(record, 1)
    with room(file.stat().st_size), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TrueloopError, match=r"could not be written to its end.*events\.jsonl"):
            record(ended(2))
    assert recorded(file) == expected


def test_a_record_is_cut_back_to_a_checkpoint_that_was_made_while_its_lines_waited(folder: Path) -> None:
    record = Jsonl(file := folder / "events.jsonl")
    expected = an_epoch(record, 1)
    with room(file.stat().st_size + 10):
        with pytest.warns(UserWarning, match="kept in memory"):
            expected += an_epoch(record, 3)
        state = record.state_dict()
    an_epoch(record, 5)
    record.close()
    Jsonl(file).load_state_dict(state)
    assert recorded(file) == expected


def test_a_run_goes_on_over_a_full_disk(folder: Path) -> None:
    out, record, full = folder / "run", Recorder(), contextlib.ExitStack()

    def fills() -> None:
        full.enter_context(room((out / "events.jsonl").stat().st_size))

    with full, pytest.warns(UserWarning, match="the run's record cannot be written.*it is kept in memory"):
        one = fit(out, record, at(3, fills), at(9, full.close), save_every_steps=2)
    assert {step for kind, step in told(record) if kind == "SaveFailed"} >= {4, 6}
    assert same_bits(one.model, fit(folder / "whole").model)
    assert [step for kind, step in recorded(out / "events.jsonl") if kind == "StepEnded"] == [*range(1, STEPS + 1)]
    assert describe(out)["status"] == "finished"
    assert steps(out) == [10, 12]


def test_what_retention_cannot_remove_is_told_once_and_tried_again(folder: Path) -> None:
    stuck = threading.Event()
    stuck.set()

    def refuse(operation: str, path: Path) -> None:
        if stuck.is_set() and operation == "rename" and path.name.startswith(GONE):
            raise OSError(errno.EIO, "Input/output error")

    out, record = folder / "run", Recorder()
    with pytest.warns(UserWarning, match=r"could not be removed: step-00000000: Input/output error") as warned:
        fit_on(
            Disk(before=refuse), out, record, at(STEPS, stuck.clear),
            every_steps=2, keep_last=1, on_failure="stop",
        )  # fmt: skip
    assert len(warned) == 1
    assert {kind for kind, _ in told(record)} == {"Saved", "RunEnded"}, "each of them is on the disk"
    assert steps(out) == [STEPS]


SMALL = 6_000
"""Bytes: a file of random states is larger, all others of a small run are not."""


def test_a_command_whose_run_could_not_be_saved_does_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with room(SMALL):
        code = main(["train", "regression", "--batch-size", "512", "--epochs", "1", "--out", "run"])
    error = " ".join(capsys.readouterr().err.split())
    assert code == 1, error
    assert "error: no checkpoint could be saved; the last one, of step" in error
    assert (describe(tmp_path / "run")["status"], steps(tmp_path / "run")) == ("finished", [])
    assert (tmp_path / "run" / "model.safetensors").is_file()
    with room(SMALL):
        assert main(["resume", "run"]) == 1
    assert "no checkpoint could be saved" in capsys.readouterr().err
    assert main(["resume", "run"]) == 0
    assert "checkpoint" not in capsys.readouterr().err


# --- from another run -----------------------------------------------------------------------------------------------


def test_a_run_from_another_one_has_a_checkpoint_before_its_first_step(folder: Path) -> None:
    """What a kill leaves behind, at any moment, is gone on with from there."""
    old, new, killed = folder / "old", folder / "new", folder / "killed"
    fit(old)
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}

    def look(event: Event) -> None:
        if isinstance(event, RunStarted):
            shutil.copytree(new, killed)

    whole = fit(new, look, epochs=6, resume=old)
    (only,) = entries(killed)
    assert (only.step, store.damage(only.path)) == (STEPS, None)
    record = Recorder()
    again = fit(killed, record, epochs=6, resume="auto")
    assert record.of(StepEnded)[0].step == STEPS + 1
    assert same_bits(again.model, whole.model)
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before


def test_a_run_from_another_one_is_saved_every_so_many_minutes(folder: Path) -> None:
    fit(folder / "old")
    often = Saving(keep_last=999, every_minutes=1e-9)
    fit(folder / "new", epochs=6, resume=folder / "old", saving=often)
    assert {entry.why for entry in entries(folder / "new")[1:-1]} == {"every 1e-09 minutes"}
    assert steps(folder / "new")[-1] == 2 * STEPS
