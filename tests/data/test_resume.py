"""A feed that is put to its place goes on as if it had never stopped: the same batches, the same global RNGs.

Each case is run unbroken once, drawing from the global RNGs between batches as dropout does. Then, for every place in
it, a loader that knows nothing of the first one is put there, and must go on with the same bits to the end of the next
epoch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from trueloop.checkpoint.encode import pack, unpack
from trueloop.data.arrays import ArrayFeed
from trueloop.data.feed import Feed
from trueloop.data.given import LoaderFeed
from trueloop.data.loader import WorkerFeed
from trueloop.data.randomness import get_rngs, put_rngs, set_rngs
from trueloop.data.stream import StreamFeed

ROWS = 10


# ---- the run ---------------------------------------------------------------------------------------------------------


class Saved(NamedTuple):
    """What a checkpoint keeps."""

    epoch: int
    start: int
    state: Any
    rngs: dict[str, Any]


class Unbroken(NamedTuple):
    seen: dict[tuple[int, int], str]
    """Each batch, with what was drawn after it, by epoch and number."""
    saved: list[Saved]
    end: list[str]


def unbroken(feed: Feed, epochs: int) -> Unbroken:
    set_rngs(1)
    seen, saved = {}, []
    for epoch in range(epochs):
        batches = feed.epoch(epoch)
        saved.append(Saved(epoch, 0, stored(feed.state()), get_rngs()))
        start = 0
        for start, batch in enumerate(batches, start=1):
            seen[epoch, start] = described(batch)
            saved.append(Saved(epoch, start, stored(feed.state()), get_rngs()))
        saved.append(Saved(epoch, start, stored(feed.state()), get_rngs()))  # the end was seen as well
    feed.close()
    return Unbroken(seen, saved, [described(None)])


def described(batch: Any) -> str:
    """The batch, and what dropout draws when it is trained on."""
    return f"{plain(batch)} {torch.rand(1).item()} {random.random()} {np.random.rand()}"


def plain(batch: Any) -> Any:
    if isinstance(batch, (list, tuple)):
        return [plain(part) for part in batch]
    return batch.tolist() if isinstance(batch, Tensor) else batch


def stored(state: dict[str, Any]) -> Any:
    """The state as a checkpoint holds it: JSON and copied tensors."""
    return pack(state, lambda name, tensor: tensor.clone())


def goes_on(make: Callable[[], Feed], saved: Saved, epochs: int) -> tuple[dict[tuple[int, int], str], list[str], Feed]:
    """What a new process sees."""
    scramble()
    feed = make()
    feed.load_state(unpack(*saved.state))
    seen = {}
    for epoch in range(saved.epoch, epochs):
        start = saved.start if epoch == saved.epoch else 0
        batches = feed.epoch(epoch, start)
        if epoch == saved.epoch:
            put_rngs(saved.rngs)
        for number, batch in enumerate(batches, start=start + 1):
            seen[epoch, number] = described(batch)
    feed.close()
    return seen, [described(None)], feed


def scramble() -> None:
    set_rngs(random.SystemRandom().getrandbits(63))


def check(make: Callable[[], Feed], epochs: int = 3, *, every: int = 1) -> None:
    scramble()
    whole = unbroken(make(), epochs)
    assert len(whole.seen) > epochs
    for saved in whole.saved[::every]:
        rest = {place: batch for place, batch in whole.seen.items() if place > (saved.epoch, saved.start)}
        seen, end, _ = goes_on(make, saved, epochs)
        assert seen == rest, f"from batch {saved.start} of epoch {saved.epoch}"
        assert end == whole.end, f"from batch {saved.start} of epoch {saved.epoch}: the RNGs at the end"


# ---- data ------------------------------------------------------------------------------------------------------------


class Augmented(Dataset[Any]):
    """Draws from every global RNG; notes what it made."""

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[int, float, float, Tensor]:
        self.made.append(index)
        return index, random.random(), float(np.random.rand()), torch.rand(2)


class Jitter:
    """A transform with generators of its own, seeded by nobody."""

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.generator.seed()
        self.python = random.Random()

    def __call__(self, value: float) -> float:
        return value + float(torch.rand(1, generator=self.generator)) + self.python.random()


class OfItsOwn(Dataset[Any]):
    def __init__(self) -> None:
        self.rng = np.random.default_rng()
        self.legacy = np.random.RandomState()
        self.transforms = [Jitter()]

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[int, float, float]:
        return index, self.transforms[0](float(self.rng.random())), float(self.legacy.rand())


class Stream(IterableDataset[Any]):
    """Shuffles in a buffer by a generator of its own, and draws from the global ones."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()

    def __iter__(self) -> Iterator[tuple[int, float, Tensor]]:
        held: list[int] = []
        for number in range(ROWS):
            held.append(number)
            if len(held) > 3:
                yield held.pop(int(self.rng.integers(len(held)))), random.random(), torch.rand(1)
        for number in held:
            yield number, random.random(), torch.rand(1)


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS))


