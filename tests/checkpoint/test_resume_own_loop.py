"""A loop of the user's own, saved by ``trainer.save`` wherever its body stands, goes on with the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import trueloop as tl
from trueloop.checkpoint import store
from trueloop.errors import ArgumentError, CheckpointError
from trueloop.testing import mlp, regression, same_bits

Everything = Callable[[tl.Trainer], dict[str, Any]]
Make = Callable[[], tl.Trainer]


def made(**settings: Any) -> Make:
    def trainer() -> tl.Trainer:
        given = {"optimizer": tl.optim.adam(lr=0.02), **settings}
        return tl.Trainer(mlp(norm=True, dropout=0.3), **given)

    return trainer


CASES: dict[str, Make] = {
    "plain": made(),
    "accumulate": made(accumulate=3, clip_norm=0.5),
    "average and schedule": made(accumulate=2, average=tl.optim.ema(0.8), schedule=tl.schedules.one_cycle()),
    "momentum, stepped each epoch": made(
        optimizer=tl.optim.sgd(lr=0.05, momentum=0.9),
        schedule=tl.schedules.stepped(partial(lr_scheduler.StepLR, step_size=1, gamma=0.5), every="epoch"),
    ),
    "fp16": made(precision="fp16", accumulate=2),
    "bf16": made(precision="bf16"),
    "penalty": made(penalty=tl.objective.l2(0.1), accumulate=3),
}


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*regression(14)), batch_size=4, shuffle=True)


DATA: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "arrays": (partial(regression, 14), {"batch_size": 4, "seed": 5}),
    "arrays, no seed": (partial(regression, 14), {"batch_size": 4}),
    "samples": (lambda: TensorDataset(*regression(14)), {"batch_size": 4, "seed": 5}),
    "loader": (loader, {}),
}

Moment = Iterator[str]


def by_epochs(trainer: tl.Trainer, data: Any, how: dict[str, Any]) -> Moment:
    """The loop of the documentation. Yields wherever somebody may save."""
    held_out = regression(6, seed=1)
    for epoch in trainer.epochs(3):
        yield f"at the top of epoch {epoch}"
        for number, (x, y) in enumerate(trainer.batches(data, **how)):
            trainer.update(nn.functional.mse_loss(trainer.model(x), y))
            yield f"after microbatch {number} (of those here) of epoch {epoch}"
        for x, _ in trainer.evaluating(held_out):
            trainer.model(x)
        yield f"after the evaluation of epoch {epoch}"
    yield "at the end"


def begin() -> None:
    tl.seed_all(7)


def elsewhere(trainer: tl.Trainer) -> tl.Trainer:
    """A fresh trainer with other weights, where the generators stand elsewhere."""
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(1)
    tl.seed_all(99)
    return trainer


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", CASES)
def test_saved_anywhere_it_goes_on_with_the_same_bits(
    name: str, data: str, folder: Path, everything: Everything
) -> None:
    make, (samples, how) = CASES[name], DATA[data]
    begin()
    whole = make()
    moments = []
    for number, moment in enumerate(by_epochs(whole, samples(), how)):
        if number:  # before the first batch there is nothing to save
            whole.save(folder / str(number))
        moments.append(moment)
    expected = everything(whole)
    assert len(moments) == 3 * (4 + 2) + 1
    for number, moment in list(enumerate(moments))[1:]:
        trainer = elsewhere(make())
        trainer.resume(folder / str(number))
        for _ in by_epochs(trainer, samples(), how):
            pass
        got = everything(trainer)
        left_out = ("optimizer ",) if moment == "at the end" else ()  # no run begins any more
        assert [key for key in got if got[key] != expected[key] and key not in left_out] == [], moment


def test_a_window_that_was_open_is_closed_where_it_was(folder: Path) -> None:
    """The gradients of its first microbatches come from the checkpoint, and are not computed again."""
    trainer, data = made(accumulate=3)(), regression(12)
    began = trainer.batches(data, batch_size=2, seed=1)
    x, y = next(began)
    assert trainer.update(nn.functional.mse_loss(trainer.model(x), y)) is None
    gradient = trainer.model[0].weight.grad.clone()  # type: ignore[index]
    trainer.save(folder)
    fresh = elsewhere(made(accumulate=3)())
    fresh.resume(folder)
    rest = fresh.batches(data, batch_size=2, seed=1)
    x, y = next(rest)
    assert torch.equal(fresh.model[0].weight.grad, gradient)  # type: ignore[index]
    assert fresh.update(nn.functional.mse_loss(fresh.model(x), y)) is None
    x, y = next(rest)
    ended = fresh.update(nn.functional.mse_loss(fresh.model(x), y))
    assert ended is not None
    assert (ended.step, ended.samples) == (1, 6)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = mlp(2, 3, dropout=0.2), mlp(3, 1, dropout=0.2, seed=1)


def adversaries(trainer: tl.Trainer, data: Any) -> Moment:
    pair = trainer.model
    assert isinstance(pair, Pair)
    for _ in trainer.epochs(2):
        for x, _target in trainer.batches(data, batch_size=4, seed=2):
            made_up = pair.generator(torch.randn(len(x), 2))
            trainer.update(pair.critic(made_up.detach()).mean() - pair.critic(x).mean(), optimizer="critic")
            trainer.update(-pair.critic(made_up).mean(), optimizer="generator")
            yield "after both"


@pytest.mark.parametrize("accumulate", [1, 3])
def test_two_optimizers(accumulate: int, folder: Path, everything: Everything) -> None:
    def make() -> tl.Trainer:
        optimizers = {"generator": tl.optim.adam(lr=0.01), "critic": tl.optim.sgd(lr=0.02, momentum=0.9)}
        schedules = {"critic": tl.schedules.cosine()}
        return tl.Trainer(Pair(), optimizer=optimizers, schedule=schedules, accumulate=accumulate)

    begin()
    whole, data = make(), regression(14)
    number = 0
    for number, _ in enumerate(adversaries(whole, data)):
        whole.save(folder / str(number))
    expected = everything(whole)
    assert number == 7
    for number in range(8):
        trainer = elsewhere(make())
        trainer.resume(folder / str(number))
        for _ in adversaries(trainer, data):
            pass
        got = everything(trainer)
        assert [key for key in got if got[key] != expected[key]] == [], number


def by_steps(trainer: tl.Trainer, data: Any, steps: int) -> Moment:
    """Without ``epochs``: a loop that counts steps."""
    while trainer.step < steps:
        for x, y in trainer.batches(data, batch_size=4, seed=5):
            trainer.update(nn.functional.mse_loss(trainer.model(x), y))
            yield f"step {trainer.step}"
            if trainer.step == steps:
                break


def test_without_epochs(folder: Path, everything: Everything) -> None:
    begin()
    whole, data = made()(), regression(14)
    for moment in by_steps(whole, data, 10):
        whole.save(folder / moment)
    expected = everything(whole)
    for step in range(1, 11):
        trainer = elsewhere(made()())
        trainer.resume(folder / f"step {step}")
        assert trainer.step == step, "also before the first batch"
        for _ in by_steps(trainer, data, 10):
            pass
        got = everything(trainer)
        left_out = ("optimizer ",) if step == 10 else ()  # no run begins any more
        assert [key for key in got if got[key] != expected[key] and key not in left_out] == [], step


def test_updates_without_batches(folder: Path, everything: Everything) -> None:
    """Batches of one's own making: ``update`` alone."""

    x, y = regression(12)

    def steps(trainer: tl.Trainer, numbers: range) -> None:
        for number in numbers:
            trainer.update(nn.functional.mse_loss(trainer.model(x[number::3]), y[number::3]))

    def make() -> tl.Trainer:
        return made(schedule=tl.schedules.exponential(0.9))()

    begin()
    whole = make()
    whole.model.train()
    steps(whole, range(2))
    whole.save(folder)
    steps(whole, range(3))
    trainer = elsewhere(make())
    trainer.resume(folder)
    steps(trainer, range(3))
    got, expected = everything(trainer), everything(whole)
    assert [key for key in got if got[key] != expected[key]] == []


