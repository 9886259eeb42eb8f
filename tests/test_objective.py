"""What is minimised, and what its mean is over."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import trueloop as tl
from trueloop.errors import ArgumentError, LossError
from trueloop.objective import Mean, loss_kind, objective, run_model, split_batch
from trueloop.testing import Recorder, classification, mlp, regression, same_bits


@dataclasses.dataclass
class Pair:
    x: Tensor
    label: Tensor


class Triple(NamedTuple):
    left: Tensor
    right: Tensor
    y: Tensor


# --- batches of every kind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["target", "targets", "label", "labels", "y"])
def test_the_target_of_a_dict_is_found_by_its_name(name: str) -> None:
    assert split_batch({"x": 1, name: 2}) == ((1,), {}, 2)


@pytest.mark.parametrize(
    ("batch", "parts"),
    [
        (["x", "y"], (("x",), {}, "y")),
        (("a", "b", "y"), (("a", "b"), {}, "y")),
        ({"ids": 1, "mask": 2, "labels": 3}, ((), {"ids": 1, "mask": 2}, 3)),
        (Pair("x", "y"), (("x",), {}, "y")),  # type: ignore[arg-type]
        (Triple("l", "r", "y"), ((), {"left": "l", "right": "r"}, "y")),  # type: ignore[arg-type]
        (({"a": 1, "b": (2, 3)}, "y"), (({"a": 1, "b": (2, 3)},), {}, "y")),
    ],
)
def test_inputs_and_target_by_convention(batch: Any, parts: Any) -> None:
    assert split_batch(batch) == parts


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3), "needs batches of .input, target., got a lone Tensor"),
        ((torch.zeros(3),), "got a tuple of 1"),
        ({"x": 1, "z": 2}, r"expected one target.*got entries \['x', 'z'\]"),
        ({"y": 1}, r"got entries \['y'\]"),
        ({"x": 1, "y": 2, "label": 3}, r"got entries \['label', 'x', 'y'\]"),
    ],
)
def test_a_batch_without_a_target_that_can_be_told(batch: Any, message: str) -> None:
    with pytest.raises(LossError, match=message):
        split_batch(batch)


def test_every_kind_of_batch_trains_alike() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x: Any) -> Tensor:
            output: Tensor = self.inner(x["deep"][0] if isinstance(x, dict) else x)
            return output

    x, y = regression(12)
    cut = list(zip(torch.split(x, 4), torch.split(y, 4), strict=True))
    kinds: list[Any] = [
        (x, y),
        {"x": x, "y": y},
        ({"deep": (x, x)}, y),
        [list(batch) for batch in cut],
        [{"input": a, "target": b} for a, b in cut],
        [Pair(a, b) for a, b in cut],
        [({"deep": [a]}, b) for a, b in cut],
    ]
    models = []
    for data in kinds:
        model = Nested()
        trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.05))
        batch_size = None if isinstance(data, list) else 4
        trainer.fit(data, epochs=2, batch_size=batch_size, shuffle=False, progress=False)
        models.append(model)
    assert all(same_bits(models[0], model) for model in models[1:])


def test_a_lone_tensor_is_all_input() -> None:
    x = torch.ones(2, 3)
    assert run_model(nn.Identity(), x) == (x, None)
    assert run_model(nn.Identity(), (x,)) == (x, None)


# --- what the mean is over ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # torch's advice on KLDivLoss
@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss(), nn.SoftMarginLoss(),
        nn.PoissonNLLLoss(), nn.KLDivLoss(), nn.KLDivLoss(reduction="batchmean"),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
        nn.functional.mse_loss, partial(nn.functional.smooth_l1_loss, beta=0.5),
    ],
)  # fmt: skip
def test_elementwise_losses_recombine_to_the_whole(loss: Any) -> None:
    """The mean over the parts, weighted by their counts, is the mean over the whole."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(11, 3, generator=generator, dtype=torch.float64)
    recombines(loss, output, target)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.2),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64), ignore_index=0),
        nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64), label_smoothing=0.1),
        nn.NLLLoss(weight=torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)),
        nn.functional.cross_entropy,
        partial(nn.functional.cross_entropy, ignore_index=2),
        partial(nn.functional.nll_loss, weight=torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)),
    ],
)
@pytest.mark.parametrize("positions", [(), (4,), (2, 3)], ids=["classes", "sequence", "image"])
def test_classwise_losses_recombine_to_the_whole(loss: Any, positions: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(11, 3, *positions, generator=generator, dtype=torch.float64).log_softmax(1)
    target = torch.randint(3, (11, *positions), generator=generator)
    recombines(loss, output, target)


def test_samplewise_losses_recombine_to_the_whole() -> None:
    output = torch.randn(11, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    recombines(nn.MultiMarginLoss(), output, torch.arange(11) % 3)


def test_class_probabilities_recombine_to_the_whole() -> None:
    output = torch.randn(11, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    recombines(nn.CrossEntropyLoss(), output, output.flip(0).softmax(1))


def recombines(loss: Any, output: Tensor, target: Tensor) -> None:
    form = objective(loss)
    whole = form.compute(nn.Identity(), (output, target))
    mean = Mean(is_sum=form.is_sum)
    for start, end in ((0, 2), (2, 3), (3, 11)):
        batch = (output[start:end], target[start:end])
        computed = form.compute(nn.Identity(), batch)
        mean.add(computed.loss, computed.count, end - start)
        before = form.count(batch)
        assert float(before) == float(computed.count), "the count is the same before the forward pass and after it"
    assert mean.value() == pytest.approx(float(whole.loss), rel=1e-9)


def test_a_sum_is_evaluated_as_its_mean_and_trained_as_a_sum() -> None:
    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3)
    recorder = Recorder()
    trainer = tl.Trainer(nn.Sequential(nn.Linear(1, 1)), nn.MSELoss(reduction="sum"), tl.optim.sgd(lr=0.0))
    layer = trainer.model[0]  # type: ignore[index]
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    data = (x.unsqueeze(1), y.unsqueeze(1))
    trainer.fit(data, data, epochs=1, batch_size=2, shuffle=False, observers=[recorder], progress=False)
    assert [float(step.loss) for step in recorder.of(tl.StepEnded)] == [5.0, 9.0]
    assert recorder.of(tl.EvalEnded)[0].metrics["loss"] == recorder.of(tl.EpochEnded)[0].loss == 14 / 3


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 20)), min_size=1, max_size=600))
@settings(max_examples=15, deadline=None)
def test_a_mean_is_exact_whatever_it_is_made_of(parts: list[tuple[float, int]]) -> None:
    for counts in (lambda n: n, torch.tensor):
        mean = Mean()
        for loss, count in parts:
            mean.add(torch.tensor(loss, dtype=torch.float64), counts(count), count)
        exact = sum(loss * count for loss, count in parts) / sum(count for _, count in parts)
        assert mean.value() == pytest.approx(exact, rel=1e-9, abs=1e-9)
        assert mean.samples == sum(count for _, count in parts)


