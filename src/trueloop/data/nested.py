"""Batches as they come: a tensor, or tuples, lists, dicts, named tuples and dataclasses of them, nested."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any, cast


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with ``function`` applied to every leaf; containers keep their type.

    A leaf is whatever is no container, and whatever has a ``to`` of its own (a ``PackedSequence``, a tokenizer's
    output). Where no leaf changed, the container itself comes back: one that cannot be rebuilt passes unharmed.

    Example:
        >>> mapped(lambda leaf: leaf * 2, {"x": 1, "more": (2, [3])})
        {'x': 2, 'more': (4, [6])}
    """
    if hasattr(batch, "to"):
        return function(batch)
    if isinstance(batch, (tuple, list)):
        items = [mapped(function, item) for item in batch]
        if all(new is old for new, old in zip(items, batch, strict=True)):
            return batch
        named = isinstance(batch, tuple) and hasattr(batch, "_fields")
        return cast(Any, type(batch))(*items) if named else cast(Any, type(batch))(items)
    if isinstance(batch, Mapping):
        entries = {key: mapped(function, value) for key, value in batch.items()}
        if all(new is batch[key] for key, new in entries.items()):
            return batch
        if type(batch) is dict or not isinstance(batch, MutableMapping):
            return cast(Any, type(batch))(entries)
        changed = copy.copy(batch)  # a defaultdict's default, and the like, live on in the copy
        changed.update(entries)
        return changed
    if is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        news = {name: mapped(function, value) for name, value in values.items()}
        if all(news[name] is value for name, value in values.items()):
            return batch
        twin = copy.copy(batch)  # not replace(): that would run __post_init__ again, and refuses fields with init=False
        for name, new in news.items():
            object.__setattr__(twin, name, new)  # frozen ones too
        return twin
    return function(batch)


def leaves(batch: Any) -> Iterator[Any]:
    """Every leaf, depth first. Containers with a ``to`` of their own are looked into.

    Example:
        >>> list(leaves({"x": 1, "more": (2, [3])}))
        [1, 2, 3]
    """
    if isinstance(batch, (tuple, list)):
        for item in batch:
            yield from leaves(item)
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from leaves(value)
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from leaves(getattr(batch, field.name))
    else:
        yield batch
