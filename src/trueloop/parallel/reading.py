"""How several processes read one epoch: each its part of every batch, and no sample is read twice or left out.

Samples that have an index are made by one process alone. Loaders and streams of the user's own are read whole by each
process, which keeps its part of every batch; but for those that share themselves out already: a ``DataLoader`` with a
``DistributedSampler``, and a stream that asks for its rank (``RANK``, ``torch.distributed.get_rank()``). To cut those
once more would lose samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, Literal
from zlib import crc32

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from trueloop.data.arrays import is_arrays
from trueloop.data.device import batch_length
from trueloop.data.feed import Feed, feed
from trueloop.data.nested import leaves
from trueloop.data.part import WHOLE, Idle, Part, cut, sliced
from trueloop.errors import ArgumentError, DataError, ProcessError
from trueloop.parallel.alike import apart
from trueloop.parallel.likeness import checksum
from trueloop.parallel.reduce import gathered, summed

Kind = Literal["the same on all", "a stream", "a part on each"]


def shared_feed(
    data: Any, *, batch_size: int | None = None, seed: int | None = None, part: Part = WHOLE, **how: Any
) -> Feed:
    """The way to read ``data``, of which this process has a part.

    Args:
        data: as for ``data.feed``.
        batch_size: of all processes together; None for a loader, which has its own.
        seed: as for ``data.feed``; None takes ``torch.initial_seed()``.
        part: this process's.
        **how: as for ``data.feed``.

    Raises:
        ArgumentError: a ``DistributedSampler`` is for other processes than these.

    Example:
        >>> feed = shared_feed(torch.arange(4), batch_size=4, part=Part(1, of=2))
        >>> next(feed.epoch(0)).tolist()
        [2, 3]
    """
    how |= {"batch_size": batch_size, "seed": torch.initial_seed() if seed is None else seed}
    if part.of == 1 or not _is_read_by_all(data, batch_size):
        return feed(data, part=part, **how)
    sampler = _distributed_sampler(data)
    if sampler is not None and part.in_turn:  # it repeats samples, for parts of one size: an evaluation is to be exact
        return ReadByAll(feed(_in_order(data), **how), part, "the same on all")
    if sampler is not None:
        if (sampler.rank, sampler.num_replicas) != (part.rank, part.of):
            raise ArgumentError(
                f"the {type(sampler).__name__} must be for process {part.rank} of {part.of}, got rank={sampler.rank}, "
                f"num_replicas={sampler.num_replicas}; leave both out, or the sampler: trueloop shares batches out"
            )
        shared = ReadByAll(feed(data, **how), part, "a part on each")
        if (twice := getattr(sampler, "total_size", 0) - len(data.dataset)) > 0:
            shared.reason += f", and {twice} of the samples twice, so that all have as many (without it none would be)"
        return shared
    dataset = data.dataset if isinstance(data, DataLoader) else data
    is_stream = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
    return ReadByAll(feed(data, **how), part, "a stream" if is_stream else "the same on all", batch_size)


class ReadByAll:
    """A feed that each process reads for itself.

    Args:
        read: what this process reads.
        part: its part of each batch.
        kind: what the processes have read then. Of a stream it is found out by its first batch.
        batch_size: where ``read`` makes batches of that size out of a stream.

    Raises:
        DataError: what must be the same on all is not.
    """

    def __init__(self, read: Feed, part: Part, kind: Kind, batch_size: int | None = None) -> None:
        self._read, self._part, self._kind = read, part, kind
        times = part.of if kind == "a part on each" else 1
        self.samples = None if read.samples is None else read.samples * times
        self.batch_size = None if read.batch_size is None else read.batch_size * times
        self.batches, self.shuffled, self.resumes = read.batches, read.shuffled, read.resumes
        self._splits = 1 if batch_size is None else part.of  # of a batch that is read of a shard
        self._whole: list[Any] = []  # the batch that was read last, where it is to be the same on all
        by_whom = f"each of {part.of} processes reads all of it, and keeps its part of each batch"
        if kind == "a stream":
            by_whom += " (or what it reads, where the stream gives each process a shard)"
        elif kind == "a part on each":
            by_whom = f"its sampler gives each of {part.of} processes its part"
        self.reason = f"{read.reason}; {by_whom}"

    @property
    def inexact(self) -> str | None:
        return self._read.inexact

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """This process's batches; ``Idle`` ones where its shard of a stream has ended before those of others."""
        if self._kind == "a part on each":
            return self._read.epoch(number, start)
        return self._batches(self._read.epoch(number, start // self._splits), number, start)

    def check_alike(self, step: int) -> None:
        """Raises, on every process, if the batch that they have read last, to take their parts of it, is not the same.

        Args:
            step: that they stand at.

        Raises:
            ProcessError: with the processes that read something else than most.
        """
        if not self._whole:
            return
        every = _sums_on_all(self._whole)
        if _are_alike(every):
            return
        who, strange = apart(every)
        raise ProcessError(
            f"the batches have drifted apart: {who}, so that samples are left out or repeated; the loader draws by a "
            "generator that is not the same on all, or changes on one process alone",
            step=step,
            ranks=strange,
        )

    def close(self) -> None:
        """Ends what is read."""
        self._whole = []
        self._read.close()

    def state(self) -> dict[str, Any]:
        """Of what is read."""
        return self._read.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from it."""
        self._read.load_state(state)

    def _batches(self, batches: Iterator[Any], number: int, start: int) -> Iterator[Any]:
        self._whole = []
        first, none = [], None
        try:
            first = list(islice(batches, 1))
        except DataError as error:  # of a stream that is empty: it may be a shard, and others have samples
            none = error
        is_shared_out = self._is_shared_out(first)
        if none is not None and not is_shared_out:
            raise none
        if is_shared_out:
            pieces = islice(_pieces(chain(first, batches), self._splits), start % self._splits, None)
            if self._part.in_turn:
                yield from pieces
                return
            own = 0
            for batch in _until_none_has_more(pieces):
                own += 0 if isinstance(batch, Idle) else batch_length(batch)
                yield batch
            self._check_length(own, from_start=start == 0)
        elif start // self._splits != start:
            yield from sliced(self._noted(self._read.epoch(number, start)), self._part)
        else:
            yield from sliced(self._noted(chain(first, batches)), self._part)

    def _check_length(self, own: int, *, from_start: bool) -> None:
        total = int(summed([own], at="at the end of its shard")[0])
        if from_start and self.samples is not None and total > self.samples:
            raise DataError(
                f"a stream that gives each process a shard must say by __len__ how long all of them are together, got "
                f"{self.samples} of {total} samples: steps and schedules were counted by it; or leave __len__ out"
            )

    def _noted(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            self._whole = [batch]
            yield batch

    def _is_shared_out(self, first: list[Any]) -> bool:
        every = _sums_on_all(first)
        if self._kind == "a stream":
            return any(one != every[0] for one in every)
        if _are_alike(every):
            return False
        raise DataError(
            "every process must read the same batches, of which it takes its part, but the loader gives each process "
            "others; give its generator and sampler the same seed everywhere, or use a "
            "torch.utils.data.DistributedSampler, or pass the dataset instead of the loader"
        )


def _is_read_by_all(data: Any, batch_size: int | None) -> bool:
    if isinstance(data, (DataLoader, IterableDataset)):
        return True
    if is_arrays(data):
        return False
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return not indexed or (isinstance(data, (list, tuple)) and batch_size is None)


def _distributed_sampler(data: Any) -> Any:
    """A sampler that knows of ranks: torch's ``DistributedSampler``, or one that is made like it."""
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset):
        return None
    known = (data.sampler, data.batch_sampler, getattr(data.batch_sampler, "sampler", None))
    return next((one for one in known if hasattr(one, "num_replicas") and hasattr(one, "rank")), None)


def _in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """All samples of its dataset, each once."""
    return DataLoader(
        loader.dataset,
        loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1),
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        generator=torch.Generator(),
    )


def _pieces(batches: Iterable[Any], splits: int) -> Iterator[Any]:
    """Batches of a shard, in pieces that make a whole one together with those of the other processes."""
    for batch in batches:
        samples = batch_length(batch)
        for rank in range(splits):
            rows = Part(rank, splits).rows(samples)
            if rows.start < rows.stop:
                yield cut(batch, rows, samples)


def _until_none_has_more(batches: Iterable[Any]) -> Iterator[Any]:
    from trueloop.parallel.shard import in_step  # DTensor takes 0.5 s to import

    return in_step(batches)


def _sums_on_all(batches: list[Any]) -> list[list[int]]:
    """Of each process, a checksum of each leaf."""
    return gathered([_sum_of(leaf) for leaf in leaves(batches)])


def _are_alike(every: list[list[int]]) -> bool:
    """Whether they have read the same; or the same labels: the dataset draws the rest by a generator of its own."""
    same_length = len({len(one) for one in every}) == 1
    return all(one == every[0] for one in every) or (
        same_length and any(len(set(column)) == 1 for column in zip(*every, strict=True))
    )


def _sum_of(leaf: Any) -> int:
    if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
        return checksum(leaf)
    return crc32(repr(leaf).encode())
