"""What must be the same on all processes: what they train, how many batches they have, and their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from trueloop.data.randomness import get_rngs, put_rngs
from trueloop.errors import ArgumentError, ProcessError
from trueloop.parallel.reduce import gathered, is_same, of_the_first, summed
from trueloop.parallel.world import world

T = TypeVar("T")


def check_alike(settings: Mapping[str, Any], model: nn.Module | None = None) -> None:
    """Raises, on every process, where one of them is to train something else.

    Args:
        settings: what the run was asked for, in plain values, by the names that an error calls them.
        model: the one that is trained: the shapes of its weights are compared as well.

    Raises:
        ArgumentError: with the processes and what differs.

    Example:
        >>> check_alike({"samples": 100}, nn.Linear(2, 1))
    """
    if world().alone:
        return
    named = () if model is None else model.named_parameters()
    weights = {f"the weight {name}": f"{p.dtype} {tuple(p.shape)}" for name, p in named}
    every = gathered({**settings, **weights})
    for name in dict.fromkeys(name for one in every for name in one):
        values = [one.get(name, "missing") for one in every]
        if any(repr(value) != repr(values[0]) for value in values):
            few = "; ".join(f"{value} on {processes_in_words(ranks)}" for value, ranks in _by_value(values))
            raise ArgumentError(
                f"all processes must be given the same model, data and settings, and each takes its part by itself; "
                f"{name} is {few}"
            )


def begin_alike(*modules: nn.Module | None) -> None:
    """Gives every process rank 0's weights and buffers, and rank 0's random numbers: a script need not seed.

    Args:
        *modules: those that train; what is cut up among the processes (FSDP) is left alone.

    Example:
        >>> begin_alike(nn.Linear(2, 1))
    """
    if world().alone:
        return
    for module in filter(None, modules):
        check_alike({}, module)  # a broadcast to another shape would end the process
        for tensor in (*module.parameters(), *module.buffers()):
            if type(tensor.data) is Tensor:
                distributed.broadcast(tensor.detach(), src=0)
    put_rngs(of_the_first(get_rngs()))


def until_all_end(batches: Iterable[T]) -> Iterator[T]:
    """The same batches; their end is one that all processes reach together, after as many of them.

    Raises:
        DataError: another process has more of them.

    Example:
        >>> list(until_all_end([1, 2]))
        [1, 2]
    """
    yield from batches
    summed((), at="at the end of its batches")


def check_weights(model: nn.Module, step: int) -> None:
    """Raises, on every process, if the weights of one are not those of the others, to the bit.

    A sum of each tensor's bits is compared: it reads the weights once.

    Raises:
        ProcessError: with the processes and the first weight that differs.

    Example:
        >>> check_weights(nn.Linear(2, 1), step=1)
    """
    if world().alone:
        return
    own = [(name, p) for name, p in model.named_parameters() if type(p.data) is Tensor]  # no shards of one
    if not own:
        return
    sums = torch.stack([_sum_of_bits(p.detach()) for _, p in own]).cpu()
    if is_same(sums):
        return
    every = torch.stack(gathered(sums))
    at = int((every != every[0]).any(0).nonzero()[0])
    who, strange = apart([tuple(one.tolist()) for one in every])
    raise ProcessError(
        f"the weights have drifted apart: {who}, first in {own[at][0]}; something changes them on one process alone "
        "(an observer, a loop of your own), or its memory or device is at fault",
        step=step,
        ranks=strange,
    )


def apart(values: Sequence[Any]) -> tuple[str, tuple[int, ...]]:
    """Whose values are not those of most processes, in words and by their ranks; of all processes, not all alike.

    Example:
        >>> apart([1, 2, 1])
        ('those of process 1 are not those of processes 0 and 2', (1,))
        >>> apart([1, 2])
        ('processes 0 and 1 differ', (1,))
    """
    (_, most), *others = _by_value(list(values))
    strange = sorted(rank for _, ranks in others for rank in ranks)
    if len(most) > len(others[0][1]):
        return f"those of {processes_in_words(strange)} are not those of {processes_in_words(most)}", tuple(strange)
    return f"{processes_in_words(range(len(values)))} differ", tuple(strange)


def _sum_of_bits(weight: Tensor) -> Tensor:
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(weight.itemsize)
    if weight.is_complex() or bits is None:
        weight, bits = torch.view_as_real(weight).contiguous(), {8: torch.int32, 16: torch.int64}[weight.itemsize]
    return weight.contiguous().view(bits).sum(dtype=torch.int64)


def _by_value(values: list[Any]) -> list[tuple[Any, list[int]]]:
    """Each value with the ranks that have it, the most frequent first."""
    texts = [repr(value) for value in values]
    return [
        (values[texts.index(text)], [rank for rank, one in enumerate(texts) if one == text])
        for text, _ in Counter(texts).most_common()
    ]


def processes_in_words(ranks: Sequence[int]) -> str:
    """Those of these ranks, as an error names them; of many the first eight.

    Example:
        >>> processes_in_words([1]), processes_in_words([0, 2])
        ('process 1', 'processes 0 and 2')
    """
    if len(ranks) == 1:
        return f"process {ranks[0]}"
    few = [str(rank) for rank in ranks[:8]] + ["…"] * (len(ranks) > 8)
    return f"processes {', '.join(few[:-1])} and {few[-1]}"
