"""The ritual: what one update does, in which order, and what it leaves alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import trueloop as tl
from trueloop.errors import ArgumentError, NonFiniteError, UnknownNameError
from trueloop.step import add_gradient, divide, needs_closure, share_of, shares
from trueloop.testing import Recorder, Weight, classification, mlp, regression, same_bits

F64 = torch.float64


def mean_output(model: nn.Module, batch: Any) -> Tensor:
    """A loss whose gradient for ``Weight`` is the batch's mean."""
    output: Tensor = model(batch if isinstance(batch, Tensor) else batch[0])
    return output.mean()


def steps_of(trainer: tl.Trainer, data: Any, **how: Any) -> list[tl.StepEnded]:
    how = {"epochs": 1, "shuffle": False} | how
    return [event for event in trainer.train(data, **how) if isinstance(event, tl.StepEnded)]


# --- the two cases in which peers are wrong -------------------------------------------------------------------------


def test_five_equal_batches_accumulated_by_two_move_the_weight_by_exactly_three() -> None:
    """Two whole windows and a tail of one, each with gradient 1: not 2.5 (half a tail) and not 2.0 (a dropped one)."""
    for way in ("fit", "update"):
        model = Weight()
        trainer = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0), accumulate=2)
        if way == "fit":
            assert trainer.fit(torch.ones(20), epochs=1, batch_size=4, progress=False).steps == 3
        else:
            for _ in trainer.epochs(1):
                for x in trainer.batches(torch.ones(20), batch_size=4):
                    trainer.update(model(x).mean())
            assert trainer.step == 3
        assert float(model) == -3.0, way


def test_microbatches_of_three_and_one_sample_give_the_mean_over_the_four() -> None:
    """Values 1, 1, 1 and 5: the mean over samples is 2, the mean of means would be 3."""
    batches = [(torch.tensor([1.0, 1.0, 1.0]),), (torch.tensor([5.0]),)]
    for way in ("fit", "update"):
        model = Weight()
        trainer = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0), accumulate=2)
        if way == "fit":
            trainer.fit(batches, epochs=1, progress=False)
        else:
            for _ in trainer.epochs(1):
                for (x,) in trainer.batches(batches):
                    trainer.update(model(x).mean())
        assert float(model) == -2.0, way


def test_a_windows_loss_is_its_mean_over_samples_and_so_is_the_epochs() -> None:
    record = Recorder()
    trainer = tl.Trainer(Weight(1.0), mean_output, tl.optim.sgd(lr=0.0), accumulate=2)
    batches = [(torch.tensor(values),) for values in ([1.0, 1.0, 1.0], [5.0], [4.0, 4.0])]
    trainer.fit(batches, epochs=1, progress=False, observers=[record])
    steps = record.of(tl.StepEnded)
    assert [float(step.loss) for step in steps] == [2.0, 4.0]
    assert [step.samples for step in steps] == [4, 2]
    (epoch,) = record.of(tl.EpochEnded)
    assert (epoch.loss, epoch.samples) == (16 / 6, 6)


# --- accumulation equals the one big batch --------------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=7)
"""Samples in each microbatch of an epoch: ragged, and with any tail."""

AHEAD = settings(max_examples=25, deadline=None)


def cut(data: tuple[Tensor, ...], sizes: list[int]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(torch.split(part, sizes) for part in data), strict=True))


def joined(batches: list[tuple[Tensor, ...]], k: int) -> list[tuple[Tensor, ...]]:
    windows = [batches[start : start + k] for start in range(0, len(batches), k)]
    return [tuple(torch.cat(parts) for parts in zip(*window, strict=True)) for window in windows]


def accumulated_equals_joined(
    loss: Callable[..., Any], batches: list[tuple[Tensor, ...]], k: int, outputs: int, **options: Any
) -> None:
    models = []
    for data, accumulate in ((batches, k), (joined(batches, k), 1)):
        model = mlp(outputs=outputs, dtype=F64)
        trainer = tl.Trainer(model, loss, tl.optim.sgd(lr=0.1), accumulate=accumulate, **options)
        trainer.fit(data, epochs=2, progress=False)
        models.append(model)
    for accumulated, big in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(accumulated, big, rtol=0.0, atol=1e-6)


