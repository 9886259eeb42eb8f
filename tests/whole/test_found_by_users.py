"""What people who had not written it found broken; each test showed the bug."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR, StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import trueloop as tl
from trueloop.errors import ArgumentError, DataError, LossError, NonFiniteError, UnknownNameError, WorkerError
from trueloop.testing import classification, mlp, regression, same_bits

X, Y = classification(16)


def trainer_of(**how: Any) -> tl.Trainer:
    usual: dict[str, Any] = {"model": mlp(outputs=4), "loss": nn.CrossEntropyLoss(), "optimizer": tl.optim.sgd(lr=0.1)}
    return tl.Trainer(**(usual | how))


def broken_off(loop: Any) -> ValueError:
    """A loop whose body raises, with the traceback kept alive, as a notebook does."""
    try:
        for _ in loop:
            raise ValueError("boom")
    except ValueError as error:
        return error
    raise AssertionError("the loop was empty")


def test_an_evaluation_that_raised_does_not_leave_no_grad_to_fit() -> None:
    trainer = trainer_of()
    kept = broken_off(trainer.evaluating((X, Y)))
    trainer.fit((X, Y), epochs=1, batch_size=8, progress=False)
    assert torch.is_grad_enabled()
    assert trainer.model.training
    del kept


def test_a_training_loop_that_raised_does_not_leave_autocast_on() -> None:
    trainer = trainer_of(precision="bf16")
    kept = broken_off(trainer.batches((X, Y), batch_size=8))
    trainer.fit((X, Y), epochs=1, batch_size=8, progress=False)
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    del kept


def test_a_training_loop_that_raised_does_not_disturb_the_next_when_it_is_collected() -> None:
    trainer = trainer_of(accumulate=2)
    kept: ValueError | None = broken_off(trainer.batches((X, Y), batch_size=4))
    steps = []
    for index, (x, y) in enumerate(trainer.batches((X, Y), batch_size=4)):
        if index == 1:
            kept = None
        steps.append(trainer.update(F.cross_entropy(trainer.model(x), y)))
    assert kept is None
    assert [step is not None for step in steps] == [False, True, False, True]


def test_two_loops_over_batches_at_once_are_refused() -> None:
    trainer = trainer_of()
    with pytest.raises(ArgumentError, match="one loop over"):
        zip(trainer.batches((X, Y), batch_size=8), trainer.batches((X, Y), batch_size=8), strict=True)


def test_evaluating_in_the_middle_of_an_epoch_leaves_the_epoch_alone() -> None:
    trainer, seen = trainer_of(), 0
    for x, y in trainer.batches((X, Y), batch_size=4):
        trainer.update(F.cross_entropy(trainer.model(x), y))
        seen += len(x)
        assert sum(len(a) for a, _ in trainer.evaluating((X, Y))) == 16
        assert trainer.evaluate((X, Y))["loss"] > 0
    assert seen == 16


def test_batches_without_epochs_come_in_a_new_order_each_time() -> None:
    trainer = trainer_of()
    first, second = ([x for x, _ in trainer.batches((X, Y), batch_size=16)] for _ in range(2))
    assert not torch.equal(first[0], second[0])


def test_a_window_that_counts_for_nothing_moves_nothing() -> None:
    model = mlp(outputs=4)
    trainer = trainer_of(
        model=model, loss=lambda m, b: (F.cross_entropy(m(b[0]), b[1]) * 0, torch.tensor(0)), accumulate=2
    )
    trainer.fit((X, Y), epochs=1, batch_size=4, progress=False)
    assert same_bits(model, mlp(outputs=4))


@pytest.mark.parametrize("stepped", [False, True])
def test_a_function_of_the_optimizer_makes_its_scheduler(stepped: bool) -> None:
    def make(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return SequentialLR(optimizer, [LinearLR(optimizer, 0.5, total_iters=2), StepLR(optimizer, 1)], milestones=[2])

    schedule = tl.schedules.stepped(make, every="epoch") if stepped else make
    trainer = trainer_of(schedule=schedule)
    trainer.fit((X, Y), epochs=4, batch_size=16, progress=False)
    by_hand = torch.optim.SGD(mlp().parameters(), lr=0.1)
    scheduler = make(by_hand)
    for _ in range(4):
        by_hand.step()
        scheduler.step()
    assert trainer.setup.optimizers[""].param_groups[0]["lr"] == by_hand.param_groups[0]["lr"]


def test_a_partial_of_a_scheduler_starts_anew_with_each_fit() -> None:
    trainer = trainer_of(schedule=functools.partial(StepLR, step_size=1))
    for _ in range(2):
        events = list(trainer.train((X, Y), epochs=2, batch_size=16))
        assert [event.lr for event in events if isinstance(event, tl.StepEnded)] == pytest.approx([0.1, 0.01])


def test_a_loss_of_a_module_whose_name_begins_with_torch_is_the_users_own() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    loss.__module__ = "torch_losses"
    assert trainer_of(loss=loss).fit((X, Y), epochs=1, batch_size=8, progress=False).steps == 2


def test_a_module_of_model_and_batch_is_a_loss() -> None:
    class Loss(nn.Module):
        def forward(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(model(batch[0]), batch[1])

    assert trainer_of(loss=Loss()).fit((X, Y), epochs=1, batch_size=8, progress=False).steps == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_count_of_one_element_is_a_number(accumulate: int) -> None:
    def counted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return F.cross_entropy(model(batch[0]), batch[1]), torch.tensor([len(batch[1])])

    trainer = trainer_of(loss=counted, accumulate=accumulate)
    with torch.no_grad():
        by_hand = float(F.cross_entropy(trainer.model(X), Y))
    assert trainer.evaluate((X, Y), batch_size=5)["loss"] == pytest.approx(by_hand, abs=1e-6)
    trainer.fit((X, Y), epochs=1, batch_size=4, progress=False)


def test_a_count_of_several_elements_is_refused() -> None:
    with pytest.raises(LossError, match=r"one number, got shape \(4,\)"):
        trainer_of(loss=lambda m, b: (m(b[0]).mean(), torch.ones(4))).fit((X, Y), steps=1, batch_size=4, progress=False)


def test_an_error_that_is_not_about_dtypes_is_not_put_down_to_them() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return (F.cross_entropy(model(batch[0]), batch[1], reduction="none") @ torch.ones(3)).mean()

    with pytest.raises(RuntimeError, match="size") as caught:
        trainer_of(loss=loss).fit((X, Y, torch.ones(16, dtype=torch.float64)), steps=1, batch_size=8, progress=False)
    assert not isinstance(caught.value, DataError)


@dataclasses.dataclass
class Output:
    logits: Tensor
    scale: Tensor
    nothing: None = None


class Structured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Output:
        return Output(self.layer(x), x.mean())


def test_outputs_of_a_dataclass_are_joined() -> None:
    trainer = tl.Trainer(Structured(), optimizer=tl.optim.sgd(lr=0.1))
    output = trainer.predict(X, batch_size=5)
    assert isinstance(output, Output)
    assert output.logits.shape == (16, 2)
    assert output.scale.shape == (4,)
    assert output.nothing is None


@pytest.mark.parametrize("loss", [nn.CTCLoss(), nn.GaussianNLLLoss(), nn.TripletMarginLoss(), nn.CosineEmbeddingLoss()])
def test_a_loss_that_takes_more_than_output_and_target_is_told_how(loss: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=f"{type(loss).__name__} takes .* write a function"):
        trainer_of(loss=loss).train((X, Y), epochs=1, batch_size=8)


def test_weights_that_a_gradient_of_nan_has_broken_are_named() -> None:
    def rooted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        flat: Tensor = (model(batch[0]) * 0).abs().sum()
        return flat.sqrt()

    with pytest.raises(NonFiniteError, match="since weights are not: 0") as caught:
        trainer_of(loss=rooted).fit((X, Y), epochs=2, batch_size=8, progress=False)
    assert caught.value.step == 1


def test_a_list_of_batches_to_evaluate_on_stays_batches() -> None:
    result = trainer_of().fit((X, Y), [(X[:4], Y[:4]), (X[4:], Y[4:])], epochs=1, batch_size=8, progress=False)
    (evaluation,) = (event for event in result.history if isinstance(event, tl.EvalEnded))
    assert evaluation.samples == 16


def test_the_step_is_that_of_the_loop_that_ran_last() -> None:
    trainer = trainer_of()
    trainer.fit((X, Y), epochs=2, batch_size=4, progress=False)
    assert trainer.step == 8
    for x, y in trainer.batches((X, Y), batch_size=8):
        trainer.update(F.cross_entropy(trainer.model(x), y))
    assert trainer.step == 2
    trainer.fit((X, Y), epochs=1, batch_size=16, progress=False)
    assert trainer.step == 1


def test_a_plateau_in_a_loop_of_ones_own_is_refused() -> None:
    trainer = trainer_of(schedule=ReduceLROnPlateau)
    with pytest.raises(ArgumentError, match="a loop of your own makes"):
        list(trainer.batches((X, Y), batch_size=8))


def test_early_stopping_without_validation_data_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no validation data"):
        trainer_of().fit((X, Y), epochs=1, batch_size=8, progress=False, observers=[tl.observers.EarlyStop()])


def test_functions_measure_what_a_model_returns_as_it_is() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), x.sum(1)

    x, y = regression(10)
    trainer = tl.Trainer(
        Two(),
        lambda model, batch: F.mse_loss(model(batch[0])[0], batch[1]),
        tl.optim.sgd(lr=0.1),
        metrics={"sums": lambda outputs, targets: outputs[1].sum()},
    )
    assert trainer.evaluate((x, y), batch_size=4)["sums"] == pytest.approx(float(x.sum()), abs=1e-5)


def test_a_dict_of_inputs_alone_is_predicted_on() -> None:
    trainer = tl.Trainer(mlp(), optimizer=tl.optim.sgd(lr=0.1))
    assert trainer.predict({"x": X}).shape == trainer.predict({"x": X}, has_target=False).shape == (16, 1)


def test_numbers_among_a_losss_terms_are_reported() -> None:
    trainer = trainer_of(loss=lambda m, b: {"loss": F.cross_entropy(m(b[0]), b[1]), "beta": 0.5})
    steps = [e for e in trainer.train((X, Y), steps=1, batch_size=8) if isinstance(e, tl.StepEnded)]
    assert float(steps[0].terms["beta"]) == 0.5


def test_a_recipes_own_settings_can_be_replaced() -> None:
    recipe = tl.Recipe(trainer_of(), train=(X, Y), epochs=1, batch_size=8)
    assert recipe.fit(epochs=3, progress=False).epochs == 3


def test_the_record_of_a_run_has_no_places_in_memory(tmp_path: Path) -> None:
    trainer_of(loss=lambda m, b: F.cross_entropy(m(b[0]), b[1])).fit(
        (X, Y), epochs=1, batch_size=8, shuffle=False, out=tmp_path / "run", progress=False
    )
    record = (tmp_path / "run" / "run.json").read_text()
    assert " at 0x" not in record
    assert '"shuffle": false' in record


def test_swa_without_validation_data_ends_with_statistics_of_its_own() -> None:
    trainer = trainer_of(model=mlp(outputs=4, norm=True), average=tl.optim.swa(start=0.5))
    trainer.fit((X, Y), epochs=4, batch_size=8, progress=False)
    assert trainer.averaged is not None
    norm = next(m for m in trainer.averaged.modules() if isinstance(m, nn.BatchNorm1d))
    layer = next(m for m in trainer.averaged.modules() if isinstance(m, nn.Linear))
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, layer(X).mean(0), atol=1e-5)


def averaged_norm(trainer: tl.Trainer) -> tuple[nn.Linear, Tensor]:
    assert trainer.averaged is not None
    layer, norm = (next(m for m in trainer.averaged.modules() if isinstance(m, k)) for k in (nn.Linear, nn.BatchNorm1d))
    assert isinstance(layer, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    return layer, norm.running_mean


def test_statistics_are_made_of_the_samples_that_the_users_sampler_gives() -> None:
    loader = DataLoader(TensorDataset(X, Y), 4, sampler=SubsetRandomSampler(range(8)))
    trainer = trainer_of(model=mlp(outputs=4, norm=True), average=tl.optim.swa(start=0.5))
    trainer.fit(loader, (X, Y), epochs=2, progress=False)
    layer, mean = averaged_norm(trainer)
    assert torch.allclose(mean, layer(X[:8]).mean(0), atol=1e-5)


def test_a_norm_kept_in_eval_mode_keeps_its_statistics_in_the_average() -> None:
    model = mlp(outputs=4, norm=True)
    frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm1d)).eval()
    assert frozen.running_mean is not None
    before = frozen.running_mean.clone()
    trainer = trainer_of(model=model, average=tl.optim.swa(start=0.5))
    trainer.fit((X, Y), (X, Y), epochs=2, batch_size=8, progress=False)
    _, mean = averaged_norm(trainer)
    assert torch.equal(mean, before)


def test_a_second_run_has_an_average_of_its_own() -> None:
    trainer = trainer_of(average=tl.optim.swa(start=0.75))
    trainer.fit((X, Y), (X, Y), epochs=4, batch_size=8, progress=False)
    events = trainer.train((X, Y), (X, Y), epochs=4, batch_size=8)
    losses = [event.metrics["loss"] for event in events if isinstance(event, tl.EvalEnded)]
    assert len(set(losses)) == 4
    trainer.plan((X, Y), epochs=4, batch_size=8)
    assert trainer.averaged is not None


def test_an_epoch_whose_every_step_was_skipped_is_an_error() -> None:
    def broken(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1]) * float("nan")

    with pytest.raises(NonFiniteError, match="skipped every step of the epoch"):
        trainer_of(loss=broken, precision="fp16").fit((X, Y), epochs=3, batch_size=8, progress=False)


@pytest.mark.parametrize("val", [(X, Y + 1), (X.double(), Y)])
def test_what_is_wrong_with_validation_data_is_told_before_the_first_step(val: Any) -> None:
    events = trainer_of().train((X, Y), val, epochs=1, batch_size=8)
    assert isinstance(next(events), tl.RunStarted)
    ended = next(events)
    assert isinstance(ended, tl.RunEnded)
    assert ended.step == 0
    with pytest.raises(DataError, match="validation data"):
        next(events)


def test_a_plateau_on_an_unknown_metric_is_told_before_training() -> None:
    schedule = tl.schedules.stepped(ReduceLROnPlateau, every="evaluation", metric="los")
    with pytest.raises(UnknownNameError, match="did you mean 'loss'"):
        trainer_of(schedule=schedule).train((X, Y), (X, Y), epochs=1, batch_size=8)


def test_a_fraction_of_an_unknown_length_is_told_before_training() -> None:
    class Stream(IterableDataset[tuple[Tensor, Tensor]]):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(zip(X, Y, strict=True))

    trainer = trainer_of(average=tl.optim.swa(start=0.5))
    with pytest.raises(ArgumentError, match="start_step"):
        trainer.train(Stream(), epochs=2, batch_size=8)


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_a_schedule_that_gives_no_rate_is_told_before_training(value: float) -> None:
    with pytest.raises(ArgumentError, match="schedule must give a finite multiplier"):
        trainer_of(schedule=lambda step: value).train((X, Y), epochs=1, batch_size=8)


def test_a_schedule_that_gives_a_word_is_told_before_training() -> None:
    with pytest.raises(ArgumentError, match="got one that gives 'fast'"):
        trainer_of(schedule=lambda step: "fast").train((X, Y), epochs=1, batch_size=8)


def test_labels_as_floats_are_told_as_labels() -> None:
    with pytest.raises(DataError, match=r"convert labels: y.long\(\)"):
        trainer_of().fit((X, Y.double()), epochs=1, batch_size=8, progress=False)


def test_pixels_as_integers_are_told_how_to_be_converted() -> None:
    with pytest.raises(DataError, match="divided by 255"):
        trainer_of().fit(((X * 255).byte(), Y), epochs=1, batch_size=8, progress=False)


class Kept(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


def test_persistent_workers_killed_between_two_epochs_are_told_of() -> None:
    loader = DataLoader(Kept(), 4, num_workers=1, persistent_workers=True)

    def kill(event: tl.Event) -> None:
        if isinstance(event, tl.EpochEnded):
            (worker,) = multiprocessing.active_children()
            worker.kill()
            worker.join()

    with pytest.raises(WorkerError, match="died between two epochs"):
        trainer_of().fit(loader, epochs=2, progress=False, observers=[kill])
