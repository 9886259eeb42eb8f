"""A step of several processes: by hand with torch's DDP or FSDP2, and by trueloop, on the same batches.

``cases/scale.py`` starts it, by torch's launcher where there are several, and reads what rank 0 writes. Each variant
has processes of its own: what one does to its process (malloc's settings) makes no other faster or slower.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import trueloop as tl
from benchmarks.workloads import fashion
from trueloop.data.part import Part
from trueloop.memory import keep_freed_blocks

Batch = tuple[Tensor, Tensor]
WORKS = ("cnn", "tiny")
Mark = tuple[float, float]
"""Seconds on the wall's clock, and of the process on a CPU."""


def now() -> Mark:
    """Both, just now."""
    return time.perf_counter(), time.process_time()


class Work:
    """A model, its loss, and a few global batches.

    Args:
        name: ``cnn`` or ``tiny``.
        quick: few steps.
    """

    def __init__(self, name: str, *, quick: bool) -> None:
        self.name = name
        if name == "cnn":
            work = fashion()
            self.make, self.criterion = work.model, work.make_loss()
            self.batches = list(zip(work.x.split(128), work.y.split(128), strict=True))
            self.warm, self.steps = (10, 4) if quick else (20, 64)
        else:
            generator = torch.Generator().manual_seed(0)
            self.make, self.criterion = _tiny, nn.MSELoss()
            pairs = (torch.randn(2, 16, 32, generator=generator) for _ in range(64))
            self.batches = [(x, y) for x, y in pairs]
            self.warm, self.steps = (32, 64) if quick else (128, 384)

    @property
    def all(self) -> int:
        """Steps of a run: the doctor listens to the first 8 of an epoch and to the last 2, and section 8 is of that."""
        return self.warm + self.steps + 10

    def given(self, steps: int, marks: list[Mark], part: Part | None = None) -> Iterator[Batch]:
        """So many batches, or this process's part of each; the clock is read before and after those that count."""
        for step in range(steps):
            if step in (self.warm, self.warm + self.steps):
                marks.append(now())
            x, y = self.batches[step % len(self.batches)]
            rows = None if part is None else part.rows(len(x))
            yield (x, y) if rows is None else (x[rows], y[rows])


class Feed:
    """Batches as ``Trainer.train`` takes them: an iterable with a length."""

    def __init__(self, work: Work, steps: int, marks: list[Mark]) -> None:
        self.work, self.steps, self.marks = work, steps, marks

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return self.work.given(self.steps, self.marks)


def _tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))


