"""Bad input: what was expected, what came, what to do; before anything has moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import trueloop as tl
from trueloop.data.part import Idle
from trueloop.errors import DataError, LossError, TrueloopError
from trueloop.objective import objective
from trueloop.preflight import explain
from trueloop.testing import Recorder, classification, mlp, regression, same_bits

ROWS = torch.arange(12)


def refused(model: nn.Module, loss: Any, data: Any, error: type[TrueloopError], message: str, **how: Any) -> None:
    """It is refused with that message, nothing was trained, and the run's end was told."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = Recorder()
    trainer = tl.Trainer(model, loss, tl.optim.sgd(lr=0.1))
    how = {"epochs": 1, "batch_size": 4, "progress": False, "observers": [record], **how}
    with pytest.raises(error, match=message):
        trainer.fit(data, **how)
    assert record.of(tl.StepEnded) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    if record.events:
        assert record.ended.reason.startswith(f"failed: {error.__name__}")


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (ROWS % 4 + 1, r"class labels must be 0…3, since the model gives 4 logits; got labels from 1 to 4 .*y - 1"),
        (torch.where(ROWS == 9, 7, ROWS % 4), r"from 0 to 7 \(the first wrong one at index 9\); the model needs 8"),
        (torch.where(ROWS == 6, -1, ROWS % 4), r"from -1 to 3 \(the first wrong one at index 6\).*ignore_index"),
        ((ROWS % 4).float(), r"expected class labels of dtype int64 and shape \(\d+,\).*got torch.float32.*y.long\(\)"),
        ((ROWS % 4).int(), r"expected class labels of dtype int64, got torch.int32; convert them: y.long\(\)"),
    ],
)  # fmt: skip
def test_class_labels_that_cannot_be(labels: Tensor, message: str) -> None:
    x, _ = classification(12)
    for loss in (nn.CrossEntropyLoss(), nn.functional.cross_entropy):
        refused(mlp(outputs=4), loss, (x, labels), DataError, message)


def test_a_wrong_label_anywhere_in_memory_is_found_before_the_first_step() -> None:
    x, y = classification(1000)
    y[999] = 4
    refused(mlp(outputs=4), nn.CrossEntropyLoss(), (x, y), DataError, "first wrong one at index 999", shuffle=False)


def test_a_wrong_label_that_a_loader_brings_later_is_explained_when_it_comes() -> None:
    x, y = classification(12)
    y[9] = 5
    trainer = tl.Trainer(mlp(outputs=4), nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1))
    record = Recorder()
    with pytest.raises(DataError, match=r"class labels must be 0…3.*the first wrong one at index 1"):
        trainer.fit(DataLoader(TensorDataset(x, y), 4), epochs=1, observers=[record], progress=False)
    assert len(record.of(tl.StepEnded)) == 2


def test_an_ignored_label_is_not_the_wrong_one_that_is_named() -> None:
    x, y = classification(12)
    y[1], y[5] = -100, 9
    refused(mlp(outputs=4), nn.CrossEntropyLoss(), (x, y), DataError, "first wrong one at index 5")


def test_ignored_labels_are_no_error() -> None:
    x, y = classification(12)
    y[1] = -100
    tl.Trainer(mlp(outputs=4), nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1)).fit(
        (x, y), epochs=1, batch_size=4, progress=False
    )


def test_one_hot_or_columns_of_labels_are_told_what_to_do() -> None:
    x, y = classification(12)
    one_column = y.unsqueeze(1)
    refused(mlp(outputs=4), nn.CrossEntropyLoss(), (x, one_column), LossError, r"got \(4, 1\); squeeze the labels")
    one_hot = nn.functional.one_hot(y, 4)
    refused(
        mlp(outputs=4), nn.CrossEntropyLoss(), (x, one_hot), LossError, r"expected labels of shape \(4,\).*got \(4, 4\)"
    )
    refused(mlp(outputs=4), nn.CrossEntropyLoss(), (x, one_hot[:, :3].float()), DataError, "convert labels: y.long")


# --- shapes and dtypes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.SmoothL1Loss(), nn.BCEWithLogitsLoss(), nn.functional.mse_loss,
        nn.PoissonNLLLoss(), nn.SoftMarginLoss(), nn.KLDivLoss(reduction="batchmean"),
    ],
)  # fmt: skip
def test_shapes_that_would_broadcast(loss: Any) -> None:
    x, y = regression(12)
    message = r"would broadcast: .*(\(4, 1\).*\(4,\)|\[4\].*\[4, 1\]).*y.unsqueeze\(1\)"
    refused(mlp(), loss, (x, y.squeeze(1)), LossError, message)


def test_shapes_that_would_broadcast_within_a_function_of_ones_own() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    x, y = regression(12)
    refused(mlp(), loss, (x, y.squeeze(1)), LossError, r"would broadcast.*\[4\]")


