"""A loop of one's own: ``epochs``, ``batches``, ``update``, ``evaluating``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.errors import ArgumentError, DataError, LossError, NonFiniteError, UnknownNameError
from trueloop.testing import Weight, mlp, regression, same_bits


def trainer_of(model: nn.Module, **options: Any) -> tl.Trainer:
    return tl.Trainer(model, optimizer=options.pop("optimizer", tl.optim.sgd(lr=0.1)), **options)


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_batches_ask_a_train_of_the_models_own() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self[0].eval()
            return self

    trainer = trainer_of(model := Frozen(nn.BatchNorm1d(1), nn.Linear(1, 1)))
    for x in trainer.batches(torch.ones(4, 1), batch_size=2):
        trainer.update(model(x).mean())
    assert modes(model) == [True, False, True]


# --- windows and schedules ------------------------------------------------------------------------------------------


def test_update_gives_a_record_where_a_step_was_taken_and_none_within_a_window() -> None:
    model = Weight()
    trainer = trainer_of(model, accumulate=2)
    records: list[tl.StepEnded | None] = []
    for _ in trainer.epochs(1):
        records += [trainer.update(model(x).mean()) for x in trainer.batches(torch.ones(5), batch_size=1)]
    assert [record and record.step for record in records] == [None, 1, None, 2, 3]
    assert [record.samples for record in records if record] == [2, 2, 1]


def test_the_schedule_is_stretched_over_the_run_and_starts_anew_with_the_next() -> None:
    model = Weight()
    trainer = trainer_of(model, schedule=tl.schedules.linear())
    for _ in range(2):
        rates = []
        for _ in trainer.epochs(2):
            for x in trainer.batches(torch.ones(4), batch_size=2):
                record = trainer.update(model(x).mean())
                assert record is not None
                rates.append(record.lr)
        assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
        assert trainer.step == 4


def test_a_scheduler_of_epochs_moves_at_each_epochs_end() -> None:
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    trainer = trainer_of(model, optimizer=optimizer, schedule=scheduler)
    rates = []
    for _ in trainer.epochs(3):
        for x in trainer.batches(torch.ones(4), batch_size=2):
            record = trainer.update(model(x).mean())
            assert record is not None
            rates.append(record.lr)
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


def test_update_alone_is_enough_without_batches() -> None:
    model = Weight()
    trainer = trainer_of(model)
    for step in range(3):
        record = trainer.update(model(torch.ones(2)).mean())
        assert record is not None
        assert record.step == step + 1
    assert float(model) == pytest.approx(-0.3)


def test_a_curve_that_needs_the_runs_length_says_so_where_nobody_knows_it() -> None:
    model = Weight()
    trainer = trainer_of(model, schedule=tl.schedules.cosine())
    with pytest.raises(ArgumentError, match=r"cosine is as long as the run"):
        trainer.update(model(torch.ones(2)).mean())


def test_a_body_that_leaves_out_the_last_update_still_closes_the_window() -> None:
    model = Weight()
    trainer = trainer_of(model, accumulate=3)
    for _ in trainer.epochs(1):
        for index, x in enumerate(trainer.batches(torch.ones(4), batch_size=1)):
            if index != 2:  # a batch that the user chose to leave out
                trainer.update(model(x).mean())
    assert trainer.step == 2


def test_leaving_an_epoch_in_the_middle_of_a_window_forgets_its_gradients() -> None:
    model = Weight()
    trainer = trainer_of(model, accumulate=2, optimizer=tl.optim.sgd(lr=1.0))
    for _ in trainer.epochs(2):
        for x in trainer.batches(torch.tensor([1.0, 1.0, 100.0, 1.0]), batch_size=1, shuffle=False):
            if x == 100:
                trainer.update(model(x).mean())
                break
            trainer.update(model(x).mean())
    assert float(model) == -2.0
    assert trainer.step == 2


def test_accumulating_without_batches_cannot_know_where_a_window_ends() -> None:
    model = Weight()
    with pytest.raises(ArgumentError, match=r"accumulate=2 must know where a window ends; loop over trainer.batches"):
        trainer_of(model, accumulate=2).update(model(torch.ones(2)).mean())


# --- modes ----------------------------------------------------------------------------------------------------------


def partly_frozen() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval(), nn.Dropout(0.5), nn.Linear(4, 1))


def test_batches_train_and_evaluating_rests_and_the_mode_of_every_module_comes_back() -> None:
    model = partly_frozen()
    before = modes(model)
    trainer = trainer_of(model)
    for _ in trainer.epochs(2):
        for x, y in trainer.batches(regression(8), batch_size=4):
            assert modes(model) == before
            trainer.update(nn.functional.mse_loss(model(x), y))
        for x, _ in trainer.evaluating(regression(5), batch_size=2):
            assert not any(modes(model))
            assert not model(x).requires_grad
        assert modes(model) == before
        assert torch.is_grad_enabled()


def test_a_model_in_eval_mode_is_trained_in_train_mode() -> None:
    model = mlp(dropout=0.5).eval()
    for _ in trainer_of(model).batches(regression(4), batch_size=4):
        assert all(modes(model))


def test_a_break_ends_the_evaluation() -> None:
    model = partly_frozen()
    before = modes(model)
    for _ in trainer_of(model).evaluating(regression(8), batch_size=2):
        break
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_an_exception_in_the_body_ends_the_evaluation() -> None:
    model = partly_frozen()
    before = modes(model)
    trainer = trainer_of(model)

    def body() -> None:
        for _ in trainer.evaluating(regression(8), batch_size=2):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        body()
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_an_evaluation_that_something_keeps_alive_is_ended_by_the_next_epoch() -> None:
    model = partly_frozen()
    before = modes(model)
    trainer = trainer_of(model)
    kept = trainer.evaluating(regression(8), batch_size=2)
    next(kept)
    assert not any(modes(model))
    for x, y in trainer.batches(regression(8), batch_size=4):
        assert modes(model) == before
        trainer.update(nn.functional.mse_loss(model(x), y))
    assert torch.is_grad_enabled()


def test_an_evaluation_within_an_epoch_leaves_training_as_it_was() -> None:
    models = []
    for evaluates in (False, True):
        model = mlp(dropout=0.3, norm=True)
        trainer = trainer_of(model)
        torch.manual_seed(0)
        for _ in trainer.epochs(2):
            for x, y in trainer.batches(regression(12), batch_size=4, seed=1):
                trainer.update(nn.functional.mse_loss(model(x), y))
                if evaluates:
                    for inputs, _ in trainer.evaluating(regression(6), batch_size=3):
                        model(inputs)
        models.append(model)
    assert same_bits(*models)


# --- several optimizers ---------------------------------------------------------------------------------------------


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = mlp(3, 3, seed=1)
        self.critic = mlp(3, 1, seed=2)


def test_two_optimizers_are_the_two_by_hand() -> None:
    """A GAN's step: the critic's, then the generator's, whose backward leaves gradients in the critic."""
    x, _ = regression(12)
    noise = regression(12, seed=5)[0]
    expected, model = Gan(), Gan()
    critic = torch.optim.Adam(expected.critic.parameters(), lr=0.01)
    generator = torch.optim.SGD(expected.generator.parameters(), lr=0.02)
    for _ in range(2):
        for start in range(0, 12, 4):
            real, z = x[start : start + 4], noise[start : start + 4]
            critic.zero_grad()
            critic_loss(expected, real, z).backward()  # type: ignore[no-untyped-call]
            critic.step()
            generator.zero_grad()
            generator_loss(expected, z).backward()  # type: ignore[no-untyped-call]
            generator.step()
    optimizers = {"critic": tl.optim.adam(lr=0.01, fused=False), "generator": tl.optim.sgd(lr=0.02, fused=False)}
    trainer = tl.Trainer(model, optimizer=optimizers)
    for _ in trainer.epochs(2):
        for real, z in trainer.batches((x, noise), batch_size=4, shuffle=False):
            trainer.update(critic_loss(model, real, z), optimizer="critic")
            trainer.update(generator_loss(model, z), optimizer="generator")
    assert same_bits(model, expected)
    assert trainer.step == 6