@AHEAD
@given(sizes=COUNTS, k=st.integers(1, 4), clip=st.sampled_from([None, 0.1]))
def test_k_microbatches_equal_one_big_batch(sizes: list[int], k: int, clip: float | None) -> None:
    batches = cut(regression(sum(sizes), dtype=F64), sizes)
    accumulated_equals_joined(nn.MSELoss(), batches, k, 1, clip_norm=clip, penalty=tl.objective.l2(0.1))


@AHEAD
@given(sizes=COUNTS, k=st.integers(2, 4), data=st.data())
def test_classes_that_are_ignored_or_weighted_count_as_torch_counts_them(
    sizes: list[int], k: int, data: st.DataObject
) -> None:
    """Also a microbatch whose labels are all ignored: torch's mean of it is NaN, and it counts for nothing."""
    x, y = classification(sum(sizes), dtype=F64)
    ignored = data.draw(st.lists(st.booleans(), min_size=len(y), max_size=len(y)))
    y = torch.where(torch.tensor(ignored), -100, y)
    batches = cut((x, y), sizes)
    if any((window[1] == -100).all() for window in joined(batches, k)):
        return  # a window of nothing has no mean at all: see test_finite
    weights = torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=F64)
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=weights, label_smoothing=0.1)):
        accumulated_equals_joined(loss, batches, k, 4)


@AHEAD
@given(sizes=COUNTS, k=st.integers(2, 4), data=st.data())
def test_a_loss_that_brings_its_count_is_averaged_over_it(sizes: list[int], k: int, data: st.DataObject) -> None:
    """Token counts: nobody but the loss knows them."""
    x, y = regression(sum(sizes), dtype=F64)
    tokens = data.draw(st.lists(st.integers(1, 9), min_size=len(y), max_size=len(y)))
    batches = cut((x, y, torch.tensor(tokens, dtype=F64).unsqueeze(1)), sizes)

    def over_tokens(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets, count = batch
        return ((model(inputs) - targets).square() * count).sum() / count.sum(), count.sum()

    def as_dict(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Any]:
        loss, count = over_tokens(model, batch)
        return {"loss": loss, "count": int(count)}

    accumulated_equals_joined(over_tokens, batches, k, 1)
    accumulated_equals_joined(as_dict, batches, k, 1, clip_norm=0.2)


@AHEAD
@given(sizes=COUNTS, k=st.integers(2, 4))
def test_update_with_a_count_equals_one_big_batch(sizes: list[int], k: int) -> None:
    x, y = regression(sum(sizes), dtype=F64)
    tokens = (torch.arange(len(y), dtype=F64) % 4 + 1).unsqueeze(1)
    batches = cut((x, y, tokens), sizes)
    models = []
    for data, accumulate in ((batches, k), (joined(batches, k), 1)):
        model = mlp(dtype=F64)
        trainer = tl.Trainer(model, optimizer=tl.optim.sgd(lr=0.1), accumulate=accumulate)
        for _ in trainer.epochs(2):
            for inputs, targets, count in trainer.batches(data):
                loss = ((model(inputs) - targets).square() * count).sum() / count.sum()
                trainer.update(loss, count=count.sum())
        models.append(model)
    for accumulated, big in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(accumulated, big, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(reduction="sum"), nn.KLDivLoss(reduction="batchmean"), nn.L1Loss(), nn.SmoothL1Loss()]
)
def test_other_reductions_and_losses_accumulate_as_one_big_batch(loss: nn.Module) -> None:
    batches = cut(regression(14, dtype=F64), [4, 4, 3, 1, 2])
    batches = [(x, y.sigmoid()) for x, y in batches]
    accumulated_equals_joined(loss, batches, 2, 1, clip_norm=0.5)


