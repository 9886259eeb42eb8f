"""When a run is saved, what is kept, and what becomes of a disk that fails."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.checkpoint import store
from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.saving import AS_AN_EXCEPTION_LEFT, Events, Saver, Saving, saved
from trueloop.errors import ArgumentError, CheckpointError, UnknownNameError
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, Saved, SaveFailed, StepEnded, Stop
from trueloop.observers.run_folder import describe
from trueloop.testing import FailingDisk, Recorder, Weight, mlp, regression, same_bits

Observer = Callable[[Event], Stop | None]


def fit(out: Path, *observers: Observer, loss: Any = None, optimizer: Any = None, **how: Any) -> tl.Trainer:
    """12 steps in 3 epochs, evaluated at the end of each."""
    trainer = tl.Trainer(mlp(dropout=0.3), loss or nn.MSELoss(), optimizer or tl.optim.sgd(lr=0.05))
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "seed": 5, "progress": False, **how}
    trainer.fit(regression(16), regression(6, seed=1), out=out, observers=observers, **settings)
    return trainer


def entries(out: Path) -> list[store.Entry]:
    return store.entries(out / "checkpoints")


def steps(out: Path) -> list[int]:
    return [entry.step for entry in entries(out)]


def told(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


KEEP_ALL: dict[str, Any] = {"keep_last": 99, "every_minutes": None}


# --- when -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saving", "expected", "why"),
    [
        (Saving(every_steps=5, **KEEP_ALL), [0, 5, 10, 12], "every 5 steps"),
        (Saving(every_epochs=2, **KEEP_ALL), [0, 8, 12], "every 2 epochs"),
        (Saving(every_steps=1, **KEEP_ALL), [*range(13)], "every 1 steps"),
        (Saving(keep_last=99, every_minutes=1e9), [0, 12], None),
        (Saving(**KEEP_ALL), [0, 12], None),
        (Saving(every_steps=5, every_epochs=1, **KEEP_ALL), [0, 4, 5, 8, 10, 12], "every 1 epochs"),
    ],
    ids=lambda value: value.describe().partition(";")[0] if isinstance(value, Saving) else None,
)
def test_when_it_is_saved_and_why(saving: Saving, expected: list[int], why: str | None, folder: Path) -> None:
    record = Recorder()
    fit(folder / "run", record, saving=saving)
    at = {entry.step: entry for entry in entries(folder / "run")}
    assert [*at] == expected
    assert at[0].why == "the beginning"
    whys = {entry.why for step, entry in at.items() if 0 < step < 12}
    assert why is None or why in whys
    saves = {event.step: event for event in record.of(Saved)}  # of one step the last
    assert {step: (event.path, event.why) for step, event in saves.items()} == {
        step: (entry.path, entry.why) for step, entry in at.items()
    }
    assert [line["path"] for line in told(folder / "run", "Saved")] == [str(event.path) for event in record.of(Saved)]


def test_save_every_steps_says_the_same_in_short(folder: Path) -> None:
    fit(folder / "run", save_every_steps=5)
    assert steps(folder / "run") == [10, 12]


OFTEN = Saving(keep_last=999, every_minutes=1e-9)
"""As often as the disk can: the minutes begin when the checkpoint before is written."""


def whys(out: Path) -> set[str]:
    return {entry.why for entry in entries(out)} - {"the beginning", "the end"}


def test_every_so_many_minutes(folder: Path) -> None:
    fit(folder / "run", saving=OFTEN, epochs=40)
    assert whys(folder / "run") == {"every 1e-09 minutes"}
    assert steps(folder / "run")[-1] == 160


def test_a_clock_that_jumps_back_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]

    def backwards() -> float:
        now[0] -= 86_400
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    fit(folder / "often", saving=OFTEN, epochs=40)
    fit(folder / "seldom", saving=Saving(keep_last=99, every_minutes=1e9))
    assert whys(folder / "often") == {"every 1e-09 minutes"}
    assert steps(folder / "seldom") == [0, 12]


def test_the_last_checkpoint_is_the_state_that_the_run_ended_with(folder: Path) -> None:
    trainer = fit(folder / "run")
    stored = store.read(entries(folder / "run")[-1].path)
    assert all(
        torch.equal(stored.tensors["model.safetensors"][name], p) for name, p in trainer.model.state_dict().items()
    )
    assert entries(folder / "run")[-1].why == "the end"


def test_what_ends_the_run_is_why_it_is_saved(folder: Path) -> None:
    def enough(event: Event) -> Stop | None:
        return Stop("enough is enough") if isinstance(event, StepEnded) and event.step == 7 else None

    fit(folder / "run", enough)
    newest = entries(folder / "run")[-1]
    assert (newest.step, newest.why, newest.exact) == (7, "enough is enough", None)
    assert describe(folder / "run")["status"] == "stopped"


def test_one_moment_is_saved_once(folder: Path) -> None:
    fit(folder / "run", saving=Saving(every_steps=12, every_epochs=3, best="loss", keep_last=99))
    assert [entry.number for entry in entries(folder / "run") if entry.step == 12] in ([1], [2], [3])
    assert len({entry.step for entry in entries(folder / "run")}) == len(entries(folder / "run"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every_steps": 0}, "every_steps must be a whole number, at least 1, got every_steps=0"),
        ({"every_minutes": 0.0}, r"every_minutes must be above 0, got every_minutes=0\.0; None for none"),
        ({"every_minutes": math.nan}, "every_minutes must be above 0"),
        ({"keep_last": 0}, "keep_last must be a whole number, at least 1, got keep_last=0"),
        ({"keep_last": None}, "keep_last must be a whole number"),
        ({"keep_best": -1}, "keep_best must be a whole number, at least 0"),
        ({"keep_every": True}, "keep_every must be a whole number, at least 1, got keep_every=True"),
        ({"best": "accuracy"}, "is more 'accuracy' better, or less"),
        ({"mode": "most"}, "mode must be 'min' or 'max', got mode='most'"),
        ({"on_failure": "cry"}, "on_failure must be 'go on' or 'stop', got on_failure='cry'"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Saving(**given)


def test_what_fit_cannot_do_is_said_before_the_first_step(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="checkpoints are made in the run's folder: give out="):
        fit(None, save_every_steps=2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="save_every_steps=2 or saving=Saving"):
        fit(folder / "run", save_every_steps=2, saving=Saving())
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy'"):
        fit(folder / "run", saving=Saving(best="acuracy", mode="max"))
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(ArgumentError, match="looks at evaluations, and there is no validation data"):
        trainer.fit(regression(8), epochs=1, batch_size=4, out=folder / "run", saving=Saving(best="loss"))
    assert not (folder / "run").exists()


# --- what is kept ---------------------------------------------------------------------------------------------------


def scored(out: Path, scores: list[float], saving: Saving, *observers: Observer) -> tl.Trainer:
    """As many epochs of one step as there are scores; each evaluation gives the next one."""
    rest = iter(scores)
    trainer = tl.Trainer(
        Weight(), nn.MSELoss(), tl.optim.sgd(lr=0.1), metrics={"score": lambda output, target: next(rest)}
    )
    x = torch.ones(2)
    trainer.fit(
        (x, x), (x, x), epochs=len(scores), batch_size=2, out=out, saving=saving, observers=observers, progress=False
    )
    return trainer


@pytest.mark.parametrize(
    ("mode", "keep_best", "expected"),
    [("max", 1, [3, 6]), ("max", 2, [1, 3, 6]), ("min", 1, [4, 6]), ("min", 2, [2, 4, 6]), ("max", 0, [6])],
)
def test_the_best_are_kept(mode: Any, keep_best: int, expected: list[int], folder: Path) -> None:
    scores = [0.5, 0.4, 0.9, 0.1, 0.2, math.nan]
    scored(folder, scores, Saving(best="score", mode=mode, keep_last=1, keep_best=keep_best, every_minutes=None))
    assert steps(folder) == expected


def test_a_new_best_is_saved_and_says_so_and_what_is_no_better_is_not(folder: Path) -> None:
    scored(folder, [0.5, 0.5, math.nan, 0.7, 0.1], Saving(best="score", mode="max", keep_best=9, **KEEP_ALL))
    assert [(entry.step, entry.why) for entry in entries(folder)] == [
        (0, "the beginning"),
        (1, "best score"),
        (4, "best score"),
        (5, "the end"),
    ]
    assert entries(folder)[2].metrics["score"] == pytest.approx(0.7)


def test_the_best_so_far_is_remembered_over_a_resume(folder: Path) -> None:
    saving = Saving(best="score", mode="max", keep_best=1, keep_last=1, every_minutes=None)

    def leave(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.step == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scored(folder / "run", [0.1, 0.9, 0.3, 0.0, 0.0], saving, leave)
    rest = iter([0.5, 0.6])
    trainer = tl.Trainer(
        Weight(), nn.MSELoss(), tl.optim.sgd(lr=0.1), metrics={"score": lambda output, target: next(rest)}
    )
    x = torch.ones(2)
    trainer.fit(
        (x, x), (x, x), epochs=5, batch_size=2, out=folder / "run", saving=saving, progress=False, resume="auto"
    )
    assert [line["why"] for line in told(folder / "run", "Saved") if line["step"] > 3] == ["the end"]
    assert [(entry.step, entry.why) for entry in entries(folder / "run")] == [(2, "best score"), (5, "the end")]


@pytest.mark.parametrize(
    ("saving", "expected"),
    [
        (Saving(every_steps=1, keep_last=3), [10, 11, 12]),
        (Saving(every_steps=1, keep_last=1, keep_every=5), [0, 5, 10, 12]),
    ],
)
def test_the_last_and_every_nth_are_kept(saving: Saving, expected: list[int], folder: Path) -> None:
    fit(folder / "run", saving=saving)
    assert steps(folder / "run") == expected


# --- by a script: the saver alone, and disks that fail --------------------------------------------------------------


def script(*scores: float, start: int = 1) -> Events:
    """A run as it goes through ``saved``: a step and an evaluation for each score."""
    number = start
    try:
        for number, score in enumerate(scores, start):
            yield StepEnded(number, 0, torch.zeros(()), 1, 0.1, None, {}, False)
            yield EvalEnded(number, 0, {"score": score}, 1, 0.1)
    except Exception as raised:
        yield RunEnded(number, 0, f"failed: {type(raised).__name__}", 0.1, "failed")
        raise
    yield RunEnded(number, 0, "finished", 0.1)


def made(out: Path, disk: Disk | None = None, **how: Any) -> Saver:
    """A saver of a state that is one weight, the number of states that were asked for so far."""
    asked = [0]

    def state() -> Mapping[str, Mapping[str, Any]]:
        asked[0] += 1
        return {"model": {"weight": torch.full((3,), float(asked[0]))}, "optimizer": {}, "state": {"asked": asked[0]}}

    out.mkdir(exist_ok=True)
    saving = Saving(**{"every_minutes": None, "best": "score", "mode": "max", "keep_last": 1, "keep_best": 1, **how})
    return Saver(out, saving, state, disk=disk)


def test_the_best_goes_only_when_its_successor_is_whole(tmp_path: Path) -> None:
    """Every operation of saving the next best, and of removing the one before, fails once."""
    for at in range(1, 1000):
        out = tmp_path / str(at)
        first = list(saved(script(0.5), made(out)))
        assert isinstance(first[-2], Saved)
        disk = FailingDisk(at)
        events = list(saved(script(0.1, 0.9, start=2), made(out, disk)))
        kept = [entry for entry in entries(out) if store.damage(entry.path) is None]
        assert any(entry.metrics.get("score") in (0.5, 0.9) for entry in kept), f"operation {at}: {kept}"
        assert len([event for event in events if isinstance(event, (Saved, SaveFailed))]) >= 1
        if disk.operations < at:
            break
    assert at > 40


def test_a_disk_that_fails_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    events = list(saved(script(0.1, 0.2, 0.3), made(tmp_path / "run", FailingDisk(1, dead=True))))
    failed = [event for event in events if isinstance(event, SaveFailed)]
    assert [event.step for event in failed] == [1, 2, 3, 3], "the last step is tried again at the end"
    assert all("No space left on device" in event.reason for event in failed)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].status == "finished"
    assert entries(tmp_path / "run") == []


def test_a_disk_that_fails_ends_the_run_if_asked(tmp_path: Path) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)

    with pytest.raises(CheckpointError, match="No space left on device"):
        tl.watch(saved(script(0.1, 0.2, 0.3), made(tmp_path / "run", FailingDisk(1), on_failure="stop")), [hear])
    assert isinstance(heard[-1], RunEnded)
    assert heard[-1].status == "failed"
    assert [entry.step for entry in entries(tmp_path / "run")] != [], "the disk is well again: the state is kept"


def test_training_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """A write hangs until the run has taken two more steps; what is due meanwhile is written after it."""
    go = threading.Event()

    def wait(operation: str, path: Path) -> None:
        assert go.wait(60)

    heard = []
    for event in saved(script(0.1, 0.05, 0.04, 0.9), made(tmp_path / "run", Disk(before=wait), keep_last=9)):
        heard.append(type(event).__name__ if not isinstance(event, Saved) else f"Saved {event.step}")
        if isinstance(event, EvalEnded) and event.step == 3:
            go.set()
    assert heard.index("Saved 1") > [n for n, name in enumerate(heard) if name == "StepEnded"][2]
    assert heard[-2:] == ["Saved 4", "RunEnded"], "the last one is awaited"
    assert [entry.step for entry in entries(tmp_path / "run")] == [1, 4]


def test_a_copy_is_of_its_own_moment_however_long_the_write_takes(tmp_path: Path) -> None:
    weight, go = torch.zeros(3), threading.Event()

    def state() -> Mapping[str, Mapping[str, Any]]:
        return {"model": {"weight": weight}, "optimizer": {}, "state": {}}

    def wait(operation: str, path: Path) -> None:
        assert go.wait(60)

    saver = Saver(tmp_path, Saving(every_steps=1, keep_last=9), state, disk=Disk(before=wait))
    for event in saved(script(0.1, 0.1), saver):
        if isinstance(event, StepEnded):
            weight.fill_(event.step)
        if isinstance(event, EvalEnded):
            weight.fill_(-1.0)
            go.set()
    held = {entry.step: store.read(entry.path).tensors["model.safetensors"]["weight"] for entry in entries(tmp_path)}
    assert held[1].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("on_failure", ["go on", "stop"])
def test_a_folder_that_goes_away_for_a_while(on_failure: Any, folder: Path) -> None:
    out = folder / "run"
    checkpoints = out / "checkpoints"

    def breaks(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step == 4:
            while list(checkpoints.glob(".writing-*")):
                time.sleep(0.001)
            shutil.rmtree(checkpoints)
            checkpoints.write_text("in the way")
        if isinstance(event, StepEnded) and event.step == 9:
            checkpoints.unlink(missing_ok=True)

    saving = Saving(every_steps=2, keep_last=9, on_failure=on_failure)
    if on_failure == "stop":
        with pytest.raises(CheckpointError, match="could not be saved"):
            fit(out, breaks, saving=saving)
        assert describe(out)["status"] == "failed"
        return
    whole = fit(folder / "whole")
    trainer = fit(out, breaks, saving=saving)
    assert same_bits(trainer.model, whole.model), "training is as it was"
    failed = told(out, "SaveFailed")
    assert {line["step"] for line in failed} >= {4, 6}
    assert "those before it are as they were" in failed[0]["reason"]
    assert steps(out)[-2:] == [10, 12]


# --- before an exception leaves -------------------------------------------------------------------------------------


def raising(at: int) -> Callable[[nn.Module, Any], Tensor]:
    calls = [0]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        calls[0] += model.training
        output = model(batch[0])
        if calls[0] == at and model.training:
            raise ZeroDivisionError("in the loss")
        return nn.functional.mse_loss(output, batch[1])

    return loss


def test_it_is_saved_before_an_exception_leaves_a_step_and_is_not_called_exact(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(folder / "run", loss=raising(6))
    newest = entries(folder / "run")[-1]
    assert (newest.step, newest.exact) == (5, AS_AN_EXCEPTION_LEFT)
    assert newest.why == "failed: ZeroDivisionError: in the loss"
    record = Recorder()
    fit(folder / "run", record, loss=raising(99), resume="auto")
    assert any(
        "the checkpoint is not exact: it was saved as an exception left" in n
        for n in record.of(tl.RunStarted)[0].plan.notes
    )
    assert describe(folder / "run")["status"] == "finished"


def test_an_exception_between_two_steps_leaves_an_exact_one(folder: Path) -> None:
    def leaves(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(folder / "run", leaves)
    newest = entries(folder / "run")[-1]
    assert (newest.step, newest.exact) == (6, None)


class Torn(torch.optim.SGD):
    """Raises in the middle of its 4th step, when half of the weights have moved."""

    taken = 0

    def step(self, closure: Any = None) -> Any:
        self.taken += 1
        if self.taken == 4:
            self.param_groups[0]["params"][0].data.add_(1)
            raise ZeroDivisionError("in the optimizer")
        return super().step(closure)


def test_weights_that_are_half_old_and_half_new_are_not_saved(folder: Path) -> None:
    record = Recorder()
    with pytest.raises(ZeroDivisionError):
        fit(folder / "run", record, optimizer=lambda model: Torn(model.parameters(), lr=0.1), save_every_steps=2)
    assert steps(folder / "run")[-1] == 2
    (failed,) = record.of(SaveFailed)  # type: ignore[type-var]
    assert failed.reason == "not saved when the exception left: the optimizer was in the middle of its step"


def test_weights_that_hold_nan_are_not_saved(folder: Path) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        output = model(batch[0])
        if model.training:
            calls.append(1)
        if len(calls) == 6:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)
            raise ZeroDivisionError
        return nn.functional.mse_loss(output, batch[1])

    calls: list[int] = []
    record = Recorder()
    with pytest.raises(ZeroDivisionError):
        fit(folder / "run", record, loss=loss, save_every_steps=2)
    assert steps(folder / "run")[-1] == 4
    assert record.of(SaveFailed)[0].reason.endswith("the weights hold NaN or Inf")  # type: ignore[type-var]


class Spare(nn.Linear):
    """Has a weight that its output does not depend on, so that nobody notices what becomes of it."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.spare = nn.Parameter(torch.zeros(2))


