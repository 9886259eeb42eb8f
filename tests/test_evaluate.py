"""Evaluation: exact over samples, no graph, and every module's mode as it was."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.regression import MeanAbsoluteError

import trueloop as tl
from trueloop.errors import ArgumentError, DataError, LossError
from trueloop.evaluate import resting
from trueloop.testing import Recorder, Weight, classification, mlp, regression, same_bits


def trainer_of(model: nn.Module, loss: Any = None, **options: Any) -> tl.Trainer:
    return tl.Trainer(model, loss or nn.MSELoss(), tl.optim.sgd(lr=0.01), **options)


# --- exact ----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 30), ignored=st.lists(st.booleans(), min_size=23, max_size=23))
def test_loss_and_metrics_do_not_depend_on_the_batches(batch_size: int, ignored: list[bool]) -> None:
    x, y = classification(23, dtype=torch.float64)
    ignored[0] = False
    y = torch.where(torch.tensor(ignored), -100, y)
    model = mlp(outputs=4, dropout=0.5, norm=True, dtype=torch.float64)
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    for loss in (nn.CrossEntropyLoss(weight=weights, label_smoothing=0.1), nn.CrossEntropyLoss()):
        metrics: dict[str, Any] = {
            "accuracy": MulticlassAccuracy(4, average="micro", ignore_index=-100),
            "f1": MulticlassF1Score(4, ignore_index=-100),
            "right": lambda output, target: (output.argmax(1) == target).sum(),
        }
        got = trainer_of(model, loss, metrics=metrics).evaluate((x, y), batch_size=batch_size)
        model.eval()
        with torch.no_grad():
            output = model(x)
            assert got["loss"] == pytest.approx(float(loss(output, y)), rel=1e-12)
        model.train()
        kept = y != -100
        assert got["accuracy"] == pytest.approx(float((output.argmax(1) == y)[kept].double().mean()), rel=1e-6)
        assert got["right"] == int((output.argmax(1) == y).sum())
        assert got["f1"] == pytest.approx(float(MulticlassF1Score(4, ignore_index=-100)(output, y)), rel=1e-6)


def test_the_mean_is_over_samples_and_not_over_batches() -> None:
    batches = [(torch.ones(3), torch.zeros(3)), (torch.full((1,), 3.0), torch.zeros(1))]
    assert trainer_of(Weight(1.0), metrics={"mae": MeanAbsoluteError()}).evaluate(batches) == {"loss": 3.0, "mae": 1.5}


def test_a_loss_with_its_own_count_is_averaged_over_it() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor]) -> tuple[Tensor, int]:
        output = model(batch[0])
        return output.mean(), 10 if len(output) == 1 else 2

    batches = [(torch.ones(3),), (torch.full((1,), 4.0),)]
    assert trainer_of(Weight(1.0), loss).evaluate(batches)["loss"] == (1.0 * 2 + 4.0 * 10) / 12


def test_penalties_are_no_part_of_the_evaluated_loss() -> None:
    trainer = trainer_of(Weight(2.0), penalty=tl.objective.l2(100.0))
    assert trainer.evaluate((torch.ones(2), torch.zeros(2)))["loss"] == 4.0


def test_a_metric_is_reset_for_each_evaluation() -> None:
    data = (torch.ones(4), torch.zeros(4))
    trainer = trainer_of(Weight(1.0), metrics={"mae": MeanAbsoluteError()})
    trainer.evaluate((torch.full((4,), 9.0), torch.zeros(4)))
    assert trainer.evaluate(data)["mae"] == 1.0


def test_a_metric_of_several_numbers_is_given_by_name() -> None:
    x, y = classification(12)
    metrics: dict[str, Any] = {
        "by_class": MulticlassAccuracy(4, average=None),
        "both": lambda output, target: {"low": output.min(), "high": output.max()},
    }
    got = trainer_of(mlp(outputs=4), nn.CrossEntropyLoss(), metrics=metrics).evaluate((x, y))
    assert sorted(got) == sorted(["loss", *(f"by_class/{i}" for i in range(4)), "both/low", "both/high"])
    assert all(isinstance(value, float) for value in got.values())


def test_metrics_with_a_loss_of_model_and_batch_look_at_the_models_one_output() -> None:
    calls = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    trainer = trainer_of(Weight(1.0), loss, metrics={"mae": nn.functional.l1_loss})
    assert trainer.evaluate((torch.full((4,), 3.0), torch.zeros(4)), batch_size=3) == {"loss": 9.0, "mae": 3.0}
    assert len(calls) == 2, "one forward pass a batch"


def test_metrics_take_output_and_target_from_a_loss_that_returns_them() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        first, second = model(batch[0]), model(2 * batch[0])
        return {"loss": first.mean() + second.mean(), "output": second, "target": batch[1] + 1}

    trainer = trainer_of(Weight(1.0), loss, metrics={"mae": nn.functional.l1_loss})
    assert trainer.evaluate((torch.full((4,), 3.0), torch.zeros(4)))["mae"] == 5.0


def test_metrics_cannot_guess_between_two_outputs() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        first, second = model(batch[0]), model(batch[1])
        return torch.cat((first, second)).mean()

    trainer = trainer_of(Weight(1.0), loss, metrics={"mae": nn.functional.l1_loss})
    with pytest.raises(LossError, match="called the model 2 times; return a dict"):
        trainer.evaluate((torch.ones(4), torch.zeros(4)))


def test_a_metric_that_gives_no_number_is_named() -> None:
    trainer = trainer_of(Weight(1.0), metrics={"words": lambda output, target: "good"})
    with pytest.raises(ArgumentError, match=r"metric 'words' must give a number.*got 'good'"):
        trainer.evaluate((torch.ones(4), torch.zeros(4)))


def test_nothing_to_evaluate_on_is_an_error() -> None:
    class Nothing:
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(DataError, match="empty"):
        trainer_of(Weight()).evaluate(Nothing())
    with pytest.raises(DataError, match="empty"):
        trainer_of(Weight()).predict(torch.zeros(0, 3))


# --- bad input is found in evaluation data too ----------------------------------------------------------------------


def test_labels_out_of_range_in_evaluation_data_are_a_clear_error() -> None:
    x, y = classification(12)
    trainer = trainer_of(mlp(outputs=4), nn.CrossEntropyLoss())
    with pytest.raises(DataError, match=r"class labels must be 0…3.*got labels from 0 to 7"):
        trainer.evaluate((x, torch.where(torch.arange(12) == 5, 7, y)))


@pytest.mark.filterwarnings("ignore:Using a target size")  # torch's own, which nobody reads
def test_shapes_that_would_broadcast_in_evaluation_data_are_a_clear_error() -> None:
    x, y = regression(12)
    with pytest.raises(LossError, match=r"would broadcast: .*\(12, 1\).*\(12,\)"):
        trainer_of(mlp()).evaluate((x, y.squeeze(1)))
    with pytest.raises(LossError, match="would broadcast"):
        trainer_of(mlp()).fit((x, y), (x, y.squeeze(1)), epochs=1, batch_size=4, progress=False)


# --- modes and graph ------------------------------------------------------------------------------------------------


def partly_frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.2)))
    model[1].eval()  # kept in eval mode by the user
    return model.append(nn.Linear(4, 1))


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_the_mode_of_every_module_comes_back_after_fit_evaluate_and_predict() -> None:
    model = partly_frozen()
    before, buffers = modes(model), model.get_buffer("1.running_mean").clone()
    trainer = trainer_of(model)
    trainer.fit(regression(12), regression(5), epochs=2, batch_size=4, evaluate_every_steps=1, progress=False)
    assert modes(model) == before
    assert torch.equal(model.get_buffer("1.running_mean"), buffers), "what the user keeps in eval mode is not trained"
    trainer.evaluate(regression(5))
    trainer.predict(regression(5))
    assert modes(model) == before
    model.eval()
    trainer.evaluate(regression(5))
    assert not any(modes(model)), "a model in eval mode is not woken by an evaluation"


def test_modes_and_graph_come_back_when_the_body_raises() -> None:
    model = partly_frozen()
    before = modes(model)

    def body() -> None:
        with resting(model):
            assert not any(modes(model))
            assert not torch.is_grad_enabled()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        body()
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_evaluation_makes_no_graph_and_leaves_gradients_weights_and_rng_alone() -> None:
    outputs: list[Tensor] = []
    model = mlp(dropout=0.5, norm=True)
    model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    copy = mlp(dropout=0.5, norm=True)
    state = torch.get_rng_state()
    trainer_of(model).evaluate(regression(12), batch_size=5)
    assert len(outputs) == 3
    assert not any(output.requires_grad for output in outputs)
    assert same_bits(model, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


# --- averages of weights --------------------------------------------------------------------------------------------


def test_evaluations_use_the_exponential_average_and_it_is_the_one_by_hand() -> None:
    model, record = Weight(), Recorder()
    data = (torch.ones(4), torch.zeros(4))
    trainer = tl.Trainer(
        model, lambda model, batch: model(batch[0]).mean(), tl.optim.sgd(lr=1.0), average=tl.optim.ema(0.5)
    )
    trainer.fit(data, data, epochs=4, batch_size=4, observers=[record], progress=False)
    assert float(model) == -4.0
    average, expected = -1.0, [-1.0]
    for weight in (-2.0, -3.0, -4.0):
        average = 0.5 * average + 0.5 * weight
        expected.append(average)
    assert [event.metrics["loss"] for event in record.of(tl.EvalEnded)] == expected
    assert trainer.evaluate(data)["loss"] == expected[-1]
    assert float(trainer.predict(torch.ones(1))[0]) == expected[-1]


def test_an_average_that_is_not_for_evaluation_is_only_kept() -> None:
    model = Weight()
    data = (torch.ones(4), torch.zeros(4))
    trainer = tl.Trainer(
        model,
        lambda model, batch: model(batch[0]).mean(),
        tl.optim.sgd(lr=1.0),
        average=tl.optim.ema(0.5, evaluate=False),
    )
    trainer.fit(data, data, epochs=3, batch_size=4, progress=False)
    assert trainer.evaluate(data)["loss"] == -3.0
    assert isinstance(trainer.averaged, Weight)
    assert float(trainer.averaged) == -2.25


def test_swa_is_the_mean_of_the_runs_end_and_its_batchnorm_statistics_are_those_of_the_data() -> None:
    x, y = regression(24)
    model = mlp(norm=True)
    trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.05), average=tl.optim.swa(0.5))
    kept = [
        [p.detach().clone() for p in model.parameters()]
        for event in trainer.train((x, y), (x, y), epochs=4, batch_size=12, shuffle=False)
        if isinstance(event, tl.StepEnded) and event.step >= 4
    ]
    assert len(kept) == 5
    averaged = trainer.averaged
    assert isinstance(averaged, nn.Sequential)
    for mean, each in zip(averaged.parameters(), zip(*kept, strict=True), strict=True):
        torch.testing.assert_close(mean, torch.stack(each).mean(0))
    with torch.no_grad():
        hidden = averaged[0](x)
    torch.testing.assert_close(averaged.get_buffer("1.running_mean"), hidden.mean(0))
    torch.testing.assert_close(averaged.get_buffer("1.running_var"), hidden.var(0))
    assert not torch.equal(averaged.get_buffer("1.running_mean"), model.get_buffer("1.running_mean"))


# --- predict --------------------------------------------------------------------------------------------------------


class Named(NamedTuple):
    twice: Tensor
    thrice: Tensor


class Both(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Any:
        twice, thrice = 2 * x * self.weight, 3 * x * self.weight
        return {"tuple": (twice, thrice), "dict": {"a": twice, "b": thrice}, "named": Named(twice, thrice)}[self.kind]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader", "with targets", "numpy"])
def test_predictions_come_in_the_order_of_the_input(kind: str, batch_size: int) -> None:
    x = torch.arange(17.0)
    trainer = trainer_of(Weight(2.0))
    if kind == "loader":
        got = trainer.predict(DataLoader(TensorDataset(x), batch_size))
    elif kind == "with targets":
        got = trainer.predict((x, torch.zeros(17)), batch_size=batch_size)
    elif kind == "dataset":
        got = trainer.predict([(value, 0.0) for value in x], batch_size=batch_size)
    else:
        got = trainer.predict(x.numpy() if kind == "numpy" else x, batch_size=batch_size)
    assert torch.equal(got, 2 * x)
    assert not got.requires_grad


def test_predictions_of_workers_come_in_the_order_of_the_input() -> None:
    x = torch.arange(17.0)
    got = trainer_of(Weight(2.0)).predict([(value, 0.0) for value in x], batch_size=3, workers=2)
    assert torch.equal(got, 2 * x)


def test_outputs_of_any_structure_are_joined() -> None:
    x = torch.arange(5.0)
    twice, thrice = trainer_of(Both("tuple")).predict(x, batch_size=2)
    assert torch.equal(twice, 2 * x)
    assert torch.equal(thrice, 3 * x)
    assert torch.equal(trainer_of(Both("dict")).predict(x, batch_size=2)["b"], 3 * x)
    named = trainer_of(Both("named")).predict(x, batch_size=2)
    assert isinstance(named, Named)
    assert torch.equal(named.thrice, 3 * x)


@dataclasses.dataclass
class Question:
    left: Tensor
    right: Tensor


def test_inputs_alone_may_be_several() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.weight * (left - right)

    left, right = torch.arange(5.0), torch.ones(5)
    trainer = trainer_of(Sum())
    data: Any
    for data in ((left, right), {"left": left, "right": right}):
        assert torch.equal(trainer.predict(data, batch_size=2, has_target=False), left - right)
    for data in ((left, right, left), {"left": left, "right": right, "y": left}):
        assert torch.equal(trainer.predict(data, batch_size=2), left - right)
    questions = [Question(left[:3], right[:3]), Question(left[3:], right[3:])]
    assert torch.equal(trainer.predict(questions, has_target=False), left - right)