def critic_loss(model: Gan, real: Tensor, z: Tensor) -> Tensor:
    fake = model.generator(z).detach()
    return nn.functional.softplus(model.critic(fake)).mean() + nn.functional.softplus(-model.critic(real)).mean()


def generator_loss(model: Gan, z: Tensor) -> Tensor:
    return nn.functional.softplus(-model.critic(model.generator(z))).mean()


def test_each_optimizer_has_its_own_schedule() -> None:
    model = Gan()
    trainer = tl.Trainer(
        model,
        optimizer={"critic": tl.optim.sgd(lr=1.0), "generator": tl.optim.sgd(lr=1.0)},
        schedule={"critic": lambda step: 0.5**step},
    )
    rates = []
    for z, _ in trainer.batches(regression(8), batch_size=4):
        for name in ("critic", "generator"):
            record = trainer.update(generator_loss(model, z), optimizer=name)
            assert record is not None
            rates.append((name, record.lr))
    assert rates == [("critic", 1.0), ("generator", 1.0), ("critic", 0.5), ("generator", 1.0)]


def test_a_scheduler_belongs_to_one_optimizer_and_is_not_stepped_by_both() -> None:
    model = Gan()
    critic = torch.optim.SGD(model.critic.parameters(), lr=1.0)
    generator = torch.optim.SGD(model.generator.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(critic, gamma=0.5)
    schedule = tl.schedules.stepped(scheduler, every="step")
    trainer = tl.Trainer(model, optimizer={"critic": critic, "generator": generator}, schedule=schedule)
    with pytest.raises(ArgumentError, match="ExponentialLR moves the rates of another optimizer"):
        next(trainer.batches(regression(8), batch_size=4))


def test_which_optimizer_must_be_said_and_be_known() -> None:
    model = Gan()
    trainer = tl.Trainer(model, optimizer={"critic": tl.optim.sgd(lr=1.0), "generator": tl.optim.sgd(lr=1.0)})
    loss = generator_loss(model, torch.zeros(1, 3))
    with pytest.raises(ArgumentError, match=r"several optimizers; say which one.*critic, generator"):
        trainer.update(loss)
    with pytest.raises(UnknownNameError, match="unknown optimizer 'critik'; did you mean 'critic'"):
        trainer.update(loss, optimizer="critik")


def test_a_schedule_for_an_optimizer_that_is_not_there_offers_the_nearest() -> None:
    model = Gan()
    trainer = tl.Trainer(
        model,
        optimizer={"critic": tl.optim.sgd(lr=1.0), "generator": tl.optim.sgd(lr=1.0)},
        schedule={"critik": lambda step: 0.0},
    )
    with pytest.raises(UnknownNameError, match="'critik'; did you mean 'critic'"):
        trainer.update(generator_loss(model, torch.zeros(1, 3)), optimizer="critic")


# --- truncated backpropagation through time -------------------------------------------------------------------------


def test_state_carried_between_batches_is_the_one_by_hand() -> None:
    x = torch.randn(6, 2, 4, 3, generator=torch.Generator().manual_seed(0))  # 6 chunks of (batch, time, features)
    models = []
    for by_hand in (True, False):
        torch.manual_seed(0)
        model = nn.GRU(3, 3, batch_first=True)
        state = None
        if by_hand:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for chunk in x:
                optimizer.zero_grad()
                output, state = model(chunk, state)
                output.square().mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                state = state.detach()
        else:
            ours = torch.optim.SGD(model.parameters(), lr=0.1)
            trainer = trainer_of(model, optimizer=ours, clip_norm=0.1)
            for chunk in trainer.batches([(chunk,) for chunk in x]):
                output, state = model(chunk[0], state)
                trainer.update(output.square().mean())
                state = state.detach()
        models.append(model)
    assert same_bits(*models)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, x: model(x), r"must be a scalar, got shape \(4, 1\)"),
        (lambda model, x: model(x).mean().detach(), "has no graph"),
        (lambda model, x: model(x).mean().item(), r"must be a scalar tensor, got float.*do not call .item\(\)"),
    ],
)
def test_losses_that_cannot_be_minimised(loss: Any, message: str) -> None:
    model = mlp()
    trainer = trainer_of(model)
    with pytest.raises(LossError, match=message):
        trainer.update(loss(model, torch.zeros(4, 3)))


