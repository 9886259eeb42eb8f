"""A run that is broken off at any event, and gone on with in fresh objects, ends with the bits of the unbroken one."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.events import Event, Saved, SaveFailed, Stop
from trueloop.loop import Observer
from trueloop.observers.early_stop import EarlyStop
from trueloop.result import Result
from trueloop.testing import classification, mlp, regression

Facts = dict[str, Any]
Everything = Callable[[tl.Trainer], Facts]
Bits = Callable[[Any], Any]


# --- the cases ------------------------------------------------------------------------------------------------------


lines = partial(regression, 14)
"""In batches of 4, so that a short one ends each epoch."""
held_out = partial(regression, 6, seed=1)
network = partial(mlp, norm=True, dropout=0.3)


@dataclass(frozen=True)
class Case:
    """A run, made anew each time, so that nothing of one reaches the next."""

    trainer: Callable[[], tl.Trainer]
    train: Callable[[], Any] = lines
    val: Callable[[], Any] | None = held_out
    how: Mapping[str, Any] = field(default_factory=dict)
    observers: Callable[[], list[Observer]] = list
    not_at: int | None = None
    """An event that is left out."""

    @property
    def settings(self) -> dict[str, Any]:
        """What ``fit`` and ``train`` take besides data."""
        return {"epochs": 3, "batch_size": 4, "seed": 5, **self.how}


def made(
    optimizer: Any = None,
    model: Callable[[], nn.Module] = network,
    loss: Callable[[], Any] = nn.MSELoss,
    **settings: Any,
) -> Callable[[], tl.Trainer]:
    """A maker of trainers; model and loss are made anew each time, and so are metrics."""

    def trainer() -> tl.Trainer:
        made = {name: value() if name == "metrics" else value for name, value in settings.items()}
        return tl.Trainer(model(), loss(), optimizer or tl.optim.sgd(lr=0.05, momentum=0.9), **made)

    return trainer


class Master(torch.optim.Optimizer):
    """Keeps fp32 weights and momenta of bf16 weights, as optimizers for half precision do."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["master"] = parameter.float()
                    state["momentum"] = torch.zeros_like(state["master"])
                state["momentum"].mul_(0.9).add_(parameter.grad.float())
                state["master"].sub_(group["lr"] * state["momentum"])
                parameter.copy_(state["master"])


OPTIMIZERS: dict[str, Case] = {
    "sgd": Case(made()),
    "adam": Case(made(tl.optim.adam(lr=0.02))),
    "adamw": Case(made(tl.optim.adamw(lr=0.02, weight_decay=0.1))),
    "amsgrad": Case(made(lambda model: torch.optim.Adam(model.parameters(), lr=0.02, amsgrad=True))),
    "capturable rate": Case(made(lambda model: torch.optim.Adam(model.parameters(), lr=torch.tensor(0.02)))),
    "lbfgs": Case(made(tl.optim.lbfgs(lr=0.1, max_iter=3, history_size=3), model=mlp)),
    "muon": Case(made(tl.optim.muon(lr=0.02, rest=tl.optim.adam(lr=0.01)), schedule=tl.schedules.cosine())),
    "nadam": Case(made(tl.optim.nadam(lr=0.02))),
    "asgd": Case(made(tl.optim.asgd(lr=0.02))),
    "adafactor": Case(made(tl.optim.adafactor(lr=0.02))),
    "rprop": Case(made(tl.optim.rprop(lr=0.02))),
    "bf16 weights": Case(
        made(lambda model: Master(model.parameters(), lr=0.02), model=partial(mlp, dtype=torch.bfloat16)),
        train=partial(regression, 14, dtype=torch.bfloat16),
        val=partial(regression, 6, dtype=torch.bfloat16),
    ),
    "bf16 weights, adam": Case(
        made(tl.optim.adam(lr=0.02), model=partial(mlp, dtype=torch.bfloat16)),
        train=partial(regression, 14, dtype=torch.bfloat16),
        val=partial(regression, 6, dtype=torch.bfloat16),
    ),
}


