"""One seed for all, and the same bits twice."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trueloop as tl
from trueloop.errors import ArgumentError
from trueloop.seeds import deterministic, seed_all
from trueloop.testing import mlp, regression, same_bits


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.fixture(autouse=True)
def _as_it_was() -> Any:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_one_seed_sets_python_numpy_and_torch(seed: int) -> None:
    seed_all(seed)
    first = draws()
    assert draws() != first
    seed_all(seed)
    assert draws() == first
    seed_all((seed + 1) % 2**63)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "7"])
def test_a_seed_that_cannot_be_is_named(seed: Any) -> None:
    with pytest.raises(ArgumentError, match=f"from 0 to 2\\*\\*63 - 1, got seed={seed!r}"):
        seed_all(seed)
    with pytest.raises(ArgumentError, match=f"got seed={seed!r}"):
        tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1)).fit(
            regression(8), epochs=1, batch_size=4, seed=seed, progress=False
        )


@pytest.mark.parametrize("seed", [None, 5])
def test_a_run_seeds_the_global_generators_only_if_it_is_told_to(seed: int | None) -> None:
    def drawn_within(before: int) -> tuple[float, float, float]:
        seed_all(before)
        run = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1)).train(
            regression(8), epochs=1, batch_size=4, seed=seed
        )
        next(run)
        return draws()

    first, second = drawn_within(1), drawn_within(2)
    assert (first == second) == (seed is not None)
    if seed is None:
        seed_all(1)
        assert first == draws(), "not one number was drawn"


def test_the_runs_seed_is_in_its_first_event() -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    torch.manual_seed(123)
    for seed, expected in ((7, 7), (None, 123)):
        started = next(trainer.train(regression(8), epochs=1, batch_size=4, seed=seed))
        assert isinstance(started, tl.RunStarted)
        assert started.seed == expected
        torch.manual_seed(123)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_batches_draw_the_same_for_the_same_seed(workers: int) -> None:
    class Noisy:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.randn(3) + random.random() + float(np.random.rand()), torch.ones(1)

    models = []
    for _ in range(2):
        model = mlp(dropout=0.3)
        trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1))
        trainer.fit(Noisy(), epochs=2, batch_size=4, seed=3, workers=workers, progress=False)
        models.append(model)
    assert same_bits(*models)


# --- deterministic kernels ------------------------------------------------------------------------------------------


def states() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


def breaks() -> None:
    with deterministic(True):
        assert states() == (True, False, False)
        raise RuntimeError("boom")


@pytest.mark.parametrize("before", [(False, False, False), (True, False, True), (True, True, True)])
def test_what_the_user_had_set_comes_back_after_it(before: tuple[bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.backends.cudnn.benchmark = before[2]
    try:
        with pytest.raises(RuntimeError, match="boom"):
            breaks()
        assert states() == before
        with deterministic(False):
            assert states() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("wanted", [False, True])
def test_a_run_uses_deterministic_kernels_if_asked_and_gives_them_back(wanted: bool) -> None:
    model, seen = mlp(), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.sgd(lr=0.1), deterministic=wanted)
    trainer.fit(regression(8), regression(4), epochs=1, batch_size=4, seed=1, progress=False)
    assert set(seen) == {wanted}
    assert not torch.are_deterministic_algorithms_enabled()
    for _ in trainer.train(regression(8), epochs=1, batch_size=4, seed=1):
        break
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_without_a_seed_is_noted() -> None:
    trainer = tl.Trainer(mlp(), nn.MSELoss(), tl.optim.sgd(lr=0.1), deterministic=True)
    how: dict[str, Any] = {"epochs": 1, "batch_size": 4}
    assert any("without a seed" in note for note in trainer.plan(regression(8), **how).notes)
    assert trainer.plan(regression(8), seed=1, **how).notes == ()
