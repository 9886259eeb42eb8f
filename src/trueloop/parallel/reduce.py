"""Sums and agreements over the processes of a run, each one call: what every process must know alike.

What is on the CPU goes by gloo and waits for no device; what is on a device stays there, and no value of it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, distributed, nn

from trueloop.errors import DataError
from trueloop.parallel.waiting import places_of_all
from trueloop.parallel.world import world

_WIDTH = 6
"""Numbers that travel together. All sums are of one width, so that processes at different places still meet."""


def summed(values: Sequence[float], at: str = "in a step") -> list[float]:
    """Each number's sum over the processes, in double precision.

    Args:
        values: four at most.
        at: where this process stands: all must be at the same place.

    Raises:
        DataError: on all of them, if they are not: one of them has fewer batches than another, say.

    Example:
        >>> summed([1, 0.5])
        [1.0, 0.5]
    """
    return summing(values, at)()


def summing(values: Sequence[float], at: str = "in a step") -> Callable[[], list[float]]:
    """The same, begun now: the sums travel while something else is computed, and are waited for when they are asked.

    Example:
        >>> sums = summing([1, 0.5])
        >>> sums()
        [1.0, 0.5]
    """
    if world().alone:
        return lambda: [float(value) for value in values]
    code = crc32(at.encode()) & 0xFFFF
    padding = [0.0] * (_WIDTH - 2 - len(values))
    total = torch.tensor([code, code * code, *values, *padding], dtype=torch.float64)
    work = distributed.all_reduce(total, async_op=True)
    assert work is not None, "the process group is this process's"

    def sums() -> list[float]:
        work.wait()
        codes, squares, *found = total.tolist()
        size = world().size
        if codes != size * code or squares != size * code * code:
            places = "; ".join(f"process {rank} is {place}" for rank, place in enumerate(places_of_all(world(), at)))
            raise DataError(f"every process must have as many batches as the others, and take as many steps: {places}")
        return found[: len(values)]

    return sums


def summing_tensor(value: Tensor) -> Callable[[], Tensor]:
    """A tensor's sum over the processes, in double precision and where it is: begun now, as ``summing`` is.

    Double, since one of them may have it in another precision than the others: of what counts for nothing.

    Example:
        >>> summing_tensor(torch.ones(2))()
        tensor([1., 1.], dtype=torch.float64)
    """
    total = value.detach().to(torch.float64, copy=True)
    if world().alone:
        return lambda: total
    work = distributed.all_reduce(total, async_op=True)
    assert work is not None, "the process group is this process's"

    def sums() -> Tensor:
        work.wait()
        return total

    return sums


def sum_gradients(
    parameters: Sequence[nn.Parameter], *, bucket_mb: float | None = None, compress: bool = False
) -> None:
    """Makes each gradient the sum of all processes'.

    A parameter that has none here, and has one on another process, gets that one; one that has none anywhere keeps
    none.

    Args:
        parameters: the same on every process; what is frozen is left alone.
        bucket_mb: so much travels, and is copied, in one exchange; None for 25.
        compress: they travel as bf16.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> sum_gradients([weight]); weight.grad is None
        True
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if world().alone or not trained:
        return
    anywhere = torch.tensor([float(parameter.grad is not None) for parameter in trained])
    distributed.all_reduce(anywhere)
    given = [parameter for parameter, is_there in zip(trained, anywhere.tolist(), strict=True) if is_there]
    for bucket in _buckets(given, (bucket_mb or 25) * 2**20):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([part.reshape(-1) for part in parts])
        sent = flat.to(torch.bfloat16) if compress else flat
        distributed.all_reduce(sent)
        totals = torch.split(sent, [part.numel() for part in parts])
        for parameter, part, total in zip(bucket, parts, totals, strict=True):
            parameter.grad = part.copy_(total.view(part.shape))


def _buckets(parameters: Sequence[nn.Parameter], size: float) -> Iterator[list[nn.Parameter]]:
    """Those of a kind together, so many bytes at a time and one at least."""
    kinds: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for alike in kinds.values():
        bucket: list[nn.Parameter] = []
        held = 0
        for parameter in alike:
            if bucket and held + parameter.nbytes > size:
                yield bucket
                bucket, held = [], 0
            bucket.append(parameter)
            held += parameter.nbytes
        yield bucket


def gathered(value: Any) -> list[Any]:
    """Every process's value, by rank: plain values and tensors; for what is rare, since it is pickled on its way.

    Example:
        >>> gathered("mine")
        ['mine']
    """
    here = world()
    if here.alone:
        return [value]
    values: list[Any] = [None] * here.size
    distributed.all_gather_object(values, value)
    return values


def of_the_first(value: Any) -> Any:
    """Rank 0's value, on every process.

    Example:
        >>> of_the_first(3)
        3
    """
    if world().alone:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def is_same(value: Tensor) -> bool:
    """Whether a tensor on the CPU is the same on every process, to the bit.

    Example:
        >>> is_same(torch.zeros(2))
        True
    """
    if world().alone:
        return True
    lowest, highest = value.clone(), value.clone()
    distributed.all_reduce(lowest, distributed.ReduceOp.MIN)
    distributed.all_reduce(highest, distributed.ReduceOp.MAX)
    return bool(torch.equal(lowest, highest))