def test_integer_targets_of_a_regression() -> None:
    x, y = regression(12)
    refused(
        mlp(), nn.MSELoss(), (x, y.long()), DataError, r"floating-point target for MSELoss.*torch.int64.*y.float\(\)"
    )
    refused(mlp(), nn.BCEWithLogitsLoss(), (x, (y > 0).long()), DataError, r"convert it: y.float\(\)")


@pytest.mark.parametrize("kind", ["numpy", "loader"])
def test_float64_data_into_a_float32_model(kind: str) -> None:
    x, y = (part.double() for part in regression(12))
    message = r"data is torch.float64 and the model's weights are torch.float32.*x.astype\('float32'\)"
    if kind == "numpy":
        refused(mlp(), nn.MSELoss(), (x.numpy(), y.numpy()), DataError, message)
    else:
        refused(mlp(), nn.MSELoss(), DataLoader(TensorDataset(x, y), 4), DataError, message, batch_size=None)


# --- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, batch: model(batch[0]), r"must be a scalar, got shape \(4, 1\); average it: loss.mean\(\)"),
        (lambda model, batch: model(batch[0]).mean().detach(), "the loss has no graph: nothing would be learned"),
        (lambda model, batch: batch[1].mean(), "the loss has no graph"),
        (lambda model, batch: model(batch[0]).mean().item(), "must return a scalar tensor.*got float"),
        (lambda model, batch: {"Loss": model(batch[0]).mean()}, r"a dict with 'loss'; got dict with keys \['Loss'\]"),
        (lambda model, batch: None, "got NoneType"),
        (lambda model, batch: (model(batch[0]).mean(), 0), "count must be positive, got 0"),
        (lambda model, batch: {"loss": 1.0}, "must be a scalar tensor, got float"),
    ],
)
def test_losses_that_cannot_be_minimised(loss: Any, message: str) -> None:
    model = nn.Sequential(mlp())
    refused(model, loss, regression(12), LossError, message)


def test_a_module_as_criterion_whose_loss_has_no_graph() -> None:
    class Detached(nn.Module):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return (output.detach() - target).square().mean()

    refused(mlp(), Detached(), regression(12), LossError, "the loss has no graph")


def test_a_loss_that_reaches_no_trainable_parameter_of_the_optimizer_is_said() -> None:
    """A graph alone is not enough: the input may want a gradient, or a frozen part may be all that was used."""
    x, y = regression(12)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (batch[0].clone().requires_grad_() * 2).mean()

    refused(mlp(), loss, (x, y), LossError, "no graph|no trainable parameter|reaches no")


def test_targets_that_are_not_there() -> None:
    x, _ = regression(12)
    refused(mlp(), nn.MSELoss(), x, LossError, "needs batches of .input, target., got a lone Tensor")


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((torch.zeros(0, 3), torch.zeros(0, 1)), "the data is empty"),
        ((np.zeros((0, 3), np.float32), np.zeros((0, 1), np.float32)), "the data is empty"),
        ([], "empty"),
        ((torch.zeros(10, 3), torch.zeros(9, 1)), "X has 10 samples, y has 9"),
        ({"x": torch.zeros(4, 3), "y": torch.zeros(5, 1)}, "x has 4 samples, y has 5"),
        ("train.csv", "got str"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_before_the_run(data: Any, message: str) -> None:
    record = Recorder()
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(DataError, match=message):
        trainer.train(data, epochs=1, batch_size=4)
    with pytest.raises(DataError, match=message):
        trainer.fit(regression(4), data, epochs=1, batch_size=4, observers=[record], progress=False)
    assert record.events == [], "said before the first event"


def test_the_look_at_the_first_window_draws_no_random_number_and_runs_no_second_forward_pass() -> None:
    models = []
    for looked_at in (True, False):
        model, calls = mlp(dropout=0.5, norm=True), list[int]()
        model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        x, y = regression(8)
        torch.manual_seed(0)
        if looked_at:
            trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1, fused=False))
            trainer.fit((x, y), epochs=1, batch_size=4, shuffle=False, progress=False)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for start in (0, 4):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x[start : start + 4]), y[start : start + 4])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        assert len(calls) == 2
        models.append(model)
    assert same_bits(*models)


def test_an_error_of_the_models_own_passes_as_it_is() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("my own mistake")

    trainer = tl.Trainer(Broken(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    with pytest.raises(ValueError, match=r"^my own mistake$"):
        trainer.fit(regression(8), epochs=1, batch_size=4, progress=False)


def test_a_batch_that_is_too_short_for_batchnorm_is_said_to_be() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1), device="cpu")
    with pytest.raises(DataError, match=r"BatchNorm has one sample.*drop_last"):
        trainer.fit((torch.randn(9, 4), torch.zeros(9, dtype=torch.long)), epochs=1, batch_size=4, progress=False)


def test_what_a_process_gets_of_a_batch_of_others_is_explained_as_the_batch_is() -> None:
    of = objective(nn.CrossEntropyLoss())
    batch = (torch.randn(2, 4), torch.tensor([0, 7]))
    with pytest.raises(DataError, match="7"):
        explain(RuntimeError("index out of bounds"), nn.Linear(4, 3), of, [Idle(batch)])
