"""How a loader of the user's own finds its place again: what can be promised, and the least that must be read twice."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from trueloop.data.generators import generators_in


def is_stateful(part: object) -> bool:
    """Whether it says its own place, by torch's convention.

    Example:
        >>> is_stateful(torch.nn.Linear(1, 1)), is_stateful([1, 2])
        (True, False)
    """
    return hasattr(part, "state_dict") and hasattr(part, "load_state_dict")


def is_indexed(loader: Any) -> bool:
    """Whether iterating means ``loader[0]``, ``loader[1]``, …: then any batch can be had without those before it.

    Example:
        >>> is_indexed([1, 2]), is_indexed({1: 2}), is_indexed(iter([1, 2]))
        (True, False, False)
    """
    if not (hasattr(loader, "__getitem__") and hasattr(loader, "__len__")):
        return False
    known = (list.__iter__, tuple.__iter__, Sequence.__iter__, None)
    return getattr(type(loader), "__iter__", None) in known


def workers_of(loader: Any) -> int:
    """Processes that make its batches, beside this one."""
    return loader.num_workers if isinstance(loader, DataLoader) else 0


def samplers(loader: Any) -> dict[str, Any]:
    """The samplers of a DataLoader that the user brought, by name.

    Example:
        >>> samplers(DataLoader([3, 4], sampler=[1, 0])), samplers(DataLoader([3, 4], shuffle=True))
        ({}, {})
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return {}
    inner = getattr(loader.batch_sampler, "sampler", None)
    parts = {"sampler": loader.sampler, "batch_sampler": loader.batch_sampler, "batch_sampler.sampler": inner}
    named = {id(part): name for name, part in reversed(parts.items()) if part is not None and not _is_known(part)}
    return {name: parts[name] for name in named.values()}


def how_resumed(loader: Any) -> str:
    """How a resume finds its place, for the plan.

    Example:
        >>> how_resumed(DataLoader([1, 2, 3]))
        'the order of your DataLoader is drawn again up to its place: no sample is made twice'
    """
    name = type(loader).__name__
    if is_stateful(loader):
        return f"by the state_dict of your {name}"
    if is_indexed(loader):
        return "by index: nothing is read twice"
    if not isinstance(loader, DataLoader):
        return f"your {name} is read again up to its place, and what was consumed is dropped"
    if isinstance(loader.dataset, IterableDataset):
        return f"the stream of your {name} is read again up to its place, and what was consumed is dropped"
    if loader.num_workers or type(loader).__iter__ is not DataLoader.__iter__:
        return f"your {name} is replayed: what was consumed of the epoch is made again, and dropped"
    return f"the order of your {name} is drawn again up to its place: no sample is made twice"


def why_inexact(loader: Any) -> str | None:
    """Why a resume cannot be promised to give the same bits; None where it can.

    Example:
        >>> why_inexact(iter([1, 2]))
        'your list_iterator gives its batches only once: a new process reads another one'
    """
    name = type(loader).__name__
    if isinstance(loader, Iterator):
        return f"your {name} gives its batches only once: a new process reads another one"
    if not isinstance(loader, DataLoader):
        if is_stateful(loader) or is_indexed(loader):
            return None
        return (
            f"your {name} has no state_dict: it is read again from the random numbers of the epoch's start, and what "
            "it keeps beside them is lost"
        )
    return (_why_of_workers if loader.num_workers else _why_of_this_process)(loader) or _why_of_samplers(loader)


def skipped(batches: Iterator[Any], loader: Any, count: int) -> int:
    """Moves the iterator of a loader on by ``count`` batches, and returns how many there were.

    Where a DataLoader makes its batches in this process, only the indices are drawn: no sample is made.
    """
    passed = batches
    if isinstance(batches, _SingleProcessDataLoaderIter) and not isinstance(loader.dataset, IterableDataset):
        passed = batches._sampler_iter
    return sum(1 for _ in islice(passed, count))


def from_index(loader: Any, start: int) -> Generator[Any, None, None]:
    """What iterating would give, from ``start`` on.

    Example:
        >>> list(from_index("abc", 1))
        ['b', 'c']
    """
    for index in count(start):
        try:
            batch = loader[index]
        except IndexError:
            return
        yield batch


def seeded_elsewhere(loader: Any, batches: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """The batches of a loader whose workers take their seed from a generator that nobody else draws from.

    Persistent workers are seeded once, at the first epoch: those of a resumed run must not draw a second time.
    """
    given, loader.generator = loader.generator, torch.Generator()
    with closing(batches):
        try:
            first = list(islice(batches, 1))
        finally:
            loader.generator = given
        yield from first
        yield from batches


def _is_known(sampler: Any) -> bool:
    """Whether its order is a function of the global RNGs, its generator and the epoch."""
    if isinstance(sampler, (list, tuple, range, torch.Tensor)):
        return True
    return type(sampler).__module__.partition(".")[0] in ("torch", "torchdata")


def _why_of_workers(loader: DataLoader[Any]) -> str | None:
    name = type(loader).__name__
    if not getattr(loader, "in_order", True):
        return f"your {name} has in_order=False: batches come in the order in which its workers finish"
    if _draws_nothing(loader):
        return None
    if is_stateful(loader) and not isinstance(loader.dataset, IterableDataset):
        return (
            f"your {name} keeps the place and not the random numbers of its workers: what samples draw there begins "
            "anew; a plain DataLoader is replayed exactly"
        )
    if loader.persistent_workers:
        return (
            f"your {name} has persistent_workers=True: the random numbers of its workers go on from epoch to epoch, "
            "and a resume begins them anew"
        )
    return None


def _why_of_this_process(loader: DataLoader[Any]) -> str | None:
    stream: Any = loader.dataset
    if not isinstance(stream, IterableDataset) or (is_stateful(loader) and is_stateful(stream)):
        return None
    return (
        f"the stream {type(stream).__name__} is read in this process, among all else that draws: if it keeps what it "
        "drew (a shuffle buffer), that differs; give the stream itself with a batch_size, or one worker"
    )


def _why_of_samplers(loader: DataLoader[Any]) -> str | None:
    for sampler in samplers(loader).values():
        if not is_stateful(sampler) and not generators_in(sampler):
            return (
                f"your sampler {type(sampler).__name__} has no state_dict: its order is drawn again from the random "
                "numbers of the epoch's start, and what it keeps beside them is lost"
            )
    return None


def _draws_nothing(loader: DataLoader[Any]) -> bool:
    dataset: object = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return isinstance(dataset, (TensorDataset, list, tuple, range)) and loader.collate_fn is default_collate