def sequence(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    parts = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(optimizer, 8)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[4])


def chain(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    parts = [lr_scheduler.ExponentialLR(optimizer, 0.9), lr_scheduler.StepLR(optimizer, 5, 0.5)]
    return lr_scheduler.ChainedScheduler(parts)


def triangle(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3, scale_fn=lambda x: 0.9**x, scale_mode="cycle")


def stepped(make: Callable[..., Any], every: Any, **settings: Any) -> Any:
    return tl.schedules.stepped(partial(make, **settings), every=every)


SCHEDULES: dict[str, Any] = {
    "one_cycle": tl.schedules.one_cycle(),
    "warmup_cosine": tl.schedules.warmup_cosine(3),
    "then": tl.schedules.then(tl.schedules.constant(0.5), 4, tl.schedules.cosine()),
    "function": lambda step: 0.9**step,
    "OneCycleLR": partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=12),
    "StepLR": stepped(lr_scheduler.StepLR, "epoch", step_size=1, gamma=0.5),
    "MultiStepLR": stepped(lr_scheduler.MultiStepLR, "step", milestones=[2, 2, 9], gamma=0.5),
    "ReduceLROnPlateau": partial(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=10.0),
    "LambdaLR": stepped(lr_scheduler.LambdaLR, "step", lr_lambda=lambda step: 0.8**step),
    "SequentialLR": tl.schedules.stepped(sequence, every="step"),
    "ChainedScheduler": tl.schedules.stepped(chain, every="step"),
    "CyclicLR": tl.schedules.stepped(triangle, every="step"),
    "SWALR": stepped(swa_utils.SWALR, "step", swa_lr=0.01, anneal_epochs=5),
    "WarmRestarts": stepped(lr_scheduler.CosineAnnealingWarmRestarts, "step", T_0=2, T_mult=2),
    "PolynomialLR": stepped(lr_scheduler.PolynomialLR, "step", total_iters=12),
}


def tokens() -> tuple[Tensor, Tensor]:
    x, y = classification(14)
    return x, torch.where(torch.arange(14) % 5 == 1, -1, y)


def counted(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """A mean over what the forward pass alone knows the number of."""
    output = model(batch[0])
    kept = output.detach() > 0
    return ((output - batch[1]).square() * kept).sum() / kept.sum().clamp(min=1), kept.sum()


class Spiking(nn.Module):
    """Its gradient is inf for an input of 1e30, as an fp16 gradient that overflows is; its output stays finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = mlp(1)

    def forward(self, x: Tensor) -> Tensor:
        spike = torch.where(x > 1e29, x, 0.0)
        output: Tensor = self.layer(torch.where(x > 1e29, 1.0, x))
        return output + (output - output.detach()).float() * spike * 1e10


def spikes() -> tuple[Tensor, Tensor]:
    return torch.tensor([[1.0], [1e30], [2.0], [1e30], [3.0], [0.5], [1.5], [2.5]]) * 0.1, torch.zeros(8, 1)


class Uncertain(nn.Module):
    """A loss with a weight of its own, which is trained too."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(0.1))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean() * (-self.log_variance).exp() + self.log_variance


class UncertainOfBatch(Uncertain):
    """The same, called with (model, batch)."""

    def forward(self, model: nn.Module, batch: Any) -> Tensor:  # type: ignore[override]
        return super().forward(model(batch[0]), batch[1])


def with_loss(kind: type[Uncertain]) -> Callable[[], tl.Trainer]:
    def trainer() -> tl.Trainer:
        model, loss = mlp(dropout=0.3), kind()
        return tl.Trainer(model, loss, torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.02))

    return trainer


