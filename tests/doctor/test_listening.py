"""Listening leaves nothing behind, changes nothing, and steps aside for what reads functions."""

from __future__ import annotations

import os
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from trueloop.doctor.listen import listening
from trueloop.doctor.probes import optimizers

WATCHED = [
    (torch.autograd, "backward"),
    (torch.autograd, "grad"),
    (torch.optim.Optimizer, "__init__"),
    (torch.optim.Optimizer, "zero_grad"),
    (nn.Module, "zero_grad"),
    (nn.Module, "train"),
    (nn.Module, "state_dict"),
    (functional, "cross_entropy"),
    (functional, "dropout"),
    (nn.utils, "clip_grad_norm_"),
    (DataLoader, "__iter__"),
    (torch, "argmax"),
    (torch, "manual_seed"),
    (torch, "set_anomaly_enabled"),
    (torch.jit, "script"),
    (Tensor, "__eq__"),
]


def step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    functional.cross_entropy(model(torch.ones(4, 3)), torch.zeros(4, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_nothing_is_left() -> None:
    before = [getattr(owner, name) for owner, name in WATCHED]
    hooks = dict(nn.modules.module._global_forward_hooks)
    with listening():
        assert functional.cross_entropy is not before[WATCHED.index((functional, "cross_entropy"))]
        step(nn.Linear(3, 2))
    assert [getattr(owner, name) for owner, name in WATCHED] == before
    assert dict(nn.modules.module._global_forward_hooks) == hooks
    assert not torch.is_anomaly_enabled()


def test_nothing_is_left_after_an_error() -> None:
    before = [getattr(owner, name) for owner, name in WATCHED]
    with pytest.raises(ValueError, match="mine"), listening():
        raise ValueError("mine")
    assert [getattr(owner, name) for owner, name in WATCHED] == before


def loss_of(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores, labels)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_reads_what_it_would_read() -> None:
    scores, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with listening() as trace:
        scripted = torch.jit.script(loss_of)
        assert torch.equal(scripted(scores, labels), loss_of(scores, labels))
        traced = torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3))  # type: ignore[no-untyped-call]
        assert traced(torch.ones(1, 3)).shape == (1, 2)
    assert trace.silenced == []


def scale(values: Tensor) -> Tensor:
    return values * 2


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_finds_the_names_that_a_class_uses() -> None:
    class Scaled:  # a class is looked up from its caller's frame, a function by itself
        def __init__(self) -> None:
            self.factor = 3.0

        def of(self, values: Tensor) -> Tensor:
            return scale(values) * self.factor

    with listening():
        torch.jit.script(Scaled)


def test_what_the_script_replaced_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: Any = max

    monkeypatch.setattr(functional, "cross_entropy", functional.cross_entropy)  # to have it back after the test
    with listening() as trace:
        setattr(functional, "cross_entropy", mine)  # noqa: B010 - as a script would
    assert functional.cross_entropy is mine
    assert any("cross_entropy" in note for note in trace.notes)


def test_the_users_anomaly_mode_is_as_the_user_set_it() -> None:
    with listening():
        torch.autograd.set_detect_anomaly(True)
        step(nn.Linear(3, 2))
        assert torch.is_anomaly_enabled()
        torch.autograd.set_detect_anomaly(False)
        step(nn.Linear(3, 2))
    assert not torch.is_anomaly_enabled()


@pytest.mark.parametrize("layer", [nn.ReLU(inplace=True), nn.ReLU()], ids=["in place", "not in place"])
def test_graphs_die_when_the_script_lets_them(layer: nn.Module) -> None:
    class Token:
        pass

    model, alive = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)), []
    with listening():
        for _ in range(4):
            loss = model(torch.ones(4, 3)).square().mean()
            token = Token()
            assert loss.grad_fn is not None
            loss.grad_fn.metadata["token"] = token
            alive.append(weakref.ref(token))
            del token
            loss.backward()
            del loss
    assert [ref() for ref in alive] == [None] * 4


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.complex64])
def test_weights_of_every_type_are_heard(dtype: torch.dtype) -> None:
    weight = torch.ones(4).to(dtype).requires_grad_()
    optimizer = torch.optim.SGD([weight, torch.ones(2, requires_grad=True)], lr=0.1)
    with listening() as trace:
        optimizer.step()
    assert trace.step == 1
    assert trace.notes == []


def test_a_probe_that_raises_ends_the_listening_and_not_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(groups: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(optimizers, "before_step", broken)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with listening() as trace:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 2)).sum().backward()
            optimizer.step()
    assert any("stopped listening at step 0" in note and "a defect" in note for note in trace.notes)


def test_a_forked_process_is_not_heard() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with listening() as trace:
        child = os.fork()
        if child == 0:
            optimizer.step()
            os._exit(trace.step)
        _, status = os.waitpid(child, 0)
        optimizer.step()
    assert os.waitstatus_to_exitcode(status) == 0
    assert trace.step == 1


def test_no_trace_of_its_hooks_is_left() -> None:
    from torch.nn.modules import module as hooks

    tables = [name for name in vars(hooks) if name.startswith("_global_")]
    before = {name: dict(getattr(hooks, name)) for name in tables if isinstance(getattr(hooks, name), dict)}
    with listening():
        nn.Linear(2, 1)(torch.ones(1, 2))
    assert {name: dict(getattr(hooks, name)) for name in before} == before


def test_a_mistake_whose_line_is_known_in_the_first_steps_only_is_told_once() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with listening() as trace:
        for _ in range(8):
            x = torch.randn(16, 4)
            scores = torch.softmax(model(x), 1)
            loss = functional.cross_entropy(scores, x[:, :3].argmax(1))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert [one.name for one in trace.findings if one.level == "error"] == ["softmax-before-cross-entropy"]
