"""The first promise: ``fit``, the stream of events and ``update`` end with the bits of the loop written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import trueloop as tl
from trueloop.data.cursor import order
from trueloop.testing import classification, mlp, regression, same_bits

EPOCHS = 2
BATCHES = 7  # an odd number: 2, 3 and 4 microbatches a window all leave a short last window


@dataclass(frozen=True)
class Problem:
    loss: nn.Module
    data: tuple[Tensor, Tensor]
    outputs: int = 1


def regressed() -> tuple[Tensor, Tensor]:
    return regression(4 * BATCHES)


def many_labelled() -> tuple[Tensor, Tensor]:
    x, y = classification(4 * BATCHES)
    return x, nn.functional.one_hot(y, 4).float()


def partly_ignored() -> tuple[Tensor, Tensor]:
    x, y = classification(4 * BATCHES)
    return x, torch.where(torch.arange(len(y)) % 5 == 1, -1, y)


CLASS_WEIGHTS = torch.tensor([0.3, 1.0, 2.5, 0.7])
PROBLEMS = {
    "mse": Problem(nn.MSELoss(), regressed()),
    "cross_entropy": Problem(nn.CrossEntropyLoss(), classification(4 * BATCHES), 4),
    "smoothed": Problem(nn.CrossEntropyLoss(label_smoothing=0.1), classification(4 * BATCHES), 4),
    "bce": Problem(nn.BCEWithLogitsLoss(pos_weight=torch.full((4,), 2.5)), many_labelled(), 4),
    "class_weights": Problem(nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), classification(4 * BATCHES), 4),
    "ignored": Problem(nn.CrossEntropyLoss(ignore_index=-1), partly_ignored(), 4),
}
EQUAL_COUNTS = [name for name in PROBLEMS if name not in ("class_weights", "ignored")]
"""Losses whose mean is over as much in every microbatch, so that accumulating is ``loss / k``."""

Maker = Callable[[nn.Module], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Maker] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.5),
}


@dataclass(frozen=True)
class Variant:
    """What is switched on, for the trainer (``settings``) and in the loop by hand."""

    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    multiplier: Callable[[int], float] | None = None
    norm: bool = False
    dropout: float = 0.0
    own_schedule: Callable[[int], float] | None = field(default=None)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "accumulate": self.accumulate,
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "schedule": self.own_schedule or self.multiplier,
        }


def half_cosine(step: int, *, total: int = EPOCHS * BATCHES) -> float:
    return (1 + math.cos(math.pi * step / total)) / 2


VARIANTS = {
    "plain": Variant(),
    "clip_norm": Variant(clip_norm=0.05),
    "clip_value": Variant(clip_value=0.01),
    "both_clips": Variant(clip_norm=0.1, clip_value=0.02),
    "schedule": Variant(multiplier=half_cosine, own_schedule=tl.schedules.cosine()),
    "dropout": Variant(dropout=0.5),
    "batchnorm": Variant(norm=True),
    "everything": Variant(clip_norm=0.3, multiplier=lambda step: 0.9**step, norm=True, dropout=0.3),
}
ACCUMULATING = {
    "accumulate_2": Variant(accumulate=2),
    "accumulate_3": Variant(accumulate=3, clip_norm=0.05, dropout=0.2),
    "accumulate_4": Variant(accumulate=4, norm=True, multiplier=lambda step: 0.8**step),
}


def loader(problem: Problem) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    return DataLoader(TensorDataset(*problem.data), batch_size=4, shuffle=True, generator=generator)


def by_hand(problem: Problem, variant: Variant, make: Maker) -> nn.Module:
    """The loop that everybody writes."""
    model = mlp(outputs=problem.outputs, norm=variant.norm, dropout=variant.dropout)
    optimizer = make(model)
    rate = optimizer.param_groups[0]["lr"]
    torch.manual_seed(7)
    model.train()
    batches = loader(problem)
    step = 0
    for _ in range(EPOCHS):
        for window in windows(batches, variant.accumulate):
            optimizer.zero_grad()
            for x, y in window:
                loss = problem.loss(model(x), y)
                if variant.accumulate > 1:
                    loss = loss / len(window)
                loss.backward()
            if variant.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), variant.clip_norm)
            if variant.clip_value:
                nn.utils.clip_grad_value_(model.parameters(), variant.clip_value)
            if variant.multiplier:
                optimizer.param_groups[0]["lr"] = rate * variant.multiplier(step)
            optimizer.step()
            step += 1
    return model


def windows(batches: DataLoader[Any], size: int) -> Iterator[list[Any]]:
    window = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def by_fit(trainer: tl.Trainer, problem: Problem) -> None:
    trainer.fit(loader(problem), epochs=EPOCHS, progress=False)


def by_stream(trainer: tl.Trainer, problem: Problem) -> None:
    for _ in trainer.train(loader(problem), epochs=EPOCHS):
        pass


def by_update(trainer: tl.Trainer, problem: Problem) -> None:
    batches = loader(problem)
    for _ in trainer.epochs(EPOCHS):
        for x, y in trainer.batches(batches):
            trainer.update(problem.loss(trainer.model(x), y))


WAYS = [by_fit, by_stream, by_update]


def ends_with_the_same_bits(problem: Problem, variant: Variant, make: Maker) -> None:
    expected = by_hand(problem, variant, make)
    for way in WAYS:
        model = mlp(outputs=problem.outputs, norm=variant.norm, dropout=variant.dropout)
        assert not same_bits(model, expected), "the loop by hand must have moved something"
        torch.manual_seed(7)
        way(tl.Trainer(model, problem.loss, make(model), **variant.settings), problem)
        assert same_bits(model, expected), way.__name__


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_in_ends_with_the_bits_of_the_loop_by_hand(variant: str, problem: str, optimizer: str) -> None:
    ends_with_the_same_bits(PROBLEMS[problem], VARIANTS[variant], OPTIMIZERS[optimizer])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("problem", EQUAL_COUNTS)
@pytest.mark.parametrize("variant", ACCUMULATING)
def test_accumulating_is_loss_divided_by_k_to_the_bit(variant: str, problem: str, optimizer: str) -> None:
    ends_with_the_same_bits(PROBLEMS[problem], ACCUMULATING[variant], OPTIMIZERS[optimizer])


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_a_factory_is_the_optimizer_by_hand_with_torchs_own_settings(kind: str) -> None:
    """Fused where torch has it, and no group of its own where there is no decay."""
    factories = {name.__name__.lower(): name for name in (tl.optim.sgd, tl.optim.adam, tl.optim.adamw)}
    factories |= {"rmsprop": tl.optim.rmsprop, "adagrad": tl.optim.adagrad}
    fused = {} if kind == "RMSprop" else {"fused": True}
    problem = PROBLEMS["cross_entropy"]
    expected = by_hand(
        problem,
        Variant(),
        lambda model: getattr(torch.optim, kind)(model.parameters(), lr=0.01, weight_decay=0.0, **fused),
    )
    model = mlp(outputs=4)
    by_fit(tl.Trainer(model, problem.loss, factories[kind.lower()](lr=0.01, weight_decay=0.0)), problem)
    assert same_bits(model, expected)


def test_arrays_in_their_order_are_the_loader_in_its_order() -> None:
    x, y = classification(26)
    expected, model = mlp(outputs=4, dropout=0.4), mlp(outputs=4, dropout=0.4)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    torch.manual_seed(0)
    for _ in range(2):
        for start in range(0, 26, 8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(expected(x[start : start + 8]), y[start : start + 8])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.manual_seed(0)
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.fit((x.numpy(), y.numpy()), epochs=2, batch_size=8, shuffle=False, progress=False)
    assert same_bits(model, expected)


@pytest.mark.parametrize("seed", [None, 5])
def test_shuffled_arrays_come_in_an_order_that_is_a_function_of_seed_and_epoch(seed: int | None) -> None:
    x, y = regression(20)
    expected, model = mlp(dropout=0.4), mlp(dropout=0.4)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    torch.manual_seed(5)
    for epoch in range(2):
        for row in torch.split(order(20, 5, epoch, shuffle=True), 6):
            optimizer.zero_grad()
            nn.functional.mse_loss(expected(x[row]), y[row]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.manual_seed(5 if seed is None else 99)
    trainer = tl.Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.fit((x, y), epochs=2, batch_size=6, seed=seed, progress=False)
    assert same_bits(model, expected)


def test_a_dataset_sample_by_sample_is_the_arrays_gathered() -> None:
    x, y = regression(20)
    gathered, sampled = mlp(), mlp()
    for model, data in ((gathered, (x, y)), (sampled, [(x[i], y[i]) for i in range(20)])):
        trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1))
        trainer.fit(data, epochs=2, batch_size=6, seed=1, progress=False)
    assert same_bits(gathered, sampled)


@pytest.mark.parametrize("evaluates", [False, True], ids=["train only", "evaluations between"])
def test_a_loader_without_a_generator_draws_what_it_draws_by_hand(evaluates: bool) -> None:
    """seed=None leaves the global RNG alone: order and dropout are drawn from it exactly as by hand."""
    x, y = regression(20)
    expected, model = mlp(dropout=0.4), mlp(dropout=0.4)
    data, held_out = TensorDataset(x, y), (x + 1, y)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    torch.manual_seed(11)
    by_hand_loader = DataLoader(data, batch_size=4, shuffle=True)
    for _ in range(3):
        for inputs, targets in by_hand_loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(expected(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.manual_seed(11)
    metrics: dict[str, Any] = {"mae": nn.functional.l1_loss} if evaluates else {}
    trainer = tl.Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1), metrics=metrics)
    val = held_out if evaluates else None
    trainer.fit(
        DataLoader(data, batch_size=4, shuffle=True), val, epochs=3, evaluate_every_steps=2 if evaluates else None,
        progress=False,
    )  # fmt: skip
    assert same_bits(model, expected)


def test_a_function_of_model_and_batch_is_the_torch_loss() -> None:
    problem, variant = PROBLEMS["cross_entropy"], Variant(accumulate=2, dropout=0.3)
    expected = by_hand(problem, variant, OPTIMIZERS["adam"])

    def plain(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def as_dict(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        output = model(batch[0])
        return {"loss": nn.functional.cross_entropy(output, batch[1]), "spread": output.std()}

    for loss in (plain, as_dict, nn.functional.cross_entropy, partial(nn.functional.cross_entropy, ignore_index=-7)):
        model = mlp(outputs=4, dropout=0.3)
        torch.manual_seed(7)
        by_fit(tl.Trainer(model, loss, OPTIMIZERS["adam"](model), accumulate=2), problem)
        assert same_bits(model, expected), loss


def test_the_same_arguments_and_seed_give_the_same_bits_twice_and_another_seed_gives_others() -> None:
    x, y = classification(40)

    def trained(seed: int) -> nn.Module:
        model = mlp(outputs=4, dropout=0.5, norm=True)
        trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=0.01), deterministic=True)
        torch.rand(seed + 1)  # wherever the global RNG stood before
        trainer.fit((x, y), (x, y), epochs=2, batch_size=8, seed=seed, progress=False)
        return model

    assert same_bits(trained(3), trained(3))
    assert not same_bits(trained(3), trained(4))


@pytest.mark.parametrize("schedule", ["step", "one_cycle", "plateau", "lambda", "cosine_per_epoch"])
def test_torch_schedulers_move_as_by_hand(schedule: str) -> None:
    x, y = regression(20)
    val = regression(9, seed=1)
    epochs, batches = 4, 5

    def made(optimizer: torch.optim.Optimizer) -> Any:
        of = torch.optim.lr_scheduler
        makers: dict[str, Callable[[], Any]] = {
            "step": lambda: of.StepLR(optimizer, step_size=2, gamma=0.3),
            "one_cycle": lambda: of.OneCycleLR(optimizer, max_lr=0.05, total_steps=epochs * batches),
            "plateau": lambda: of.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.5),
            "lambda": lambda: of.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
            "cosine_per_epoch": lambda: of.CosineAnnealingLR(optimizer, T_max=epochs),
        }
        return makers[schedule]()

    expected = mlp()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.02, momentum=0.9)
    scheduler = made(optimizer)
    rates = []
    for _ in range(epochs):
        for start in range(0, 20, 4):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(expected(x[start : start + 4]), y[start : start + 4])
            loss.backward()  # type: ignore[no-untyped-call]
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if schedule == "one_cycle":
                scheduler.step()
        if schedule == "plateau":
            with torch.no_grad():
                scheduler.step(float(nn.functional.mse_loss(expected(val[0]), val[1])))
        elif schedule != "one_cycle":
            scheduler.step()
    assert len(set(rates)) > 1, "the schedule must do something, or the test proves nothing"

    model = mlp()
    ours = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    trainer = tl.Trainer(model, nn.MSELoss(), ours, schedule=made(ours))
    events = trainer.train((x, y), val, epochs=epochs, batch_size=4, shuffle=False)
    assert [event.lr for event in events if isinstance(event, tl.StepEnded)] == rates
    assert same_bits(model, expected)


def test_lbfgs_through_its_closure_is_the_one_by_hand() -> None:
    x, y = regression(24)
    expected, model = mlp(), mlp()
    settings: dict[str, Any] = {"lr": 0.5, "max_iter": 5, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(expected.parameters(), **settings)
    for _ in range(3):
        for start in range(0, 24, 8):
            inputs, targets = x[start : start + 8], y[start : start + 8]

            def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(expected(inputs), targets)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss.detach()

            optimizer.step(closure)  # type: ignore[no-untyped-call]
    trainer = tl.Trainer(model, nn.MSELoss(), torch.optim.LBFGS(model.parameters(), **settings))
    result = trainer.fit((x, y), epochs=3, batch_size=8, shuffle=False, progress=False)
    assert same_bits(model, expected)
    assert result.steps == 9


def test_bf16_is_autocast_by_hand() -> None:
    x, y = classification(24)
    expected = mlp(outputs=4, width=16)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for _ in range(2):
        for start in range(0, 24, 8):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(expected(x[start : start + 8]), y[start : start + 8])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    arrays, how = (x, y), {"batch_size": 8, "shuffle": False}
    for way in ("fit", "update"):
        model = mlp(outputs=4, width=16)
        ours = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = tl.Trainer(model, nn.CrossEntropyLoss(), ours, precision="bf16")
        if way == "fit":
            trainer.fit(arrays, epochs=2, batch_size=8, shuffle=False, progress=False)
        else:
            for _ in trainer.epochs(2):
                for inputs, targets in trainer.batches(arrays, **how):
                    trainer.update(nn.functional.cross_entropy(model(inputs), targets))
        assert same_bits(model, expected), way


def test_fp16_with_a_scaler_is_the_one_by_hand() -> None:
    x, y = classification(24)
    expected = mlp(outputs=4, width=16)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(2):
        for start in range(0, 24, 8):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = nn.functional.cross_entropy(expected(x[start : start + 8]), y[start : start + 8])
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
    model = mlp(outputs=4, width=16)
    ours = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), ours, precision="fp16", clip_norm=0.5)
    trainer.fit((x, y), epochs=2, batch_size=8, shuffle=False, progress=False)
    assert same_bits(model, expected)
