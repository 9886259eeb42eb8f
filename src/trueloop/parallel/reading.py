"""Data that every process reads by itself: the same batches on all, or shards of a stream that shares itself out.

Loaders and streams of the user's own are read whole by each process, which keeps its part of every batch. A stream that
asks for the rank (``RANK``, ``torch.distributed.get_rank()``) gives each process another shard: to cut that once more
would lose samples. What it gives first tells which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any
from zlib import crc32

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trueloop.data.arrays import is_arrays
from trueloop.data.device import batch_length
from trueloop.data.feed import Feed
from trueloop.data.nested import leaves
from trueloop.data.part import Part, cut, sliced
from trueloop.errors import DataError
from trueloop.parallel.reduce import gathered


class ReadByAll:
    """A feed that each process reads.

    Args:
        read: what this process reads.
        part: its part of each batch.
        batch_size: of all processes together, where ``read`` makes batches of that size out of a stream; None for a
            loader, whose batches are as large as it likes.
        is_stream: the processes may read shards of it. All else must be the same on all of them.

    Raises:
        DataError: the processes read different batches of a loader that is no stream.
    """

    def __init__(self, read: Feed, part: Part, *, batch_size: int | None, is_stream: bool) -> None:
        self._read, self._part = read, part
        self._batch_size, self._is_stream = batch_size, is_stream
        self.samples, self.batch_size, self.batches = read.samples, read.batch_size, read.batches
        self.shuffled, self.resumes = read.shuffled, read.resumes
        self.reason = f"{read.reason}; each of {part.of} processes reads all of it, and keeps its part of each batch"
        if is_stream:
            self.reason += " (or all, where the stream gives each process a shard of its own)"

    @property
    def inexact(self) -> str | None:
        return self._read.inexact

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """This process's batches; ``Idle`` ones where its shard has ended before those of others."""
        splits = self._part.of if self._batch_size is not None else 1  # parts in a batch that is read of a shard
        batches = self._read.epoch(number, start // splits)
        first = list(islice(batches, 1))
        if self._is_shared_out(first):
            own = _evened(chain(first, batches), self._part) if splits > 1 else chain(first, batches)
            left = islice(own, start % splits, None)
            return left if self._part.in_turn else _until_none_has_more(left)
        if start // splits != start:
            return sliced(self._read.epoch(number, start), self._part)
        return sliced(chain(first, batches), self._part)

    def close(self) -> None:
        """Ends what is read."""
        self._read.close()

    def state(self) -> dict[str, Any]:
        """Of what is read: the same on every process."""
        return self._read.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from it."""
        self._read.load_state(state)

    def _is_shared_out(self, first: list[Any]) -> bool:
        every = gathered([_sum_of(leaf) for leaf in leaves(first)])
        if all(one == every[0] for one in every):
            return False
        if self._is_stream:
            return True
        if len({len(one) for one in every}) == 1 and any(len(set(column)) == 1 for column in zip(*every, strict=True)):
            return False  # the same labels: only what a dataset draws by a generator of its own differs
        raise DataError(
            "every process must read the same batches, of which it takes its part, but your loader gives each process "
            "others; give its generator and sampler the same seed everywhere, or use a "
            "torch.utils.data.DistributedSampler, or pass the dataset instead of the loader"
        )


def read_by_all(data: Any, read: Feed, part: Part, batch_size: int | None) -> Feed:
    """The feed as ``part`` of several processes has it, where each of them reads ``data`` by itself.

    Args:
        data: as it was given.
        read: of all of it.
        part: this process's.
        batch_size: as it was given.
    """
    is_dataset = isinstance(data, Dataset) or hasattr(data, "__getitem__")
    is_stream = isinstance(data.dataset if isinstance(data, DataLoader) else data, IterableDataset)
    return ReadByAll(read, part, batch_size=batch_size, is_stream=is_stream or not (is_dataset or _is_loader(data)))


def is_read_by_all(data: Any, batch_size: int | None) -> bool:
    """Whether each process reads all of it: whatever has no index by which a part could be had.

    Example:
        >>> import torch
        >>> is_read_by_all(torch.zeros(3), 2), is_read_by_all(DataLoader([1, 2]), None), is_read_by_all(iter([1]), None)
        (False, True, True)
    """
    if isinstance(data, (DataLoader, IterableDataset)):
        return True
    if is_arrays(data):
        return False
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return not indexed or (isinstance(data, (list, tuple)) and batch_size is None)


def _is_loader(data: Any) -> bool:
    return isinstance(data, DataLoader)


def _evened(batches: Iterable[Any], part: Part) -> Iterator[Any]:
    """Batches of a shard, in pieces of a process's size: together with those of the others they make a whole one."""
    for batch in batches:
        samples = batch_length(batch)
        for rank in range(part.of):
            rows = Part(rank, part.of).rows(samples)
            if rows.start < rows.stop:
                yield cut(batch, rows, samples)


def _until_none_has_more(batches: Iterator[Any]) -> Iterator[Any]:
    from trueloop.parallel.shard import in_step  # DTensor takes 0.5 s to import

    return in_step(batches)


def _sum_of(leaf: Any) -> int:
    if isinstance(leaf, Tensor) and leaf.layout.__repr__() == "torch.strided":
        return crc32(leaf.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes()) if leaf.numel() else 0
    return crc32(repr(leaf).encode())
