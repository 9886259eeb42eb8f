"""Factories make torch's optimizers, with torch's bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trueloop import optim
from trueloop.errors import ArgumentError, UnknownNameError

DENSE: dict[str, tuple[Callable[..., optim.Factory], type[torch.optim.Optimizer]]] = {
    "sgd": (optim.sgd, torch.optim.SGD),
    "adam": (optim.adam, torch.optim.Adam),
    "adamw": (optim.adamw, torch.optim.AdamW),
    "rmsprop": (optim.rmsprop, torch.optim.RMSprop),
    "adagrad": (optim.adagrad, torch.optim.Adagrad),
    "adadelta": (optim.adadelta, torch.optim.Adadelta),
    "adafactor": (optim.adafactor, torch.optim.Adafactor),
    "adamax": (optim.adamax, torch.optim.Adamax),
    "nadam": (optim.nadam, torch.optim.NAdam),
    "radam": (optim.radam, torch.optim.RAdam),
    "asgd": (optim.asgd, torch.optim.ASGD),
    "rprop": (optim.rprop, torch.optim.Rprop),
    "lbfgs": (optim.lbfgs, torch.optim.LBFGS),
}
FUSED = {"sgd", "adam", "adamw", "adagrad"}


def a_model(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    for parameter in model.parameters():
        parameter.data.uniform_(-0.5, 0.5, generator=generator)
    return model


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[float]:
    """Losses before each step, and after the last."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 4, generator=generator)
    y = x.sum(1, keepdim=True)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return float(loss.item())

    losses = [optimizer.step(closure) for _ in range(steps)]
    return [*losses, (model(x) - y).square().mean().item()]


def weights(model: nn.Module) -> list[list[Any]]:
    return [parameter.tolist() for parameter in model.parameters()]


def test_every_optimizer_of_torch_has_a_factory() -> None:
    classes = {kind for kind in vars(torch.optim).values() if isinstance(kind, type)}
    known = {kind for _, kind in DENSE.values()} | {torch.optim.SparseAdam, torch.optim.Muon, torch.optim.Optimizer}
    assert {kind for kind in classes if issubclass(kind, torch.optim.Optimizer)} == known


@pytest.mark.parametrize("name", DENSE)
def test_it_lowers_the_loss(name: str) -> None:
    model = a_model()
    losses = trained(model, DENSE[name][0]()(model))
    assert losses[-1] < losses[0]


def test_muon_lowers_the_loss() -> None:
    model = a_model()
    losses = trained(model, optim.muon(lr=0.01)(model))
    assert losses[-1] < losses[0]


def test_sparse_adam_lowers_the_loss() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    optimizer = optim.sparse_adam(lr=0.1)(model)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(torch.tensor([0, 3])).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", DENSE)
def test_the_bits_are_those_of_torchs_class_with_the_same_settings(name: str) -> None:
    make, kind = DENSE[name]
    settings: dict[str, Any] = {"lr": 0.01} if "rprop" in name or "lbfgs" in name else {"lr": 0.01, "weight_decay": 0.1}
    ours, theirs = a_model(), a_model()
    optimizer = make(**settings, groups=optim.one_group)(ours)
    if name in FUSED:
        settings["fused"] = True
    reference = kind(theirs.parameters(), **settings)
    assert type(optimizer) is kind
    assert trained(ours, optimizer) == trained(theirs, reference)
    assert weights(ours) == weights(theirs)


def test_defaults_are_torchs() -> None:
    for make, kind in DENSE.values():
        model = a_model()
        reference = kind(model.parameters())  # type: ignore[call-arg]
        apart = {"fused", "foreach"}
        for group in make()(model).param_groups:
            named = {"name", "param_names", "params", "weight_decay"} | apart
            assert {k: v for k, v in group.items() if k not in named} == {
                k: v for k, v in reference.param_groups[0].items() if k not in named
            }


def test_groups_have_the_bits_of_hand_written_groups() -> None:
    ours, theirs = a_model(), a_model()
    parameters = dict(theirs.named_parameters())
    decaying = ["0.weight", "3.weight", "5.weight"]
    by_hand: list[dict[str, Any]] = [
        {"params": [parameters[name] for name in decaying], "weight_decay": 0.1},
        {"params": [value for name, value in parameters.items() if name not in decaying], "weight_decay": 0.0},
    ]
    trained(ours, optim.adamw(lr=0.01, weight_decay=0.1)(ours))
    trained(theirs, torch.optim.AdamW(by_hand, lr=0.01, fused=True))
    assert weights(ours) == weights(theirs)


@pytest.mark.parametrize("name", [name for name in DENSE if name != "lbfgs"])
def test_fused_where_torch_can(name: str) -> None:
    (group,) = DENSE[name][0](groups=optim.one_group)(a_model()).param_groups
    assert group.get("fused", False) is (name in FUSED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fused_for_every_float(dtype: torch.dtype) -> None:
    assert optim.adam()(a_model().to(dtype)).param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (nn.Linear(2, 2, dtype=torch.complex64), {}),
        (nn.Linear(2, 2, device="meta"), {}),
        (nn.Embedding(5, 2, sparse=True), {}),
        (nn.Linear(2, 2), {"foreach": True}),
        (nn.Linear(2, 2), {"differentiable": True}),
    ],
    ids=["complex", "meta", "sparse", "foreach", "differentiable"],
)
def test_not_fused_where_torch_cannot(model: nn.Module, settings: dict[str, Any]) -> None:
    assert optim.adam(**settings)(model).param_groups[0]["fused"] is False


