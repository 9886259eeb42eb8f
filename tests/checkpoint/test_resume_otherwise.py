"""A resume that does not find things as they were: damage, other settings, another model, other folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import trueloop as tl
from trueloop.checkpoint import layout
from trueloop.checkpoint.saving import Saving
from trueloop.checkpoint.weights import load_weights
from trueloop.errors import CheckpointError, DataError, NewerFormatError, RunFolderError
from trueloop.events import Event, StepEnded, Stop
from trueloop.observers.early_stop import EarlyStop
from trueloop.observers.run_folder import claim, describe
from trueloop.result import Result
from trueloop.testing import Recorder, mlp, regression, same_bits


class BrokenOff(Exception):
    pass


def breaks_at(step: int) -> Callable[[Event], None]:
    def observer(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step == step:
            raise BrokenOff

    return observer


ALL = Saving(every_steps=1, every_minutes=None, keep_last=99)


def made(model: nn.Module | None = None, optimizer: Any = None, **settings: Any) -> tl.Trainer:
    return tl.Trainer(
        model or mlp(dropout=0.3), nn.MSELoss(), optimizer or tl.optim.sgd(lr=0.05, momentum=0.9), **settings
    )


def fit(trainer: tl.Trainer, out: Path | None, *observers: Any, samples: int = 16, **how: Any) -> Result:
    """12 steps in 3 epochs; every step is saved."""
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "seed": 5, "progress": False, **how}
    if out is not None:
        settings.setdefault("saving", ALL)
    return trainer.fit(regression(samples), regression(6, seed=1), out=out, observers=observers, **settings)


def broken(out: Path, step: int = 5, *observers: Any, **how: Any) -> Path:
    with pytest.raises(BrokenOff):
        fit(how.pop("trainer", None) or made(), out, *observers, breaks_at(step), **how)
    return out


def notes_of(trainer: tl.Trainer, out: Path, **how: Any) -> list[str]:
    record = Recorder()
    fit(trainer, out, record, resume="auto", **how)
    return list(record.of(tl.RunStarted)[0].plan.notes)


def names(out: Path) -> list[str]:
    return sorted(os.listdir(out / "checkpoints"))


def step_name(step: int) -> str:
    return layout.folder_name(step)


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, but for the lock, which says who had it last."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# --- damage ---------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (path / "model.safetensors").write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit": (flip, "model.safetensors: its sha256 is not the one that was written: a bit has flipped"),
    "end": (
        lambda path: os.truncate(path / "optimizer.safetensors", 7),
        r"optimizer.safetensors: 7 bytes where [\d,]+",
    ),
    "file": (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    "manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_is_named_set_aside_and_passed_over(damage: str, folder: Path) -> None:
    harm, message = DAMAGE[damage]
    whole = made()
    fit(whole, folder / "whole")
    out = broken(folder / "run")
    harm(out / "checkpoints" / step_name(5))
    trainer, record = made(), Recorder()
    with pytest.warns(UserWarning, match=f"{step_name(5)} is damaged and was passed over: {message}"):
        fit(trainer, out, record, resume="auto")
    started = record.of(tl.RunStarted)[0]
    assert started.step == 4
    assert any(f"{step_name(5)} is damaged and was passed over" in note for note in started.plan.notes)
    assert f"damaged-{step_name(5)}" in names(out)
    assert same_bits(trainer.model, whole.model)
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "StepEnded"] == [*range(1, 13)]


def test_where_all_are_damaged_each_is_named_and_nothing_begins(folder: Path) -> None:
    out = broken(folder / "run", 2)
    for name in names(out):
        flip(out / "checkpoints" / name)
    before = files(out)
    with pytest.raises(
        CheckpointError, match=f"there is no whole checkpoint: {step_name(2)} is damaged.*{step_name(0)}"
    ):
        fit(made(), out, resume="auto")
    assert files(out) == before


def test_a_newer_format_is_refused_with_the_version_that_reads_it(folder: Path) -> None:
    out = broken(folder / "run", 2)
    file = out / "checkpoints" / step_name(2) / "manifest.json"
    facts = json.loads(file.read_bytes())
    newer = {**facts, "format": 2, "trueloop": "9.8.7"}
    del newer["sha256"]
    file.write_bytes(layout._canonical({**newer, "sha256": layout._sha256(newer)}))
    before = files(out)
    with pytest.raises(NewerFormatError, match=r"format 2 of trueloop 9\.8\.7.*install trueloop>=9\.8\.7"):
        fit(made(), out, resume="auto")
    assert files(out) == before


# --- other settings -------------------------------------------------------------------------------------------------

CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": ({}, {}, []),
    "rate": ({"optimizer": tl.optim.sgd(lr=0.2, momentum=0.9)}, {}, ["lr was 0.05, is 0.2: the new one is used"]),
    "momentum": (
        {"optimizer": tl.optim.sgd(lr=0.05, momentum=0.5)},
        {},
        ["momentum was 0.9, is 0.5: the new one is used"],
    ),
    "epochs": ({}, {"epochs": 4}, ["epochs was 3, is 4"]),
    "steps": ({}, {"epochs": None, "steps": 9}, ["epochs was 3, is None", "steps was None, is 9"]),
    "batch size": ({}, {"batch_size": 2}, ["batch_size was 4, is 2", "the epoch goes on at its sample 4"]),
    "length": ({}, {"samples": 20}, ["samples was 16, is 20"]),
    "order": ({}, {"shuffle": False}, ["shuffle was True, is False"]),
    "seed": ({}, {"seed": 6}, ["seed was 5, is 6"]),
    "accumulate": ({"accumulate": 2}, {}, ["accumulate was 1, is 2"]),
    "clip": ({"clip_norm": 1.0}, {}, ["clip_norm was None, is 1.0"]),
    "precision": ({"precision": "bf16"}, {}, ["precision was fp32, is bf16"]),
    "average": ({"average": tl.optim.ema(0.5)}, {}, ["average was None, is ema(0.5)"]),
    "schedule": ({"schedule": tl.schedules.cosine()}, {}, ["schedule was constant, is cosine"]),
    "evaluations": ({}, {"evaluate_every_steps": 2}, ["evaluate_every_steps was None, is 2"]),
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_differs_is_said_exactly_and_nothing_else(change: str, folder: Path) -> None:
    settings, how, expected = CHANGED[change]
    out = broken(folder / "run")
    notes = notes_of(made(**settings), out, **how)
    assert notes[0] == f"goes on after step 5, from {out / 'checkpoints' / step_name(5)}"
    said = [note for note in notes[1:] if " was " in note or "goes on" in note]
    assert [
        note.partition(" over")[0].partition(" (")[0] if change == "schedule" else note for note in said
    ] == expected


def test_a_new_rate_is_used_and_multiplied_by_the_schedule(folder: Path) -> None:
    out = broken(folder / "run", trainer=made(schedule=tl.schedules.exponential(0.5)))
    record = Recorder()
    again = made(optimizer=tl.optim.sgd(lr=0.2, momentum=0.9), schedule=tl.schedules.exponential(0.5))
    fit(again, out, record, resume="auto")
    assert record.of(StepEnded)[0].lr == pytest.approx(0.2 * 0.5**5)


def test_new_settings_of_the_optimizer_are_used(folder: Path) -> None:
    out = broken(folder / "run")
    record, again = Recorder(), made(optimizer=tl.optim.sgd(lr=0.2, momentum=0.5))
    fit(again, out, record, resume="auto")
    assert {event.lr for event in record.of(StepEnded)} == {0.2}
    assert again.setup.optimizers[""].param_groups[0]["momentum"] == 0.5


def test_a_rate_that_a_schedule_moved_is_no_change(folder: Path) -> None:
    schedule = partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=12)
    out = broken(folder / "run", trainer=made(schedule=schedule))
    assert not [note for note in notes_of(made(schedule=schedule), out) if " was " in note]


def test_the_number_of_threads_is_part_of_it(folder: Path) -> None:
    before = torch.get_num_threads()
    out = broken(folder / "run")
    try:
        torch.set_num_threads(before + 1)
        assert f"threads was {before}, is {before + 1}" in notes_of(made(), out)
    finally:
        torch.set_num_threads(before)


def test_a_smaller_batch_goes_on_at_the_same_sample(folder: Path) -> None:
    """Each sample of the epoch is seen once, in the order that it had."""
    seen: list[float] = []

    class Seeing(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.extend(input[:, 0].tolist())
            return super().forward(input)

    out = broken(folder / "run", 2, trainer=made(Seeing(3, 1)))
    first = seen[-8:]
    seen.clear()
    fit(made(Seeing(3, 1)), out, batch_size=2, resume="auto", epochs=1)
    assert sorted(first + seen) == sorted(regression(16)[0][:, 0].tolist())


# --- another model, another optimizer -------------------------------------------------------------------------------


def refused(trainer: tl.Trainer, out: Path, error: type[Exception], message: str) -> None:
    """It is said, the trainer is as it was, and so is the run's folder."""
    before, weights = files(out), [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.raises(error, match=message):
        fit(trainer, out, resume="auto")
    assert files(out) == before
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.model.parameters(), strict=True))


