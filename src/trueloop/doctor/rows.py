"""Which rows of which dataset a loader gives: learnt when it is made, for the dataset may not live to the end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any, NamedTuple

from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset
from torch.utils.weak import WeakIdKeyDictionary

_serials: Any = WeakIdKeyDictionary()
_next = count()


class Rows(NamedTuple):
    """The rows of a dataset."""

    base: tuple[int, ...]
    """The dataset below all subsets; or, where it is made of tensors, the first of them: the same for the same data.
    A list is known by its address, and by its length and ends, for another one may come to stand there."""
    kind: str
    """The dataset's class."""
    size: int | None
    """Its length, where it has one."""
    rows: frozenset[int] | None
    """None: all of them."""
    parts: tuple[Rows, ...] = ()
    """Those of the datasets that are joined in a ``ConcatDataset``."""

    def mostly_in(self, other: Rows) -> bool:
        """Whether at least half of these rows are among the others.

        Example:
            >>> import torch
            >>> data = TensorDataset(torch.zeros(6, 2))
            >>> train, held_out, leak = (rows_of(DataLoader(Subset(data, r))) for r in ([0, 1, 2, 3], [4, 5], [2, 3]))
            >>> held_out.mostly_in(train), leak.mostly_in(train), leak.mostly_in(rows_of(DataLoader(data)))
            (False, True, True)
        """
        if other.rows is None and any(self.mostly_in(part) for part in other.parts):
            return True
        if self.base != other.base:
            return False
        if other.rows is None:
            return True
        if self.rows is None:
            return self.size is not None and 2 * len(other.rows) >= self.size
        return bool(self.rows) and 2 * len(self.rows & other.rows) >= len(self.rows)

    def shared(self, other: Rows) -> tuple[int, int, int] | None:
        """How many rows both have, and how many each has; None if that cannot be told.

        Example:
            >>> import torch
            >>> data = TensorDataset(torch.zeros(6, 2))
            >>> rows_of(DataLoader(Subset(data, [0, 5]))).shared(rows_of(DataLoader(data)))
            (2, 2, 6)
        """
        sizes = [self.size if one is None else len(one) for one in (self.rows, other.rows)]
        if self.base != other.base or sizes[0] is None or sizes[1] is None or 0 in sizes:
            return None
        if self.rows is not None and other.rows is not None:
            return len(self.rows & other.rows), sizes[0], sizes[1]
        return min(sizes[0], sizes[1]), sizes[0], sizes[1]


def rows_of(loader: DataLoader[Any]) -> Rows:
    """What a loader reads. Only torch's own subsets and samplers are looked into; of the user's, ``len`` is asked."""
    sampler = getattr(loader, "sampler", None)
    return _rows(loader.dataset, [sampler.indices] if isinstance(sampler, SubsetRandomSampler) else [])


def _rows(dataset: Any, chains: list[Iterable[Any]]) -> Rows:
    while isinstance(dataset, Subset):
        chains.append(dataset.indices)
        dataset = dataset.dataset
    base: tuple[int, ...] = (serial(dataset),)
    size = None if isinstance(dataset, IterableDataset) else _length(dataset)
    if isinstance(dataset, TensorDataset) and dataset.tensors:
        first = dataset.tensors[0]
        own = first if first._base is None else first._base
        base = (serial(own), int(first.storage_offset()), *first.shape)
    elif isinstance(dataset, list) and dataset:  # no weak reference: known by what it holds
        base = (id(dataset), len(dataset), id(dataset[0]), id(dataset[-1]))
    parts = tuple(_rows(part, []) for part in dataset.datasets) if isinstance(dataset, ConcatDataset) else ()
    return Rows(base, type(dataset).__name__, size, _through(chains), parts)


def serial(thing: Any) -> int:
    """A number of an object's own, which no other object ever gets."""
    try:
        if thing not in _serials:
            _serials[thing] = next(_next)
        return int(_serials[thing])
    except TypeError:  # it cannot be referred to weakly: a list
        return next(_next)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except Exception:  # whatever the user's own ``__len__`` raises
        return None


def _through(chains: list[Iterable[Any]]) -> frozenset[int] | None:
    try:
        rows: list[int] | None = None
        for indices in chains:  # the sampler's are positions in the outermost subset, its are positions in the next
            plain = [int(index) for index in indices]
            rows = plain if rows is None else [plain[row] for row in rows]
        return None if rows is None else frozenset(rows)
    except (IndexError, TypeError, ValueError):  # indices of the user's own kind
        return frozenset()
