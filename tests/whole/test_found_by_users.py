"""What people who had not written it found broken; each test showed the bug."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import trueloop as tl
from trueloop.cli.classes import count
from trueloop.errors import ArgumentError, DataError, LossError, NonFiniteError, UnknownNameError, WorkerError
from trueloop.precision import lay_out
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


def test_an_error_of_the_run_is_raised_also_where_an_observer_fails_at_its_end() -> None:
    def full_disk(event: tl.Event) -> None:
        if isinstance(event, tl.RunEnded):
            raise OSError("no space left")

    x = X.clone()
    x[0] = float("nan")
    with pytest.raises(NonFiniteError) as caught:
        trainer_of().fit((x, Y), epochs=1, batch_size=16, progress=False, observers=[full_disk])
    assert any("no space left" in note for note in caught.value.__notes__)


def test_a_group_added_in_mid_run_is_zeroed_clipped_and_scheduled() -> None:
    def thawed(by_hand: bool) -> nn.Module:
        model = mlp(outputs=4)
        first, last = model[0], model[-1]
        first.requires_grad_(False)
        optimizer = torch.optim.SGD(last.parameters(), lr=0.1)

        def thaw() -> None:
            first.requires_grad_(True)
            optimizer.add_param_group({"params": list(first.parameters()), "lr": 0.05})

        if by_hand:
            for step in range(6):
                for group, base in zip(optimizer.param_groups, (0.1, 0.05), strict=False):
                    group["lr"] = base * 0.9**step
                optimizer.zero_grad()
                F.cross_entropy(model(X), Y).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 0.1)
                optimizer.step()
                if step == 2:
                    thaw()
            return model
        trainer = trainer_of(model=model, optimizer=optimizer, schedule=tl.schedules.exponential(0.9), clip_norm=0.1)
        for event in trainer.train((X, Y), epochs=6, batch_size=16, shuffle=False):
            if isinstance(event, tl.StepEnded) and event.step == 3:
                thaw()
        return model

    assert same_bits(thawed(by_hand=False), thawed(by_hand=True))


def test_a_penalty_stays_with_its_own_optimizer() -> None:
    model = nn.ModuleDict({"d": nn.Linear(1, 1, bias=False), "g": nn.Linear(1, 1, bias=False)})
    for p in model.parameters():
        nn.init.ones_(p)
    trainer = tl.Trainer(
        model,
        optimizer={"d": tl.optim.sgd(lr=1.0), "g": tl.optim.sgd(lr=1.0)},
        penalty=tl.objective.l1(0.125),
        accumulate=2,
    )
    for x in trainer.batches(torch.zeros(2, 1), batch_size=1, shuffle=False):
        for name in ("d", "g"):
            trainer.update(model[name](x).sum() * 0, optimizer=name)
    assert [float(p.detach()) for p in model.parameters()] == [0.875, 0.875]


def test_bytes_are_labels() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5])
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=weights)):
        bytes_, longs = (trainer_of(loss=loss).evaluate((X, y), batch_size=5)["loss"] for y in (Y.byte(), Y))
        assert bytes_ == longs
    assert int(tl.objective.objective(nn.CrossEntropyLoss()).count((X, torch.tensor([156, 1], dtype=torch.uint8)))) == 2


def test_a_rate_that_is_a_tensor_is_recorded_as_a_number(tmp_path: Path) -> None:
    model = mlp(outputs=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
    trainer_of(model=model, optimizer=optimizer).fit(
        (X, Y), steps=1, batch_size=16, out=tmp_path / "run", progress=False
    )
    (step,) = (
        json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines() if "StepEnded" in line
    )
    assert step["lr"] == pytest.approx(0.1)


def test_evaluating_and_planning_inside_a_loop_leave_the_loop_alone() -> None:
    trainer = trainer_of()
    seen = 0
    for x, _ in trainer.evaluating((X, Y), batch_size=4):
        trainer.evaluate((X, Y))
        trainer.predict(X)
        seen += len(x)
    for x, _ in trainer.batches((X, Y), batch_size=4):
        trainer.plan((X, Y), epochs=1, batch_size=4)
        seen += len(x)
    assert seen == 32
    with pytest.raises(ArgumentError, match="one loop over"):
        zip(trainer.evaluating((X, Y)), trainer.evaluating((X, Y)), strict=True)


def test_batches_after_epochs_come_in_a_new_order_each_time() -> None:
    trainer = trainer_of()
    for _ in trainer.epochs(1):
        list(trainer.batches((X, Y), batch_size=16))
    first, second = ([x for x, _ in trainer.batches((X, Y), batch_size=16)] for _ in range(2))
    assert not torch.equal(first[0], second[0])


def test_a_window_that_met_nan_is_given_up_whole() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    trainer = tl.Trainer(model, optimizer=tl.optim.sgd(lr=1.0), accumulate=2)
    steps = 0
    for index, x in enumerate(trainer.batches(torch.ones(4, 1), batch_size=1, shuffle=False)):
        try:
            steps += trainer.update(model(x).mean() * (float("nan") if index == 0 else 1.0)) is not None
        except NonFiniteError:
            assert index == 0
    assert steps == 1
    assert float(model.weight.detach()) == -1.0


def test_two_updates_for_one_microbatch_of_a_window_are_refused() -> None:
    trainer = trainer_of(accumulate=2)
    batches = trainer.batches((X, Y), batch_size=8)
    x, y = next(batches)
    trainer.update(F.cross_entropy(trainer.model(x), y))
    with pytest.raises(ArgumentError, match="twice for one microbatch"):
        trainer.update(F.cross_entropy(trainer.model(x), y))


def test_an_own_loop_gives_means_whatever_the_trainers_loss_is() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    trainer = tl.Trainer(model, nn.MSELoss(reduction="sum"), tl.optim.sgd(lr=1.0), accumulate=2)
    for x in trainer.batches(torch.ones(2, 1), batch_size=1):
        trainer.update(model(x).mean())
    assert float(model.weight.detach()) == -1.0


def test_the_mean_of_an_epoch_leaves_out_what_the_scaler_skipped() -> None:
    def once(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return loss * (float("inf") if batch[0] is first else 1.0)

    first = X[:8]
    result = trainer_of(loss=once, precision="fp16").fit([(first, Y[:8]), (X[8:], Y[8:])], epochs=1, progress=False)
    assert result.loss < 10


def test_a_table_of_numpy_numbers_is_a_schedule() -> None:
    table = np.linspace(1, 0.5, 10, dtype=np.float32)
    assert trainer_of(schedule=lambda step: table[step]).fit((X, Y), steps=3, batch_size=8, progress=False).steps == 3


def test_a_schedule_that_fails_says_how() -> None:
    with pytest.raises(ArgumentError, match="schedule failed at step 0: ZeroDivisionError"):
        trainer_of(schedule=lambda step: step**-0.5).train((X, Y), epochs=1, batch_size=8)


def test_a_partial_of_an_optimizer_is_a_factory() -> None:
    made = functools.partial(torch.optim.SGD, lr=0.1)
    assert trainer_of(optimizer=made).fit((X, Y), steps=1, batch_size=8, progress=False).steps == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"average": tl.optim.ema}, "average must be"),
        ({"penalty": 0.1}, "penalty must be"),
        ({"metrics": {"loss": lambda outputs, targets: 7.0}}, "cannot be called 'loss'"),
    ],
)
def test_settings_of_another_kind_are_told(how: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        trainer_of(**how)


def test_predictions_of_a_loader_that_shuffles_are_in_the_order_of_its_dataset() -> None:
    trainer = trainer_of()
    shuffled = trainer.predict(DataLoader(TensorDataset(X, Y), 4, shuffle=True))
    assert torch.allclose(shuffled, trainer.predict(X), atol=1e-6)


def test_the_confusion_matrix_of_a_loader_that_shuffles_is_right() -> None:
    trainer = trainer_of()
    right = count(trainer, (X, Y), 4, 4)
    assert count(trainer, DataLoader(TensorDataset(X, Y), 4, shuffle=True), None, 4) == right


def test_a_losss_own_parameters_that_nobody_trains_are_noted() -> None:
    class Warm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(output / self.temperature, target)

    notes = trainer_of(loss=Warm()).plan((X, Y), epochs=1, batch_size=8).notes
    assert any("loss.temperature" in note for note in notes)


def test_workers_of_an_evaluation_that_is_interrupted_end_with_it() -> None:
    class Interrupting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise KeyboardInterrupt
            output: Tensor = self.layer(x)
            return output

    with pytest.raises(KeyboardInterrupt):
        trainer_of(model=Interrupting()).fit((X, Y), Kept(), epochs=1, batch_size=8, workers=1, progress=False)
    assert multiprocessing.active_children() == []


def test_the_plan_walks_torchs_scheduler() -> None:
    schedule = functools.partial(OneCycleLR, max_lr=0.4, total_steps=8, pct_start=0.5)
    trainer = trainer_of(optimizer=tl.optim.adam(lr=0.1), schedule=schedule)
    rate = trainer.plan((X, Y), epochs=2, batch_size=4).rate
    events = trainer.train((X, Y), epochs=2, batch_size=4)
    rates = [event.lr for event in events if isinstance(event, tl.StepEnded)]
    assert (rate.start, rate.peak, rate.end) == (rates[0], max(rates), rates[-1])
    assert rate.peak_step == rates.index(max(rates))


def test_a_scheduler_that_would_fail_on_the_way_is_told_before_training() -> None:
    schedule = functools.partial(OneCycleLR, max_lr=0.4, total_steps=4)
    with pytest.raises(ArgumentError, match="OneCycleLR fails after step"):
        trainer_of(optimizer=tl.optim.adam(lr=0.1), schedule=schedule).train((X, Y), epochs=2, batch_size=4)


def test_another_trainer_of_the_same_optimizer_begins_with_its_first_rate() -> None:
    model = mlp(outputs=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        trainer = trainer_of(model=model, optimizer=optimizer, schedule=tl.schedules.linear())
        events = list(trainer.train((X, Y), epochs=1, batch_size=4))
        assert next(event.lr for event in events if isinstance(event, tl.StepEnded)) == 0.1
    assert any("begins with 0.1" in note for note in trainer.plan((X, Y), epochs=1, batch_size=4).notes)


def test_channels_last_leaves_volumes_alone() -> None:
    model = nn.Sequential(
        nn.Conv3d(1, 2, 1), nn.Flatten(2), nn.Flatten(1), nn.Unflatten(1, (2, 4, 2)), nn.Conv2d(2, 4, 1)
    )
    assert lay_out(model, "channels_last").startswith("channels_last: ")
    (plane,) = (parameter for parameter in model.parameters() if parameter.dim() == 4)
    assert plane.is_contiguous(memory_format=torch.channels_last)


def test_a_reader_that_leaves_does_not_end_the_training(tmp_path: Path) -> None:
    code = (
        "import torch, trueloop as tl; x = torch.randn(8, 3); "
        "t = tl.Trainer(torch.nn.Linear(3, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=0.01)); "
        f"t.fit((x, x[:, :1]), epochs=200, batch_size=4, out={str(tmp_path / 'run')!r})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(tl.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=120)
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
