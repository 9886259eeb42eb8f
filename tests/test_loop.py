"""The loop: which event comes when, who hears it, and how a run ends whatever befalls it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import trueloop as tl
from trueloop.errors import DataError, WorkerError
from trueloop.loop import watch, windows
from trueloop.observers.run_folder import describe
from trueloop.testing import RaisesAt, Recorder, mlp, regression, same_bits


def trainer_of(model: nn.Module | None = None, **options: Any) -> tl.Trainer:
    return tl.Trainer(model or mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.01), **options)


def fitted(record: Recorder, *more: Any, model: nn.Module | None = None, **how: Any) -> tl.Result:
    how = {"epochs": 2, "batch_size": 4, "progress": False} | how
    return trainer_of(model).fit(how.pop("train", regression(12)), observers=[record, *more], **how)


# --- the order of events --------------------------------------------------------------------------------------------


def test_a_run_is_steps_evaluation_and_epoch_in_that_order() -> None:
    record = Recorder()
    result = fitted(record, val=regression(5))
    epoch = ["StepEnded"] * 3 + ["EvalEnded", "EpochEnded"]
    assert record.kinds == ["RunStarted", *epoch, *epoch, "RunEnded"]
    assert [step.step for step in record.of(tl.StepEnded)] == [1, 2, 3, 4, 5, 6]
    assert [step.epoch for step in record.of(tl.StepEnded)] == [0, 0, 0, 1, 1, 1]
    assert [(event.epoch, event.step, event.samples) for event in record.of(tl.EpochEnded)] == [(0, 3, 12), (1, 6, 12)]
    assert (record.ended.step, record.ended.epoch, record.ended.reason) == (6, 2, "finished")
    assert (result.steps, result.epochs, result.reason) == (6, 2, "finished")
    assert result.metrics == record.of(tl.EvalEnded)[-1].metrics
    assert len(result.history) == 4


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({}, [3, 6, 9, 12]),
        ({"evaluate_every": 2}, [6, 12]),
        ({"evaluate_every": 3}, [9, 12]),
        ({"evaluate_every": None}, [12]),
        ({"evaluate_every": None, "evaluate_every_steps": 5}, [5, 10, 12]),
        ({"evaluate_every": 2, "evaluate_every_steps": 4}, [4, 6, 8, 12]),
        ({"evaluate_every_steps": 3}, [3, 6, 9, 12]),
    ],
)
def test_evaluations_come_when_asked_once_each_and_always_at_the_end(how: dict[str, Any], steps: list[int]) -> None:
    record = Recorder()
    fitted(record, val=regression(5), epochs=4, **how)
    assert [event.step for event in record.of(tl.EvalEnded)] == steps


def test_a_run_counted_in_steps_ends_within_an_epoch_and_is_evaluated_there() -> None:
    record = Recorder()
    result = fitted(record, val=regression(5), epochs=None, steps=5)
    assert result.steps == 5
    assert [event.step for event in record.of(tl.EvalEnded)] == [3, 5]
    assert len(record.of(tl.StepEnded)) == 5


@pytest.mark.parametrize("size", [1, 2, 3])
def test_windows_hold_every_batch_once_and_the_last_may_be_short(size: int) -> None:
    grouped = [list(window) for window in windows(iter(range(7)), size)]
    assert [batch for window in grouped for batch in window] == list(range(7))
    assert {len(window) for window in grouped[:-1]} == {size}


def test_a_second_run_starts_its_steps_and_its_schedule_anew_and_goes_on_with_the_weights() -> None:
    model, record = mlp(), Recorder()
    trainer = trainer_of(model, schedule=tl.schedules.linear())
    for _ in range(2):
        trainer.fit(regression(12), epochs=1, batch_size=4, observers=[record], progress=False)
    assert [step.step for step in record.of(tl.StepEnded)] == [1, 2, 3, 1, 2, 3]
    rates = [step.lr for step in record.of(tl.StepEnded)]
    assert rates[:3] == rates[3:]


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tl.RunStarted, tl.StepEnded, tl.EvalEnded, tl.EpochEnded])
def test_a_stop_ends_the_run_after_that_event_in_good_order(kind: type) -> None:
    stopper = Recorder(lambda event: isinstance(event, kind), tl.Stop("enough"))
    after = Recorder()
    result = fitted(stopper, after, val=regression(5))
    whole = ["EpochEnded"] if kind is tl.EvalEnded else []  # the epoch that the evaluation closes is whole
    assert stopper.kinds[-2 - len(whole) :] == [kind.__name__, *whole, "RunEnded"]
    assert stopper.kinds.count(kind.__name__) == 1
    assert after.kinds == stopper.kinds, "those after the one who stops see the same events"
    assert result.reason == after.ended.reason == "enough"
    assert result.epochs == (kind in (tl.EvalEnded, tl.EpochEnded))


def test_a_stop_at_an_evaluation_within_an_epoch_ends_the_run_there() -> None:
    stopper = Recorder(lambda event: isinstance(event, tl.EvalEnded), tl.Stop("enough"))
    result = fitted(stopper, val=regression(5), evaluate_every_steps=2)
    assert stopper.kinds == ["RunStarted", "StepEnded", "StepEnded", "EvalEnded", "RunEnded"]
    assert (result.steps, result.epochs) == (2, 0)


def test_the_first_stop_is_the_one_that_counts() -> None:
    first, second = (Recorder(lambda event: isinstance(event, tl.EpochEnded), tl.Stop(text)) for text in "ab")
    assert fitted(first, second).reason == "a"


def test_the_stream_can_be_sent_a_stop() -> None:
    events = trainer_of().train(regression(12), epochs=2, batch_size=4)
    assert isinstance(next(events), tl.RunStarted)
    assert isinstance(next(events), tl.StepEnded)
    ended = events.send(tl.Stop("seen enough"))
    assert isinstance(ended, tl.RunEnded)
    assert (ended.step, ended.reason) == (1, "seen enough")
    assert list(events) == []


def test_leaving_the_stream_by_a_break_closes_the_loader() -> None:
    closed = []

    class Data:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            try:
                for _ in range(3):
                    yield regression(4)
            finally:
                closed.append(1)

    for event in trainer_of().train(Data(), epochs=2):
        if isinstance(event, tl.StepEnded):
            break
    del event
    gc.collect()
    assert closed == [1]


# --- what is raised -------------------------------------------------------------------------------------------------


def model_that_raises(error: BaseException, at_call: int) -> nn.Module:
    model, calls = mlp(), []

    def count(*_: Any) -> None:
        calls.append(1)
        if len(calls) == at_call:
            raise error

    model.register_forward_pre_hook(count)
    return model


def interrupted_run(where: str, error: BaseException, out: Path | None, *observers: Any) -> None:
    how: dict[str, Any] = {"epochs": 2, "batch_size": 4, "progress": False, "shuffle": False, "out": out}
    data, more = regression(12), list(observers)
    model: nn.Module = mlp()
    if where == "dataset":
        data = RaisesAt(*data, index=9, error=error)  # type: ignore[assignment]
    elif where == "model":
        model = model_that_raises(error, at_call=3)
    elif where == "evaluation":
        how["val"] = RaisesAt(*data, index=2, error=error)
    else:
        more.insert(1, Recorder(lambda event: isinstance(event, tl.StepEnded) and event.step == 2, error))
    trainer_of(model).fit(data, observers=more, **how)


@pytest.mark.parametrize("where", ["dataset", "model", "observer", "evaluation"])
def test_ctrl_c_anywhere_ends_with_a_complete_record_and_is_raised_again(where: str, tmp_path: Path) -> None:
    before, after = Recorder(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        interrupted_run(where, KeyboardInterrupt(), tmp_path / "run", before, after)
    steps = 3 if where == "evaluation" else 2
    for record in (before, after):
        assert record.ended.reason == "interrupted"
        assert record.ended.step == steps
        assert record.kinds.count("RunEnded") == 1
    facts = describe(tmp_path / "run")
    assert (facts["status"], facts["steps"]) == ("interrupted", steps)
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    events = [line["event"] for line in lines if line["event"] != "Saved"]  # which come when the disk is ready
    assert events == ["RunStarted", *["StepEnded"] * steps, "RunEnded"]
    assert (tmp_path / "run" / "model.safetensors").is_file(), "the weights so far are kept"


@pytest.mark.parametrize("where", ["dataset", "model", "observer", "evaluation"])
def test_any_other_exception_is_told_to_everyone_and_raised_as_it_was(where: str, tmp_path: Path) -> None:
    before, after = Recorder(), Recorder()
    error = OSError("the disk is gone")
    expected: type[Exception] = WorkerError if where in ("dataset", "evaluation") else OSError
    with pytest.raises(expected, match="the disk is gone"):
        interrupted_run(where, error, tmp_path / "run", before, after)
    for record in (before, after):
        assert record.ended.reason.startswith(f"failed: {expected.__name__}: ")
    assert describe(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "model.safetensors").exists(), "a failed run leaves no weights that look finished"


def test_an_observer_that_raises_at_the_end_too_hides_the_end_from_nobody() -> None:
    broken, after = Recorder(lambda event: not isinstance(event, tl.RunStarted), OSError("no space left")), Recorder()
    with pytest.raises(OSError, match="no space left"):
        fitted(broken, after)
    assert after.ended.reason.startswith("failed: OSError")


def test_an_observer_that_raises_only_at_the_end_hides_the_end_from_nobody() -> None:
    broken, after = Recorder(lambda event: isinstance(event, tl.RunEnded), OSError("no space left")), Recorder()
    with pytest.raises(OSError, match="no space left"):
        fitted(broken, after)
    assert after.kinds[-1] == "RunEnded"
    assert after.kinds.count("RunEnded") == 1


def test_modes_and_grad_mode_are_as_before_after_an_interrupted_evaluation() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.1), nn.BatchNorm1d(1).eval())
    x, y = regression(12)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(model).fit(
            (x, y), RaisesAt(x, y, 2, KeyboardInterrupt()), epochs=1, batch_size=4, progress=False
        )  # fmt: skip
    assert [module.training for module in model] == [True, True, False]
    assert torch.is_grad_enabled()


class _FrozenNorm(nn.Sequential):
    """Keeps its norm in eval mode as the usual recipes do, in a ``train`` of its own."""

    def train(self, mode: bool = True) -> _FrozenNorm:
        super().train(mode)
        self[1].eval()
        return self


class _TrainsItself(nn.Sequential):
    def train(self, epochs: int = 3) -> _TrainsItself:
        raise AssertionError("this is no switch of modes")


def test_a_train_of_the_models_own_says_what_stays_in_eval_mode() -> None:
    model = _FrozenNorm(nn.Linear(3, 1), nn.BatchNorm1d(1), nn.Dropout(0.1).eval())
    result = trainer_of(model).fit(regression(12), epochs=5, batch_size=4, progress=False)
    assert [module.training for module in model] == [True, False, False]  # the last one: put there by hand
    assert torch.equal(model.state_dict()["1.num_batches_tracked"], torch.tensor(0))
    assert "frozen-batchnorm-moves" not in {finding.name for finding in result.findings}
    assert trainer_of(_TrainsItself(nn.Linear(3, 1))).fit(regression(12), epochs=1, batch_size=4, progress=False).steps


def test_ctrl_c_from_the_keyboard_ends_a_real_process_with_its_record_complete(tmp_path: Path) -> None:
    code = f"""
