"""The trainer: what it is given, what it refuses, and the run's folder."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.checkpoint.weights import load_weights
from trueloop.errors import ArgumentError, DataError, RunFolderError, TrueloopError, UnknownNameError
from trueloop.observers.run_folder import describe
from trueloop.testing import Recorder, Weight, classification, mlp, regression, same_bits

NAN, INF = float("nan"), float("inf")


def made(**options: Any) -> tl.Trainer:
    given: dict[str, Any] = {"model": mlp(), "loss": nn.MSELoss(), "optimizer": tl.optim.sgd(lr=0.1)} | options
    return tl.Trainer(**given)


# --- settings out of range ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("value", [0, -1.0, NAN, INF, "1"])
def test_clipping_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(
        ArgumentError, match=f"{name} must be a positive number, got {name}={value!r}; None does not clip"
    ):
        made(**{name: value})


@pytest.mark.parametrize("value", [0, -2, 1.5, True, None])
def test_accumulate_out_of_range(value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"accumulate must be a positive whole number, got accumulate={value!r}"):
        made(accumulate=value)


@pytest.mark.parametrize("value", [0, -4, 2.0, True])
def test_batch_size_out_of_range(value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"batch_size must be .*got batch_size={value!r}"):
        made().train(regression(8), epochs=1, batch_size=value)
    for verb in (made().evaluate, made().predict):
        with pytest.raises(ArgumentError, match=f"got batch_size={value!r}"):
            verb(regression(8), batch_size=value)


@pytest.mark.parametrize("name", ["evaluate_every", "evaluate_every_steps"])
@pytest.mark.parametrize("value", [0, -1, 0.5])
def test_cadences_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name} must be a positive whole number.*, got {name}={value!r}"):
        made().train(regression(8), regression(4), epochs=1, batch_size=4, **{name: value})


@pytest.mark.parametrize("lr", [-0.1, NAN, INF])
def test_rates_out_of_range(lr: float) -> None:
    with pytest.raises(ArgumentError, match=f"lr must be finite and 0 or more, got lr={lr}"):
        tl.optim.adam(lr=lr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet"}, "model must be a torch.nn.Module, got str"),
        ({"model": nn.Linear}, "model must be a torch.nn.Module, got type"),
        ({"optimizer": None}, "expected an optimizer, got none; for example"),
        ({"metrics": {"accuracy": 0.5}}, "metric 'accuracy' must be a torchmetrics instance or a function, got 0.5"),
        ({"metrics": {"accuracy": MulticlassAccuracy}}, "metric 'accuracy' must be a torchmetrics instance"),
        (
            {"average": tl.optim.ema(), "optimizer": {"0": tl.optim.sgd(lr=0.1), "2": tl.optim.sgd(lr=0.1)}},
            "average of weights goes with one optimizer",
        ),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        made(**options)


def test_workers_out_of_range() -> None:
    with pytest.raises(ArgumentError, match=r"workers must be 0 .* got workers=-1"):
        made().train(regression(8), epochs=1, batch_size=4, workers=-1)
    with pytest.raises(ArgumentError, match="worker_timeout must be above 0 seconds, got worker_timeout=0"):
        made().train(regression(8), epochs=1, batch_size=4, worker_timeout=0)


def test_only_a_loop_of_ones_own_needs_no_loss() -> None:
    trainer = made(loss=None)
    for verb in (lambda: trainer.fit(regression(8), epochs=1, batch_size=4), lambda: trainer.evaluate(regression(8))):
        with pytest.raises(ArgumentError, match="expected a loss, got none: give Trainer"):
            verb()
    assert trainer.predict(regression(8)[0]).shape == (8, 1)


def test_all_is_said_before_the_first_event_and_before_the_folder_is_claimed(tmp_path: Path) -> None:
    out, record = tmp_path / "run", Recorder()
    bad: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"epochs": 0}),
        ({}, {"epochs": 1, "batch_size": -1}),
        ({"precision": "fp8"}, {"epochs": 1}),
        ({"optimizer": torch.optim.SGD(mlp().parameters())}, {"epochs": 1}),
    ]
    for options, how in bad:
        with pytest.raises(TrueloopError):
            made(**options).fit(
                regression(8), **({"batch_size": 4} | how), out=out, observers=[record], progress=False
            )  # fmt: skip
    assert record.events == []
    assert not out.exists()


def test_an_unknown_metric_is_offered_the_nearest() -> None:
    stop = tl.observers.EarlyStop("acuracy", mode="max")
    trainer = made(metrics={"accuracy": lambda output, target: 1.0})
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        trainer.fit(regression(8), regression(4), epochs=1, batch_size=4, observers=[stop], progress=False)


# --- the run's folder -----------------------------------------------------------------------------------------------


def test_a_run_leaves_its_record_and_its_weights(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "one"
    trainer = made()
    result = trainer.fit(
        regression(8), regression(4), epochs=2, batch_size=4, seed=3, out=out, about={"recipe": "toy"}, progress=False
    )
    assert result.out == out
    facts = describe(out)
    assert (facts["status"], facts["steps"], facts["epochs"]) == ("finished", 4, 2)
    assert facts["metrics"] == result.metrics
    assert "recipe" in json.dumps(facts)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("StepEnded") == 4
    assert events[-1]["event"] == "RunEnded"
    other = mlp(seed=9)
    load_weights(other, out / "model.safetensors")
    assert same_bits(other, trainer.model)


def test_what_is_saved_is_what_was_evaluated(tmp_path: Path) -> None:
    model = Weight()
    trainer = tl.Trainer(
        model, lambda model, batch: model(batch[0]).mean(), tl.optim.sgd(lr=1.0), average=tl.optim.ema(0.5)
    )
    data = (torch.ones(2), torch.ones(2))
    trainer.fit(data, data, epochs=3, batch_size=2, out=tmp_path / "run", progress=False)
    saved = Weight()
    load_weights(saved, tmp_path / "run" / "model.safetensors")
    assert float(saved) == trainer.evaluate(data)["loss"] == -2.25
    assert float(model) == -3.0


def test_a_folder_that_holds_another_run_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    made().fit(regression(8), epochs=1, batch_size=4, out=tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "events.jsonl").read_bytes()
    model = mlp()
    with pytest.raises(RunFolderError, match="holds another run"):
        made(model=model).fit(regression(8), epochs=1, batch_size=4, out=tmp_path / "run", progress=False)
    assert same_bits(model, mlp())
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == before
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(RunFolderError):
            made().fit(regression(8), epochs=1, batch_size=4, out=out, progress=False)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made().fit(regression(8), regression(4), epochs=1, batch_size=4)
    assert list(tmp_path.iterdir()) == []


# --- data of every kind ---------------------------------------------------------------------------------------------


class Rows(Dataset[Any]):
    def __init__(self) -> None:
        self.x, self.y = regression(12)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        rows = Rows()
        return (rows[index] for index in range(12))


@pytest.mark.parametrize("kind", ["tensors", "numpy", "TensorDataset", "Dataset", "list", "stream", "loader"])
def test_every_kind_of_data_trains_to_the_same_bits_and_evaluates_alike(kind: str) -> None:
    x, y = regression(12)
    data: Any = {
        "tensors": (x, y),
        "numpy": (x.numpy(), y.numpy()),
        "TensorDataset": TensorDataset(x, y),
        "Dataset": Rows(),
        "list": [(a, b) for a, b in zip(x, y, strict=True)],
        "stream": Stream(),
        "loader": DataLoader(Rows(), 4),
    }[kind]
    models, losses = [], []
    for given in ((x, y), data):
        trainer = made(model=mlp())
        batch_size = None if isinstance(given, DataLoader) else 4
        trainer.fit(given, given, epochs=2, batch_size=batch_size, shuffle=False, progress=False)
        losses.append(trainer.evaluate(given, batch_size=batch_size)["loss"])
        models.append(trainer.model)
    assert same_bits(*models)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_list_of_batches_is_a_loader() -> None:
    x, y = regression(12)
    batches = list(zip(torch.split(x, 4), torch.split(y, 4), strict=True))
    trainer = made()
    assert trainer.fit(batches, batches, epochs=2, progress=False).steps == 6
    assert trainer.evaluate(batches).keys() == {"loss"}


def test_a_loader_has_a_batch_size_of_its_own() -> None:
    with pytest.raises(ArgumentError, match="DataLoader has a batch size of its own, got batch_size=4"):
        made().train(DataLoader(Rows(), 4), epochs=1, batch_size=4)
    with pytest.raises(ArgumentError, match="batch_size is needed"):
        made().train(Rows(), epochs=1)


def test_validation_data_may_be_of_another_kind_than_training_data() -> None:
    x, y = regression(12)
    for train, val, batch_size in (((x, y), DataLoader(Rows(), 5), 4), (DataLoader(Rows(), 4), (x, y), None)):
        trainer = made()
        result = trainer.fit(train, val, epochs=1, batch_size=batch_size, progress=False)
        assert result.metrics["loss"] == pytest.approx(trainer.evaluate((x, y))["loss"])


def test_empty_validation_data_is_said_before_the_run() -> None:
    with pytest.raises(DataError, match="empty"):
        made().train(regression(8), (torch.zeros(0, 3), torch.zeros(0, 1)), epochs=1, batch_size=4)


# --- small promises -------------------------------------------------------------------------------------------------


def test_fit_is_watch_over_train() -> None:
    models, records = [], []
    for way in ("fit", "watch"):
        trainer, record = made(model=mlp(dropout=0.2)), Recorder()
        if way == "fit":
            trainer.fit(
                regression(12), regression(4), epochs=2, batch_size=4, seed=1, observers=[record], progress=False
            )
        else:
            tl.watch(trainer.train(regression(12), regression(4), epochs=2, batch_size=4, seed=1), [record])
        models.append(trainer.model)
        records.append(record)
    assert same_bits(*models)
    assert records[0].kinds == records[1].kinds


def test_fit_and_train_take_the_same_arguments() -> None:
    fit, train = (set(inspect.signature(verb).parameters) for verb in (tl.Trainer.fit, tl.Trainer.train))
    assert fit - train == {"out", "about", "observers", "progress", "saving", "save_every_steps", "resume"}
    assert train - fit <= {"saves"}


def test_early_stopping_ends_a_run() -> None:
    x, y = regression(16)
    result = made(optimizer=tl.optim.sgd(lr=0.0)).fit(
        (x, y), (x, y), epochs=50, batch_size=8, observers=[tl.observers.EarlyStop(patience=2)], progress=False
    )
    assert result.epochs < 5
    assert result.reason.startswith("loss has not improved")


def test_a_stopped_run_is_stopped_in_its_record(tmp_path: Path) -> None:
    stop = Recorder(lambda event: isinstance(event, tl.StepEnded), tl.Stop("seen enough"))
    made().fit(regression(8), epochs=1, batch_size=4, out=tmp_path / "run", observers=[stop], progress=False)
    facts = describe(tmp_path / "run")
    assert (facts["status"], facts["reason"]) == ("stopped", "seen enough")


def test_a_classifier_learns() -> None:
    x, y = classification(200, features=5)
    trainer = tl.Trainer(
        mlp(5, 4, width=16, norm=True), nn.CrossEntropyLoss(label_smoothing=0.05), tl.optim.adamw(lr=0.02),
        schedule=tl.schedules.one_cycle(), metrics={"accuracy": MulticlassAccuracy(4, average="micro")}, clip_norm=1.0,
    )  # fmt: skip
    result = trainer.fit((x[:150], y[:150]), (x[150:], y[150:]), epochs=15, batch_size=32, seed=0, progress=False)
    assert result.metrics["accuracy"] > 0.85
