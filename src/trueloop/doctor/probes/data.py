"""Listens to data: loaders made and iterated, each batch with the time that the loop waited for it, splits, seeds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import torch
from torch.utils import data
from torch.utils.data import DataLoader, dataloader

from trueloop.doctor.facts import Fetched, LoaderBegun, LoaderEnded, LoaderMade, Seeded, SplitMade
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.trace import Batch, Trace

SEEN = "_trueloop_seen"
"""An iterator's attribute: what is known of its loader."""


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out."""

    def elsewhere() -> bool:
        return torch.compiler.is_compiling() or trace.deaf or threading.get_ident() != trace.thread

    def wrap_init(original: Any) -> Any:
        @wraps(original)
        def init(self: DataLoader[Any], *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if not elsewhere():
                seen = trace.loader_of(self)
                seen.place = here()
                trace.tell(LoaderMade(seen, seen.place))

        return init

    def wrap_iter(original: Any) -> Any:
        @wraps(original)
        def begin(self: DataLoader[Any]) -> Any:
            iterator = original(self)
            if not elsewhere():
                seen = trace.loader_of(self)
                seen.iterations += 1
                with suppress(AttributeError):  # of a class that takes no more attributes: what it gives is not heard
                    setattr(iterator, SEEN, seen)
                trace.tell(LoaderBegun(seen, here()))
                trace.stir()
            return iterator

        return begin

    def wrap_next(original: Any) -> Any:
        @wraps(original)
        def fetch(self: Any) -> Any:
            seen = None if elsewhere() else getattr(self, SEEN, None)
            if seen is None:
                return original(self)
            index = self._num_yielded
            began = time.perf_counter()
            try:
                batch = original(self)
            except StopIteration:
                trace.tell(LoaderEnded(seen, index))
                trace.stir()
                raise
            seconds = time.perf_counter() - began
            seen.fetched += 1
            if trace.dozes:
                trace.unheard_batch = seen, batch
                return batch
            place = here()
            trace.guarded(lambda: tell(Fetched(seen, batch, index, seconds, place)))()
            return batch

        return fetch

    def tell(fact: Fetched) -> None:
        trace.last_batch = Batch(fact.loader, tensors_in(fact.batch))
        trace.tell(fact)

    def wrap_split(original: Any) -> Any:
        @wraps(original)
        def random_split(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            parts = original(dataset, *args, **kwargs)
            if not elsewhere():
                trace.tell(SplitMade(dataset, tuple(parts), here()))
            return parts

        return random_split

    def wrap_seed(original: Any) -> Any:
        @wraps(original)
        def manual_seed(seed: Any) -> Any:
            if not elsewhere():
                trace.tell(Seeded(int(seed), here()))
            return original(seed)

        return manual_seed

    patches.replace(DataLoader, "__init__", wrap_init)
    patches.replace(DataLoader, "__iter__", wrap_iter)
    patches.replace(dataloader._BaseDataLoaderIter, "__next__", wrap_next)
    for owner in (data, data.dataset):
        patches.replace(owner, "random_split", wrap_split)
    for owner in (torch, torch.random):
        patches.replace(owner, "manual_seed", wrap_seed)
    return lambda: None