class WithState(Sampler[int]):
    """Its order depends on how often it was read; it says so."""

    def __init__(self) -> None:
        self.times = 0

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return iter(np.random.RandomState(self.times).permutation(ROWS).tolist())

    def state_dict(self) -> dict[str, int]:
        return {"times": self.times}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.times = state["times"]


class WithPlace(Sampler[int]):
    """Goes on from the place that its state says, and at the end of an epoch that is the end."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.place = 0
        self.next_place: int | None = None

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(ROWS, generator=self.generator).tolist()
        self.place, self.next_place = self.next_place or 0, None
        for index in order[self.place :]:
            self.place += 1
            yield index

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next_place = state["place"]


class WithGenerator(Sampler[int]):
    """Draws index by index, from a generator of its own."""

    def __init__(self) -> None:
        self.rng = random.Random()

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        left = list(range(ROWS))
        while left:
            yield left.pop(self.rng.randrange(len(left)))


class AtOnce(Sampler[list[int]]):
    """Batches of indices, all drawn from the global RNG when asked for the first."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(ROWS).tolist()
        return iter([order[:4], order[4:8], order[8:]])


def loader(dataset: Any = None, **settings: Any) -> DataLoader[Any]:
    made: DataLoader[Any] = DataLoader(Augmented() if dataset is None else dataset, **settings)
    return made


def unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


def weighted(**settings: Any) -> WeightedRandomSampler:
    return WeightedRandomSampler([float(row + 1) for row in range(ROWS)], ROWS, **settings)


def distributed(dataset: Sized) -> DistributedSampler[Any]:
    return DistributedSampler(dataset, num_replicas=2, rank=1, seed=3)  # type: ignore[arg-type]


EXACT: dict[str, Callable[[], Any]] = {
    "in order": lambda: loader(batch_size=4),
    "shuffled": lambda: loader(batch_size=4, shuffle=True),
    "by a generator": lambda: loader(batch_size=4, shuffle=True, generator=unseeded()),
    "whole batches by a generator": lambda: loader(batch_size=5, shuffle=True, generator=unseeded()),
    "drop_last": lambda: loader(batch_size=3, shuffle=True, drop_last=True),
    "batch_size=None": lambda: loader(batch_size=None, shuffle=True),
    "with replacement": lambda: loader(batch_size=4, sampler=RandomSampler(range(ROWS), True, 70)),
    "with replacement, by a generator": lambda: loader(
        batch_size=20, sampler=RandomSampler(range(ROWS), True, 70, unseeded())
    ),
    "weighted": lambda: loader(batch_size=4, sampler=weighted()),
    "weighted, by a generator": lambda: loader(batch_size=4, sampler=weighted(generator=unseeded())),
    "subset": lambda: loader(batch_size=2, sampler=SubsetRandomSampler([1, 3, 5, 7, 9])),
    "batch sampler": lambda: loader(batch_sampler=BatchSampler(RandomSampler(range(ROWS)), 4, False)),
    "list of batches of indices": lambda: loader(batch_sampler=[[0, 1], [2, 3, 4], [5]]),
    "distributed": lambda: loader(batch_size=2, sampler=distributed(range(ROWS))),
    "sampler with a state": lambda: loader(batch_size=4, sampler=WithState()),
    "sampler with a place": lambda: loader(batch_size=4, sampler=WithPlace()),
    "sampler with a place, by a generator": lambda: loader(batch_size=5, sampler=WithPlace(unseeded())),
    "sampler with a generator": lambda: loader(batch_size=4, sampler=WithGenerator()),
    "generators of its own": lambda: loader(OfItsOwn(), batch_size=4, shuffle=True),
    "part of a dataset": lambda: loader(Subset(OfItsOwn(), range(1, 8)), batch_size=2),
}


