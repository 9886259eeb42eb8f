"""A process's part of a batch."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from trueloop.data import feed
from trueloop.data.part import Idle, Part, cut, sliced


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("samples", [0, 1, 2, 6, 7, 100])
def test_parts_are_consecutive_cover_all_and_differ_by_one_at_most(samples: int, processes: int) -> None:
    parts = [range(samples)[Part(rank, processes).rows(samples)] for rank in range(processes)]
    assert [row for part in parts for row in part] == list(range(samples))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_everything_as_long_as_the_batch_is_cut() -> None:
    Pair = namedtuple("Pair", ["x", "y"])
    batch = {
        "pair": Pair(torch.arange(3), np.arange(3)),
        "scale": torch.tensor(2.0),
        "table": torch.zeros(5, 3),
        "name": "all",
    }
    part = cut(batch, slice(1, 3), 3)
    assert part["pair"].x.tolist() == [1, 2]
    assert part["pair"].y.tolist() == [1, 2]
    assert (part["scale"], part["table"].shape, part["name"]) == (torch.tensor(2.0), (5, 3), "all")


def test_lists_of_the_batch_s_length_are_cut() -> None:
    assert cut((torch.arange(3), ["a", "b", "c"]), slice(1, 3), 3)[1] == ["b", "c"]


def test_whole_batches_are_dealt_in_turn() -> None:
    assert [list(sliced("abcde", Part(rank, 2, in_turn=True))) for rank in range(2)] == [["a", "c", "e"], ["b", "d"]]


def test_who_has_no_sample_of_a_batch_gets_an_idle_one() -> None:
    (idle,) = sliced([torch.arange(1)], Part(1, 2))
    assert isinstance(idle, Idle)
    assert idle.to(torch.float64).batch.dtype == torch.float64


class Numbers(Dataset[torch.Tensor]):
    def __init__(self) -> None:
        self.made: list[int] = []

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> torch.Tensor:
        self.made.append(index)
        return torch.tensor(index)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("data", [torch.arange(7), Numbers()], ids=["arrays", "dataset"])
def test_the_parts_of_a_feed_make_the_whole(data: object, shuffle: bool, in_turn: bool) -> None:
    whole = [batch.tolist() for batch in feed(data, batch_size=3, shuffle=shuffle).epoch(1, start=1)]
    feeds = [feed(data, batch_size=3, shuffle=shuffle, part=Part(rank, 2, in_turn)) for rank in range(2)]
    parts = [list(one.epoch(1, start=1)) for one in feeds]
    if in_turn:
        assert [batch.tolist() for pair in zip(*parts, strict=True) for batch in pair] == whole
        return
    first, second = parts
    assert isinstance(second[1], Idle)
    assert [one.tolist() for one in first] == [whole[0][:2], whole[1]]
    assert (second[0].tolist(), second[1].batch.tolist()) == (whole[0][2:], whole[1])


def test_samples_of_other_processes_are_not_made() -> None:
    data = Numbers()
    list(feed(data, batch_size=4, part=Part(1, 2)).epoch(0))
    assert data.made == [2, 3, 6]
