"""A dataset's samples: the same bits whoever makes them, in whatever batches, from whatever batch on."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from trueloop.data.cursor import order
from trueloop.data.loader import WorkerFeed

Sample = tuple[int, float, float, Tensor]


class Augmented(Dataset[Sample]):
    """Draws from every global RNG, and notes what it was asked for."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        self.fetched.append(index)
        return index, random.random(), float(np.random.rand()), torch.randn(3)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        raise AssertionError("several samples at once would share random numbers")


def read(workers: int = 0, batch_size: int = 4, epoch: int = 1, start: int = 0, samples: int = 13) -> list[Any]:
    made = WorkerFeed(Augmented(samples), batch_size=batch_size, seed=5, shuffle=True, workers=workers)
    return list(made.epoch(epoch, start))


def glued(batches: list[Any]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*batches, strict=True)]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_bits_for_any_number_of_workers(workers: int) -> None:
    assert same(read(workers=workers), read(workers=0))
    assert same(read(workers=workers, start=2), read(workers=0)[2:])


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_same_samples_for_any_batch_size(batch_size: int) -> None:
    assert same([glued(read(batch_size=batch_size))], [glued(read(batch_size=4))])


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 12), st.booleans(), st.booleans())
def test_a_start_gives_the_tail_and_fetches_nothing_before_it(
    samples: int, batch_size: int, start: int, shuffle: bool, drop_last: bool
) -> None:
    def made(dataset: Augmented) -> WorkerFeed:
        return WorkerFeed(dataset, batch_size=batch_size, seed=1, shuffle=shuffle, drop_last=drop_last)

    whole = list(made(Augmented(samples)).epoch(3))
    dataset = Augmented(samples)
    positioned = made(dataset)
    assert same(list(positioned.epoch(3, start)), whole[start:])
    assert len(whole) == positioned.batches
    end = positioned.batches * batch_size
    assert dataset.fetched == order(samples, 1, 3, shuffle)[start * batch_size : end].tolist()


def test_epochs_and_seeds_differ() -> None:
    epochs = [glued(read(epoch=epoch)) for epoch in (0, 1)]
    draws = [epoch[1][epoch[0].argsort()] for epoch in epochs]  # sample by sample
    assert not bool((draws[0] == draws[1]).any())
    other = glued(list(WorkerFeed(Augmented(13), batch_size=4, seed=6, shuffle=True).epoch(0)))
    assert not bool((draws[0] == other[1][other[0].argsort()]).any())
    assert len(set(draws[0].tolist())) == 13


class Drawn(dict[str, int]):
    """A sample that draws when it is glued to others: torch copies the first one of a batch."""

    def __copy__(self) -> Drawn:
        return Drawn(drawn=random.getrandbits(32))


def test_what_collating_draws_depends_on_the_batch_alone() -> None:
    samples = [Drawn(index=index) for index in range(6)]
    feeds = [WorkerFeed(samples, batch_size=2, seed=0, shuffle=False, workers=workers) for workers in (0, 2)]
    here, there = ([batch["drawn"] for batch in made.epoch(0)] for made in feeds)
    assert here == there
    assert len(set(here)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_rngs_are_left_alone(workers: int) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    made = WorkerFeed(Augmented(13), batch_size=4, seed=5, shuffle=True, workers=workers)
    for _ in made.epoch(0):
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
        assert torch.equal(torch.get_rng_state(), before[2])


class Threads(Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return torch.get_num_threads()


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_are_made_with_one_thread(workers: int) -> None:
    # a sum of many numbers has other bits with two threads
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = WorkerFeed(Threads(), batch_size=2, seed=0, shuffle=False, workers=workers)
        assert [batch.tolist() for batch in made.epoch(0)] == [[1, 1]]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Changing(Dataset[int]):
    size = 1

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return self.size


@pytest.mark.parametrize("workers", [0, 1])
def test_a_change_of_the_dataset_reaches_the_next_epoch(workers: int) -> None:
    dataset = Changing()
    made = WorkerFeed(dataset, batch_size=3, seed=0, shuffle=False, workers=workers)
    assert next(made.epoch(0)).tolist() == [1, 1, 1]
    dataset.size = 2
    assert next(made.epoch(1)).tolist() == [2, 2, 2]
    made.close()


def test_an_epoch_that_is_left_takes_its_workers_with_it() -> None:
    made = WorkerFeed(Augmented(50), batch_size=2, seed=0, shuffle=False, workers=2)
    epoch = made.epoch(0)
    next(epoch)
    assert len(multiprocessing.active_children()) == 2
    made.close()
    assert multiprocessing.active_children() == []
    assert len(list(made.epoch(1))) == 25
    assert multiprocessing.active_children() == []


SPAWNED = """
import random, sys, multiprocessing
from trueloop.data.loader import WorkerFeed
from trueloop.errors import DataError

class Numbers:
    def __init__(self, extra=None): self.extra = extra
    def __len__(self): return 4
    def __getitem__(self, index): return random.random()

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    here, there = (WorkerFeed(Numbers(), batch_size=2, seed=0, shuffle=True, workers=w) for w in (0, 1))
    assert [b.tolist() for b in here.epoch(0)] == [b.tolist() for b in there.epoch(0)]
    try:
        list(WorkerFeed(Numbers(lambda: 0), batch_size=2, seed=0, shuffle=True, workers=1).epoch(0))
    except DataError as error:
        assert "cannot be sent to worker processes" in str(error), error
    else:
        raise AssertionError("a lambda was sent to another process")
"""


def test_workers_that_are_spawned_give_the_same_bits_and_refuse_lambdas(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