@pytest.mark.parametrize("case", EXACT)
def test_a_loader_in_this_process_goes_on_exactly(case: str) -> None:
    assert LoaderFeed(EXACT[case]()).inexact is None
    check(lambda: LoaderFeed(EXACT[case]()))


@pytest.mark.parametrize("case", [case for case, make in EXACT.items() if isinstance(make().dataset, Augmented)])
def test_no_sample_is_made_again(case: str) -> None:
    made = EXACT[case]()
    for start in (1, 2, 3):
        made.dataset.made.clear()
        batches = LoaderFeed(made).epoch(0, start)
        assert made.dataset.made == []
        indices = [batch[0] for batch in batches]
        assert made.dataset.made == [index for batch in indices for index in torch.as_tensor(batch).view(-1).tolist()]


@pytest.mark.parametrize(
    "case",
    ["shuffled", "by a generator", "with replacement, by a generator", "sampler with a place", "generators of its own"],
)
def test_a_loader_with_workers_goes_on_exactly(case: str) -> None:
    def make() -> Feed:
        inside = EXACT[case]()
        return LoaderFeed(
            DataLoader(
                inside.dataset,
                batch_size=inside.batch_size,
                sampler=inside.sampler,
                generator=inside.generator,
                num_workers=2,
            )
        )

    assert make().inexact is None
    check(make, epochs=2)


