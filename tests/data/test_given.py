"""The user's own loader is iterated as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from trueloop.data.feed import feed
from trueloop.data.given import LoaderFeed
from trueloop.errors import DataError

TEN: Dataset[Any] = TensorDataset(torch.arange(10))


class Counted(DataLoader[Any]):
    iterations = 0

    def __iter__(self) -> Any:
        self.iterations += 1
        return super().__iter__()


@pytest.mark.parametrize("workers", [0, 2])
def test_iter_is_called_once_an_epoch(workers: int) -> None:
    loader = Counted(TEN, batch_size=4, shuffle=True, num_workers=workers)
    reading = feed(loader, batch_size=None)
    for epoch in (0, 1, 2):
        list(reading.epoch(epoch))
        assert loader.iterations == epoch + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_and_the_global_generator_are_those_of_a_plain_loop(workers: int) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(TEN, batch_size=4, shuffle=True, num_workers=workers)

    torch.manual_seed(3)
    plain = [batch[0].tolist() for _ in range(2) for batch in loader()]
    state = torch.get_rng_state()
    torch.manual_seed(3)
    reading = feed(loader(), batch_size=None)
    assert [batch[0].tolist() for epoch in range(2) for batch in reading.epoch(epoch)] == plain
    assert torch.equal(torch.get_rng_state(), state)


def test_a_start_replays() -> None:
    reading = feed(DataLoader(TEN, batch_size=4), batch_size=None)
    assert [batch[0].tolist() for batch in reading.epoch(0, start=1)] == [[4, 5, 6, 7], [8, 9]]
    assert list(reading.epoch(0, start=3)) == []


class Lengthless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("loader", "samples", "batch_size", "batches", "shuffled"),
    [
        (DataLoader(TEN, batch_size=4), 10, 4, 3, False),
        (DataLoader(TEN, batch_size=4, drop_last=True, shuffle=True), 8, 4, 2, True),
        (DataLoader(TEN, batch_size=4, sampler=SubsetRandomSampler([1, 2, 3])), 3, 4, 1, True),
        (DataLoader(TEN, batch_sampler=BatchSampler(RandomSampler(range(10)), 4, False)), 10, 4, 3, True),
        (DataLoader(TEN, batch_size=None, sampler=SequentialSampler(range(10))), None, None, 10, False),
        (DataLoader(Lengthless(), batch_size=2), None, 2, None, False),
        ([[torch.zeros(4)], [torch.zeros(2)]], None, None, 2, False),
    ],
)
def test_what_is_known(
    loader: Any, samples: int | None, batch_size: int | None, batches: int | None, shuffled: bool
) -> None:
    reading = LoaderFeed(loader)
    assert (reading.samples, reading.batch_size, reading.batches, reading.shuffled) == (
        samples,
        batch_size,
        batches,
        shuffled,
    )


class Told(SequentialSampler):
    def __init__(self, samples: int) -> None:
        super().__init__(range(samples))
        self.epochs: list[int] = []

    def set_epoch(self, number: int) -> None:
        self.epochs.append(number)


def test_samplers_are_told_the_epoch_once() -> None:
    sampler = Told(10)
    reading = LoaderFeed(DataLoader(TEN, batch_size=4, sampler=sampler))
    for epoch in (0, 5):
        list(reading.epoch(epoch))
    inner = Told(10)
    list(LoaderFeed(DataLoader(TEN, batch_sampler=BatchSampler(inner, 4, False))).epoch(7))
    assert (sampler.epochs, inner.epochs) == ([0, 5], [7])


def test_what_gives_its_batches_once_is_good_for_one_epoch() -> None:
    reading = LoaderFeed(batch for batch in [[1], [2]])
    assert list(reading.epoch(0)) == [[1], [2]]
    with pytest.raises(DataError, match="a generator gives its batches only once"):
        reading.epoch(1)


class Raising(Dataset[Tensor]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        raise KeyError("label")


def test_without_workers_the_users_exception_is_the_users_own() -> None:
    with pytest.raises(KeyError, match="label"):
        list(LoaderFeed(DataLoader(Raising())).epoch(0))


def test_a_part_of_a_dataset_counts_as_its_own_length() -> None:
    assert LoaderFeed(DataLoader(Subset(TEN, [0, 1, 2]), batch_size=2)).samples == 3