def test_a_loss_that_is_not_finite_names_the_module_and_changes_nothing() -> None:
    model = mlp()
    trainer = trainer_of(model)
    x, y = regression(8)
    x[5] = 1e38
    for inputs, targets in trainer.batches((x * 10, y), batch_size=8):
        loss = nn.functional.mse_loss(model(inputs), targets)
        with pytest.raises(NonFiniteError, match=r"the first module whose output is not is 0 \(Linear\)") as caught:
            trainer.update(loss)
    assert (caught.value.step, caught.value.module) == (0, "0 (Linear)")
    assert same_bits(model, mlp())


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_epochs_must_be_a_positive_number(number: Any) -> None:
    with pytest.raises(ArgumentError, match=f"epochs must be a positive whole number, got .*{number}"):
        trainer_of(mlp()).epochs(number)


def test_data_is_checked_before_the_first_batch_is_asked_for() -> None:
    with pytest.raises(ArgumentError, match="batch_size"):
        trainer_of(mlp()).batches(regression(4))
    with pytest.raises(DataError, match="empty"):
        trainer_of(mlp()).evaluating((torch.zeros(0, 3), torch.zeros(0)))


def test_bf16_computes_the_body_under_autocast_and_updates_outside_of_it() -> None:
    model = mlp()
    trainer = trainer_of(model, precision="bf16", penalty=tl.objective.l2(0.1))
    for x, _ in trainer.batches(regression(8), batch_size=4):
        output = model(x)
        assert output.dtype == torch.bfloat16
        trainer.update(output.float().mean())
    assert not torch.is_autocast_enabled("cpu")
    for x, _ in trainer.evaluating(regression(4)):
        assert model(x).dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_bf16_sees_the_weights_that_an_update_within_the_same_batch_has_moved() -> None:
    """Autocast keeps its casts of the weights: the generator's turn must not meet the critic of before its step."""
    matrix = nn.Linear(1, 1, bias=False)
    nn.init.ones_(matrix.weight)
    trainer = tl.Trainer(matrix, optimizer=tl.optim.sgd(lr=1.0), precision="bf16")
    outputs = []
    for x in trainer.batches(torch.ones(2, 1), batch_size=2):
        for _ in range(3):
            output = matrix(x)
            outputs.append(float(output[0].detach()))
            trainer.update(output.float().mean())
    assert outputs == [1.0, 0.0, -1.0]
