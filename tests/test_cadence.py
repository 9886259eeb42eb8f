"""The cadence of torch's schedulers, and lengths that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

from trueloop import schedules
from trueloop.cadence import cadence, mismatch

RUN: dict[str, Any] = {"epochs": 10, "steps": 1000, "steps_per_epoch": 100}


def made(name: str, *arguments: Any, **settings: Any) -> LRScheduler:
    scheduler = getattr(torch_schedulers, name)(an_optimizer(), *arguments, **settings)
    assert isinstance(scheduler, LRScheduler)
    return scheduler


def an_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)


def a_sequence(first: Callable[..., LRScheduler], second: Callable[..., LRScheduler], milestone: int) -> LRScheduler:
    optimizer = an_optimizer()
    return torch_schedulers.SequentialLR(optimizer, [first(optimizer), second(optimizer)], [milestone])


def a_warmup(steps: int) -> Callable[[torch.optim.Optimizer], LRScheduler]:
    return lambda optimizer: torch_schedulers.LinearLR(optimizer, 0.1, 1.0, steps)


def a_cosine(steps: int) -> Callable[[torch.optim.Optimizer], LRScheduler]:
    return lambda optimizer: torch_schedulers.CosineAnnealingLR(optimizer, steps)


def chained(*parts: Callable[[torch.optim.Optimizer], LRScheduler]) -> LRScheduler:
    optimizer = an_optimizer()
    return torch_schedulers.ChainedScheduler([part(optimizer) for part in parts], optimizer)


@pytest.mark.parametrize(
    ("scheduler", "every", "reason"),
    [
        (made("OneCycleLR", max_lr=1.0, total_steps=1000), "step", "OneCycleLR is made for steps"),
        (made("CyclicLR", 0.1, 1.0), "step", "CyclicLR is made for steps"),
        (made("CosineAnnealingLR", 1000), "step", "T_max=1000 is the number of steps"),
        (made("CosineAnnealingLR", 10), "epoch", "T_max=10 is the number of epochs"),
        (made("CosineAnnealingLR", 50), "epoch", "T_max=50 is nearer to the 10 epochs"),
        (made("CosineAnnealingLR", 900), "step", "T_max=900 is nearer to the 1000 steps"),
        (made("CosineAnnealingLR", 4000), "step", "T_max=4000 is nearer to the 1000 steps"),
        (made("CosineAnnealingWarmRestarts", 5), "epoch", "T_0=5 is within the 10 epochs"),
        (made("PolynomialLR", 1000), "step", "total_iters=1000 is the number of steps"),
        (made("LinearLR", total_iters=5), "epoch", "total_iters=5 is within the 10 epochs"),
        (
            made("LinearLR", total_iters=50),
            "step",
            "total_iters=50 is more than the 10 epochs and within the 1000 steps",
        ),
        (made("ConstantLR", total_iters=20), "step", "total_iters=20 is more than the 10 epochs"),
        (made("StepLR", 3), "epoch", "step_size=3 is within the 10 epochs"),
        (made("StepLR", 30), "epoch", "step_size=30 is nearer to the 10 epochs"),  # once a step: 0.1 ** 33
        (made("StepLR", 300), "step", "step_size=300 is nearer to the 1000 steps"),
        (made("MultiStepLR", [8, 5]), "epoch", "milestones=[5, 8] is within the 10 epochs"),
        (made("MultiStepLR", [500, 800]), "step", "milestones=[500, 800] is nearer to the 1000 steps"),
        (made("ExponentialLR", 0.9), "epoch", "torch's convention for ExponentialLR"),
        (made("LambdaLR", lambda count: 1.0), "epoch", "torch's convention for LambdaLR"),
        (made("MultiStepLR", []), "epoch", "torch's convention for MultiStepLR"),
        (SWALR(an_optimizer(), 0.05), "epoch", "SWALR is made for epochs"),
        (a_sequence(a_warmup(100), a_cosine(900), 100), "step", "(1000 in all) is the number of steps"),
        (a_sequence(a_warmup(2), a_cosine(8), 2), "epoch", "(10 in all) is the number of epochs"),
        (
            a_sequence(a_warmup(2), lambda optimizer: torch_schedulers.ExponentialLR(optimizer, 0.9), 2),
            "epoch",
            "milestones=[2] is within the 10 epochs",
        ),
        (
            a_sequence(a_warmup(2), lambda optimizer: torch_schedulers.CyclicLR(optimizer, 0.1, 1.0), 2),
            "step",
            "CyclicLR is made for steps",
        ),
        (chained(a_warmup(100), a_cosine(1000)), "step", "T_max=1000 is the number of steps"),
        (chained(a_warmup(2), a_cosine(10)), "epoch", "T_max=10 is the number of epochs"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LRScheduler) else str(value),
)
def test_the_length_tells_the_cadence(scheduler: LRScheduler, every: str, reason: str) -> None:
    chosen, said = cadence(scheduler, **RUN)
    assert chosen.scheduler is scheduler
    assert (chosen.every, chosen.metric) == (every, None)
    assert reason in said


def test_a_plateau_follows_the_evaluations_loss() -> None:
    chosen, said = cadence(made("ReduceLROnPlateau"), **RUN)
    assert (chosen.every, chosen.metric) == ("evaluation", "loss")
    assert "after each evaluation" in said


def test_a_guess_says_how_to_set_it() -> None:
    for scheduler in (made("ExponentialLR", 0.9), made("CosineAnnealingLR", 50)):
        assert "schedules.stepped(scheduler, every=…)" in cadence(scheduler, **RUN)[1]


def test_what_the_user_says_holds() -> None:
    asked = schedules.stepped(made("CosineAnnealingLR", 1000), every="epoch")
    assert cadence(asked, **RUN) == (asked, "once an epoch: as asked")
    said = mismatch(asked, **RUN)
    assert said is not None
    assert "is stepped once an epoch and has T_max=1000" in said


def test_a_run_counted_in_steps() -> None:
    in_steps: dict[str, Any] = {"epochs": None, "steps": 1000, "steps_per_epoch": 100}
    assert cadence(made("CosineAnnealingLR", 10), **in_steps)[0].every == "epoch"
    assert cadence(made("CosineAnnealingLR", 1000), **in_steps)[0].every == "step"
    endless = {**in_steps, "steps_per_epoch": None}
    assert cadence(made("CosineAnnealingLR", 10), **endless)[0].every == "step"
    assert "counted in steps" in cadence(made("CosineAnnealingLR", 10), **endless)[1]


def test_a_run_whose_steps_are_not_known() -> None:
    unknown: dict[str, Any] = {"epochs": 10, "steps": None, "steps_per_epoch": None}
    assert cadence(made("CosineAnnealingLR", 10), **unknown)[0].every == "epoch"
    assert cadence(made("CosineAnnealingLR", 500), **unknown)[0].every == "epoch"
    assert mismatch(made("OneCycleLR", max_lr=1.0, total_steps=7), **unknown) is None
    assert mismatch(schedules.cosine(total_steps=7), **unknown) is None


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (
            made("CosineAnnealingLR", 50),
            "T_max=50, but the run has 10 epochs / 1000 steps: it is cut off before its end",
        ),
        (
            made("CosineAnnealingLR", 5),
            "T_max=5, but the run has 10 epochs / 1000 steps: the rate rises again after it",
        ),
        (made("CosineAnnealingLR", 4000), "once a step and has T_max=4000, but the run has 10 epochs / 1000 steps"),
        (made("PolynomialLR", 5), "the rate is 0 after it"),
        (made("OneCycleLR", max_lr=1.0, total_steps=500), "torch raises an error when it is stepped further"),
        (made("OneCycleLR", max_lr=1.0, total_steps=2000), "it is cut off before its end"),
        (made("StepLR", 30), "step_size=30, but the run has 10 epochs / 1000 steps: it gets there too late to matter"),
        (made("MultiStepLR", [5, 10]), "milestones=[5, 10]"),
        (made("LinearLR", total_iters=5000), "total_iters=5000"),
        (made("LinearLR", 1.0, 0.1, total_iters=5), "it is over too early"),
        (a_sequence(a_warmup(100), a_cosine(1000), 100), "(1100 in all), but the run has"),
        (made("ReduceLROnPlateau", mode="max"), "mode='max' but watches the loss"),
        (
            schedules.cosine(total_steps=500),
            "cosine over 500 steps, but the run has 10 epochs / 1000 steps: it is over",
        ),
        (schedules.one_cycle(total_steps=2000), "it is cut off before its end"),
        (schedules.warmup_cosine(1000), "what begins at step 1000 is never reached"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LRScheduler) else str(value),
)
def test_a_length_that_does_not_fit_is_said(schedule: Any, said: str) -> None:
    assert said in str(mismatch(schedule, **RUN))


@pytest.mark.parametrize(
    "schedule",
    [
        made("CosineAnnealingLR", 10),
        made("CosineAnnealingLR", 1000),
        made("OneCycleLR", max_lr=1.0, total_steps=1000),
        made("CyclicLR", 0.1, 1.0),
        made("StepLR", 3),
        made("MultiStepLR", [5, 8]),
        made("LinearLR", total_iters=5),
        made("LinearLR", total_iters=100),
        made("ExponentialLR", 0.9),
        made("ReduceLROnPlateau"),
        schedules.stepped(made("ReduceLROnPlateau", mode="max"), every="evaluation", metric="accuracy"),
        a_sequence(a_warmup(100), a_cosine(900), 100),
        schedules.cosine(),
        schedules.cosine(total_steps=1000),
        schedules.warmup_cosine(100),
        schedules.constant(),
        lambda step: 1.0,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_length_that_fits_is_not_worth_a_word(schedule: Any) -> None:
    assert mismatch(schedule, **RUN) is None
