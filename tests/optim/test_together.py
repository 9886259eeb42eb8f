"""Several optimizers that are one, and Muon on top of it."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trueloop import optim
from trueloop.errors import ArgumentError, UnknownNameError


def a_model() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    for parameter in model.parameters():
        parameter.data.uniform_(-0.5, 0.5, generator=generator)
    return model


def together(model: nn.Module) -> optim.Together:
    optimizer = optim.muon(lr=0.02, rest=optim.adamw(lr=1e-2, weight_decay=0.1))(model)
    assert isinstance(optimizer, optim.Together)
    return optimizer


def loss_of(model: nn.Module, step: int) -> Tensor:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    assert isinstance(loss, Tensor)
    return loss


def train(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: range = range(4)) -> None:
    for step in steps:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()


def weights(model: nn.Module) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in model.parameters()]


def test_it_has_the_bits_of_its_parts_by_themselves() -> None:
    ours, theirs = a_model(), a_model()
    named = dict(theirs.named_parameters())
    hidden = [named.pop(name) for name in ("0.weight", "2.weight")]
    output = named.pop("4.weight")
    muon = torch.optim.Muon(hidden, lr=0.02)
    groups: list[dict[str, Any]] = [{"params": [output]}, {"params": named.values(), "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, fused=True)
    train(ours, together(ours))
    train(theirs, muon, adamw)
    assert weights(ours) == weights(theirs)


def test_groups_and_state_are_those_of_the_parts() -> None:
    model = a_model()
    optimizer = together(model)
    train(model, optimizer)
    groups = [group for part in optimizer.parts for group in part.param_groups]
    assert [id(group) for group in optimizer.param_groups] == [id(group) for group in groups]
    assert set(optimizer.state) == set(model.parameters())
    assert [group["name"] for group in optimizer.param_groups] == ["Muon decay", "AdamW decay", "AdamW no_decay"]


def test_zero_grad_clears_every_part() -> None:
    model = a_model()
    optimizer = together(model)
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_closure_is_called_once_with_gradients_on() -> None:
    model = a_model()
    optimizer = together(model)
    losses = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        return losses[-1]

    assert optimizer.step(closure) == losses[0]
    assert len(losses) == 1
    other = a_model()
    train(other, together(other), steps=range(1))
    assert weights(model) == weights(other)


def test_a_run_that_is_saved_and_loaded_goes_on_with_the_same_bits() -> None:
    whole, first = a_model(), a_model()
    train(whole, together(whole), steps=range(6))

    optimizer = together(first)
    train(first, optimizer, steps=range(3))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = a_model()
    second.load_state_dict(saved["model"])
    resumed = together(second)
    train(copy.deepcopy(second), resumed, steps=range(0))
    resumed.load_state_dict(saved["optimizer"])
    assert [id(group) for part in resumed.parts for group in part.param_groups] == list(map(id, resumed.param_groups))
    train(second, resumed, steps=range(3, 6))
    assert weights(second) == weights(whole)


def test_loaded_rates_hold_in_the_parts() -> None:
    model = a_model()
    optimizer = together(model)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = 0.0
    optimizer.load_state_dict(state)
    before = weights(model)
    train(model, optimizer)
    assert weights(model) == before


def test_a_copy_is_whole_and_apart() -> None:
    model = a_model()
    optimizer = together(model)
    train(model, optimizer, steps=range(2))
    other, copied = copy.deepcopy((model, optimizer))
    before = weights(model)
    train(other, copied, steps=range(2, 4))
    assert weights(model) == before
    train(model, optimizer, steps=range(2, 4))
    assert weights(model) == weights(other)


def test_a_torch_scheduler_moves_every_part() -> None:
    model = a_model()
    optimizer = together(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    train(model, optimizer, steps=range(1))
    scheduler.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.01, 0.005]


def test_a_gradient_scaler_unscales_every_part_and_skips_an_overflow() -> None:
    model, plain = a_model(), a_model()
    optimizer = together(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    train(plain, together(plain), steps=range(3))
    for ours, theirs in zip(weights(model), weights(plain), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)

    before = weights(model)
    scaler.scale(loss_of(model, 3) * torch.inf).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    assert weights(model) == before
    assert scaler.get_scale() == 512.0


def test_a_group_cannot_be_added() -> None:
    optimizer = together(a_model())
    with pytest.raises(ArgumentError, match="cannot be added to several optimizers at once, got 1 parameters"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_a_parameter_in_two_parts_is_refused() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.Together(torch.optim.Muon([weight]), torch.optim.SGD([weight]))


class Tied(nn.Module):
    """A language model's shape: embedding, blocks, an output layer that is the embedding again."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.conv = nn.Conv1d(4, 4, 1)
        self.output = nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight


def names(optimizer: torch.optim.Optimizer, kind: str) -> set[str]:
    groups = [group for group in optimizer.param_groups if group["name"].startswith(kind)]
    return {name for group in groups for name in group["param_names"]}


def test_muon_takes_the_hidden_matrices_only() -> None:
    optimizer = optim.muon()(Tied())
    assert names(optimizer, "Muon") == {"blocks.0.weight", "blocks.1.weight"}
    assert names(optimizer, "AdamW") == {
        "embedding.weight",
        "blocks.0.bias",
        "blocks.1.bias",
        "conv.weight",
        "conv.bias",
    }


def test_muon_skips_what_it_is_told() -> None:
    model = a_model()
    assert names(optim.muon()(model), "Muon") == {"0.weight", "2.weight"}
    assert names(optim.muon(skip=())(model), "Muon") == {"0.weight", "2.weight", "4.weight"}
    assert names(optim.muon(skip=["0", "4"])(model), "Muon") == {"2.weight"}
    with pytest.raises(UnknownNameError, match="unknown submodule 'head'"):
        optim.muon(skip=["head"])(model)


def test_muon_with_nothing_for_the_rest() -> None:
    optimizer = optim.muon(skip=())(nn.Linear(3, 3, bias=False))
    assert [group["name"] for group in optimizer.param_groups] == ["Muon decay"]


def test_muon_without_a_hidden_matrix() -> None:
    with pytest.raises(ArgumentError, match=r"matrices of hidden layers, and Linear has none; use adamw, or skip=\(\)"):
        optim.muon()(nn.Linear(3, 3))