class Passing(nn.Module):
    """What it remembers is left out of its state_dict."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().mean()
        output: Tensor = self.body(x - self.seen)
        return output


class Noise:
    """State of the user's own: a generator, and how often it was asked."""

    def __init__(self) -> None:
        self.rng, self.asked = np.random.default_rng(3), 0

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.asked += 1
        noisy = batch[0] + torch.from_numpy(self.rng.normal(size=batch[0].shape)).float()
        return nn.functional.mse_loss(model(noisy), batch[1])

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state, "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rng.bit_generator.state, self.asked = state["rng"], state["asked"]


def with_noise() -> tl.Trainer:
    noise = Noise()
    trainer = tl.Trainer(mlp(), noise, tl.optim.adam(lr=0.02))
    trainer.keep["noise"] = noise
    return trainer


def enough(event: Event) -> Stop | None:
    """Replies once, and remembers nothing."""
    return Stop("enough") if isinstance(event, tl.EvalEnded) and event.step == 8 else None


ema, swa = tl.optim.ema, tl.optim.swa
RITUALS: dict[str, Case] = {
    "accumulate 3": Case(made(accumulate=3)),
    "accumulate tokens": Case(
        made(accumulate=3, model=partial(mlp, outputs=4), loss=partial(nn.CrossEntropyLoss, ignore_index=-1)),
        train=tokens,
        val=tokens,
    ),
    "accumulate counts": Case(made(accumulate=2, loss=lambda: counted)),
    "clip": Case(made(clip_norm=0.1, clip_value=0.05)),
    "penalty": Case(made(penalty=tl.objective.l1(0.01))),
    "ema": Case(made(average=ema(0.8))),
    "ema, evaluated without": Case(made(average=ema(0.8, evaluate=False))),
    "swa with BatchNorm": Case(made(average=swa(0.3), schedule=tl.schedules.one_cycle())),
    "swa of every second step": Case(made(average=swa(start_step=3, every_steps=2), accumulate=2)),
    "fp16 with skipped steps": Case(
        made(model=Spiking, precision="fp16", average=ema(0.8), schedule=tl.schedules.cosine()),
        train=spikes,
        val=None,
        how={"batch_size": 1, "epochs": 2},
    ),
    "fp16 that finds its scale": Case(made(tl.optim.sgd(lr=0.01), precision="fp16"), val=None),  # skips 1, 2 and 4
    "bf16": Case(made(tl.optim.adamw(lr=0.02), precision="bf16")),
    "deterministic": Case(made(deterministic=True)),
    "loss with weights": Case(with_loss(Uncertain)),
    "loss of (model, batch) with weights": Case(with_loss(UncertainOfBatch)),
    "non-persistent buffers": Case(made(model=Passing)),
    "keep": Case(with_noise),
    "everything": Case(
        made(
            tl.optim.adamw(lr=0.02),
            accumulate=2,
            average=ema(0.8),
            schedule=tl.schedules.one_cycle(),
            clip_norm=1.0,
            penalty=tl.objective.l1(0.01),
        ),
        how={"evaluate_every_steps": 2, "evaluate_every": 2},
    ),
}
WHEN: dict[str, Case] = {
    "evaluate_every_steps": Case(made(), how={"evaluate_every_steps": 2}),
    "evaluate by steps alone": Case(made(), how={"evaluate_every_steps": 3, "evaluate_every": None}),
    "evaluate_every": Case(made(), how={"evaluate_every": 2}),
    "metrics": Case(
        made(
            model=partial(mlp, outputs=4),
            loss=nn.CrossEntropyLoss,
            metrics=lambda: {"accuracy": MulticlassAccuracy(4, average="micro")},
        ),
        train=partial(classification, 14),
        val=partial(classification, 6, seed=1),
        how={"evaluate_every_steps": 3},
    ),
    "plateau by steps": Case(
        made(schedule=partial(lr_scheduler.ReduceLROnPlateau, patience=1, factor=0.5, threshold=10.0)),
        how={"evaluate_every_steps": 2},
    ),
    "EarlyStop": Case(
        made(tl.optim.sgd(lr=0.0)),
        how={"epochs": 9, "evaluate_every_steps": 3, "evaluate_every": None},
        observers=lambda: [EarlyStop(patience=2)],
    ),
    "EarlyStop at an epoch's end": Case(
        made(tl.optim.sgd(lr=0.0)),
        how={"epochs": 9},
        observers=lambda: [EarlyStop(patience=2)],
        not_at=17,  # where its Stop is lost with the event; it is replied again, but the epoch's end is not told
    ),
    "Stop at an epoch's end": Case(
        made(),
        observers=lambda: [enough],
        not_at=11,  # where it is replied
    ),
    "no validation": Case(made(), val=None),
    "steps": Case(made(), how={"epochs": None, "steps": 7}),
    "steps and evaluations": Case(made(accumulate=3), how={"epochs": None, "steps": 5, "evaluate_every_steps": 2}),
    "seed=None": Case(made(), how={"seed": None}),
    "seed=None and accumulate": Case(made(accumulate=2), how={"seed": None, "evaluate_every_steps": 2}),
}


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Random augmentation, from each of the three generators that people use."""

    def __init__(self) -> None:
        self.x, self.y = regression(14)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.gauss(0, 1) + np.random.normal() + torch.randn(3)
        return self.x[index] + 0.1 * noise, self.y[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in zip(*regression(14), strict=True):
            yield x + 0.1 * torch.randn(3), y


def loader(data: Callable[[], Any] = Noisy, seed: int | None = None, **how: Any) -> DataLoader[Any]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(data(), batch_size=4, generator=generator, **how)


def plain() -> Any:
    return TensorDataset(*regression(14))


def drawn(sampler: type[Any], *arguments: Any) -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, sampler=sampler(*arguments))


OWN = {"batch_size": None, "seed": None}
"""Of loaders of the user's own: their batches, and the global generators as they are."""
SLOWER = {"worker_timeout": 60.0}
DATA: dict[str, Case] = {
    "arrays in order": Case(made(), how={"shuffle": False}),
    "dataset": Case(made(), train=Noisy, val=Noisy),
    "dataset, seed=None": Case(made(), train=Noisy, how={"seed": None}),
    "dataset, 2 workers": Case(made(), train=Noisy, how={"workers": 2, **SLOWER}),
    "stream": Case(made(), train=Stream, how={"shuffle": True}),
    "stream, 2 workers": Case(made(), train=Stream, how={"workers": 2, **SLOWER}),
    "loader": Case(made(), train=partial(loader, plain, shuffle=True), how=OWN),
    "loader, seeded": Case(made(), train=partial(loader, plain, shuffle=True), how={**OWN, "seed": 5}),
    "loader that augments": Case(made(), train=partial(loader, shuffle=True), how=OWN),
    "loader with a generator": Case(made(), train=partial(loader, seed=3, shuffle=True), how=OWN),
    "loader, 2 workers": Case(made(), train=partial(loader, shuffle=True, num_workers=2), how=OWN),
    "loader of a stream": Case(made(), train=partial(loader, Stream), how=OWN),
    "loader with replacement": Case(made(), train=lambda: drawn(RandomSampler, Noisy(), True), how=OWN),
    "loader by weights": Case(made(), train=lambda: drawn(WeightedRandomSampler, [1.0, 2.0] * 7, 14), how=OWN),
    "loader with augmented validation": Case(
        made(), train=partial(loader, shuffle=True), val=partial(loader, shuffle=True), how=OWN
    ),
    "batches": Case(made(), train=lambda: list(loader(plain)), how=OWN),
}
CASES = {
    **OPTIMIZERS,
    **{
        f"{name} schedule": Case(made(schedule=schedule, model=partial(mlp, dropout=0.3)))
        for name, schedule in SCHEDULES.items()
    },
    **RITUALS,
    **WHEN,
    **DATA,
}
COSTLY = {name for name, case in CASES.items() if "2 workers" in name}
"""Each start of their workers takes longer than a whole run of the others."""