def test_another_architecture_is_refused_with_a_table(folder: Path) -> None:
    out = broken(folder / "run")
    trainer = made(mlp(width=7, norm=True, seed=1))
    refused(trainer, out, DataError, r"(?s)0\.weight .*\(7, 3\)")


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            tl.optim.adam(lr=0.1),
            "the optimizer is Adam, and the checkpoint holds the state of SGD; resume with SGD, or",
        ),
        (
            lambda model: torch.optim.SGD(list(model.parameters())[2:], lr=0.05, momentum=0.9),
            r"the optimizer has parameter groups of \[2\] tensors, and that of the checkpoint had \[4\]",
        ),
    ],
    ids=["kind", "groups"],
)
def test_another_optimizer_is_refused(optimizer: Any, message: str, folder: Path) -> None:
    refused(made(mlp(dropout=0.3, seed=1), optimizer), broken(folder / "run"), CheckpointError, message)


class Counter:
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_what_was_kept_must_be_there(folder: Path) -> None:
    first = made()
    first.keep["mine"] = Counter(7)
    out = broken(folder / "run", trainer=first)
    message = r"holds the state of keep\['mine'\], and nothing of that name is kept now; before resuming: trainer\.keep"
    refused(made(mlp(dropout=0.3, seed=1)), out, CheckpointError, message)
    again = made()
    again.keep["mine"], again.keep["other"] = Counter(), Counter(3)
    assert "keep['other'] was not there when the checkpoint was saved: it begins anew" in notes_of(again, out)
    assert (again.keep["mine"].count, again.keep["other"].count) == (7, 3)


