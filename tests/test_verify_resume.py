"""Trials in forks: what is exact is called so, and what is not is found and named."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.checkpoint.resume import Parts, capture
from trueloop.errors import ArgumentError, TrueloopError
from trueloop.events import EvalEnded, Event
from trueloop.observers import EarlyStop
from trueloop.testing import classification, mlp, same_bits
from trueloop.verify_resume.processes import finished, forked
from trueloop.verify_resume.record import entries
from trueloop.verify_resume.roles import middle
from trueloop.verify_resume.unsaved import unsaved

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

X, Y = classification(30)
Trees = dict[str, dict[str, Any]]


def trainer(model: nn.Module | None = None, loss: Any = None, **choices: Any) -> tl.Trainer:
    model = model or mlp(3, 4, norm=True, dropout=0.2)
    return tl.Trainer(model, loss or nn.CrossEntropyLoss(), tl.optim.adamw(lr=0.01), **choices)


def everything() -> tl.Trainer:
    return trainer(
        accumulate=2,
        average=tl.optim.ema(0.9),
        schedule=partial(torch.optim.lr_scheduler.StepLR, step_size=2),
        metrics={"accuracy": MulticlassAccuracy(4)},
    )


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Noise from the global generator."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + 0.1 * torch.randn(3), Y[index]


class OwnNoise(Augmented):
    """Noise from a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + float(self.rng.normal()), Y[index]


class Walking:
    """A sampler that goes on from where the epoch before ended."""

    def __init__(self) -> None:
        self.at = 0

    def __len__(self) -> int:
        return 14

    def __iter__(self) -> Iterator[int]:
        for _ in range(14):
            self.at = (self.at + 7) % 30
            yield self.at


class Saying(Walking):
    """The same, with its state."""

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.at = state["at"]


