"""Devices, and batches on their way there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from trueloop.data.device import batch_length, choose_device, first_tensor, move, onto
from trueloop.errors import ArgumentError, DataError

META = torch.device("meta")  # a device that every machine has, and that is not the cpu


class Pair(NamedTuple):
    x: Tensor
    name: str


@dataclass(frozen=True)
class Record:
    x: Tensor
    made: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", ["once"])


class Movable:
    def __init__(self, where: str) -> None:
        self.where = where

    def to(self, device: torch.device) -> Movable:
        return Movable(device.type)


def test_every_tensor_moves_and_every_container_keeps_its_type() -> None:
    x = torch.zeros(2)
    counted: defaultdict[str, object] = defaultdict(int, {"x": x})
    batch = {
        "pair": Pair(x, "a"),
        "list": [x, (x, None)],
        "record": Record(x),
        "own": Movable("cpu"),
        "counted": counted,
    }
    moved = move(batch, META)
    assert type(moved["pair"]) is Pair
    assert moved["pair"].x.device == META
    assert moved["pair"].name == "a"
    assert type(moved["list"][1]) is tuple
    assert moved["list"][1][0].device == META
    assert moved["list"][1][1] is None
    assert type(moved["record"]) is Record
    assert moved["record"].x.device == META
    assert moved["record"].made is batch["record"].made  # type: ignore[attr-defined]  # not made a second time
    assert moved["own"].where == "meta"
    assert moved["counted"]["unheard of"] == 0
    assert x.device.type == "cpu"
    assert batch["record"].x is x  # type: ignore[attr-defined]  # the batch itself is as it was


def test_what_is_there_already_is_returned_as_it_is() -> None:
    batch = [MappingProxyType({"x": torch.zeros(1)}), Pair(torch.zeros(1), "a"), Record(torch.zeros(1)), "text"]
    assert move(batch, torch.device("cpu")) is batch


def test_the_length_of_a_batch() -> None:
    assert batch_length(torch.zeros(3, 2)) == 3
    assert batch_length({"step": torch.tensor(7), "x": [torch.zeros(4)]}) == 4
    assert batch_length(Record(torch.zeros(5))) == 5
    packed = pack_sequence([torch.zeros(3), torch.zeros(2)])
    assert batch_length(packed) == batch_length((packed, torch.zeros(2))) == 2
    assert first_tensor(({"a": "b"}, torch.tensor([1]))) is not None
    assert first_tensor(("a", None)) is None


@pytest.mark.parametrize("batch", [(), "text", {"x": torch.tensor(1.0)}, [1, 2]])
def test_a_batch_without_samples_is_an_error(batch: object) -> None:
    with pytest.raises(DataError, match="must hold a tensor whose first dimension counts its samples"):
        batch_length(batch)


def test_a_device_comes_with_its_reason() -> None:
    device, reason = choose_device()
    assert (device.type == "cpu") == reason.startswith("no CUDA")
    assert choose_device(torch.device("cpu")) == (torch.device("cpu"), "as asked")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu:99", 3.5])
def test_a_device_that_is_not_here_is_an_error(device: str) -> None:
    with pytest.raises(ArgumentError, match="device"):
        choose_device(device)


@pytest.mark.parametrize(("ahead", "fetched"), [(True, 2), (False, 1)])
def test_a_loader_that_has_state_is_not_asked_for_the_next_batch_too_early(ahead: bool, fetched: int) -> None:
    asked: list[int] = []

    def batches() -> Iterator[torch.Tensor]:
        for number in range(3):
            asked.append(number)
            yield torch.ones(1)

    moved = onto(torch.device("meta"), ahead=ahead)(batches())
    next(moved)
    assert len(asked) == fetched
    assert len(list(moved)) == 2
