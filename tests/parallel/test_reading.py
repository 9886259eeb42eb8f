"""Loaders and streams on several processes: no sample twice and none left out, whoever shares them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

Launch = Callable[..., Any]

SCRIPT = '''
import os, sys
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, get_worker_info
import trueloop as tl
from trueloop.errors import TrueloopError

rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Numbers(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        return torch.tensor([float(index)]), torch.tensor([float(index % 2)])


class Stream(IterableDataset):
    """Shares itself out: to workers, and to processes if asked."""

    def __init__(self, samples, by_rank):
        self.samples, self.by_rank = samples, by_rank

    def __iter__(self):
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        step = workers * (size if self.by_rank else 1)
        for index in range(worker * (size if self.by_rank else 1) + (rank if self.by_rank else 0), self.samples, step):
            yield torch.tensor([float(index)]), torch.tensor([float(index % 2)])


class OfItsOwnLength(Stream):
    """Says how long its shard is."""

    def __len__(self):
        return len(range(rank if self.by_rank else 0, self.samples, size if self.by_rank else 1))


class BeginsAlike(Stream):
    """Shards whose first batches are the same: they cannot be told from a stream that all read."""

    def __iter__(self):
        for number, (x, y) in enumerate(super().__iter__()):
            yield (x, y) if number >= 5 else (torch.zeros(1), torch.zeros(1))


class Sees(nn.Module):
    """Keeps what it is given to train on."""

    def __init__(self):
        super().__init__()
        self.out, self.seen = nn.Linear(1, 1), []
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x):
        self.seen.append(x.flatten().tolist())
        return self.out(x * 1e-3)


def fitted(data, batch_size=None, epochs=1, **how):
    """What each process was given, what counted, and the weights; what evaluation and prediction give."""
    trainer = tl.Trainer(model := Sees(), nn.MSELoss(), tl.optim.sgd(lr=0.1), doctor=False)
    samples = []
    trainer.fit(data, epochs=epochs, batch_size=batch_size, progress=False, seed=1,
                observers=[lambda event: samples.append(event.samples) if isinstance(event, tl.StepEnded) else None])
    seen, model.seen = model.seen, []
    every = [None] * size
    if size > 1:
        distributed.all_gather_object(every, seen)
    else:
        every = [seen]
    return {"seen": every, "samples": samples, "weight": model.out.weight.item(),
            "loss": trainer.evaluate(data, batch_size=batch_size)["loss"],
            "outputs": trainer.predict(data, batch_size=batch_size).flatten().tolist()}


def loader(samples=23, **how):
    data = Numbers(samples)
    if size > 1:
        return DataLoader(data, 10 // size, sampler=DistributedSampler(data, seed=3), **how)
    return DataLoader(data, 10, **how)


def found():
    yield "loader", fitted(DataLoader(Numbers(23), 10, shuffle=True))
    yield "loader, workers", fitted(DataLoader(Numbers(23), 10, num_workers=2))
    yield "sampler", fitted(loader(20), epochs=2)
    yield "sampler that repeats", fitted(loader(23))
    yield "list of batches", fitted([tuple(torch.stack(c) for c in zip(*map(Numbers(5).__getitem__, r)))
                                     for r in ((0, 1, 2), (3, 4))])
    yield "stream", fitted(Stream(23, by_rank=False), 10)
    yield "stream, loader with workers", fitted(DataLoader(Stream(24, by_rank=False), 10, num_workers=2))
    yield "shards", fitted(Stream(23, by_rank=True), 10)
    yield "shards, one without any", fitted(Stream(1, by_rank=True), 10)
    yield "shards, loader", fitted(DataLoader(Stream(23, by_rank=True), 5, num_workers=2))
    yield "all of its length", fitted(OfItsOwnLength(24, by_rank=False), 10)
    if size > 1:
        try:
            fitted(OfItsOwnLength(24, by_rank=True), 10)
        except TrueloopError as error:
            yield "a shard's length", str(error)
        for way in ("evaluate", "predict"):
            trainer = tl.Trainer(Sees(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
            try:
                getattr(trainer, way)(BeginsAlike(40, by_rank=True), batch_size=5)
            except TrueloopError as error:
                yield f"begins alike, {way}", str(error)
        try:
            fitted(DataLoader(Numbers(23), 10, shuffle=True, generator=torch.Generator().manual_seed(rank)))
        except TrueloopError as error:
            yield "apart", str(error)
        try:
            trainer = tl.Trainer(Sees(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
            trainer.plan(DataLoader(Numbers(23), 10, sampler=DistributedSampler(Numbers(23), 5, rank=0)), epochs=1)
        except TrueloopError as error:
            yield "others", str(error)


everything = dict(found())
if rank == 0:
    torch.save(everything, sys.argv[1])
'''


@pytest.fixture(scope="module")
def found(launch: Launch) -> Callable[[int], dict[str, Any]]:
    @cache
    def found_on(processes: int) -> dict[str, Any]:
        found: dict[str, Any] = launch(SCRIPT, processes)
        return found

    return found_on


def counted(one: dict[str, Any]) -> Counter[float]:
    """How often each sample was trained on."""
    return Counter(number for process in one["seen"] for batch in process for number in batch)


@pytest.mark.parametrize(
    "case", ["loader", "loader, workers", "list of batches", "stream", "stream, loader with workers"]
)
def test_what_all_read_is_cut(found: Callable[[int], dict[str, Any]], case: str) -> None:
    one, two = found(1)[case], found(2)[case]
    assert counted(two) == counted(one)
    assert two["samples"] == one["samples"]
    assert two["weight"] == pytest.approx(one["weight"], rel=1e-6)
    assert two["loss"] == one["loss"] or two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_a_distributed_sampler_has_shared_out_already(found: Callable[[int], dict[str, Any]]) -> None:
    two = found(2)["sampler"]
    assert counted(two) == dict.fromkeys(map(float, range(20)), 2)
    assert two["samples"] == [10, 10, 10, 10]
    first, second = two["seen"][0][:2], two["seen"][0][2:]
    assert first != second, "set_epoch() was called"


def test_what_a_distributed_sampler_repeats_is_evaluated_once(found: Callable[[int], dict[str, Any]]) -> None:
    two = found(2)["sampler that repeats"]
    assert sum(two["samples"]) == 24
    assert len(two["outputs"]) == 23
    steps = torch.tensor(two["outputs"]).diff()
    torch.testing.assert_close(steps, steps[0].expand(22), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("case", ["shards", "shards, loader"])
def test_shards_are_not_cut_once_more(found: Callable[[int], dict[str, Any]], case: str) -> None:
    one, two = found(1)[case], found(2)[case]
    assert set(counted(two)) == set(counted(one)) == set(map(float, range(23)))
    assert sum(two["samples"]) == sum(one["samples"]) == 23
    assert len(two["outputs"]) == 23


def test_the_length_of_a_stream_is_that_of_all_shards(found: Callable[[int], dict[str, Any]]) -> None:
    assert found(2)["all of its length"]["samples"] == found(1)["all of its length"]["samples"] == [10, 10, 4]
    assert "how long all of them are together, got 12 of 24 samples" in found(2)["a shard's length"]


@pytest.mark.parametrize("way", ["evaluate", "predict"])
def test_shards_that_begin_alike_are_told(found: Callable[[int], dict[str, Any]], way: str) -> None:
    assert "the batches have drifted apart: processes 0 and 1 differ" in found(2)[f"begins alike, {way}"]


def test_a_shard_may_be_empty(found: Callable[[int], dict[str, Any]]) -> None:
    one, two = (found(processes)["shards, one without any"] for processes in (1, 2))
    assert one["samples"] == two["samples"] == [1]
    assert two["weight"] == pytest.approx(one["weight"], rel=1e-6)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert len(two["outputs"]) == 1


def test_loaders_that_read_apart_are_told(found: Callable[[int], dict[str, Any]]) -> None:
    assert "every process must read the same batches" in found(2)["apart"]


def test_a_sampler_of_other_processes_is_told(found: Callable[[int], dict[str, Any]]) -> None:
    assert "must be for process 0 of 2, got rank=0, num_replicas=5" in found(2)["others"]