def persistent() -> DataLoader[Any]:
    rows = TensorDataset(torch.arange(ROWS))
    return loader(rows, batch_size=4, shuffle=True, num_workers=2, persistent_workers=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_in_a_loader_is_read_again(workers: int) -> None:
    check(lambda: LoaderFeed(loader(Stream(), batch_size=4, num_workers=workers)), epochs=2)


def test_persistent_workers_see_the_same_order_in_a_resumed_epoch() -> None:
    check(lambda: LoaderFeed(persistent()), epochs=3, every=2)


# ---- loaders with a state of their own -------------------------------------------------------------------------------


def stateful(dataset: Any = None, **settings: Any) -> Any:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    return torchdata.StatefulDataLoader(Augmented() if dataset is None else dataset, **settings)


class StatefulStream(IterableDataset[int]):
    def __init__(self) -> None:
        self.place = 0
        self.next_place = 0

    def __iter__(self) -> Iterator[int]:
        self.place, self.next_place = self.next_place, 0
        while self.place < ROWS:
            self.place += 1
            yield self.place

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next_place = state["place"]


STATEFUL: dict[str, Callable[[], Any]] = {
    "in order": lambda: stateful(batch_size=4),
    "shuffled": lambda: stateful(batch_size=4, shuffle=True),
    "by a generator": lambda: stateful(batch_size=5, shuffle=True, generator=unseeded()),
    "weighted": lambda: stateful(batch_size=4, sampler=weighted()),
    "generators of its own": lambda: stateful(OfItsOwn(), batch_size=4, shuffle=True),
    "stream": lambda: stateful(StatefulStream(), batch_size=4),
    "tensors": lambda: stateful(TensorDataset(torch.arange(ROWS)), batch_size=4, shuffle=True, num_workers=2),
    "tensors, seldom": lambda: stateful(
        TensorDataset(torch.arange(ROWS)), batch_size=2, shuffle=True, num_workers=2, snapshot_every_n_steps=3
    ),
}


@pytest.mark.parametrize("case", STATEFUL)
@pytest.mark.filterwarnings("ignore:.*set_vital.*")
def test_a_stateful_loader_goes_on_exactly(case: str) -> None:
    reading = LoaderFeed(STATEFUL[case]())
    assert reading.inexact is None
    assert reading.resumes == "by the state_dict of your StatefulDataLoader"
    check(lambda: LoaderFeed(STATEFUL[case]()), every=2 if "tensors" in case else 1)


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
def test_the_random_numbers_of_a_stateful_loaders_workers_are_said_to_be_lost() -> None:
    assert "not the random numbers of its workers" in str(LoaderFeed(stateful(batch_size=4, num_workers=2)).inexact)


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
def test_a_stateful_distributed_sampler_does_not_end_before_it_begins() -> None:
    sampler = pytest.importorskip("torchdata.stateful_dataloader.sampler")

    def make() -> Any:
        return sampler.StatefulDistributedSampler(range(ROWS), num_replicas=2, rank=0)

    check(lambda: LoaderFeed(stateful(batch_size=2, sampler=make())))
    check(lambda: LoaderFeed(loader(batch_size=2, sampler=make())))


class Reader:
    """Batches that tell their place, and begin where they were told to."""

    def __init__(self) -> None:
        self.place = 0

    def __iter__(self) -> Iterator[int]:
        while self.place < 4:
            self.place += 1
            yield self.place
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def test_any_loader_with_a_state_is_put_to_its_place_by_it() -> None:
    assert LoaderFeed(Reader()).inexact is None
    check(lambda: LoaderFeed(Reader()))


# ---- what is no loader -----------------------------------------------------------------------------------------------


class Touched(Sequence[Tensor]):
    """Batches by index, which notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: Any) -> Any:
        if index >= 4:
            raise IndexError
        self.asked.append(index)
        return torch.rand(1) + index


def test_what_has_an_index_is_not_touched_before_its_place() -> None:
    check(lambda: LoaderFeed(Touched()))
    check(lambda: LoaderFeed([[1, 2], [3], [4]]))
    batches = Touched()
    assert len(list(LoaderFeed(batches).epoch(0, start=3))) == 1
    assert batches.asked == [3]
    assert LoaderFeed(batches).inexact is None


class Shuffled:
    """Batches in an order that is drawn from the global RNG at the start."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise AssertionError("iterating does not go by index")

    def __iter__(self) -> Iterator[Tensor]:
        for index in torch.randperm(4).tolist():
            yield torch.rand(1) + index


def test_other_iterables_are_read_again() -> None:
    check(lambda: LoaderFeed(Shuffled()))
    assert "your Shuffled has no state_dict" in str(LoaderFeed(Shuffled()).inexact)


def test_an_iterator_is_read_up_to_its_place() -> None:
    check(lambda: LoaderFeed(iter([1, 2, 3])), epochs=1)
    assert "gives its batches only once" in str(LoaderFeed(iter([1])).inexact)


# ---- our own feeds ---------------------------------------------------------------------------------------------------


OWN: dict[str, Callable[[], Feed]] = {
    "arrays": lambda: ArrayFeed(torch.arange(ROWS), batch_size=4, seed=5, shuffle=True),
    "samples": lambda: WorkerFeed(Augmented(), batch_size=4, seed=5, shuffle=True),
    "samples by workers": lambda: WorkerFeed(Augmented(), batch_size=4, seed=5, shuffle=True, workers=2),
    "samples with generators of their own": lambda: WorkerFeed(OfItsOwn(), batch_size=4, seed=5, shuffle=True),
    "stream": lambda: StreamFeed(Stream(), batch_size=4, seed=5),
    "stream by a worker": lambda: StreamFeed(Stream(), batch_size=4, seed=5, workers=1),
}


@pytest.mark.parametrize("case", OWN)
def test_our_own_feeds_go_on_exactly(case: str) -> None:
    assert OWN[case]().inexact is None
    check(OWN[case], epochs=2 if "work" in case else 3)


def test_only_generators_are_remembered_of_what_is_a_function_of_the_seed() -> None:
    assert OWN["arrays"]().state() == OWN["samples"]().state() == {}
    assert set(OWN["samples with generators of their own"]().state()["generators"]) == {
        "dataset.rng",
        "dataset.legacy",
        "dataset.transforms[0].generator",
        "dataset.transforms[0].python",
    }


# ---- what is said ----------------------------------------------------------------------------------------------------


class Strange(Sampler[int]):
    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS))


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (lambda: LoaderFeed(loader(sampler=Strange())), "your sampler Strange has no state_dict"),
        (lambda: LoaderFeed(loader(batch_sampler=AtOnce())), "your sampler AtOnce has no state_dict"),
        (lambda: LoaderFeed(loader(batch_sampler=BatchSampler(Strange(), 2, False))), "your sampler Strange"),
        (lambda: LoaderFeed(loader(num_workers=2, persistent_workers=True)), "persistent_workers=True"),
        (lambda: LoaderFeed(loader(num_workers=2, in_order=False)), "in_order=False"),
        (lambda: LoaderFeed(loader(Numbers())), "the stream Numbers is read in this process"),
        (
            lambda: WorkerFeed(OfItsOwn(), batch_size=2, seed=0, shuffle=False, workers=2),
            r"a random generator of its own \(dataset.rng, dataset.legacy, dataset.transforms\[0\]",
        ),
    ],
)
def test_what_cannot_be_promised_is_said_at_the_start(reading: Callable[[], Feed], words: str) -> None:
    said = reading().inexact
    assert said is not None
    assert "\n" not in said
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(said)