class Centred(nn.Module):
    """Learns a mean in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)
        self.mean = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        out: Tensor = self.head(x - self.mean)
        return out


class Buffered(Centred):
    """The same, in a buffer that is saved."""

    def __init__(self) -> None:
        super().__init__()
        del self.mean
        self.register_buffer("mean", torch.zeros(3))


class Scaled:
    """A loss that draws, or counts."""

    def __init__(self, factor: Callable[[], float]) -> None:
        self.factor = factor

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1]) * self.factor()


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return 1 + self.calls / 10


def loader(**how: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 4, **how)


@pytest.mark.parametrize(
    ("make", "data", "how"),
    [
        pytest.param(everything, (X, Y), {"batch_size": 4, "epochs": 9, "seed": 1}, id="everything"),
        pytest.param(trainer, (X, Y), {"batch_size": 4}, id="no length, no seed"),
        pytest.param(
            partial(trainer, accumulate=2, schedule=tl.schedules.one_cycle()),
            Augmented(),
            {"batch_size": 4, "steps": 40, "workers": 2},
            id="augmented by workers",
        ),
        pytest.param(trainer, loader(shuffle=True), {"epochs": 9}, id="loader"),
        pytest.param(trainer, loader(sampler=Saying()), {"epochs": 9}, id="a sampler with its state"),
        pytest.param(trainer, OwnNoise(), {"batch_size": 4, "epochs": 9}, id="a generator in this process"),
        pytest.param(partial(trainer, Buffered()), (X, Y), {"batch_size": 4, "epochs": 9}, id="buffer"),
    ],
)
def test_clean_runs_are_exact(make: Callable[[], tl.Trainer], data: Any, how: dict[str, Any]) -> None:
    made = make()
    verdict = made.verify_resume(data, (X, Y), **how)
    assert verdict.exact, str(verdict)
    assert verdict.lines[0].startswith("exact: killed after step ")
    assert "in the middle of an epoch" in verdict.lines[0]
    own = [line for line in verdict.lines if "in a loop of your own, saved within the accumulation window" in line]
    assert len(own) == (made.choices.accumulate > 1)


@pytest.mark.parametrize(
    ("made", "data", "how", "words"),
    [
        pytest.param(
            trainer(),
            loader(sampler=Walking()),
            {},
            [
                "the resumed run got another batch at step",
                "your sampler Walking has no state_dict",
                "`sampler.at` moves",
            ],
            id="sampler",
        ),
        pytest.param(
            trainer(),
            OwnNoise(),
            {"batch_size": 4, "workers": 2},
            ["the resumed run got another batch at step", "(dataset.rng)"],
            id="generator in workers",
        ),
        pytest.param(
            trainer(Centred()),
            (X, Y),
            {"batch_size": 4},
            ["another loss at step 13 with the same data", "`model.mean` moves with the training", "register_buffer"],
            id="attribute",
        ),
        pytest.param(
            trainer(loss=Scaled(Counted())),
            (X, Y),
            {"batch_size": 4},
            ["another loss at step 13", "`loss.factor.calls` moves with the training", "trainer.keep['loss']"],
            id="counting loss",
        ),
        pytest.param(
            trainer(loss=Scaled(random.SystemRandom().random)),
            (X, Y),
            {"batch_size": 4},
            ["two runs from the same beginning", "other losses at step 1 with the same data", "random.SystemRandom"],
            id="a generator without seed",
        ),
        pytest.param(
            trainer(loss=Scaled(lambda: 1 + time.time_ns() % 1000)),
            (X, Y),
            {"batch_size": 4},
            ["two runs from the same beginning", "other losses at step 1", "a clock"],
            id="clock",
        ),
    ],
)
def test_what_is_not_exact_is_found_and_named(
    made: tl.Trainer, data: Any, how: dict[str, Any], words: list[str]
) -> None:
    verdict = made.verify_resume(data, epochs=9, **how)
    assert not verdict.exact
    assert verdict.lines[0].startswith("NOT exact: ")
    for word in words:
        assert word in str(verdict)


def zeros(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.zeros_like(value) for name, value in tree.items()}


def without_gradients(ritual: dict[str, Any]) -> dict[str, Any]:
    window = ritual["window"]
    return {**ritual, "window": window and {**window, "gradients": [0 * grad for grad in window["gradients"]]}}


@pytest.mark.parametrize(
    ("path", "lost", "named"),
    [
        (("model",), zeros, "model 0.weight"),
        (("optimizer", ""), lambda saved: {**saved, "state": {}}, "optimizer 0.weight exp_avg"),
        (("state", "rngs"), lambda rngs: {**rngs, "torch": torch.Generator().get_state()}, "rngs torch"),
        (
            ("state", "averaged"),
            lambda saved: {k: 0 * v if k != "_extra_state" else v for k, v in saved.items()},
            "averaged",
        ),
        (("state", "place"), lambda place: {**place, "batch": 0}, "another batch at step 7"),
        (("state", "rituals", ""), lambda ritual: {**ritual, "scheduler": None}, "scheduler last_epoch"),
        (("state", "rituals", ""), lambda ritual: {**ritual, "step": 0}, "counted 1 at step 7"),
        (("state", "rituals", ""), without_gradients, "in a loop of your own, saved within an accumulation window"),
    ],
)
def test_whatever_a_checkpoint_loses_is_found(
    monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], lost: Callable[[Any], Any], named: str
) -> None:
    def losing(parts: Parts) -> Trees:
        trees: Any = capture(parts)
        at = trees
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = lost(at[path[-1]])
        return dict(trees)

    monkeypatch.setattr("trueloop.session.capture", losing)
    verdict = everything().verify_resume((X, Y), (X, Y), batch_size=4, epochs=9, seed=1)
    assert not verdict.exact
    assert named in str(verdict)


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = mlp(3, 4, norm=True)
    made, pristine = trainer(model), mlp(3, 4, norm=True)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    assert made.verify_resume((X, Y), (X, Y), epochs=9, batch_size=4, seed=1, out=tmp_path / "run").exact
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]  # type: ignore[index]
    assert bool((torch.get_rng_state() == before[2]).all())
    assert same_bits(model, pristine)
    assert made.step == 0
    assert list(tmp_path.iterdir()) == []


def test_observers_with_state_take_part_and_the_others_do_not() -> None:
    seen: list[Event] = []
    stop = EarlyStop("loss", mode="min", patience=50)
    verdict = trainer().verify_resume((X, Y), (X, Y), epochs=9, batch_size=4, observers=[stop, seen.append])
    assert verdict.exact
    assert verdict.lines[-1] == "left out, as observers without state_dict: append"
    assert seen == []


class Stops:
    """Ends a run at its first evaluation."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        return None

    def __call__(self, event: Event) -> tl.Stop | None:
        return tl.Stop("enough") if isinstance(event, EvalEnded) else None


def test_a_run_that_ends_too_early_says_how_long_it_is() -> None:
    with pytest.raises(ArgumentError, match="the run ended with step 8, and was to be stopped after step 12"):
        trainer().verify_resume((X, Y), (X, Y), epochs=9, batch_size=4, observers=[Stops()])