def test_another_dict_of_kept_state_takes_the_place_of_the_first(tmp_path: Path) -> None:
    def trainer(kept: Counter) -> tl.Trainer:
        one = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
        assert one.step == 0  # the first dict is in use by then
        one.keep = {"mine": kept}
        return one

    first, again = trainer(Counter(7)), trainer(Counter())
    for event in first.train(regression(8), epochs=1, batch_size=2):
        if isinstance(event, StepEnded) and event.step == 2:
            first.save(tmp_path)
    again.resume(tmp_path)
    next(again.train(regression(8), epochs=1, batch_size=2))
    assert again.keep["mine"].count == 7


def test_observers_that_came_and_went_are_said(folder: Path) -> None:
    out = broken(folder / "run", 5, EarlyStop(patience=9))
    assert "observer EarlyStop is not there any more: its state is left aside" in notes_of(made(), out)
    record = Recorder()
    out = broken(folder / "other")
    fit(made(), out, record, EarlyStop(patience=9), resume="auto")
    notes = record.of(tl.RunStarted)[0].plan.notes
    assert "observer EarlyStop was not there when the checkpoint was saved: it begins anew" in notes


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (lambda: made(mlp(dropout=0.3, outputs=2)), DataError),
        (lambda: made(optimizer=tl.optim.adam(lr=0.1)), CheckpointError),
    ],
    ids=["model", "optimizer"],
)
def test_a_checkpoint_of_something_else_is_named(
    other: Callable[[], tl.Trainer], error: type[Exception], folder: Path
) -> None:
    path = broken(folder / "run", 3) / "checkpoints" / step_name(3)
    with pytest.raises(error, match=rf"load_weights.*\({path}\)$"):
        fit(other(), folder / "run", resume="auto")


