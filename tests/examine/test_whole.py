"""All examinations together: nothing of them is left, what breaks does not stop them, and the report."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.doctor.output import written
from trueloop.doctor.pages import codes
from trueloop.errors import ArgumentError
from trueloop.examine import whole as file
from trueloop.examine.aside import AsideError, in_fork, put_back
from trueloop.examine.result import Examined
from trueloop.examine.subject import Limits
from trueloop.examine.whole import EXAMINATIONS, examine
from trueloop.testing import classification, mlp, same_bits

X, Y = classification(160, 6)
TRAIN, VAL = (X[:128], Y[:128]), (X[128:], Y[128:])
ALL = list(EXAMINATIONS)

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def trainer(model: nn.Module | None = None, loss: Any = None, **choices: Any) -> tl.Trainer:
    model = model or mlp(6, 4, width=16, norm=True, dropout=0.2)
    return tl.Trainer(model, loss or nn.CrossEntropyLoss(), tl.optim.adamw(lr=0.01), **choices)


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process cannot be forked."""
    monkeypatch.setattr(file, "can_fork", lambda device: False)


@pytest.fixture(params=["fork", "in place"])
def way(request: pytest.FixtureRequest) -> str:
    if request.param == "in place":
        request.getfixturevalue("in_place")
    return str(request.param)