def test_a_microbatch_that_counts_no_token_never_reaches_the_weights_as_nan() -> None:
    """0 / 0 tokens: it counts for nothing, or is an error before the step; its NaN gradient is never taken."""
    x, y = regression(8, dtype=F64)
    tokens = torch.tensor([1.0, 2, 1, 3, 0, 0, 0, 0], dtype=F64).unsqueeze(1)

    def over_tokens(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets, count = batch
        return ((model(inputs) - targets).square() * count).sum() / count.sum(), count.sum()

    model = mlp(dtype=F64)
    trainer = tl.Trainer(model, over_tokens, tl.optim.sgd(lr=0.1), accumulate=2)
    try:
        trainer.fit(cut((x, y, tokens), [4, 4]), epochs=1, progress=False)
    except NonFiniteError:
        assert same_bits(model, mlp(dtype=F64))
    else:
        assert all(p.isfinite().all() for p in model.parameters())


def test_a_microbatch_of_no_token_whose_loss_is_zero_counts_for_nothing() -> None:
    x, y = regression(8, dtype=F64)
    tokens = torch.tensor([1.0, 2, 1, 3, 0, 0, 0, 0], dtype=F64).unsqueeze(1)

    def over_tokens(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets, count = batch
        total = count.sum()
        return ((model(inputs) - targets).square() * count).sum() / total.clamp(min=1), total

    accumulated_equals_joined(over_tokens, cut((x, y, tokens), [4, 4]), 2, 1)


# --- the order of the ritual ----------------------------------------------------------------------------------------


def test_the_norm_is_reported_as_it_was_before_clipping_and_the_gradient_is_clipped() -> None:
    model = Weight()
    trainer = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0), clip_norm=0.5)
    (step,) = steps_of(trainer, torch.full((4,), 3.0), batch_size=4)
    assert step.grad_norm is not None
    assert float(step.grad_norm) == 3.0
    assert float(model) == pytest.approx(-0.5)


def test_clipping_by_value_comes_after_clipping_by_norm() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    trainer = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0), clip_norm=1.0, clip_value=0.7)
    steps_of(trainer, torch.tensor([[3.0, 4.0]]), batch_size=1)
    assert model.weight.detach().tolist() == [pytest.approx([-0.6, -0.7])]


def test_without_clipping_no_norm_is_computed() -> None:
    trainer = tl.Trainer(Weight(), mean_output, tl.optim.sgd(lr=1.0), clip_value=0.5)
    (step,) = steps_of(trainer, torch.ones(4), batch_size=4)
    assert step.grad_norm is None


def test_gradients_are_zeroed_at_a_windows_start_so_that_they_can_be_read_after_it() -> None:
    model = Weight()
    trainer = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0))
    seen = []
    for event in trainer.train(torch.tensor([1.0, 2.0, 3.0]), epochs=1, batch_size=1, shuffle=False):
        if isinstance(event, tl.StepEnded):
            assert model.weight.grad is not None
            seen.append(float(model.weight.grad))
    assert seen == [1.0, 2.0, 3.0]


def test_a_gradient_left_over_from_before_the_run_is_not_trained_on() -> None:
    model = Weight()
    model.weight.grad = torch.tensor(100.0)
    steps_of(tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0)), torch.ones(2), batch_size=2)
    assert float(model) == -1.0


def test_the_schedule_multiplies_each_groups_own_rate_and_the_event_has_the_rate_that_was_used() -> None:
    model = mlp()
    groups: list[dict[str, Any]] = [{"params": model[0].parameters(), "lr": 1.0}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, 0.1)
    used: list[list[float]] = []

    def schedule(step: int) -> float:
        return 1 / (step + 1)

    optimizer.register_step_post_hook(lambda *_: used.append([group["lr"] for group in optimizer.param_groups]))
    trainer = tl.Trainer(model, nn.MSELoss(), optimizer, schedule=schedule)
    steps = steps_of(trainer, regression(12), batch_size=4)
    assert used == [[1.0, 0.1], [0.5, 0.05], [1 / 3, 0.1 / 3]]
    assert [step.lr for step in steps] == [1.0, 0.5, 1 / 3]