def by_hand(work: Work, steps: int, marks: list[Mark], wrap: Callable[[nn.Module], nn.Module]) -> None:
    """The loop that everybody writes, with nothing around the arithmetic."""
    model = wrap(work.make())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    part = Part(distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else None
    model.train()
    for x, y in work.given(steps, marks, part):
        optimizer.zero_grad()
        loss = work.criterion(model(x), y)
        loss.backward()
        optimizer.step()


def by_trueloop(work: Work, steps: int, marks: list[Mark], parallel: Any) -> None:
    """``Trainer.train`` with nobody watching."""
    model = work.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = tl.Trainer(model, work.criterion, optimizer, parallel=parallel)
    for _ in trainer.train(Feed(work, steps, marks), epochs=1):
        pass


Variant = Callable[[Work, int, list[Mark]], None]
VARIANTS: dict[str, Variant] = {
    "by hand, DDP": lambda *given: by_hand(*given, DistributedDataParallel),
    "by hand, DDP, freed memory kept": lambda *given: by_hand(*given, _kept(DistributedDataParallel)),
    "trueloop, DDP": lambda *given: by_trueloop(*given, "ddp"),
    "by hand, FSDP2": lambda *given: by_hand(*given, _shard),
    "by hand, FSDP2, freed memory kept": lambda *given: by_hand(*given, _kept(_shard)),
    "trueloop, FSDP2": lambda *given: by_trueloop(*given, tl.FSDP()),
}


def _kept(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """By hand, with the one setting of the process that trueloop makes on the CPU."""
    keep_freed_blocks()
    return wrap


def _shard(model: nn.Module) -> nn.Module:
    for block in model.children():
        if any(True for _ in block.parameters()):
            fully_shard(block)
    return fully_shard(model)


def seconds(run: Variant, work: Work) -> dict[str, float]:
    """Of one step: the slowest process's, and the mean of what they took of their CPUs."""
    marks: list[Mark] = []
    distributed.barrier()
    run(work, work.all, marks)
    wall, cpu = (torch.tensor((b - a) / work.steps, dtype=torch.float64) for a, b in zip(*marks, strict=True))
    distributed.all_reduce(wall, distributed.ReduceOp.MAX)
    distributed.all_reduce(cpu)
    return {"s": float(wall), "cpu": float(cpu) / distributed.get_world_size()}


class Sent(TorchDispatchMode):
    """Counts what is handed to collectives, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            whole = max(sum(t.numel() * t.element_size() for t in _tensors(argument)) for argument in args)
            self.sizes.append((func.__name__.partition(".")[0].strip("_"), whole))
        return func(*args, **(kwargs or {}))


def _tensors(argument: Any) -> Iterator[Tensor]:
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for one in argument:
            yield from _tensors(one)


def sent(run: Variant, work: Work) -> dict[str, float]:
    """A step's bytes and collectives: those of many steps less those of few."""
    counts = []
    for steps in (12, 20):  # the doctor listens to the first 8
        with Sent() as counted:
            run(work, steps, [])
        counts.append(counted.sizes)
    few, many = counts
    large = 64  # bytes: a sum of a few numbers is less
    return {
        "bytes": (sum(size for _, size in many) - sum(size for _, size in few)) / 8,
        "sums": sum(size > large for _, size in many) / 8 - sum(size > large for _, size in few) / 8,
        "small": sum(size <= large for _, size in many) / 8 - sum(size <= large for _, size in few) / 8,
    }


def network(megabytes: int, rounds: int) -> dict[str, float]:
    """Seconds of one sum over all processes: of a few numbers, and of so many megabytes."""
    figures = {}
    for name, numbers in (("small", 2), ("large", megabytes * 250_000)):
        tensor, took = torch.zeros(numbers, dtype=torch.float32), []
        for _ in range(rounds * (20 if name == "small" else 1)):
            distributed.barrier()
            started = time.perf_counter()
            distributed.all_reduce(tensor)
            took.append(time.perf_counter() - started)
        figures[name] = median(took)
    return figures | {"bytes": megabytes * 1e6}


def alone(rounds: int, quick: bool) -> float:
    """Seconds of one process's step on what is its part of two."""
    work = Work("cnn", quick=quick)
    work.batches = [(x[: len(x) // 2], y[: len(y) // 2]) for x, y in work.batches]
    took = []
    for _ in range(rounds):
        marks: list[Mark] = []
        by_hand(work, work.all, marks, lambda model: model)
        took.append((marks[1][0] - marks[0][0]) / work.steps)
    return median(took)


def counted(quick: bool) -> dict[str, Any]:
    """What travels, of each model and variant; and how fast."""
    found: dict[str, Any] = {"sent": {}, "parameters": {}, "network": network(64, 3 if quick else 9)}
    for name in WORKS:
        work = Work(name, quick=quick)
        found["parameters"][name] = sum(p.numel() for p in work.make().parameters())
        found["sent"][name] = {variant: sent(run, work) for variant, run in VARIANTS.items() if "kept" not in variant}
    return found


def main(out: Path, asked: str, quick: bool) -> None:
    """Measures what is asked for: ``alone``, ``counted``, or a variant by its name; writes what came of it."""
    if asked == "alone":
        found: Any = alone(2 if quick else 5, quick)
    else:
        distributed.init_process_group("gloo")
        if asked == "counted":
            found = counted(quick)
        else:
            found = {name: seconds(VARIANTS[asked], Work(name, quick=quick)) for name in WORKS}
    if asked == "alone" or distributed.get_rank() == 0:
        out.write_text(json.dumps(found))
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "quick")