def test_the_same_trainer_may_go_back(folder: Path, everything: Everything) -> None:
    begin()
    trainer, data = made(average=tl.optim.ema(0.8), accumulate=2)(), regression(14)
    how = {"batch_size": 4, "seed": 5}
    for number, _ in enumerate(by_epochs(trainer, data, how)):
        if number == 8:
            trainer.save(folder)
    expected = everything(trainer)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    trainer.resume(folder)
    for _ in by_epochs(trainer, data, how):
        pass
    got = everything(trainer)
    assert [key for key in got if got[key] != expected[key]] == []


def test_a_trainer_that_was_fit_may_go_back(folder: Path, everything: Everything) -> None:
    begin()
    trainer = tl.Trainer(mlp(dropout=0.3), nn.MSELoss(), tl.optim.adam(lr=0.02), schedule=tl.schedules.cosine())
    how: dict[str, Any] = {"epochs": 3, "batch_size": 4, "seed": 5, "progress": False, "out": folder / "run"}
    saving = tl.Saving(every_steps=1, keep_last=99)
    trainer.fit(regression(14), saving=saving, **how)
    expected = everything(trainer)
    for step in (1, 6, 11):
        trainer.resume(folder / "run", step=step)
        assert trainer.step == step
        for _ in trainer.train(regression(14), epochs=3, batch_size=4, seed=5):
            pass
        got = everything(trainer)
        assert [key for key in got if got[key] != expected[key]] == []