def test_the_schedule_moves_once_a_step_and_not_once_a_microbatch() -> None:
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 1.0

    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1), schedule=schedule, accumulate=3)
    run = trainer.train(regression(20), epochs=1, batch_size=4)
    next(run)
    asked.clear()  # the plan has asked as well
    assert sum(isinstance(event, tl.StepEnded) for event in run) == 2
    assert asked == [0, 1]


def test_penalties_are_added_once_a_window_and_the_loss_is_without_them() -> None:
    for accumulate in (1, 2):
        model = Weight(2.0)
        trainer = tl.Trainer(
            model, mean_output, tl.optim.sgd(lr=1.0), penalty=tl.objective.l2(0.5), accumulate=accumulate
        )
        (step,) = steps_of(trainer, torch.ones(4), batch_size=4 // accumulate)
        assert float(step.loss) == 2.0
        assert float(model) == 2.0 - 1.0 - 0.5 * 2.0


def test_l2_is_sgds_weight_decay_and_l1_is_the_sign() -> None:
    data = regression(12)
    by_decay, by_penalty = mlp(), mlp()
    decayed = torch.optim.SGD(by_decay.parameters(), lr=0.1, weight_decay=0.3)
    steps_of(tl.Trainer(by_decay, nn.MSELoss(), decayed), data, batch_size=4)
    plain = torch.optim.SGD(by_penalty.parameters(), lr=0.1)
    steps_of(tl.Trainer(by_penalty, nn.MSELoss(), plain, penalty=tl.objective.l2(0.3)), data, batch_size=4)
    for one, other in zip(by_decay.parameters(), by_penalty.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    model = Weight(-2.0)
    sparse = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0), penalty=tl.objective.l1(0.25))
    steps_of(sparse, torch.ones(1), batch_size=1)
    assert float(model) == -2.0 - 1.0 + 0.25


def test_a_penalty_is_clipped_with_the_rest() -> None:
    model = Weight(2.0)
    trainer = tl.Trainer(model, mean_output, tl.optim.sgd(lr=1.0), penalty=tl.objective.l2(10.0), clip_norm=1.0)
    (step,) = steps_of(trainer, torch.ones(1), batch_size=1)
    assert step.grad_norm is not None
    assert float(step.grad_norm) == 21.0
    assert float(model) == pytest.approx(1.0)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_penalty_adds_what_backward_would(sparse: bool) -> None:
    """Also to sparse gradients, and to a parameter that the loss did not reach."""
    rows, other, frozen = nn.Embedding(5, 3, sparse=sparse), nn.Linear(3, 1), nn.Linear(3, 1).requires_grad_(False)
    parameters = [*rows.parameters(), *other.parameters(), *frozen.parameters()]

    def gradients(add: Callable[[Tensor], None]) -> list[Tensor | None]:
        for parameter in parameters:
            parameter.grad = None
        rows(torch.tensor([1, 1, 4])).square().sum().backward()
        add(sum((parameter.abs() * 0.3).sum() for parameter in parameters[:2]))  # type: ignore[arg-type]
        return [parameter.grad for parameter in parameters]

    wanted = gradients(lambda penalty: penalty.backward())  # type: ignore[no-untyped-call]
    got = gradients(lambda penalty: add_gradient(penalty, parameters))
    assert [one is None for one in got] == [False, False, True, True, True]
    for one, want in zip(got, wanted, strict=True):
        assert one is want is None or (one is not None and want is not None and torch.equal(one, want))


# --- fp16: steps that the scaler skips ------------------------------------------------------------------------------


