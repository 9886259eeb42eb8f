"""Streams: read once, in their order, with their own random numbers for each place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from trueloop.data.feed import feed
from trueloop.errors import DataError


class Numbers(IterableDataset[tuple[int, float]]):
    """Draws, and shuffles its start, by the global RNG."""

    def __init__(self, samples: int) -> None:
        self.samples, self.epochs = samples, [-1]

    def set_epoch(self, number: int) -> None:
        self.epochs.append(number)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        first = random.randrange(1000)
        for number in range(self.samples):
            yield 10_000 * self.epochs[-1] + first + number, random.random()


class Sized(Numbers):
    def __len__(self) -> int:
        return self.samples


def read(workers: int = 0, batch_size: int = 4, epoch: int = 0, **settings: Any) -> list[list[list[float]]]:
    reading = feed(Numbers(10), batch_size=batch_size, seed=1, workers=workers, **settings)
    return [[column.tolist() for column in batch] for batch in reading.epoch(epoch)]


def flat(batches: list[list[list[float]]]) -> list[list[float]]:
    return [[value for batch in batches for value in batch[column]] for column in (0, 1)]


def test_the_same_bits_with_and_without_workers_and_for_any_batch_size() -> None:
    assert read() == read(workers=1) == read(workers=3)
    assert flat(read()) == flat(read(batch_size=3)) == flat(read(batch_size=100))
    assert [len(batch[0]) for batch in read()] == [4, 4, 2]
    assert len(set(flat(read())[1])) == 10


def test_epochs_differ_and_the_dataset_is_told() -> None:
    zero, one = flat(read(epoch=0)), flat(read(epoch=1))
    assert zero[0][0] // 10_000 == 0
    assert one[0][0] // 10_000 == 1
    assert not set(zero[1]) & set(one[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_start_gives_the_tail(workers: int) -> None:
    reading = feed(Numbers(10), batch_size=4, seed=1, workers=workers)
    for start in (1, 2, 3):
        tail = [[column.tolist() for column in batch] for batch in reading.epoch(0, start=start)]
        assert tail == read()[start:]


def test_what_is_known() -> None:
    unknown, known = feed(Numbers(10), batch_size=4), feed(Sized(10), batch_size=4, drop_last=True)
    assert (unknown.samples, unknown.batches, unknown.batch_size) == (None, None, 4)
    assert (known.samples, known.batches) == (8, 2)
    assert len(list(known.epoch(0))) == 2
    assert "workers=3 reduced to 1" in feed(Numbers(10), batch_size=4, workers=3).reason


def test_a_stream_leaves_the_global_rngs_alone() -> None:
    before = random.getstate(), torch.get_rng_state()
    for workers in (0, 1):
        read(workers=workers)
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_empty_stream_is_an_error(workers: int) -> None:
    with pytest.raises(DataError, match="gave no batch in epoch 2"):
        list(feed(Numbers(0), batch_size=4, workers=workers).epoch(2))
    with pytest.raises(DataError, match="the stream is empty"):
        feed(Sized(0), batch_size=4)