class Counting(nn.Module):
    """Counts its passes in a plain attribute, which no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.passes = nn.Linear(6, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        out: Tensor = self.out(x)
        return out


def run(made: tl.Trainer, train: Any, examined: Callable[[tl.Trainer, Any], Any] | None) -> tuple[Any, ...]:
    """What is left after a fit: before it, the trainer may be examined."""
    tl.seed_all(3)
    before = None
    if examined is not None:
        examined(made, train)
        before = [module.training for module in made.model.modules()], [p.grad for p in made.model.parameters()]
    made.fit(train, VAL, epochs=2, batch_size=None if isinstance(train, DataLoader) else 16, progress=False)
    optimizer = next(iter(made.setup.optimizers.values())).state_dict()
    return made.model, optimizer, torch.rand(1), random.random(), np.random.rand(), before


@pytest.mark.parametrize("data", ["arrays", "loader", "loader with a generator"])
def test_nothing_of_it_is_left(data: str, way: str) -> None:
    def batches() -> Any:
        if data == "arrays":
            return TRAIN
        generator = torch.Generator().manual_seed(1) if "generator" in data else None
        return DataLoader(TensorDataset(*TRAIN), batch_size=16, shuffle=True, generator=generator)

    def examined(made: tl.Trainer, train: Any) -> None:
        result = made.examine(train, VAL, max_steps=30)
        assert len(result.examinations) == len(ALL)
        assert not [one.broke for one in result.examinations if one.broke]

    choices: dict[str, Any] = {
        "schedule": tl.schedules.cosine(),
        "average": tl.optim.ema(0.9),
        "clip_norm": 1.0,
        "accumulate": 2,
    }
    alone = run(trainer(**choices), batches(), None)
    after = run(trainer(**choices), batches(), examined)
    assert same_bits(alone[0], after[0])
    for mine, its in zip(alone[1]["state"].values(), after[1]["state"].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(mine[key]), torch.as_tensor(its[key])) for key in mine)
    assert alone[1]["param_groups"] == after[1]["param_groups"]
    assert alone[2:5] == after[2:5]
    modes, gradients = after[5]
    assert all(modes)
    assert gradients == [None] * len(gradients)


@pytest.mark.parametrize(
    "choices",
    [
        {"schedule": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.05, total_steps=16)},
        {"precision": "bf16", "metrics": {"accuracy": MulticlassAccuracy(4)}},
        {"penalty": tl.objective.l2(0.01), "deterministic": True},
    ],
)
def test_nothing_of_it_is_left_whatever_was_chosen(choices: dict[str, Any], way: str) -> None:
    def examined(made: tl.Trainer, train: Any) -> None:
        made.examine(train, VAL, max_steps=5, epochs=2, batch_size=16)

    alone, after = run(trainer(**choices), TRAIN, None), run(trainer(**choices), TRAIN, examined)
    assert same_bits(alone[0], after[0])
    assert str(alone[1]) == str(after[1])
    assert alone[2:5] == after[2:5]


def test_after_a_training_too_nothing_is_left(way: str) -> None:
    made, other = trainer(), trainer()
    for one in (made, other):
        tl.seed_all(0)
        one.fit(TRAIN, VAL, epochs=1, batch_size=16, progress=False)
        if one is made:
            state, rng = one.setup.optimizers[""].state_dict(), torch.get_rng_state()
            one.examine(TRAIN, VAL, max_steps=30)
            assert str(one.setup.optimizers[""].state_dict()) == str(state)
            assert torch.equal(torch.get_rng_state(), rng)
        one.fit(TRAIN, VAL, epochs=1, batch_size=16, progress=False)
    assert same_bits(made.model, other.model)


@forks
def test_not_even_what_no_state_dict_holds() -> None:
    model = Counting()
    once = iter([(X[:16], Y[:16])] * 8)
    trainer(model).examine(once, max_steps=5)
    assert model.passes == 0
    assert len(list(once)) == 8


def test_modes_and_frozen_weights_stay(way: str) -> None:
    model = mlp(6, 4, norm=True)
    model[0].requires_grad_(False)
    model[1].eval()
    trainer(model).examine(TRAIN, VAL, max_steps=5)
    assert [module.training for module in model] == [True, False, True, True]
    assert [p.requires_grad for p in model[0].parameters()] == [False, False]
    assert all(p.grad is None for p in model.parameters())


# --- what breaks


def test_an_examination_that_breaks_tells_so_and_the_others_go_on(way: str) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise ValueError("no eval mode here")
            out: Tensor = self.out(x)
            return out

    made = trainer(Breaks()).examine(TRAIN, VAL, max_steps=100)
    broke = {one.name: one for one in made.examinations if one.broke}
    assert {"same-evaluation", "neighbours", "inputs"} == set(broke)
    assert "ValueError: no eval mode here" in broke["same-evaluation"].sentence
    assert f"{__file__}:" in broke["same-evaluation"].sentence
    assert [one.name for one in made.examinations] == ALL
    assert {one.verdict for one in made.examinations if one.name not in broke} == {"passed"}


@forks
def test_one_that_dies_or_hangs_is_ended() -> None:
    with pytest.raises(AsideError, match="died of signal 9"):
        in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL), seconds=60)
    with pytest.raises(AsideError, match=r"had not ended after 0.3 s"):
        in_fork(lambda: time.sleep(60), seconds=0.3)
    with pytest.raises(AsideError, match="exit code 1"):
        in_fork(lambda: exit(3), seconds=60)


@forks
def test_a_loader_that_hangs_is_ended() -> None:
    class Hangs:
        def __iter__(self) -> Iterator[Any]:
            time.sleep(60)
            yield X, Y

    made = trainer().examine(Hangs(), timeout=1.0, select=["degenerate-targets"])
    assert "had not ended after 1 s" in made.examinations[0].sentence


def test_bad_input_is_told_as_fit_tells_it() -> None:
    with pytest.raises(ArgumentError, match="expected a loss"):
        tl.Trainer(mlp(6, 4), optimizer=tl.optim.adam(lr=0.1)).examine(TRAIN)
    with pytest.raises(TypeError, match="batchsize"):
        trainer().examine(TRAIN, batchsize=3)
    with pytest.raises(ArgumentError, match="did you mean 'loader-bound'"):
        trainer().examine(TRAIN, select=["loader-bond"])
    with pytest.raises(ArgumentError, match=r"limit of steps must be above 0, got 0"):
        trainer().examine(TRAIN, max_steps=0)


# --- the report


@pytest.fixture(scope="module")
def leaking() -> Examined:
    return trainer().examine(TRAIN, (X[100:], Y[100:]), batch_size=16, select=["5xx"])


def test_the_report(leaking: Examined) -> None:
    assert [finding.name for finding in leaking.findings] == ["leak-between-splits"]
    assert not leaking.passed
    text = str(leaking)
    assert text.startswith("examined: Sequential on 128 training samples, 16 a step\n  passed   inputs ")
    assert "\n  failed   splits " in text
    assert "error[leak-between-splits] (501): 28 of 60 validation samples" in text
    assert text.endswith("trueloop doctor --examine: found 1 error; 4 of 5 examinations passed")
    short = leaking.text(colours=True)
    assert "passed   inputs" not in short
    assert "\x1b[1;31mfailed \x1b[0m  splits" in short


def test_the_formats_of_the_doctor(leaking: Examined) -> None:
    report = json.loads(written(leaking.report(), "json"))
    assert [finding["name"] for finding in report["findings"]] == ["leak-between-splits"]
    assert {one["name"] for one in report["passed"]} == {"inputs", "neighbours", "same-evaluation", "loader-speed"}
    assert json.loads(written(leaking.report(), "sarif"))["runs"][0]["results"][0]["level"] == "error"
    assert written(leaking.report(), "github").startswith("::error title=leak-between-splits (501)::28 of 60 ")


def test_what_is_ignored_is_not_examined() -> None:
    made = trainer().examine(TRAIN, (X[100:], Y[100:]), select=["5xx"], ignore=["501", "loader-bound"])
    assert [one.name for one in made.examinations] == ["inputs", "neighbours", "same-evaluation"]
    assert made.passed


def test_every_rule_that_speaks_is_known() -> None:
    speaking = {rule for one in EXAMINATIONS.values() for rule in one.rules} - {"not-seeded"}
    assert speaking <= set(codes())


# --- what stays silent


def test_examinations_can_be_made_without_the_trainer_method() -> None:
    told: list[str] = []
    made = examine(trainer(), TRAIN, VAL, {}, limits=Limits(steps=60), told=lambda one: told.append(one.name))
    assert told == ALL
    assert made.passed
    assert {one.verdict for one in made.examinations} == {"passed"}, str(made)


def test_put_back_puts_back_buffers_that_were_replaced() -> None:
    model = nn.BatchNorm1d(2)
    made = trainer(model)
    before = model.running_mean
    with put_back(made):
        model.running_mean = torch.ones(2)
    assert model.running_mean is before
    assert before is not None
    assert before.tolist() == [0, 0]