def test_the_part_that_fits_is_loaded_as_the_message_says(folder: Path) -> None:
    path = broken(folder / "run", 3) / "checkpoints" / step_name(3)
    model = mlp(dropout=0.3, outputs=2)
    with pytest.raises(DataError, match=r"load_weights\(model, file, strict=False\)"):
        fit(made(model), folder / "run", resume="auto")
    lines = load_weights(model, path, strict=False)
    assert lines[0].startswith("loaded ")


def test_an_empty_text_is_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # which an empty path stands for
    with pytest.raises(tl.errors.ArgumentError, match="expected a folder as out=, got an empty text"):
        made().fit(regression(4), epochs=1, batch_size=4, out="")


# --- from where, and where to ---------------------------------------------------------------------------------------


def test_from_an_earlier_step_later_ones_are_set_aside_and_none_is_lost(folder: Path) -> None:
    whole = made()
    fit(whole, folder / "whole")
    out = broken(folder / "run", 8)
    trainer = made()
    trainer.resume(out, step=3)
    fit(trainer, out)
    assert same_bits(trainer.model, whole.model)
    kept = names(out)
    assert [name for name in kept if name.startswith("abandoned-")] == [
        f"abandoned-{step_name(s)}" for s in range(4, 9)
    ]
    assert {name[:13] for name in kept if name.startswith("step-")} == {step_name(step) for step in range(13)}
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "StepEnded"] == [*range(1, 13)]
    cut_off = [json.loads(line) for line in (out / "events.jsonl.abandoned").read_text().splitlines()]
    assert [line["step"] for line in cut_off if line["event"] == "StepEnded"] == [*range(4, 9)]
    (resumed,) = describe(out)["resumed"]
    assert resumed["step"] == 3


def test_a_step_that_was_not_saved_is_refused_with_those_that_were(folder: Path) -> None:
    out = broken(folder / "run", 3)
    with pytest.raises(CheckpointError, match="there is no checkpoint of step 7; choose among 0, 1, 2, 3"):
        made().resume(out, step=7)


def test_from_a_checkpoints_own_folder(folder: Path) -> None:
    whole = made()
    fit(whole, folder / "whole")
    out = broken(folder / "run", 8)
    trainer = made()
    fit(trainer, out, resume=out / "checkpoints" / step_name(6))
    assert same_bits(trainer.model, whole.model)
    assert f"abandoned-{step_name(7)}" in names(out)


@pytest.mark.parametrize("observers", [[], [EarlyStop(patience=1, min_delta=99.0)]], ids=["finished", "stopped"])
def test_a_run_that_is_over_does_nothing_and_gives_the_same(observers: list[Any], folder: Path) -> None:
    first, again, out = made(), made(mlp(dropout=0.3, seed=1)), folder / "run"
    result = fit(first, out, *observers)
    kept = names(out)
    second = fit(again, out, *observers, resume="auto")
    assert same_bits(first.model, again.model)
    for name in ("steps", "epochs", "loss", "metrics", "history", "reason"):
        assert getattr(second, name) == getattr(result, name), name
    assert names(out) == kept
    assert describe(out)["status"] == ("stopped" if observers else "finished")
    assert describe(out)["metrics"] == result.metrics


def test_a_finished_run_goes_on_to_more_epochs_as_if_they_had_been_asked_for(folder: Path) -> None:
    whole, trainer = made(), made()
    expected = fit(whole, folder / "whole", epochs=5)
    fit(made(), folder / "run")
    result = fit(trainer, folder / "run", epochs=5, resume="auto")
    assert same_bits(trainer.model, whole.model)
    assert (result.steps, result.metrics, result.loss) == (20, expected.metrics, expected.loss)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a run that was killed before its first checkpoint"])
