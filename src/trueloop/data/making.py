"""Batches made from samples, in this process or in a DataLoader's workers, by the same code and with the same end.

What makes batches (``loader.py``: from indices, ``stream.py``: from a stream) notes in shared memory what it is at, so
that the main process can tell it of a worker that can tell nothing any more; and it returns a ``Failure`` instead of
raising, so that an exception out of the DataLoader always means that a worker is gone.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from ctypes import c_longlong
from multiprocessing.sharedctypes import RawArray
from pickle import PicklingError
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from trueloop.data.randomness import borrowed_rngs
from trueloop.data.watchdog import Making, watched
from trueloop.errors import DataError, WorkerError

COLLATING = 0x636F6C6C617465  # "collate" in ASCII: keeps the seed of a batch apart from that of a sample

_IDLE, _WHOLE = -1, -2


class Notes:
    """What each worker is at: the batch, and the sample in it. In memory that outlives the worker.

    Example:
        >>> notes = Notes(workers=1)
        >>> notes.sample(batch=4, index=37); notes.read(0)
        (4, 37)
        >>> notes.idle(); notes.read(0) is None
        True
    """

    def __init__(self, workers: int) -> None:
        self._slots = RawArray(c_longlong, [0, _IDLE] * max(1, workers))

    def sample(self, batch: int, index: int) -> None:
        """This worker begins to make the sample ``index`` of batch ``batch``."""
        at = 2 * _this_worker()
        self._slots[at], self._slots[at + 1] = batch, index

    def whole(self, batch: int) -> None:
        """This worker works on the batch as a whole: collates it."""
        self.sample(batch, _WHOLE)

    def idle(self) -> None:
        """This worker has nothing to do."""
        self.sample(0, _IDLE)

    def read(self, worker: int) -> tuple[int, int | None] | None:
        """The batch and the sample's index (None: the whole batch); None if the worker is idle."""
        batch, index = self._slots[2 * worker : 2 * worker + 2]
        return None if index == _IDLE else (batch, None if index == _WHOLE else index)


class Failure(NamedTuple):
    """An exception of the user's code, on its way from where the batch is made to where it is wanted."""

    name: str
    """``ValueError: the image is truncated``"""
    trace: str
    worker: int
    making: Making
    error: Exception | None
    """The exception itself, in the process where it was raised."""

    @staticmethod
    def of(error: Exception, making: Making) -> Failure:
        """The failure to return from an ``except`` clause."""
        name = "".join(traceback.format_exception_only(error)).strip()
        at_home = get_worker_info() is None
        return Failure(name, traceback.format_exc(), _this_worker(), making, error if at_home else None)

    def mended(self) -> WorkerError:
        """The one exception that users see."""
        there = f"in loader worker {self.worker}; its traceback:\n\n{self.trace}"
        return WorkerError(
            f"the dataset raised {self.name}{self.making.words}, {'in this process' if self.error else there}",
            worker=self.worker,
            cause="raised",
            samples=self.making.samples,
        )


def at(epoch: int, batch: int, samples: Sequence[int]) -> Making:
    """What is being made, as numbers and in words.

    Example:
        >>> at(0, 4, [37]).words
        ' while making sample 37 (batch 4 of epoch 0)'
        >>> at(0, 4, range(32, 40)).words
        ' while making samples 32, 33, 34, 35, … (8 in all; batch 4 of epoch 0)'
    """
    if len(samples) == 1:
        return Making(tuple(samples), f" while making sample {samples[0]} (batch {batch} of epoch {epoch})")
    few = ", ".join(map(str, samples[:4])) + (", …" if len(samples) > 4 else "")
    return Making(
        tuple(samples), f" while making samples {few} ({len(samples)} in all; batch {batch} of epoch {epoch})"
    )


def noted(notes: Notes, epoch: int, samples: Callable[[int], Sequence[int]]) -> Callable[[int], Making]:
    """A function from a worker's number to what it is making; ``samples`` gives the indices of a batch."""

    def making(worker: int) -> Making:
        note = notes.read(worker)
        if note is None:
            return Making((), " between two batches")
        batch, index = note
        return at(epoch, batch, samples(batch) if index is None else [index])

    return making


def made_here(batches: Iterator[Any]) -> Generator[Any, None, None]:
    """The batches, each made with the global RNGs borrowed for as long as it takes."""
    while True:
        with borrowed_rngs():
            batch = next(batches, _END)
        if batch is _END:
            return
        if isinstance(batch, Failure):
            raise batch.mended() from batch.error
        yield batch


def made_by_workers(
    source: Dataset[Any],
    requests: Iterable[Any] | None,
    workers: int,
    timeout: float,
    making: Callable[[int], Making],
) -> Generator[Any, None, None]:
    """The batches that the worker processes make: ``source[request]`` for each request, or what a stream yields."""
    with warnings.catch_warnings():
        # "suggested max number of worker": the plan says so (``by_whom``); pickle errors: told below
        warnings.simplefilter("ignore", UserWarning)
        loader: DataLoader[Any] = DataLoader(
            source,
            batch_size=None,
            sampler=requests,
            num_workers=workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # without one, iter(loader) draws from the global generator
        )
        batches = watched(loader, timeout, making)
        try:
            batch = next(batches, _END)
        except (PicklingError, AttributeError, TypeError) as error:
            raise DataError(
                f"the dataset cannot be sent to worker processes ({error}); keep lambdas, open files and the like out "
                "of its attributes, or pass workers=0"
            ) from error
    try:
        while batch is not _END:
            if isinstance(batch, Failure):
                raise batch.mended()
            yield batch
            batch = next(batches, _END)
    finally:
        batches.close()


def by_whom(workers: int) -> str:
    """Who makes the samples, for the plan.

    Example:
        >>> by_whom(0)
        'made in this process (workers=0)'
    """
    if workers == 0:
        return "made in this process (workers=0)"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    many = f", more than the {cores} cores here" if workers > cores else ""
    return f"made by {workers} worker process{'es' * (workers > 1)}{many}"


_END = object()


def _as_it_is(batch: Any) -> Any:
    return batch


def _this_worker() -> int:
    info = get_worker_info()
    return 0 if info is None else info.id