# --- one run, and how it ended --------------------------------------------------------------------------------------


class BrokenOff(Exception):
    pass


class BreaksAt:
    """Raises at an event, counted from 0; those about checkpoints come when the disk is ready, and do not count."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, (Saved, SaveFailed)):
            return
        self.seen += 1
        if self.seen > self.at:
            raise BrokenOff(f"at event {self.at}")


def start(case: Case) -> tl.Trainer:
    """A fresh trainer; the global generators stand as they always do when it begins."""
    tl.seed_all(7)
    trainer = case.trainer()
    tl.seed_all(11)
    return trainer


def start_elsewhere(case: Case) -> tl.Trainer:
    """A fresh trainer with other weights, in a process whose generators stand elsewhere: what is not put back shows."""
    trainer = case.trainer()
    loss = trainer.choices.loss
    with torch.no_grad():
        for module in (trainer.model, *([loss] if isinstance(loss, nn.Module) else [])):
            for tensor in itertools.chain(module.parameters(), module.buffers()):
                tensor.add_(1)
    tl.seed_all(99)
    return trainer


def fit(case: Case, trainer: tl.Trainer, out: Path, *more: Observer, **how: Any) -> Result:
    val = None if case.val is None else case.val()
    observers = [*case.observers(), *more]
    return trainer.fit(case.train(), val, **{**case.settings, **how}, out=out, observers=observers, progress=False)


def record(out: Path) -> list[Facts]:
    """What events.jsonl says, without the time of day; of checkpoints, starts and ends, and of the doctor nothing."""
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    left_out = ("RunStarted", "RunEnded", "Saved", "Found")
    timeless = [{name: value for name, value in line.items() if name not in ("time", "seconds")} for line in lines]
    return [line for line in timeless if line["event"] not in left_out]


def facts(result: Result) -> Facts:
    kept = {name: getattr(result, name) for name in ("steps", "epochs", "loss", "metrics", "reason")}
    return {**kept, "history": [(type(event).__name__, *event._replace(seconds=0.0)) for event in result.history]}


@dataclass(frozen=True)
class Unbroken:
    facts: Facts
    events: int


def unbroken(case: Case, out: Path, everything: Everything, bits: Bits) -> Unbroken:
    trainer, counting = start(case), BreaksAt(10**9)
    result = fit(case, trainer, out, counting)
    return Unbroken(all_of(trainer, result, out, everything, bits), counting.seen)


def all_of(trainer: tl.Trainer, result: Result, out: Path, everything: Everything, bits: Bits) -> Facts:
    return {**everything(trainer), **bits(facts(result)), "record": bits(record(out))}


def differing(one: Facts, other: Facts) -> list[str]:
    """What differs, by name; of a list also where, and what."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    for name in names:
        if isinstance(one.get(name), list) and isinstance(other.get(name), list):
            pairs = enumerate(itertools.zip_longest(one[name], other[name]))
            number, (first, second) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            names[names.index(name)] = f"{name}[{number}]: {str(first)[:200]} and {str(second)[:200]}"
    return names


