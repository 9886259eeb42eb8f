"""The quick step has the bits of ``optimizer.step()``, and gives way to it wherever something is not plain."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import StepLR

from trueloop.optim.quick import quick_step
from trueloop.testing import mlp, regression, same_bits

Take = Callable[[int, Optimizer], None]
MAKERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "adam": (Adam, {"lr": 0.01, "fused": True}),
    "adamw": (AdamW, {"lr": 0.01, "fused": True, "weight_decay": 0.1}),
    "decoupled": (Adam, {"lr": 0.01, "fused": True, "weight_decay": 0.5, "decoupled_weight_decay": True}),
    "maximized": (Adam, {"lr": 0.01, "fused": True, "maximize": True, "weight_decay": 0.1}),
    "plain adam": (Adam, {"lr": 0.01}),
    "amsgrad": (Adam, {"lr": 0.01, "fused": True, "amsgrad": True}),
    "tensor rate": (Adam, {"lr": torch.tensor(0.01), "fused": True}),
    "sgd": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "fused": True}),
    "adagrad": (Adagrad, {"lr": 0.01}),
    "rmsprop": (RMSprop, {"lr": 0.01}),
}


def trained(kind: str, quick: bool, meddle: Take | None = None, steps: int = 6) -> tuple[nn.Module, Optimizer]:
    model = mlp()
    cls, settings = MAKERS[kind]
    first, *rest = model.children()
    groups: list[dict[str, Any]] = [
        {"params": list(first.parameters())},
        {"params": [p for m in rest for p in m.parameters()], "lr": 0.02},
    ]
    optimizer = cls(groups, **settings)
    step = quick_step(optimizer) if quick else optimizer.step
    x, y = regression(8)
    for index in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        if meddle is not None:
            meddle(index, optimizer)
        step()
    return model, optimizer


@pytest.mark.parametrize("kind", MAKERS)
def test_it_has_the_bits_of_the_optimizers_own_step(kind: str) -> None:
    (model, optimizer), (by_hand, own) = trained(kind, quick=True), trained(kind, quick=False)
    assert same_bits(model, by_hand)
    for mine, theirs in zip(optimizer.state_dict()["state"].values(), own.state_dict()["state"].values(), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[key] is None or bool((mine[key] == theirs[key]).all()) for key in mine)


def halve_the_rate(index: int, optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] / 2
        group["weight_decay"] = 0.01 * index


def forget_a_gradient(index: int, optimizer: Optimizer) -> None:
    if index in (0, 3):
        optimizer.param_groups[1]["params"][0].grad = None


def load_what_was_saved(index: int, optimizer: Optimizer) -> None:
    if index == 3:
        state = copy.deepcopy(optimizer.state_dict())
        for entry in state["state"].values():
            entry["exp_avg"].mul_(-3.0)
        optimizer.load_state_dict(state)


def clear_the_state(index: int, optimizer: Optimizer) -> None:
    if index == 3:
        optimizer.state.clear()


def forget_one_moment(index: int, optimizer: Optimizer) -> None:
    if index == 3:
        optimizer.state[optimizer.param_groups[0]["params"][0]] = {}


def move_a_parameter_to_another_group(index: int, optimizer: Optimizer) -> None:
    if index == 3:
        moved = optimizer.param_groups[1]["params"].pop()
        optimizer.param_groups[0]["params"].append(moved)


@pytest.mark.parametrize(
    "meddle",
    [
        halve_the_rate,
        forget_a_gradient,
        load_what_was_saved,
        clear_the_state,
        forget_one_moment,
        move_a_parameter_to_another_group,
    ],
)
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_whatever_is_done_to_the_optimizer_meanwhile_counts(kind: str, meddle: Take) -> None:
    assert same_bits(trained(kind, quick=True, meddle=meddle)[0], trained(kind, quick=False, meddle=meddle)[0])


def test_hooks_that_come_later_run() -> None:
    seen: list[int] = []

    def hook_in(index: int, optimizer: Optimizer) -> None:
        if index == 3:
            optimizer.register_step_post_hook(lambda *_: seen.append(1))

    trained("adam", quick=True, meddle=hook_in)
    assert len(seen) == 3


def test_a_scheduler_that_comes_later_sees_the_steps() -> None:
    """torch's schedulers replace ``step`` on the instance, and warn if it was not called before theirs."""
    model, (x, y) = mlp(), regression(8)
    optimizer = Adam(model.parameters(), lr=0.01, fused=True)
    step = quick_step(optimizer)
    scheduler = StepLR(optimizer, 1)
    nn.functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
    step()
    scheduler.step()  # warnings are errors
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_step_of_a_class_of_ones_own_is_called_as_it_is() -> None:
    class Counting(Adam):
        calls = 0

        def step(self, closure: Any = None) -> Any:
            Counting.calls += 1
            return super().step(closure)

    model = mlp()
    quick_step(Counting(model.parameters()))()
    assert Counting.calls == 1


def test_the_grad_mode_is_as_it_was() -> None:
    weight = nn.Parameter(torch.ones(1))
    step = quick_step(torch.optim.SGD([weight], lr=0.1))
    weight.grad = torch.ones(1)
    with torch.no_grad():
        step()
        assert not torch.is_grad_enabled()
    step()
    assert torch.is_grad_enabled()