def test_a_second_run_of_the_same_trainer_begins_anew_unless_told(folder: Path) -> None:
    trainer, data = made()(), regression(12)
    for _ in trainer.epochs(1):
        for x, y in trainer.batches(data, batch_size=4):
            trainer.update(nn.functional.mse_loss(trainer.model(x), y))
    assert trainer.step == 3
    seen = 0
    for _ in trainer.epochs(2):
        for x, y in trainer.batches(data, batch_size=4):
            trainer.update(nn.functional.mse_loss(trainer.model(x), y))
            seen += 1
    assert (seen, trainer.step) == (6, 6)


def test_a_checkpoint_of_a_loop_of_ones_own_says_where_it_stands(folder: Path) -> None:
    trainer, data = made()(), regression(12)
    for _ in trainer.epochs(3):
        for x, y in trainer.batches(data, batch_size=4):
            trainer.update(nn.functional.mse_loss(trainer.model(x), y))
            if trainer.step == 5:
                path = trainer.save(folder)
    (entry,) = store.entries(folder / "checkpoints")
    assert (entry.path, entry.step, entry.epoch, entry.why, entry.exact) == (path, 5, 1, "asked for", None)
    assert path.parent == folder / "checkpoints"


def test_saving_right_after_a_resume_is_refused_or_the_same(folder: Path, everything: Everything) -> None:
    """Between the resume and the first batch the state is the checkpoint's."""
    begin()
    first, data = made()(), regression(12)
    for _ in by_steps(first, data, 4):
        pass
    first.save(folder / "one")
    second = elsewhere(made()())
    second.resume(folder / "one")
    with pytest.raises(ArgumentError, match="nothing has happened since the resume"):
        second.save(folder / "two")
    assert same_bits(first.model, second.model)


def test_another_model_is_refused_before_anything_moves(folder: Path) -> None:
    trainer, data = made()(), regression(12)
    for _ in by_steps(trainer, data, 2):
        pass
    trainer.save(folder)
    other = tl.Trainer(mlp(features=4, norm=True), optimizer=tl.optim.adam(lr=0.02))
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(tl.errors.DataError, match=r"0\.weight"):
        other.resume(folder)
    assert all(torch.equal(value, before[name]) for name, value in other.model.state_dict().items())
    with pytest.raises(CheckpointError, match="there are no checkpoints"):
        trainer.resume(folder / "nowhere")