class Spiking(nn.Module):
    """Its gradient is inf for an input of 1e30, as an fp16 gradient that overflows is; its output stays finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, 0.1)  # so that the scaler's first scale overflows nothing
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        spike = torch.where(x > 1e29, x, 0.0)
        output: Tensor = self.layer(torch.where(x > 1e29, 1.0, x))
        return output + (output - output.detach()).float() * spike * 1e10


def test_skipped_steps_leave_weights_schedule_average_and_step_count_alone() -> None:
    model = Spiking()
    x = torch.tensor([[1.0], [1e30], [2.0], [1e30], [3.0]])
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 1 / (step + 1)

    trainer = tl.Trainer(
        model, nn.MSELoss(), tl.optim.sgd(lr=0.01), schedule=schedule, precision="fp16", average=tl.optim.ema(0.5),
        clip_norm=1.0,
    )  # fmt: skip
    run = trainer.train((x, torch.zeros(5, 1)), epochs=1, batch_size=1, shuffle=False)
    next(run)
    asked.clear()
    before = [p.detach().clone() for p in model.parameters()]
    taken = []
    for event in run:
        if not isinstance(event, tl.StepEnded):
            continue
        after = [p.detach().clone() for p in model.parameters()]
        moved = not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        before = after
        assert trainer.setup.averaged is not None
        taken.append((event.step, event.skipped, moved, event.lr, int(trainer.setup.averaged.n_averaged)))
    assert taken == [
        (1, False, True, 0.01, 1),
        (1, True, False, 0.005, 1),
        (2, False, True, 0.005, 2),
        (2, True, False, 0.01 * (1 / 3), 2),
        (3, False, True, 0.01 * (1 / 3), 3),
    ]
    assert asked == [0, 1, 1, 2, 2]


def test_a_torch_scheduler_is_not_stepped_for_a_skipped_step() -> None:
    model = Spiking()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    trainer = tl.Trainer(
        model, nn.MSELoss(), optimizer, schedule=tl.schedules.stepped(scheduler, every="step"), precision="fp16"
    )
    x = torch.tensor([[1.0], [1e30], [1.0]])
    steps = steps_of(trainer, (x, torch.zeros(3, 1)), batch_size=1)
    assert [step.lr for step in steps] == [0.1, 0.05, 0.05]


def test_a_run_counted_in_steps_counts_steps_that_were_taken() -> None:
    x = torch.tensor([[1.0], [1e30], [1.0]])
    trainer = tl.Trainer(Spiking(), nn.MSELoss(), tl.optim.sgd(lr=0.01), precision="fp16")
    steps = steps_of(trainer, (x, torch.zeros(3, 1)), batch_size=1, epochs=None, steps=4)
    assert [step.skipped for step in steps] == [False, True, False, False, True, False]
    assert trainer.step == 4


def test_a_scaler_that_never_finds_a_scale_is_an_error_and_not_an_endless_run() -> None:
    x = torch.full((60, 1), 1e30)
    trainer = tl.Trainer(Spiking(), nn.MSELoss(), tl.optim.sgd(lr=0.01), precision="fp16")
    with pytest.raises(NonFiniteError, match="50 steps in a row were not finite"):
        trainer.fit((x, torch.zeros(60, 1)), epochs=1, batch_size=1, progress=False)


def test_fp16_clips_what_was_unscaled_and_penalises_at_the_losses_scale() -> None:
    model = Weight(2.0)
    trainer = tl.Trainer(
        model, mean_output, tl.optim.sgd(lr=1.0), precision="fp16", clip_norm=1.5, penalty=tl.objective.l2(0.5)
    )
    (step,) = steps_of(trainer, torch.ones(4), batch_size=4)
    assert step.grad_norm is not None
    assert float(step.grad_norm) == 2.0
    assert float(model) == pytest.approx(0.5, rel=1e-5)


def test_fp16_accumulates_ragged_and_counted_windows_as_one_batch() -> None:
    def counted(model: nn.Module, batch: tuple[Tensor]) -> tuple[Tensor, int]:
        return model(batch[0]).mean(), len(batch[0])

    for loss in (mean_output, counted):
        model = Weight()
        trainer = tl.Trainer(model, loss, tl.optim.sgd(lr=1.0), precision="fp16", accumulate=2)
        trainer.fit([(torch.ones(3),), (torch.tensor([5.0]),)], epochs=1, progress=False)
        assert float(model) == -2.0


# --- every optimizer of torch ---------------------------------------------------------------------------------------

KINDS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name != "Optimizer"
)


def settings_for(kind: str) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {
        "LBFGS": {"lr": 0.5, "line_search_fn": "strong_wolfe"},
        "Adadelta": {"lr": 1.0},
        "Muon": {"lr": 0.02, "weight_decay": 0.0},
    }
    return own.get(kind, {"lr": 0.02})


def problem_for(kind: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    if kind == "SparseAdam":
        embedding = nn.Embedding(4, 1, sparse=True)
        nn.init.zeros_(embedding.weight)
        y = torch.arange(16) % 4
        return embedding, (y, y.float().unsqueeze(1))
    if kind == "Muon":
        model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 1, bias=False))
        model.load_state_dict({f"{i}.weight": mlp().state_dict()[f"{j}.weight"] for i, j in ((0, 0), (2, 2))})
        return model, regression(16)
    return mlp(), regression(16)


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_of_torch_trains_by_instance_and_is_the_one_by_hand(kind: str) -> None:
    made: type[torch.optim.Optimizer] = getattr(torch.optim, kind)
    by_hand, data = problem_for(kind)
    optimizer = made(by_hand.parameters(), **settings_for(kind))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(by_hand(data[0]), data[1])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    for _ in range(6):
        if kind == "LBFGS":
            optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()
            optimizer.step()
    model, _ = problem_for(kind)
    trainer = tl.Trainer(model, nn.MSELoss(), made(model.parameters(), **settings_for(kind)))
    before = trainer.evaluate(data)["loss"]
    trainer.fit(data, epochs=6, batch_size=16, shuffle=False, progress=False)
    assert same_bits(model, by_hand)
    assert trainer.evaluate(data)["loss"] < before


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_of_torch_has_a_factory_that_trains(kind: str) -> None:
    names = {name.replace("_", ""): getattr(tl.optim, name) for name in tl.optim.__all__}
    factory = names[kind.lower()]
    model, data = problem_for(kind)
    trainer = tl.Trainer(model, nn.MSELoss(), factory(**settings_for(kind)))
    before = trainer.evaluate(data)["loss"]
    trainer.fit(data, epochs=6, batch_size=16, progress=False)
    assert trainer.evaluate(data)["loss"] < before


# --- optimizers that ask for a closure ------------------------------------------------------------------------------


def test_only_lbfgs_needs_a_closure() -> None:
    needing = []
    for kind in KINDS:
        model, _ = problem_for(kind)
        if needs_closure(getattr(torch.optim, kind)(model.parameters(), **settings_for(kind))):
            needing.append(kind)
    assert needing == ["LBFGS"]
    assert "closure" in inspect.signature(torch.optim.SGD.step).parameters


def test_lbfgs_counts_each_sample_once_and_reports_the_first_loss_of_each_step() -> None:
    """A step evaluates the loss up to 20 times: the epoch's mean is over the first ones, what the model was at."""
    record = Recorder()
    x, y = regression(12)
    model = mlp()
    first = float(nn.functional.mse_loss(model(x), y).detach())
    trainer = tl.Trainer(model, nn.MSELoss(), torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4))
    trainer.fit((x, y), epochs=2, batch_size=12, shuffle=False, progress=False, observers=[record])
    steps, epochs = record.of(tl.StepEnded), record.of(tl.EpochEnded)
    assert float(steps[0].loss) == first
    assert [epoch.samples for epoch in epochs] == [12, 12]
    assert [epoch.loss for epoch in epochs] == [float(step.loss) for step in steps]