def test_epochs_of_one_step_and_long_ones_are_said() -> None:
    short = trainer().verify_resume((X, Y), epochs=9, batch_size=30)
    assert short.exact
    assert short.lines[-1] == "an epoch has 1 step, so there is no place within one to stop at"
    long = trainer(mlp(3, 4)).verify_resume((X, Y), epochs=9, batch_size=1)
    assert long.exact
    assert "the epoch of 30 steps did not end within the trial" in long.lines[-1]


class Unloadable:
    def state_dict(self) -> dict[str, int]:
        return {"a": 1}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        raise KeyError("b")


def test_a_resume_that_fails_is_an_answer() -> None:
    made = trainer()
    made.keep["mine"] = Unloadable()
    verdict = made.verify_resume((X, Y), epochs=9, batch_size=4)
    assert not verdict.exact
    assert verdict.lines[0] == "NOT exact: the resume failed: KeyError: 'b'"
    assert "load_state_dict() in line" in verdict.lines[1]


def die() -> float:
    print("last words", flush=True)
    os._exit(5)


def fail() -> float:
    raise ZeroDivisionError("by me")


@pytest.mark.parametrize(
    ("factor", "timeout", "message", "note"),
    [
        (fail, 60.0, "the unbroken run of the trial raised ZeroDivisionError: by me", "in fail"),
        (die, 60.0, "the unbroken run of the trial died with exit code 5", "last words"),
        (partial(time.sleep, 1000), 0.5, "the unbroken run of the trial did not end in 0.5 seconds", ""),
    ],
)
def test_a_run_that_fails_is_an_error(factor: Callable[[], Any], timeout: float, message: str, note: str) -> None:
    with pytest.raises(TrueloopError, match=message) as error:
        trainer(loss=Scaled(factor)).verify_resume((X, Y), epochs=9, batch_size=4, timeout=timeout)
    assert note in "".join(getattr(error.value, "__notes__", []))


def test_mistakes_are_those_of_fit() -> None:
    with pytest.raises(ArgumentError, match="batch_size is needed"):
        trainer().verify_resume((X, Y), epochs=9)
    with pytest.raises(TypeError, match="epoch"):
        trainer().verify_resume((X, Y), epoch=9)
    with pytest.raises(ArgumentError, match="verify_steps must be 2 or more, got verify_steps=1"):
        trainer().verify_resume((X, Y), batch_size=4, verify_steps=1)
    with pytest.raises(ArgumentError, match=r"trueloop verify-resume file\.py:recipe"):
        trainer(device="meta").verify_resume((X, Y), batch_size=4)


@given(st.none() | st.integers(1, 100), st.none() | st.integers(2, 500), st.none() | st.integers(2, 200))
def test_the_middle_is_within_the_run_and_within_an_epoch(
    per_epoch: int | None, run_steps: int | None, wanted: int | None
) -> None:
    halfway, last = middle(per_epoch, run_steps, wanted)
    assert 1 <= halfway < last
    assert last <= (run_steps or last)
    assert wanted is None or last <= wanted
    assert per_epoch in (None, 1) or halfway % per_epoch != 0


def test_entries_have_the_bits_of_what_is_nested() -> None:
    def tree(value: float) -> Trees:
        return {"state": {"window": {"gradients": [torch.tensor([value]), None]}, "pair": (np.array([value]), {1: 2})}}

    assert entries(tree(0.0)) == entries(tree(0.0))
    assert entries(tree(0.0)).keys() == {"state/window/gradients", "state/pair"}
    assert not entries(tree(0.0)).items() & entries(tree(-0.0)).items()


def test_what_is_saved_or_of_torch_is_not_called_unsaved() -> None:
    assert unsaved({"model": mlp(3, 4, norm=True, dropout=0.2), "loss": nn.CrossEntropyLoss(torch.ones(4))}) == {}
    assert unsaved({"model": Buffered()}) == {}
    assert unsaved({"model": Centred()}).keys() == {"model.mean"}
    assert "dataset.rng" in unsaved({"dataset": OwnNoise()})


def test_a_fork_ends_with_all_that_it_started(tmp_path: Path) -> None:
    def job() -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        (tmp_path / "pid").write_text(str(pid))

    assert finished(forked(job, tmp_path / "log"), seconds=60) == 0
    child = int((tmp_path / "pid").read_text())
    gone = False
    until = time.monotonic() + 60
    while not gone and time.monotonic() < until:  # until init has seen to it
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            gone = True
    assert gone