def test_a_checkpoint_with_nan_pushes_out_none_that_is_good(folder: Path) -> None:
    def breaks(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step == 5:
            with torch.no_grad():
                model.spare.fill_(math.nan)

    model, record = Spare(), Recorder()
    trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.05))
    trainer.fit(
        regression(16), epochs=3, batch_size=4, out=folder / "run", save_every_steps=2, observers=[record, breaks],
        progress=False,
    )  # fmt: skip
    assert steps(folder / "run") == [2, 4]
    failed = [event.reason for event in record.events if isinstance(event, SaveFailed)]
    assert failed
    assert all("the weights hold NaN or Inf (spare)" in reason for reason in failed)


def test_a_loss_that_is_nan_leaves_the_weights_before_it(folder: Path) -> None:
    x, y = regression(16)
    x[9] = math.nan
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(tl.errors.NonFiniteError):
        trainer.fit((x, y), epochs=1, batch_size=4, shuffle=False, out=folder / "run", progress=False)
    newest = entries(folder / "run")[-1]
    assert newest.step == 2
    tensors = store.read(newest.path).tensors["model.safetensors"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_what_cannot_be_saved_is_said_before_the_run_or_at_its_first_checkpoint(folder: Path) -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"open": threading.Lock()}

        def load_state_dict(self, state: Any) -> None:
            pass

    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    trainer.keep["mine"] = 3
    with pytest.raises(ArgumentError, match=r"trainer.keep\['mine'\] must have state_dict"):
        trainer.fit(regression(8), epochs=1, batch_size=4, out=folder / "run", progress=False)
    assert not (folder / "run").exists()
    trainer.keep["mine"] = Odd()
    with pytest.raises(ArgumentError, match="keep/mine/open"):
        trainer.fit(regression(8), epochs=1, batch_size=4, out=folder / "run", progress=False)
    assert describe(folder / "run")["status"] == "failed"