def test_lbfgs_accumulates_clips_and_follows_its_schedule() -> None:
    x, y = regression(12, dtype=F64)
    models = []
    for accumulate, batch_size in ((1, 12), (3, 4)):
        model = mlp(dtype=F64)
        trainer = tl.Trainer(
            model, nn.MSELoss(), torch.optim.LBFGS(model.parameters(), lr=0.5), accumulate=accumulate, clip_norm=1.0,
            schedule=lambda step: 0.5**step, penalty=tl.objective.l2(0.01),
        )  # fmt: skip
        steps = steps_of(trainer, (x, y), batch_size=batch_size, epochs=3)
        assert [step.lr for step in steps] == [0.5, 0.25, 0.125]
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-6)


def test_a_loss_that_breaks_within_lbfgs_leaves_the_weights_as_before_the_step() -> None:
    calls = []
    model = mlp()

    def breaks_later(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        return loss if len(calls) < 4 else loss * float("nan")

    trainer = tl.Trainer(model, breaks_later, torch.optim.LBFGS(model.parameters(), lr=0.1))
    with pytest.raises(NonFiniteError, match="weights are those before this step"):
        trainer.fit(regression(8), epochs=1, batch_size=8, progress=False)
    assert same_bits(model, mlp())


def test_update_cannot_drive_lbfgs_and_says_so() -> None:
    model = mlp()
    trainer = tl.Trainer(model, optimizer=torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ArgumentError, match=r"LBFGS asks for the loss several times a step.*use fit or train"):
        trainer.update(model(torch.zeros(2, 3)).sum())


# --- schedulers and evaluations -------------------------------------------------------------------------------------


def test_a_plateau_may_watch_any_metric_of_the_evaluation() -> None:
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=0)
    schedule = tl.schedules.stepped(plateau, every="evaluation", metric="score")
    scores = iter([1.0, 2.0, 1.5, 3.0, 2.5])
    trainer = tl.Trainer(
        model, nn.MSELoss(), optimizer, schedule=schedule, metrics={"score": lambda output, target: next(scores)}
    )
    data = (torch.ones(2), torch.ones(2))
    steps = [event.lr for event in trainer.train(data, data, epochs=5, batch_size=2) if isinstance(event, tl.StepEnded)]
    assert steps == [0.1, 0.1, 0.1, 0.05, 0.05]


