"""A process's part of a batch that several processes share: consecutive samples, sizes that differ by one at most."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, MutableMapping
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from trueloop.data.device import batch_length
from trueloop.data.nested import mapped
from trueloop.errors import DataError


class Part(NamedTuple):
    """Which part of the data is this process's.

    Args:
        rank: its number, from 0.
        of: how many processes there are.
        in_turn: it gets whole batches, the first process the first one, and not a part of each.

    Example:
        >>> [Part(rank, of=4).rows(6) for rank in range(4)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None), slice(5, 6, None)]
    """

    rank: int = 0
    of: int = 1
    in_turn: bool = False

    def rows(self, samples: int) -> slice:
        """Its samples of a batch; the first processes have one more where the batch does not divide."""
        base, more = divmod(samples, self.of)
        begin = self.rank * base + min(self.rank, more)
        return slice(begin, begin + base + (self.rank < more))


WHOLE = Part()


class Idle:
    """What a process gets of a batch with fewer samples than there are processes: it computes, and counts for nothing.

    The forward and backward pass have to take place, since the others wait for this process's gradients.

    Args:
        batch: samples of the other processes.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def to(self, *args: Any, **kwargs: Any) -> Idle:
        """On a device."""
        return Idle(mapped(lambda leaf: leaf.to(*args, **kwargs) if hasattr(leaf, "to") else leaf, self.batch))


def sliced(batches: Iterable[Any], part: Part) -> Iterator[Any]:
    """The part of each batch: of every tensor, array and list of plain values in it that is as long as the batch.

    Example:
        >>> import torch
        >>> [batch.tolist() for batch in sliced([torch.arange(5)], Part(1, of=2))]
        [[3, 4]]
        >>> [type(batch).__name__ for batch in sliced([torch.arange(1)], Part(1, of=2))]
        ['Idle']
    """
    if part.of == 1 or part.in_turn:
        yield from islice(batches, part.rank, None, part.of)
        return
    for batch in batches:
        samples = batch_length(batch)
        rows = part.rows(samples)
        yield Idle(batch) if rows.start == rows.stop else cut(batch, rows, samples)


def cut(batch: Any, rows: slice, samples: int) -> Any:
    """Some samples of a batch.

    Example:
        >>> import torch
        >>> cut({"x": torch.arange(3), "scale": 2.0}, slice(1, 3), 3)
        {'x': tensor([1, 2]), 'scale': 2.0}

    Raises:
        DataError: a part cannot be had.
    """

    if isinstance(batch, (list, tuple)) and len(batch) == samples and all(isinstance(item, _PLAIN) for item in batch):
        return batch[rows]  # names, say: what is a list of tensors is a list of columns
    if isinstance(batch, list) or type(batch) is tuple:
        return type(batch)(cut(item, rows, samples) for item in batch)
    if isinstance(batch, MutableMapping):  # a tokenizer's output as well
        part = copy.copy(batch)
        part.update({key: cut(value, rows, samples) for key, value in batch.items()})
        return part

    def part_of(leaf: Any) -> Any:
        if isinstance(leaf, PackedSequence):
            raise DataError("a PackedSequence cannot be shared out to several processes; pack it in the model")
        if isinstance(leaf, Tensor):
            return leaf[rows] if leaf.ndim and leaf.shape[0] == samples else leaf
        shape = getattr(leaf, "shape", None)
        return leaf[rows] if shape and shape[0] == samples else leaf

    return mapped(part_of, batch)


_PLAIN = (str, bytes, int, float, type(None))
