"""The user's own loader: iterated as it is, once an epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset

from trueloop.data.watchdog import watched
from trueloop.errors import DataError


class LoaderFeed:
    """A ``DataLoader``, or any iterable of batches that can be iterated again.

    ``iter(loader)`` is called exactly once an epoch, and before it ``set_epoch(number)`` of the loader, its samplers
    and its dataset, where they have one. Order and random numbers are the loader's own. A DataLoader is watched:
    whatever befalls its workers is one ``WorkerError``.

    Args:
        loader: the loader.
        worker_timeout: seconds to wait for one batch before its worker counts as hanging.

    Raises:
        DataError: the loader is empty, or gives its batches only once and a second epoch is asked for.
        WorkerError: a worker of a DataLoader raised, exited, was killed, or hangs.

    Example:
        >>> feed = LoaderFeed([[1, 2], [3]])
        >>> list(feed.epoch(0)), list(feed.epoch(1, start=1)), feed.batches
        ([[1, 2], [3]], [[3]], 2)
    """

    def __init__(self, loader: Iterable[Any], *, worker_timeout: float = 300.0) -> None:
        self.batches = _length(loader)
        if self.batches == 0:
            raise DataError(f"the loader is empty: len() of this {type(loader).__name__} is 0, and must be 1 or more")
        self.samples, self.batch_size, self.shuffled = _facts(loader, self.batches)
        self.reason = f"your own {type(loader).__name__}, iterated as it is, once an epoch"
        self._loader = loader
        self._worker_timeout = worker_timeout
        self._running: Generator[Any, None, None] | None = None

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The loader's batches. It cannot be positioned: the first ``start`` ones are fetched and dropped."""
        if self._running is not None and isinstance(self._loader, Iterator):
            raise DataError(
                f"a {type(self._loader).__name__} gives its batches only once, and a second epoch was asked for; "
                "pass what can be iterated again: a DataLoader, a list, or an object whose __iter__ begins anew"
            )
        self.close()
        self._running = self._batches(number, start)
        return self._running

    def close(self) -> None:
        """End the epoch that runs."""
        if self._running is not None:
            self._running.close()

    def _batches(self, number: int, start: int) -> Generator[Any, None, None]:
        _set_epoch(self._loader, number)
        if isinstance(self._loader, DataLoader):
            with closing(watched(self._loader, self._worker_timeout)) as batches:
                yield from islice(batches, start, None)
        else:
            yield from islice(iter(self._loader), start, None)


def in_order(data: Any, batch_size: int) -> Any:
    """The samples that a DataLoader reads, in the order of its dataset: reading them moves no generator of the user's.

    Args:
        data: whatever is no DataLoader, or is one of a stream, comes back as it is.
        batch_size: for a loader with a batch sampler of its own, which does not say.

    Example:
        >>> loader = DataLoader([3, 1, 2], batch_size=2, sampler=[2, 0])
        >>> [batch.tolist() for batch in in_order(loader, 8)]
        [[3, 2]]
    """
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset):
        return data
    sampler = data.sampler if data.batch_sampler is None else data.batch_sampler
    generators = [getattr(part, "generator", None) for part in (sampler, data.sampler)]
    before = [(generator, generator.get_state()) for generator in generators if generator is not None]
    drawn = list(sampler)
    for generator, state in before:
        generator.set_state(state)
    indices = sorted(drawn if data.batch_sampler is None else (index for batch in drawn for index in batch))
    size = None if data.batch_sampler is None else data.batch_size or batch_size
    return DataLoader(
        Subset(data.dataset, indices),
        size,
        collate_fn=data.collate_fn,
        num_workers=data.num_workers,
        generator=torch.Generator(),
    )


def _length(loader: Iterable[Any]) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # a generator; a DataLoader of a stream
        return None


def _facts(loader: Iterable[Any], batches: int | None) -> tuple[int | None, int | None, bool]:
    """Samples, batch size, and whether it shuffles: what a DataLoader tells, and no guess for anything else."""
    if not isinstance(loader, DataLoader):
        return None, None, False
    if isinstance(loader.dataset, IterableDataset):
        return None, loader.batch_size, False
    whole: Any = loader.batch_sampler  # torch wraps the sampler in one of its own, unless the user brought one
    if type(whole) is not BatchSampler:
        return None, None, not (whole is None and isinstance(loader.sampler, SequentialSampler))
    shuffled = not isinstance(whole.sampler, SequentialSampler)
    samples = _length(whole.sampler)  # not the dataset's: a sampler may read a part of it
    if samples is not None and whole.drop_last and batches is not None:
        samples = min(samples, batches * whole.batch_size)
    return samples, whole.batch_size, shuffled


def _set_epoch(loader: Iterable[Any], number: int) -> None:
    parts: list[Any] = [loader]
    if isinstance(loader, DataLoader):
        parts += [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None), loader.dataset]
    for part in {id(part): part for part in parts}.values():
        if hasattr(part, "set_epoch"):
            part.set_epoch(number)
