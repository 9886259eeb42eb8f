"""Datasets that can only be read from front to back."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from itertools import count
from typing import Any

from torch.utils.data import IterableDataset, default_collate

from trueloop.data.cursor import derive
from trueloop.data.generators import generators_in, put, states
from trueloop.data.making import COLLATING, Failure, Notes, at, by_whom, made_by_workers, made_here, noted
from trueloop.data.randomness import set_rngs
from trueloop.errors import DataError


class StreamFeed:
    """Batches from an ``IterableDataset``, read as one stream.

    Before each sample the RNGs are set from (seed, epoch, ordinal of the sample), before ``iter(dataset)`` from
    (seed, epoch); so a stream that shuffles by them does so alike in each run, and each epoch anew.
    ``dataset.set_epoch(number)`` is called before an epoch, if it exists. At most one worker reads: a second one would
    repeat every sample. Generator objects that the dataset keeps for itself are remembered as they were when the epoch
    began: a stream that is read again draws from them again.

    Args:
        dataset: the stream.
        batch_size: samples a batch, at least 1.
        seed: of random numbers.
        workers: 0 reads in this process, more in one other.
        worker_timeout: seconds to wait for one batch before the worker counts as hanging, and is killed.
        drop_last: leave out a last batch that is short.

    Raises:
        DataError: the stream says that it is empty (``__len__`` is 0), or ends before its first batch.
        WorkerError: the dataset raised; a worker exited, was killed, or hangs.

    Example:
        >>> class Numbers(IterableDataset):
        ...     def __iter__(self): return iter(range(5))
        >>> feed = StreamFeed(Numbers(), batch_size=2, seed=0)
        >>> list(feed.epoch(0)), feed.batches
        ([tensor([0, 1]), tensor([2, 3]), tensor([4])], None)
    """

    def __init__(
        self,
        dataset: IterableDataset[Any],
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        worker_timeout: float = 300.0,
        drop_last: bool = False,
    ) -> None:
        self.samples = len(dataset) if hasattr(dataset, "__len__") else None
        if self.samples == 0:
            raise DataError(f"the stream is empty: len() of this {type(dataset).__name__} is 0; at least 1 is needed")
        self.batch_size = batch_size
        self.batches = None
        if self.samples is not None:
            self.batches = self.samples // batch_size if drop_last else -(-self.samples // batch_size)
            self.samples = min(self.batches * batch_size, self.samples)
        self.shuffled = False
        self.reason = f"one stream in its own order, {by_whom(min(workers, 1))}"
        if workers > 1:
            self.reason += f" (workers={workers} reduced to 1: each would read the whole stream and repeat its samples)"
        self.resumes = "the stream is read again up to its place, and what was consumed is dropped"
        self.inexact: str | None = None
        self._dataset, self._seed, self._drop_last = dataset, seed, drop_last
        self._begun: dict[str, Any] | None = None  # the dataset's own generators when the epoch began
        self._loaded: Mapping[str, Any] = {}
        self._workers, self._worker_timeout = min(workers, 1), worker_timeout
        self._running: Generator[Any, None, None] | None = None

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of epoch ``number``. A stream has no index: what comes before ``start`` is read and dropped."""
        self.close()
        begun, self._loaded = self._loaded.get("begun"), {}
        if start > 0 and begun is not None and begun["number"] == number:
            put(generators_in(self._dataset, "dataset"), begun["generators"])
        self._running = self._batches(number, start)
        return self._running

    def close(self) -> None:
        """End the epoch that runs, and its worker."""
        if self._running is not None:
            self._running.close()

    def state(self) -> dict[str, Any]:
        """The states of the generators that the dataset keeps for itself, now and when the epoch began."""
        if self._loaded:
            return dict(self._loaded)
        generators = states(generators_in(self._dataset, "dataset"))
        return {"begun": self._begun, "generators": generators} if generators else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts the dataset's own generators where they were."""
        self.close()
        self._loaded = state
        if missing := put(generators_in(self._dataset, "dataset"), state.get("generators", {})):
            self.inexact = f"the checkpoint has the state of a random generator that is not there: {', '.join(missing)}"

    def _batches(self, epoch: int, start: int) -> Generator[Any, None, None]:
        self._begun = {"number": epoch, "generators": states(generators_in(self._dataset, "dataset"))}
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch)
        notes = Notes(1)
        reader = _Reader(self._dataset, self._seed, epoch, start, self.batch_size, self._drop_last, notes)
        if self._workers:
            making = noted(notes, epoch, reader.ordinals)
            batches = made_by_workers(reader, None, 1, self._worker_timeout, making)
        else:
            batches = made_here(iter(reader))
        first = next(batches, None)
        if first is None and start == 0:
            raise DataError(f"the stream is empty: this {type(self._dataset).__name__} gave no batch in epoch {epoch}")
        if first is not None:
            yield first
        yield from batches


class _Reader(IterableDataset[Any]):
    """A stream of whole batches; a Failure is its last item."""

    def __init__(
        self, dataset: Any, seed: int, epoch: int, start: int, batch_size: int, drop_last: bool, notes: Notes
    ) -> None:
        self._dataset, self._seed, self._epoch, self._start = dataset, seed, epoch, start
        self._batch_size, self._drop_last, self._notes = batch_size, drop_last, notes

    def __iter__(self) -> Iterator[Any]:
        batch, at_hand = self._start, range(0)
        try:
            set_rngs(derive(self._seed, self._epoch))
            stream = iter(self._dataset)
            for batch in count():
                samples = []
                for ordinal in self.ordinals(batch):
                    at_hand = range(ordinal, ordinal + 1)
                    self._notes.sample(batch, ordinal)
                    set_rngs(derive(self._seed, self._epoch, ordinal))
                    sample = next(stream, _END)
                    if sample is _END:
                        break
                    samples.append(sample)
                short = len(samples) < self._batch_size
                if not samples or (short and self._drop_last):
                    break
                if batch >= self._start:
                    at_hand = self.ordinals(batch)
                    self._notes.whole(batch)
                    set_rngs(derive(self._seed, self._epoch, batch, COLLATING))
                    made = default_collate(samples)
                    self._notes.idle()
                    yield made
                if short:
                    break
            self._notes.idle()
        except Exception as error:
            yield Failure.of(error, at(self._epoch, batch, at_hand))

    def ordinals(self, batch: int) -> range:
        """The places of a batch's samples in the stream."""
        return range(batch * self._batch_size, (batch + 1) * self._batch_size)


_END = object()