def test_a_plateau_on_a_metric_that_is_not_there_offers_the_nearest() -> None:
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    schedule = tl.schedules.stepped(plateau, every="evaluation", metric="acuracy")
    trainer = tl.Trainer(
        model, nn.MSELoss(), optimizer, schedule=schedule, metrics={"accuracy": lambda output, target: 1.0}
    )
    data = (torch.ones(2), torch.ones(2))
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        trainer.fit(data, data, epochs=1, batch_size=2, progress=False)


# --- the small functions --------------------------------------------------------------------------------------------


def test_a_share_is_the_same_however_a_count_comes() -> None:
    """A number over a tensor is the number times the tensor's reciprocal, in torch."""
    for total in range(1, 60):
        for own in range(1, total + 1):
            pairs = [(a, b) for a in (total, torch.tensor(total)) for b in (own, torch.tensor(own))]
            assert {float(torch.as_tensor(share_of(*pair), dtype=torch.float64)) for pair in pairs} == {total / own}


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6))
def test_shares_of_a_window_add_up_to_one(counts: list[int]) -> None:
    ratios = [float(ratio) for ratio in shares(counts) if ratio is not None]
    assert sum(1 / ratio for ratio in ratios) == pytest.approx(1.0)


def test_equal_microbatches_are_divided_by_exactly_their_number() -> None:
    assert [shares([8] * k) for k in (1, 2, 3)] == [[None], [2.0, 2.0], [3.0, 3.0, 3.0]]


def test_dividing_by_an_infinite_ratio_gives_nothing_and_no_gradient() -> None:
    loss = torch.tensor(2.0, requires_grad=True)
    part = divide(loss * float("nan"), torch.tensor(float("inf")))
    assert float(part.detach()) == 0.0
    assert float(divide(loss, 4.0).detach()) == 0.5