def breaks(case: Case, events: Any, folder: Path, expected: Unbroken, everything: Everything, bits: Bits) -> None:
    for at in (at for at in events if at != case.not_at):
        out = folder / f"broken-{at}"
        with pytest.raises(BrokenOff):
            fit(case, start(case), out, BreaksAt(at))
        trainer = start_elsewhere(case)
        result = fit(case, trainer, out, resume="auto")
        assert differing(all_of(trainer, result, out, everything, bits), expected.facts) == [], f"event {at}"


# --- the promise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", ["some", pytest.param("every", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_a_run_broken_off_at_an_event_ends_with_the_bits_of_the_unbroken_one(
    name: str, events: str, folder: Path, everything: Everything, bits: Bits
) -> None:
    """In every test run at some events, in ``make proof`` at every one."""
    case = CASES[name]
    expected = unbroken(case, folder / "whole", everything, bits)
    assert expected.events > 8
    stride = 1 if events == "every" else 9 if name in COSTLY else 5
    breaks(case, range(len(name) % stride, expected.events, stride), folder, expected, everything, bits)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.observers is list and name not in COSTLY]
)
def test_a_stream_saved_at_every_event_goes_on_from_each_with_the_same_bits(
    name: str, folder: Path, everything: Everything, bits: Bits
) -> None:
    case = CASES[name]
    whole, told = start(case), []
    for number, event in enumerate(whole.train(case.train(), case.val and case.val(), **case.settings)):
        told.append(timeless(event))
        whole.save(folder / str(number))
    expected = everything(whole)
    for number in range(len(told)):
        trainer = start_elsewhere(case)
        trainer.resume(folder / str(number))
        events = trainer.train(case.train(), case.val and case.val(), **case.settings)
        rest = [timeless(event) for event in events if not isinstance(event, (tl.RunStarted, tl.Found))]
        wanted = told[number + 1 :] or told[-1:]  # whoever goes on from the very end hears that it is over
        wanted = [event for event in wanted if event[0] != "Found"]  # a shorter run is heard less of
        assert bits(rest) == bits(wanted), f"event {number}: {told[number]}"
        assert differing(everything(trainer), expected) == [], f"event {number}: {told[number]}"


