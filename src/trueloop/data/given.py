"""The user's own loader: iterated as it is, once an epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset

from trueloop.data.generators import generators_in, put, states
from trueloop.data.randomness import get_rngs, kept_rngs, put_rngs
from trueloop.data.replay import (
    from_index,
    how_resumed,
    is_indexed,
    is_stateful,
    samplers,
    seeded_elsewhere,
    skipped,
    why_inexact,
    workers_of,
)
from trueloop.data.watchdog import watched
from trueloop.errors import DataError


class LoaderFeed:
    """A ``DataLoader``, or any iterable of batches that can be iterated again.

    ``iter(loader)`` is called exactly once an epoch, and before it ``set_epoch(number)`` of the loader, its samplers
    and its dataset, where they have one. Order and random numbers are the loader's own. A DataLoader is watched:
    whatever befalls its workers is one ``WorkerError``.

    Its order cannot be computed, so it is drawn again: the global RNGs, the generators that loader, samplers and
    dataset keep, and the ``state_dict`` of a sampler that has one, are remembered as they were when the epoch began.
    A loader with a ``state_dict`` of its own (torchdata's ``StatefulDataLoader``) is put to its place by that.

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
        self.resumes, self.inexact = how_resumed(loader), why_inexact(loader)
        self._loader: Any = loader
        self._worker_timeout = worker_timeout
        self._running: Generator[Any, None, None] | None = None
        self._begun: dict[str, Any] | None = None  # how all stood when the epoch began; None before the first
        self._over = False  # the epoch gave its last batch, and was asked for one more
        self._loaded: Mapping[str, Any] | None = None  # until an epoch begins
        self._doubtful = False  # a state was loaded, and not one batch was seen since

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The loader's batches. What it cannot skip of the first ``start`` ones is fetched and dropped, now."""
        if self._running is not None and isinstance(self._loader, Iterator):
            raise DataError(
                f"a {type(self._loader).__name__} gives its batches only once, and a second epoch was asked for; "
                "pass what can be iterated again: a DataLoader, a list, or an object whose __iter__ begins anew"
            )
        self.close()
        loaded, begun = self._loaded, self._begun_then(number)
        if start > 0 and begun is not None and loaded is not None and loaded["over"]:
            return iter(())  # what was loaded is for the epoch after this one
        if loaded is None and start == 0:
            self._running = self._batches(number)
        else:
            self._running = self._resumed(number, start, loaded, begun)
            next(self._running)  # to its place
        return self._running

    def close(self) -> None:
        """End the epoch that runs."""
        if self._running is not None:
            self._running.close()

    def state(self) -> dict[str, Any]:
        """What order and random numbers depend on, now and when the epoch began; the loader's own state if it has one.

        Nothing may have been fetched that does not count as consumed.
        """
        if self._loaded is not None:
            return dict(self._loaded)
        state = {
            "workers": workers_of(self._loader),
            "warm": _is_warm(self._loader),
            "over": self._over,
            "begun": self._begun,
            "generators": states(generators_in(self._loader)),
            "samplers": _states(samplers(self._loader)),
        }
        if is_stateful(self._loader) and self._begun is not None:  # before the first epoch, asking would begin it
            state["loader"] = deepcopy(self._loader.state_dict())
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state``: the next epoch must be the one that ran then, or the one after it."""
        self.close()
        if not state:
            return
        self._loaded, self._doubtful = state, True
        missing = put(generators_in(self._loader), state["generators"])
        _load(samplers(self._loader), state["samplers"])
        if missing:
            self.inexact = f"the checkpoint has the state of a random generator that is not there: {', '.join(missing)}"
        elif state["workers"] != workers_of(self._loader):
            self.inexact = (
                f"your loader had num_workers={state['workers']} when it was saved, and has "
                f"{workers_of(self._loader)}: what its samples draw depends on that"
            )

    def _batches(self, number: int, warm: bool = False) -> Generator[Any, None, None]:
        if not self._doubtful:
            yield from self._until_over(self._begin(number, warm))
            return
        rngs, generators = get_rngs(), states(generators_in(self._loader))
        yield from self._until_over(self._begin(number, warm))
        if self._doubtful:  # not one batch: a sampler or loader, saved at its end, has gone on from there
            put_rngs(rngs)
            put(generators_in(self._loader), generators)
            yield from self._until_over(self._begin(number, warm))

    def _resumed(
        self, number: int, start: int, loaded: Mapping[str, Any] | None, begun: dict[str, Any] | None
    ) -> Generator[Any, None, None]:
        """An epoch from its middle, or the first one after a state was loaded; its first item says that it is ready."""
        if start > 0:
            with kept_rngs():
                batches = self._replayed(number, start, loaded, begun)
            yield None
            yield from self._until_over(batches)
            return
        if loaded and "loader" in loaded:
            with kept_rngs():
                _put_to_place(self._loader, loaded)
                put(generators_in(self._loader), loaded["generators"])  # torchdata draws an order that it does not need
        yield None
        yield from self._batches(number, warm=bool(loaded and loaded["warm"]))

    def _replayed(
        self, number: int, start: int, loaded: Mapping[str, Any] | None, begun: dict[str, Any] | None
    ) -> Iterator[Any]:
        """The epoch from ``start`` on, begun as it was begun then; the generators where they were at the save."""
        if begun is not None:
            put_rngs(begun["rngs"])
            put(generators_in(self._loader), begun["generators"])
            _load(samplers(self._loader), begun["samplers"])
        warm = bool(begun and begun["warm"])
        batches = self._begin(number, warm, loaded)
        if is_indexed(self._loader) and not is_stateful(self._loader):
            batches = from_index(self._loader, start)
        elif loaded is None or "loader" not in loaded:
            passed = skipped(batches, self._loader, start)
            if passed < start and begun is not None and begun["samplers"]:
                # A sampler whose state is its place, and the place was the end of the epoch before.
                put_rngs(begun["rngs"])
                put(generators_in(self._loader), begun["generators"])
                batches = self._begin(number, warm)
                skipped(batches, self._loader, start)
        if loaded is not None and loaded["workers"] == workers_of(self._loader) == 0:
            put(
                generators_in(self._loader), loaded["generators"]
            )  # with workers, the replay has moved them, and rightly
        return batches

    def _begin(self, number: int, warm: bool, loaded: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Remembers how all stands, and begins the epoch.

        Args:
            number: of the epoch.
            warm: the run that goes on had its persistent workers already.
            loaded: what holds the loader's own state, if it has one, and is to be put to its place.
        """
        workers, cold = workers_of(self._loader), not _is_warm(self._loader)
        self._over, self._loaded = False, None
        self._begun = {
            "number": number,
            "warm": warm or not cold,
            "rngs": get_rngs(),
            "generators": states(generators_in(self._loader)),
            "samplers": _states(samplers(self._loader)),
        }
        _set_epoch(self._loader, number)
        if loaded and "loader" in loaded:
            _put_to_place(self._loader, loaded)
        batches = watched(self._loader, self._worker_timeout) if workers else iter(self._loader)
        return seeded_elsewhere(self._loader, batches) if warm and cold else batches

    def _until_over(self, batches: Iterator[Any]) -> Generator[Any, None, None]:
        try:
            for first in islice(batches, 1):
                self._doubtful = False
                yield first
            yield from batches
            self._over = True
        finally:
            if isinstance(batches, Generator):
                batches.close()

    def _begun_then(self, number: int) -> dict[str, Any] | None:
        """How all stood when the epoch began that was loaded, if it is that one."""
        begun = self._loaded["begun"] if self._loaded else None
        return dict(begun) if begun and begun["number"] == number else None


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


def _put_to_place(loader: Any, loaded: Mapping[str, Any]) -> None:
    """By the loader's own state. Asking for it makes torchdata begin at once, and not when all RNGs are in place."""
    loader.load_state_dict(deepcopy(loaded["loader"]))
    loader.state_dict()


def _states(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: deepcopy(part.state_dict()) for name, part in parts.items() if is_stateful(part)}


def _load(parts: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    for name, state in saved.items():
        if name in parts and is_stateful(parts[name]):
            parts[name].load_state_dict(deepcopy(state))


def _is_warm(loader: Any) -> bool:
    """Whether workers of an epoch before wait for the next one."""
    return workers_of(loader) > 0 and loader.persistent_workers and loader._iterator is not None


def _set_epoch(loader: Iterable[Any], number: int) -> None:
    parts: list[Any] = [loader]
    if isinstance(loader, DataLoader):
        parts += [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None), loader.dataset]
    for part in {id(part): part for part in parts}.values():
        if hasattr(part, "set_epoch"):
            part.set_epoch(number)