import os, signal, torch, trueloop as tl
def press(event):
    if isinstance(event, tl.StepEnded) and event.step == 3:
        os.kill(os.getpid(), signal.SIGINT)
trainer = tl.Trainer(torch.nn.Linear(1, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=0.1))
trainer.fit((torch.ones(800, 1), torch.ones(800, 1)), epochs=500, batch_size=1, out={str(tmp_path / "run")!r},
            observers=[press], progress=False)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(tl.__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert "KeyboardInterrupt" in process.stderr
    facts = describe(tmp_path / "run")
    last = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])
    assert facts["status"] == last["reason"] == "interrupted"
    assert facts["steps"] == last["step"] >= 3


# --- loaders --------------------------------------------------------------------------------------------------------


def test_a_loader_that_gives_nothing_is_an_error_with_its_epoch() -> None:
    class Fading:
        def __init__(self) -> None:
            self.epochs = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.epochs += 1
            return iter([regression(4)] if self.epochs == 1 else [])

    with pytest.raises(DataError, match="got an empty loader in epoch 1"):
        trainer_of().fit(Fading(), epochs=2, progress=False)


def test_a_loader_of_the_users_own_is_iterated_once_an_epoch_also_when_an_average_is_evaluated() -> None:
    """Iterating it a second time (for BatchNorm's statistics, say) would move its generator: another order."""
    x, y = regression(20)
    models = []
    for average in (None, tl.optim.ema(0.5)):
        model = mlp(norm=True, dropout=0.2)
        loader = DataLoader(TensorDataset(x, y), 4, shuffle=True, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(0)
        trainer = trainer_of(model, average=average)
        trainer.fit(loader, (x, y), epochs=3, evaluate_every_steps=2, progress=False)
        models.append(model)
    assert same_bits(*models)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluating_an_average_in_the_middle_of_an_epoch_does_not_end_the_epoch(workers: int) -> None:
    x, y = regression(20)
    data = [(x[i], y[i]) for i in range(20)]
    trainer = trainer_of(mlp(norm=True), average=tl.optim.swa(start_step=1))
    result = trainer.fit(
        data, data, epochs=1, batch_size=4, evaluate_every_steps=2, workers=workers, progress=False
    )  # fmt: skip
    assert result.steps == 5


def test_watch_gives_each_event_to_each_observer_in_their_order() -> None:
    heard: list[tuple[str, object]] = []

    def events() -> Iterator[Any]:
        yield "one"
        yield "two"

    def hears(name: str) -> Any:
        return lambda event: heard.append((name, event))

    watch(events(), [hears("a"), hears("b")])  # type: ignore[arg-type]
    assert heard == [("a", "one"), ("b", "one"), ("a", "two"), ("b", "two")]
