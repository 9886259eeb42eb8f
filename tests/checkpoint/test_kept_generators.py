"""Generators that the user's objects keep for themselves: a resumed run draws from them what the unbroken one draws."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

import trueloop as tl
from trueloop.data.generators import generators_in
from trueloop.testing import Recorder, mlp, regression, same_bits

Metrics = list[tuple[int, dict[str, float]]]


class BrokenOff(Exception):
    pass


# --- who keeps a generator ------------------------------------------------------------------------------------------


class Noise(nn.Module):
    """Adds what it draws from a generator of its own; in training alone, or in evaluations too."""

    def __init__(self, *, evaluates: bool = False) -> None:
        super().__init__()
        self.generator, self.evaluates = torch.Generator().manual_seed(3), evaluates

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not self.evaluates:
            return x
        return x + torch.randn(x.shape, generator=self.generator)


class NoiseOfClosure(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.draw: Callable[[], float] = lambda: float(rng.normal())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.draw() if self.training else x


def nested(model: nn.Module, levels: int) -> nn.Module:
    return nn.Sequential(nested(model, levels - 1)) if levels else model


def among_many(model: nn.Module) -> nn.Module:
    """Behind more layers than samples of a list are looked at, each with a dozen containers, and farther than they."""
    return nn.Sequential(*(nn.Sequential(nn.Identity()) for _ in range(400)), nested(model, 4))


def noisy_loss() -> Any:
    rng = random.Random(3)
    return lambda model, batch: nn.functional.mse_loss(model(batch[0] + rng.gauss(0, 1)), batch[1])


OF_THE_FILE = random.Random()


def jitter(x: Tensor) -> Tensor:
    return x + torch.tensor([OF_THE_FILE.gauss(0, 1) for _ in x]).unsqueeze(1)


def loss_that_calls(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.mse_loss(model(jitter(batch[0])), batch[1])


def loss_of_the_file() -> Any:
    OF_THE_FILE.seed(3)
    return loss_that_calls


def noisy_penalty() -> Any:
    rng = np.random.RandomState(3)
    return lambda model: float(rng.rand()) * sum(p.square().sum() for p in model.parameters())


def noisy_schedule() -> Any:
    rng = random.Random(3)
    return lambda step: 0.5 + rng.random() / 2


def noisy_metric() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {"bootstrapped": lambda outputs, targets: float(outputs[rng.integers(0, len(outputs))].mean())}


class Langevin(torch.optim.SGD):
    """Gradient descent that shakes the weights."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.generator = torch.Generator().manual_seed(3)

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(torch.randn(parameter.shape, generator=self.generator), alpha=0.01)


class NoisyData(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self) -> None:
        self.x, self.y = regression(6, seed=1)
        self.generator = torch.Generator().manual_seed(3)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] + torch.randn(3, generator=self.generator), self.y[index]


def sampled() -> DataLoader[Any]:
    """Another five of its six samples each time."""
    data = TensorDataset(*regression(6, seed=1))
    return DataLoader(data, 2, sampler=RandomSampler(data, num_samples=5, generator=torch.Generator().manual_seed(3)))


@dataclass(frozen=True)
class Kept:
    """A run of which one object keeps a generator; all is made anew each time."""

    layer: Callable[[], nn.Module] = nn.Identity
    loss: Callable[[], Any] = nn.MSELoss
    val: Callable[[], Any] = lambda: regression(6, seed=1)
    optimizer: Any = torch.optim.SGD
    more: Callable[[], dict[str, Any]] = dict

    def trainer(self) -> tl.Trainer:
        return tl.Trainer(
            nn.Sequential(self.layer(), mlp()), self.loss(), partial(self.optimizer, lr=0.05), **self.more()
        )


KEPT: dict[str, Kept] = {
    "model": Kept(Noise),
    "model, in a closure": Kept(NoiseOfClosure),
    "model, deep inside": Kept(lambda: nested(Noise(), 12)),
    "model, among many layers": Kept(lambda: among_many(Noise())),
    "average of the model": Kept(lambda: Noise(evaluates=True), more=lambda: {"average": tl.optim.ema(0.5)}),
    "loss": Kept(loss=noisy_loss),
    "loss, in a function that it calls": Kept(loss=loss_of_the_file),
    "penalty": Kept(more=lambda: {"penalty": noisy_penalty()}),
    "schedule": Kept(more=lambda: {"schedule": noisy_schedule()}),
    "optimizer": Kept(optimizer=Langevin),
    "metric": Kept(more=lambda: {"metrics": noisy_metric()}),
    "validation data": Kept(val=NoisyData),
    "validation data of a loader": Kept(val=lambda: DataLoader(NoisyData(), batch_size=4)),
    "sampler of the validation data": Kept(val=sampled),
}