def timeless(event: Event) -> Any:
    if isinstance(event, tl.RunStarted):
        return ["RunStarted"]
    return [type(event).__name__, *(0.0 if name == "seconds" else one for name, one in event._asdict().items())]


AGAIN = ["everything", "adam", "swa with BatchNorm", "metrics", "dataset", "stream", "loader that augments", "keep"]


@pytest.mark.parametrize("name", AGAIN)
def test_a_run_that_never_gets_further_than_two_steps_arrives(
    name: str, folder: Path, everything: Everything, bits: Bits
) -> None:
    case = CASES[name]
    expected = unbroken(case, folder / "whole", everything, bits)
    trainer, tries = start(case), 0
    while True:
        try:
            result = fit(case, trainer, folder / "run", BreaksAt(3), resume="auto")
        except BrokenOff:
            trainer, tries = start_elsewhere(case), tries + 1
        else:
            break
    assert tries > expected.events // 3 - 2
    assert differing(all_of(trainer, result, folder / "run", everything, bits), expected.facts) == []


@pytest.mark.parametrize("name", ["dataset", "stream"])
def test_the_number_of_workers_may_change_on_the_way(
    name: str, folder: Path, everything: Everything, bits: Bits
) -> None:
    case = CASES[name]
    expected = unbroken(case, folder / "whole", everything, bits)
    trainer = start(case)
    for workers, at in ((0, 3), (2, 5), (0, 4)):
        with pytest.raises(BrokenOff):
            fit(case, trainer, folder / "run", BreaksAt(at), resume="auto", workers=workers)
        trainer = start_elsewhere(case)
    result = fit(case, trainer, folder / "run", resume="auto", workers=2)
    assert differing(all_of(trainer, result, folder / "run", everything, bits), expected.facts) == []


def test_nothing_that_was_consumed_is_loaded_again(folder: Path) -> None:
    read: list[int] = []

    class Counting(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            read.append(index)
            return super().__getitem__(index)

    case = Case(made(), train=Counting, val=None, how={"epochs": 2, "shuffle": False})
    with pytest.raises(BrokenOff):
        fit(case, start(case), folder / "run", BreaksAt(2))
    read.clear()
    fit(case, start_elsewhere(case), folder / "run", resume="auto")
    assert read == [*range(8, 14), *range(14)]