def test_fused_can_be_refused() -> None:
    assert optim.sgd(fused=False)(a_model()).param_groups[0]["fused"] is False
    with pytest.raises(ArgumentError, match=r"no fused RMSprop, got fused=True"):
        optim.factory(torch.optim.RMSprop, fused=True)


def test_trying_the_fused_kernel_is_not_heard_and_moves_nothing() -> None:
    heard: list[object] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: heard.append(optimizer))
    model = a_model()
    before, state = weights(model), torch.get_rng_state()
    try:
        optim.adamw()(model)
    finally:
        handle.remove()
    assert heard == []
    assert weights(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_only_what_wants_a_gradient_is_trained() -> None:
    model = a_model()
    model[0].requires_grad_(False)
    held = {id(p) for group in optim.adamw()(model).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_factory_can_be_used_again() -> None:
    make = optim.sgd(lr=0.1, momentum=0.9)
    first, second = a_model(), a_model()
    assert trained(first, make(first)) == trained(second, make(second))


def test_any_class_of_ones_own() -> None:
    class Own(torch.optim.SGD):
        def __init__(self, params: Any, **others: Any) -> None:
            super().__init__(params, **others)

    assert type(optim.factory(Own, lr=0.1, momentum=0.5)(a_model())) is Own


@pytest.mark.parametrize("model", [nn.Tanh(), nn.Linear(2, 2).requires_grad_(False)], ids=["empty", "frozen"])
@pytest.mark.parametrize("make", [optim.adamw(), optim.lbfgs()])
def test_nothing_to_train(model: nn.Module, make: optim.Factory) -> None:
    with pytest.raises(ArgumentError, match=r"needs a parameter to train, got none: .* requires_grad_\(True\)"):
        make(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.adam(lr=-1e-3), "lr must be finite and 0 or more, got lr=-0.001; 1e-3 is usual"),
        (lambda: optim.sgd(lr=math.nan), "got lr=nan"),
        (lambda: optim.adamw(lr=math.inf), "got lr=inf"),
        (lambda: optim.adamw(lr=torch.tensor(-1.0)), "got lr=-1.0"),
        (lambda: optim.adamw(lr=torch.ones(2)), r"lr must be one number, got a tensor of shape \(2,\)"),
        (lambda: optim.muon(lr=-1), "got lr=-1"),
        (lambda: optim.adamw(weight_decay=-0.1), "weight_decay .* got weight_decay=-0.1; 0 turns it off"),
        (lambda: optim.nadam(weight_decay=math.inf), "got weight_decay=inf"),
        (lambda: optim.sgd(momentum=1.0), "momentum must be from 0 to less than 1, got momentum=1.0"),
        (lambda: optim.rmsprop(momentum=-0.5), "got momentum=-0.5"),
        (lambda: optim.sgd(nesterov=True), "SGD refuses its settings .*'momentum': 0.0.*Nesterov momentum requires"),
        (lambda: optim.adam(betas=(1.5, 0.9)), "Adam refuses its settings .*1.5"),
        (lambda: optim.adam(eps=-1.0), "-1.0"),
        (lambda: optim.adafactor(d=0.5), "Adafactor refuses"),
        (lambda: optim.muon(ns_steps=5, adjust_lr_fn="nothing"), "nothing is not supported"),
    ],
)
def test_a_setting_out_of_range_is_refused_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_mistyped_setting_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="unknown setting of Adam 'amsgard'; did you mean 'amsgrad'"):
        optim.adam(amsgard=True)


def test_lbfgs_with_rates_by_group_says_what_torch_says() -> None:
    with pytest.raises(ArgumentError, match=r"LBFGS refuses .* per-parameter options"):
        optim.lbfgs(groups=optim.rates({"0": 0.1}))(a_model())


def test_a_schedulers_rate_reaches_every_group() -> None:
    model = a_model()
    optimizer = optim.adamw(lr=1.0, groups=optim.rates({"5": 0.5}))(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    trained(model, optimizer, steps=1)
    scheduler.step()
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.25, 0.5]


def test_the_model_may_be_copied_with_its_optimizer() -> None:
    model = a_model()
    optimizer = optim.adamw(lr=0.01)(model)
    both = copy.deepcopy((model, optimizer))
    assert trained(*both) == trained(model, optimizer)


def test_a_parameter_that_is_first_used_later_has_its_momentum_from_then_on() -> None:
    def trained(fused: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.ModuleDict({"first": nn.Linear(3, 1), "later": nn.Linear(3, 1)})
        optimizer = optim.sgd(lr=0.1, momentum=0.9, weight_decay=0.01, fused=fused)(model)
        for step in range(4):
            x = torch.randn(8, 3)
            optimizer.zero_grad()
            (model["first"](x) + (model["later"](x) if step else 0)).square().mean().backward()
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    for fused, plain in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(fused, plain)