def test_a_sampler_without_a_state_goes_on_exactly_if_it_draws_all_at_the_start() -> None:
    check(lambda: LoaderFeed(loader(batch_sampler=AtOnce())))


def test_a_generator_that_is_gone_and_another_number_of_workers_are_said() -> None:
    saved = LoaderFeed(loader(OfItsOwn(), batch_size=4)).state()
    without = LoaderFeed(loader(batch_size=4))
    without.load_state(saved)
    assert "not there: dataset.rng, dataset.legacy" in str(without.inexact)
    other = LoaderFeed(loader(batch_size=4, num_workers=2))
    other.load_state(LoaderFeed(loader(batch_size=4)).state())
    assert "num_workers=0 when it was saved, and has 2" in str(other.inexact)


def test_putting_a_loader_to_its_place_leaves_the_global_rngs_alone() -> None:
    for workers in (0, 2):
        feed = LoaderFeed(loader(batch_size=4, shuffle=True, num_workers=workers))
        before = described(get_rngs()["python"])
        set_rngs(4)
        untouched = described(None)
        set_rngs(4)
        feed.epoch(0, start=2)
        assert described(None) == untouched
        feed.close()
        assert before != untouched


@pytest.mark.parametrize("case", ["sampler", "stateful", "stream", "persistent"])
@pytest.mark.filterwarnings("ignore:.*set_vital.*")
def test_a_run_may_be_stopped_again_before_its_first_batch_and_after_it(case: str) -> None:
    makes: dict[str, Callable[[], Feed]] = {
        "sampler": lambda: LoaderFeed(loader(OfItsOwn(), batch_size=4, sampler=WithPlace())),
        "stateful": lambda: LoaderFeed(STATEFUL["by a generator"]()),
        "stream": lambda: StreamFeed(Stream(), batch_size=4, seed=5),
        "persistent": lambda: LoaderFeed(persistent()),
    }
    make = makes[case]
    whole = unbroken(make(), 2)
    for saved in whole.saved[:: 5 if case == "persistent" else 1]:
        rest = {place: batch for place, batch in whole.seen.items() if place > (saved.epoch, saved.start)}
        scramble()
        feed = make()
        feed.load_state(unpack(*saved.state))
        before = saved._replace(state=stored(feed.state()))
        batches = feed.epoch(saved.epoch, saved.start)
        begun = saved._replace(state=stored(feed.state()))
        put_rngs(saved.rngs)
        for batch in batches:
            place = saved.epoch, saved.start + 1
            assert described(batch) == rest.pop(place)
            later = Saved(*place, stored(feed.state()), get_rngs())
            assert goes_on(make, later, 2)[0] == rest
            rest[place] = whole.seen[place]
            break
        feed.close()
        assert goes_on(make, before, 2)[0] == rest
        assert goes_on(make, begun, 2)[0] == rest


def test_what_was_loaded_is_for_its_own_epoch() -> None:
    reading = LoaderFeed(loader(batch_size=4))
    list(reading.epoch(0))
    again = LoaderFeed(loader(batch_size=4))
    again.load_state(reading.state())
    assert list(again.epoch(0, start=2)) == []  # its end was seen
    assert [batch[0].tolist() for batch in again.epoch(5, start=2)] == [[8, 9]]