def test_auto_begins_where_there_is_nothing_to_go_on_from(there: str, folder: Path) -> None:
    whole = made()
    fit(whole, folder / "whole")
    out = folder / "run"
    if there != "nothing":
        out.mkdir()
    if "killed" in there:
        claim(out, {"mark": "of the first try"})
        (out / "events.jsonl").write_text('{"event": "RunStarted"}\n{"event": "Step')
    trainer = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit(trainer, out, resume="auto")
    assert same_bits(trainer.model, whole.model)
    assert result.steps == 12
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines].count("RunStarted") == 1
    assert ("abandoned-run.json" in os.listdir(out)) == ("killed" in there)


def test_auto_wants_a_folder() -> None:
    with pytest.raises(tl.errors.ArgumentError, match="resume='auto' goes on in the run's folder: give out="):
        fit(made(), None, resume="auto")


def test_a_run_may_be_gone_on_with_elsewhere_and_stays_as_it_was(folder: Path) -> None:
    whole, trainer = made(), made()
    expected = fit(whole, folder / "whole")
    first = broken(folder / "first")
    before = files(first)
    result = fit(trainer, folder / "second", resume=first)
    assert same_bits(trainer.model, whole.model)
    assert files(first) == before
    assert {name[:13] for name in names(folder / "second")} == {step_name(step) for step in range(5, 13)}
    assert [(*event[:3],) for event in result.history] == [(*event[:3],) for event in expected.history]


def test_without_a_folder_of_its_own_a_resumed_run_saves_nothing(folder: Path) -> None:
    whole, trainer = made(), made()
    fit(whole, folder / "whole")
    first = broken(folder / "first")
    before = files(first)
    fit(trainer, None, resume=first)
    assert same_bits(trainer.model, whole.model)
    assert files(first) == before


def test_a_folder_that_was_moved(folder: Path) -> None:
    whole, trainer = made(), made()
    fit(whole, folder / "whole")
    broken(folder / "run")
    shutil.move(folder / "run", folder / "elsewhere")
    fit(trainer, folder / "elsewhere", resume="auto")
    assert same_bits(trainer.model, whole.model)
    assert not (folder / "run").exists()


@contextmanager
def held_by_another_process(out: Path) -> Iterator[int]:
    code = (
        "import sys; from pathlib import Path; from trueloop.checkpoint.lock import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(tl.__file__).parents[1])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()


def test_two_processes_do_not_share_a_folder(folder: Path) -> None:
    out = broken(folder / "run")
    before = files(out)
    with held_by_another_process(out) as pid:
        with pytest.raises(RunFolderError, match=f"another process trains in this folder: pid {pid} on .*wait for it"):
            fit(made(), out, resume="auto")
        assert files(out) == before
    fit(made(), out, resume="auto")


def test_nor_does_one_process_twice(folder: Path) -> None:
    tried: list[bool] = []

    def again(event: Event) -> None:
        if isinstance(event, StepEnded) and not tried:
            tried.append(True)
            with pytest.raises(RunFolderError, match="this process trains in this folder already"):
                fit(made(), folder / "run", resume="auto")

    result = fit(made(), folder / "run", again)
    assert (tried, result.steps) == ([True], 12)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_said_before_anything_happens(folder: Path) -> None:
    out = broken(folder / "run")
    out.chmod(0o500)
    try:
        with pytest.raises(RunFolderError, match="mend its permissions"):
            fit(made(), out, resume="auto")
    finally:
        out.chmod(0o700)


def test_half_written_checkpoints_of_a_killed_process_are_swept_away(folder: Path) -> None:
    out = broken(folder / "run")
    left = out / "checkpoints" / ".writing-step-00000006-4711"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    fit(made(), out, resume="auto")
    assert not left.exists()


def test_a_stop_is_remembered_only_by_its_own_run(folder: Path) -> None:
    """A trainer that goes on after a stopped run begins a new one."""

    def stop(event: Event) -> Stop | None:
        return Stop("enough") if isinstance(event, StepEnded) and event.step == 3 else None

    trainer = made()
    assert fit(trainer, folder / "one", stop).reason == "enough"
    assert fit(trainer, folder / "two").reason == "finished"
