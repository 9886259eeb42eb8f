"""Sums and agreements over the processes of a run, each one call: what every process must know alike.

What is on the CPU goes by gloo and waits for no device; what is on a device stays there, and no value of it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from trueloop.parallel.world import world


def summed(values: Sequence[float]) -> list[float]:
    """Each number's sum over the processes, in double precision.

    Example:
        >>> summed([1, 0.5])
        [1.0, 0.5]
    """
    if world().alone:
        return [float(value) for value in values]
    total = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(total)
    return total.tolist()


def summed_tensor(value: Tensor) -> Tensor:
    """A tensor's sum over the processes, where it is; the tensor itself stays as it was.

    Example:
        >>> summed_tensor(torch.ones(2))
        tensor([1., 1.])
    """
    total = value.detach().clone()
    if not world().alone:
        distributed.all_reduce(total)
    return total


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


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Of each flag, whether it is set on any process.

    Example:
        >>> any_of([True, False])
        [True, False]
    """
    return [total > 0 for total in summed([float(flag) for flag in flags])]


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
