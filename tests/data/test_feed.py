"""Which way data is read, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from trueloop.data import ArrayFeed, LoaderFeed, StreamFeed, WorkerFeed, feed
from trueloop.errors import ArgumentError, DataError, TrueloopError

SAMPLES = [(torch.zeros(2), 0), (torch.ones(2), 1)]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("data", "batch_size", "kind"),
    [
        (torch.zeros(3), 2, ArrayFeed),
        (np.zeros(3), 2, ArrayFeed),
        ([torch.zeros(3), np.zeros(3)], 2, ArrayFeed),
        (TensorDataset(torch.zeros(3)), 2, ArrayFeed),
        (Subset(TensorDataset(torch.zeros(3)), [0, 1]), 2, WorkerFeed),
        (SAMPLES, 2, WorkerFeed),
        (SAMPLES, None, LoaderFeed),
        (DataLoader(TensorDataset(torch.zeros(3))), None, LoaderFeed),
        (iter(SAMPLES), None, LoaderFeed),
        (Stream(), 2, StreamFeed),
    ],
)
def test_the_way_is_chosen_and_says_why(data: Any, batch_size: int | None, kind: type) -> None:
    chosen = feed(data, batch_size=batch_size)
    assert type(chosen) is kind
    assert "\n" not in chosen.reason
    assert len(list(chosen.epoch(0))) >= 1


@pytest.mark.parametrize(
    ("data", "settings", "error", "words"),
    [
        (torch.zeros(3), {"batch_size": 0}, ArgumentError, "batch_size=0"),
        (torch.zeros(3), {"batch_size": 2.0}, ArgumentError, "batch_size=2.0"),
        (torch.zeros(3), {"batch_size": None}, ArgumentError, "batch_size is needed to read a Tensor"),
        (Stream(), {"batch_size": None}, ArgumentError, "batch_size is needed to read a Stream"),
        (torch.zeros(3), {"batch_size": 1, "workers": -1}, ArgumentError, "workers=-1"),
        (torch.zeros(3), {"batch_size": 1, "worker_timeout": 0}, ArgumentError, "worker_timeout=0"),
        (torch.zeros(3), {"batch_size": 4, "drop_last": True}, DataError, "fewer samples than batch_size=4"),
        (DataLoader(SAMPLES), {"batch_size": 4}, ArgumentError, "has a batch size of its own"),  # type: ignore[arg-type]
        ([], {"batch_size": 4}, DataError, "the data is empty"),
        ({}, {"batch_size": 4}, DataError, "the data is empty"),
        (Subset(TensorDataset(torch.zeros(3)), []), {"batch_size": 4}, DataError, "the dataset is empty"),
        (DataLoader(TensorDataset(torch.zeros(0))), {"batch_size": None}, DataError, "the loader is empty"),
        (3, {"batch_size": 4}, DataError, "got int"),
        (None, {"batch_size": None}, DataError, "got NoneType"),
        ({"x": [1, 2]}, {"batch_size": 4}, DataError, "got dict"),
    ],
)
def test_what_cannot_be_read_is_refused(
    data: Any, settings: dict[str, Any], error: type[TrueloopError], words: str
) -> None:
    with pytest.raises(error, match=words):
        feed(data, **settings)


def test_a_batch_larger_than_the_data_is_one_batch() -> None:
    assert feed(torch.zeros(3), batch_size=100).batches == 1
    assert [len(batch) for batch in feed(list(range(3)), batch_size=100).epoch(0)] == [3]
