"""One way to read data, whatever it is: ``feed`` looks at what it is given and says in one line how it will read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset, IterableDataset

from trueloop.data.arrays import ArrayFeed, is_arrays
from trueloop.data.given import LoaderFeed
from trueloop.data.loader import WorkerFeed
from trueloop.data.nested import leaves
from trueloop.data.part import WHOLE, Part
from trueloop.data.stream import StreamFeed
from trueloop.errors import ArgumentError, DataError


class Feed(Protocol):
    """An epoch's batches, on the host, from any batch on."""

    @property
    def samples(self) -> int | None:
        """Samples an epoch, without those that ``drop_last`` leaves out; None where it cannot be known."""

    @property
    def batch_size(self) -> int | None:
        """Samples a batch (one microbatch); None where the loader does not say."""

    @property
    def batches(self) -> int | None:
        """Batches an epoch; None where it cannot be known."""

    @property
    def shuffled(self) -> bool:
        """Whether the order differs from epoch to epoch, as far as can be seen."""

    @property
    def reason(self) -> str:
        """How it is read and why, one line for the plan."""

    @property
    def resumes(self) -> str:
        """How a resume finds its place, a few words for the plan."""

    @property
    def inexact(self) -> str | None:
        """Why a resume cannot be promised to give the same bits, else None; ``load_state`` may find a reason."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of epoch ``number`` (0-based) from batch ``start`` on. The epoch before it, if it runs, ends.

        A resume sets the global RNGs (python's, numpy's, torch's) before the first batch is asked for, and may do so
        before or after this call: what must be drawn or read to get to ``start`` is drawn and read in this call, or
        where no global RNG is moved, and the RNGs are given back as they were. From the beginning (``start=0``),
        nothing is drawn before the first batch is asked for.
        """

    def close(self) -> None:
        """End the epoch that runs, if one does, and its workers."""

    def state(self) -> dict[str, Any]:
        """What a resume needs beside seed, epoch and position: plain values, tensors, arrays; it shares no memory with
        what goes on.

        To be asked for when all that was fetched counts as consumed: the position that is saved with it is the number
        of batches that were taken from the iterator of the epoch. As long as that has not ended (``StopIteration``), a
        resume asks for the same epoch again, with ``start`` after its last batch if need be: an end may draw, too.
        """

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave, in this process or another: call it before ``epoch``."""


def feed(
    data: Any,
    *,
    batch_size: int | None,
    seed: int = 0,
    shuffle: bool = False,
    workers: int = 0,
    worker_timeout: float = 300.0,
    drop_last: bool = False,
    part: Part = WHOLE,
) -> Feed:
    """The way to read ``data``:

    - tensors, numpy arrays, tuples or dicts of them, a ``TensorDataset``: gathered by index (``ArrayFeed``);
    - a ``DataLoader``, or another iterable of batches: as it is (``LoaderFeed``); ``batch_size`` must be None;
    - an ``IterableDataset``: one stream, batched here (``StreamFeed``);
    - anything else with ``__getitem__`` and ``__len__``: a dataset, sample by sample (``WorkerFeed``). A list or tuple
      that holds no arrays is a dataset when a ``batch_size`` is given, and an iterable of batches when none is.

    Args:
        data: see above.
        batch_size: samples a batch. More than there are samples is fine: one batch.
        seed: of order and augmentation.
        shuffle: a new order each epoch. A loader and a stream have their own order.
        workers: processes that make samples; 0 makes them in this one. Arrays and given loaders take no notice.
        worker_timeout: seconds to wait for one batch before its worker counts as hanging.
        drop_last: leave out a last batch that is short.
        part: of each batch, what is this process's: only those samples are made. Loaders and streams, which have no
            index, are read whole (``parallel.reading`` cuts them).

    Raises:
        ArgumentError: a batch size below 1, missing, or given for a loader that has its own; workers below 0;
            a timeout that is not positive.
        DataError: no samples, or data of a kind that cannot be read.

    Example:
        >>> import torch
        >>> numbers = feed(torch.arange(5), batch_size=2)
        >>> [batch.tolist() for batch in numbers.epoch(0)], numbers.reason
        ([[0, 1], [2, 3], [4]], 'in memory: copies of slices, in order')
    """
    _check(batch_size, workers, worker_timeout)
    chosen = _choose(data, batch_size, seed, shuffle, workers, worker_timeout, drop_last, part)
    if chosen.batches == 0:
        raise DataError(
            f"an epoch must have at least 1 batch, but drop_last=True leaves out the only one: there are fewer samples "
            f"than batch_size={batch_size}; pass drop_last=False or a smaller batch_size"
        )
    return chosen


def batch_size_for(data: Any, given: int | None, default: int) -> int | None:
    """The batch size to read ``data`` with where any will do: none for a loader, which has its own.

    Example:
        >>> batch_size_for([1.0, 2.0], None, 256) is None, batch_size_for(DataLoader([1]), 32, 256) is None
        (True, True)
    """
    if isinstance(data, DataLoader):
        return None
    if isinstance(data, Dataset) or is_arrays(data):
        return default if given is None else given
    return given if hasattr(data, "__getitem__") else None


def _choose(
    data: Any,
    batch_size: int | None,
    seed: int,
    shuffle: bool,
    workers: int,
    worker_timeout: float,
    drop_last: bool,
    part: Part,
) -> Feed:
    if isinstance(data, DataLoader):
        return LoaderFeed(_unbatched(data, batch_size), worker_timeout=worker_timeout)
    if is_arrays(data):
        size = _needed(batch_size, data)
        return ArrayFeed(data, batch_size=size, seed=seed, shuffle=shuffle, drop_last=drop_last, part=part)
    _refuse(data)
    if isinstance(data, IterableDataset):
        size = _needed(batch_size, data)
        return StreamFeed(
            data, batch_size=size, seed=seed, workers=workers, worker_timeout=worker_timeout, drop_last=drop_last
        )
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if indexed and not (isinstance(data, (list, tuple)) and batch_size is None):
        return WorkerFeed(
            data,
            batch_size=_needed(batch_size, data),
            seed=seed,
            shuffle=shuffle,
            workers=workers,
            worker_timeout=worker_timeout,
            drop_last=drop_last,
            part=part,
        )
    return LoaderFeed(_unbatched(data, batch_size), worker_timeout=worker_timeout)


def _check(batch_size: int | None, workers: int, worker_timeout: float) -> None:
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ArgumentError(f"batch_size must be a whole number, at least 1, got batch_size={batch_size!r}")
    if type(workers) is not int or workers < 0:
        raise ArgumentError(f"workers must be 0 (make samples in this process) or more, got workers={workers!r}")
    if not worker_timeout > 0:
        raise ArgumentError(f"worker_timeout must be above 0 seconds, got worker_timeout={worker_timeout!r}")


def _needed(batch_size: int | None, data: Any) -> int:
    if batch_size is None:
        raise ArgumentError(f"batch_size is needed to read a {type(data).__name__}, got None; pass batch_size=32, say")
    return batch_size


def _unbatched(loader: Any, batch_size: int | None) -> Any:
    if batch_size is not None:
        raise ArgumentError(
            f"a {type(loader).__name__} has a batch size of its own, got batch_size={batch_size} as well; "
            "leave it out, or pass the dataset instead of the loader"
        )
    return loader


def _refuse(data: Any) -> None:
    """What looks like data and is not, each with its way out."""
    if isinstance(data, (list, tuple, dict)) and not data:
        raise DataError(f"the data is empty: got {data!r}; at least 1 sample is needed")
    for leaf in leaves(data if isinstance(data, (tuple, dict)) else (data,)):
        if type(leaf).__module__.partition(".")[0] == "pandas":
            raise DataError(f"data must be tensors or arrays, got a pandas {type(leaf).__name__}; pass .to_numpy()")
    if isinstance(data, (dict, str, bytes)) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise DataError(
            "data must be tensors, arrays, tuples or dicts of them, a Dataset, an IterableDataset or a DataLoader, "
            f"got {type(data).__name__}; turn lists of numbers into tensors with torch.tensor(...)"
        )