def test_the_mean_of_nothing_is_nan_and_a_batch_that_counts_nothing_is_left_out() -> None:
    mean = Mean()
    assert mean.value() != mean.value()
    mean.add(torch.tensor(float("nan")), torch.tensor(0))
    mean.add(torch.tensor(2.0), torch.tensor(3))
    assert mean.value() == 2.0


# --- losses of every kind -------------------------------------------------------------------------------------------


def test_subclasses_of_torch_losses_are_known_by_their_base() -> None:
    class Mine(nn.CrossEntropyLoss):
        pass

    assert loss_kind(Mine()) == "classwise"
    assert loss_kind(nn.TripletMarginLoss()) == "samplewise"


def test_a_dicts_other_scalars_are_reported_without_graph() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        output = model(batch[0])
        return {"loss": output.mean(), "spread": output.std(), "output": output, "text": "left out"}

    recorder = Recorder()
    tl.Trainer(mlp(), loss, tl.optim.sgd(lr=0.1)).fit(
        regression(8), epochs=1, batch_size=4, observers=[recorder], progress=False
    )
    for step in recorder.of(tl.StepEnded):
        assert set(step.terms) == {"spread"}
        assert not step.terms["spread"].requires_grad


def test_a_function_of_ones_own_of_output_and_target_is_marked_as_a_criterion() -> None:
    recorder = Recorder()
    mine = tl.objective.criterion(lambda output, target: (output - target).abs().mean())
    tl.Trainer(mlp(), mine, tl.optim.sgd(lr=0.1), metrics={"mae": nn.functional.l1_loss}).fit(
        regression(8), regression(5), epochs=1, batch_size=3, observers=[recorder], progress=False
    )
    metrics = recorder.of(tl.EvalEnded)[0].metrics
    assert metrics["loss"] == pytest.approx(metrics["mae"])


def test_a_module_whose_class_weights_are_elsewhere_is_moved_with_the_model() -> None:
    trainer = tl.Trainer(mlp(outputs=4), nn.CrossEntropyLoss(weight=torch.ones(4)), tl.optim.sgd(lr=0.1))
    trainer.fit(classification(8), epochs=1, batch_size=4, progress=False)
    form = trainer.setup.objective
    assert form is not None
    assert isinstance(form.criterion, nn.CrossEntropyLoss)
    assert form.criterion.weight is not None
    assert form.criterion.weight.device == trainer.setup.device


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.MSELoss, "got MSELoss"),
        ("mse", "must be a torch.nn loss or a callable .* got 'mse'"),
        (nn.MSELoss(reduction="none"), "MSELoss has reduction='none', which gives a loss for each element"),
        (partial(nn.functional.mse_loss, reduction="none"), "mse_loss has reduction='none'"),
    ],
)
def test_losses_that_cannot_be(loss: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        objective(loss)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_penalties_out_of_range(penalty: str, strength: float) -> None:
    with pytest.raises(ArgumentError, match=f"strength of {penalty} must be zero or more, got {strength}"):
        getattr(tl.objective, penalty)(strength)


def test_a_penalty_leaves_frozen_parameters_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    expected = sum(float(p.detach().abs().sum()) for p in model[1].parameters())
    assert float(tl.objective.l1(1.0)(model).detach()) == pytest.approx(expected)