def fit(trainer: tl.Trainer, kept: Kept, out: Path | None, *, stop: int | None = None) -> Metrics:
    """12 steps in 3 epochs, or broken off; gives what was evaluated on the way."""
    record = Recorder(lambda event: isinstance(event, tl.StepEnded) and event.step == stop, BrokenOff())
    how: dict[str, Any] = {"epochs": 3, "batch_size": 4, "seed": 5, "progress": False, "evaluate_every_steps": 2}
    try:
        trainer.fit(regression(16), kept.val(), **how, observers=[record], out=out, resume="auto" if out else None)
    except BrokenOff:
        assert stop is not None
    return [(event.step, dict(event.metrics)) for event in record.of(tl.EvalEnded)]


@pytest.mark.parametrize("name", KEPT)
def test_a_resumed_run_draws_what_the_unbroken_one_draws(name: str, folder: Path) -> None:
    kept = KEPT[name]
    whole = kept.trainer()
    expected = fit(whole, kept, None)
    first = fit(kept.trainer(), kept, folder / "run", stop=7)
    resumed = kept.trainer()
    rest = fit(resumed, kept, folder / "run")
    assert same_bits(resumed.model, whole.model)
    assert first + rest == expected


def test_a_generator_that_is_not_there_any_more_is_said(folder: Path) -> None:
    kept = KEPT["model"]
    fit(kept.trainer(), kept, folder / "run", stop=7)
    without = tl.Trainer(nn.Sequential(nn.Identity(), mlp()), nn.MSELoss(), tl.optim.sgd(lr=0.05))
    with pytest.warns(UserWarning, match=r"resumed without the generator model\..*\.generator, which is not there"):
        fit(without, kept, folder / "run")


def test_a_name_is_the_same_in_the_next_process() -> None:
    """The text of most objects has their place in memory in it; that of a tensor waits for its device."""
    assert list(generators_in({object(): random.Random(3), "rng": random.Random(3)})) == ["[item 0]", "['rng']"]


# --- loops of one's own ---------------------------------------------------------------------------------------------


def own_trainer() -> tl.Trainer:
    return tl.Trainer(nn.Sequential(Noise(), mlp()), optimizer=tl.optim.sgd(lr=0.05))


def by_batches(trainer: tl.Trainer, save_at: int | None = None, folder: Path | None = None) -> None:
    for _ in trainer.epochs(2):
        for x, y in trainer.batches(regression(16), batch_size=4, seed=5):
            trainer.update(nn.functional.mse_loss(trainer.model(x), y))
            if folder is not None and trainer.step == save_at:
                trainer.save(folder)


def by_updates(trainer: tl.Trainer, save_at: int | None = None, folder: Path | None = None) -> None:
    x, y = regression(16)
    while trainer.step < 8:
        trainer.update(nn.functional.mse_loss(trainer.model(x), y))
        if folder is not None and trainer.step == save_at:
            trainer.save(folder)


@pytest.mark.parametrize("loop", [by_batches, by_updates])
def test_a_loop_of_ones_own_too(loop: Callable[..., None], folder: Path) -> None:
    """Where ``update`` begins it, a forward pass comes before: ``resume`` itself puts the model's generators back."""
    whole, resumed = own_trainer(), own_trainer()
    loop(whole, 5, folder)
    resumed.resume(folder)
    loop(resumed)
    assert same_bits(resumed.model, whole.model)


@pytest.mark.parametrize(("persistent", "said"), [(True, "NOT exact: validation: "), (False, "a resume is exact")])
def test_validation_data_that_cannot_be_gone_on_with_is_said(persistent: bool, said: str, tmp_path: Path) -> None:
    held_out = DataLoader(Noisy(), batch_size=4, num_workers=1, persistent_workers=persistent)
    trainer, record = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1)), Recorder()
    trainer.fit(regression(8), held_out, epochs=1, batch_size=4, out=tmp_path, observers=[record], progress=False)
    (plan,) = [event.plan for event in record.events if isinstance(event, tl.RunStarted)]
    assert said in "\n".join(plan.lines())


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Noise from its worker's global generator, which a worker that lives on does not begin anew."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(3), torch.zeros(1)
