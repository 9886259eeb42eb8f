"""Scripted events: a run as observers see it, without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from trueloop.events import EvalEnded, RunStarted, StepEnded
from trueloop.plan import Group, Plan, Rate


@pytest.fixture
def plan() -> Plan:
    return Plan(
        steps=6,
        epochs=2,
        steps_per_epoch=3,
        samples_per_step=4,
        samples=12,
        data="in memory",
        ritual=("forward", "loss", "zero", "backward", "SGD"),
        rate=Rate("constant", 0.1, 0.1, 0, 0.1),
        groups=(Group("all", 2, 11, 0.1, 0.0),),
        frozen=0,
        device="cpu: asked for",
        precision="fp32",
        memory="as the model is",
        evaluates="every epoch",
    )


@pytest.fixture
def started(plan: Plan) -> RunStarted:
    return RunStarted(plan=plan, seed=3, step=0, epoch=0)


@pytest.fixture
def stepped() -> Callable[..., StepEnded]:
    def stepped(
        step: int,
        loss: float = 0.5,
        *,
        epoch: int = 0,
        grad_norm: float | None = None,
        terms: Mapping[str, float] | None = None,
        skipped: bool = False,
    ) -> StepEnded:
        norm = None if grad_norm is None else torch.tensor(grad_norm)
        named = {name: torch.tensor(value) for name, value in (terms or {}).items()}
        return StepEnded(step, epoch, torch.tensor(loss), 4, 0.1, norm, named, skipped)

    return stepped


@pytest.fixture
def evaluated() -> Callable[..., EvalEnded]:
    def evaluated(step: int, loss: float, *, epoch: int = 0, **metrics: float) -> EvalEnded:
        return EvalEnded(step, epoch, {"loss": loss, **metrics}, 20, 0.25)

    return evaluated


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
