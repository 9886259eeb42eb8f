"""Datasets, sample by sample: the same bits whichever process makes a sample, and however many there are.

torch's ``DataLoader`` carries the batches; what it is asked for is not an index but a whole batch, so that the worker
knows epoch, batch and samples, and can set the random numbers for each sample from (seed, epoch, sample index).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from trueloop.data.cursor import derive, order
from trueloop.data.generators import generators_in, put, states
from trueloop.data.making import COLLATING, Failure, Notes, at, by_whom, made_by_workers, made_here, noted
from trueloop.data.part import WHOLE, Idle, Part
from trueloop.data.randomness import set_rngs
from trueloop.errors import DataError


class WorkerFeed:
    """Batches from a dataset with ``__getitem__`` and ``__len__``, made in this process or in worker processes.

    Before ``dataset[i]`` the RNGs (python's ``random``, numpy's global one, torch's CPU one) are set from
    (seed, epoch, i), before the batch is collated (``torch.utils.data.default_collate``) from (seed, epoch, batch);
    torch uses one thread. So the bits depend neither on the number of workers nor on the batch size, and an epoch can
    begin at any batch. This process's own RNGs are left as they were. A generator object that the dataset keeps for
    itself is remembered where samples are made in this process; in workers it cannot be, and ``inexact`` says so.

    Workers are started for each epoch: what was changed in the dataset in between (its difficulty, say) reaches them.

    Args:
        dataset: called per sample, also if it could make several at once.
        batch_size: samples a batch, at least 1.
        seed: of order and random numbers.
        shuffle: a new order each epoch, a function of (seed, epoch).
        workers: processes; 0 makes the samples here.
        worker_timeout: seconds to wait for one batch before its worker counts as hanging, and is killed.
        drop_last: leave out a last batch that is short.
        part: this process's part of each batch: the others' samples are not made.

    Raises:
        DataError: the dataset is empty; or it cannot be sent to a worker (where workers are not forked).
        WorkerError: the dataset raised; a worker exited, was killed, or hangs.

    Example:
        >>> feed = WorkerFeed([10, 20, 30], batch_size=2, seed=0, shuffle=False)
        >>> list(feed.epoch(0)), list(feed.epoch(0, start=1))
        ([tensor([10, 20]), tensor([30])], [tensor([30])])
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        workers: int = 0,
        worker_timeout: float = 300.0,
        drop_last: bool = False,
        part: Part = WHOLE,
    ) -> None:
        self._rows = len(dataset)
        if self._rows == 0:
            raise DataError(f"the dataset is empty: len() of this {type(dataset).__name__} is 0; at least 1 is needed")
        self.batch_size = batch_size
        self.batches = self._rows // batch_size if drop_last else -(-self._rows // batch_size)
        self.samples = min(self.batches * batch_size, self._rows)
        self.shuffled = shuffle
        self.reason = f"sample by sample, {by_whom(workers)}; random numbers from (seed, epoch, sample)"
        self.resumes = "by index: nothing is read twice"
        self.inexact = _why_inexact(dataset) if workers else None
        self._dataset, self._seed, self._part = dataset, seed, part
        self._workers, self._worker_timeout = workers, worker_timeout
        self._running: Generator[Any, None, None] | None = None

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of epoch ``number`` from batch ``start`` on; the samples before it are not made."""
        self.close()
        self._running = self._batches(number, start)
        return self._running

    def close(self) -> None:
        """End the epoch that runs, and its workers."""
        if self._running is not None:
            self._running.close()

    def state(self) -> dict[str, Any]:
        """The states of the generators that the dataset keeps for itself; the rest is a function of (seed, epoch)."""
        generators = states(generators_in(self._dataset, "dataset"))
        return {"generators": generators} if generators else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts the dataset's own generators where they were."""
        if missing := put(generators_in(self._dataset, "dataset"), state.get("generators", {})):
            self.inexact = f"the checkpoint has the state of a random generator that is not there: {', '.join(missing)}"

    def _batches(self, epoch: int, start: int) -> Generator[Any, None, None]:
        rows = order(self._rows, self._seed, epoch, self.shuffled)

        def whole(batch: int) -> Tensor:
            return rows[batch * self.batch_size : (batch + 1) * self.batch_size]

        def idle(batch: int) -> bool:
            return not part.in_turn and part.rank >= len(whole(batch))

        def samples(batch: int) -> list[int]:
            of_all = whole(batch)
            return (of_all if part.in_turn or idle(batch) else of_all[part.rows(len(of_all))]).tolist()

        part = self._part
        asked = range(start + part.rank, self.batches, part.of) if part.in_turn else range(start, self.batches)
        requests = (Request(epoch, batch, samples(batch)) for batch in asked)
        workers = min(self._workers, len(asked))
        notes = Notes(workers)
        maker = _Maker(self._dataset, self._seed, notes)
        if workers <= 0:
            made = made_here(map(maker.__getitem__, requests))
        else:
            made = made_by_workers(maker, requests, workers, self._worker_timeout, noted(notes, epoch, samples))
        return made if part.of == 1 or part.in_turn else _marked(made, start, idle)


def _marked(batches: Generator[Any, None, None], start: int, idle: Callable[[int], bool]) -> Generator[Any, None, None]:
    """Those that hold samples of other processes, as such."""
    with contextlib.closing(batches):
        for number, batch in enumerate(batches, start):
            yield Idle(batch) if idle(number) else batch


def _why_inexact(dataset: Any) -> str | None:
    own = ", ".join(generators_in(dataset, "dataset"))
    if not own:
        return None
    return (
        f"the dataset draws from a random generator of its own ({own}), of which each worker has a copy that cannot be "
        "saved; draw from the global ones (torch, numpy, random), which are set for each sample, or pass workers=0"
    )


class Request(NamedTuple):
    """One batch to make."""

    epoch: int
    batch: int
    samples: list[int]


class _Maker(Dataset[Any]):
    """A dataset whose index is a request and whose item is a whole batch, or a Failure."""

    def __init__(self, dataset: Any, seed: int, notes: Notes) -> None:
        self._dataset, self._seed, self._notes = dataset, seed, notes

    def __getitem__(self, request: Request) -> Any:
        epoch, batch, indices = request
        at_hand: list[int] = indices
        try:
            samples = []
            for index in indices:
                at_hand = [index]
                self._notes.sample(batch, index)
                set_rngs(derive(self._seed, epoch, index))
                samples.append(self._dataset[index])
            at_hand = indices
            self._notes.whole(batch)
            set_rngs(derive(self._seed, epoch, batch, COLLATING))
            made = default_collate(samples)
        except Exception as error:
            made = Failure.of(error, at(epoch, batch, at_hand))
        self._notes.idle()  # not in a finally: after a sys.exit() the note must still be there
        return made
