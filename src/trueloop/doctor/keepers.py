"""Which of the user's variables keep graphs alive: read once, when a finding has to name them."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from trueloop.doctor.places import is_users, users_frame

MANY = 3
"""A container with at least so many tensors that have a graph keeps a history."""
CONTAINERS = (list, tuple, dict, deque)
LOOKED_INTO = 2_000
"""Entries of a container that are looked at."""


class Keeper(NamedTuple):
    """A variable that keeps graphs."""

    name: str
    """As it is written in the code: ``total``, ``self.losses``, ``history``."""
    graphs: int
    """How many tensors with a graph it holds; 1 for a single tensor, a sum perhaps."""


def keepers(ignored: frozenset[int] = frozenset()) -> list[Keeper]:
    """The variables of the user's running functions that hold tensors with a graph, the fullest first.

    Args:
        ignored: ``id`` of tensors that are of this step, and of no interest.
    """
    found: dict[str, int] = {}
    frame: FrameType | None = users_frame(2)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            for name, value in variables_of(frame).items():
                for path, graphs in _graphs(name, value, ignored):
                    found[path] = max(found.get(path, 0), graphs)
        frame = frame.f_back
    return sorted((Keeper(name, graphs) for name, graphs in found.items()), key=lambda one: -one.graphs)


def variables_of(frame: FrameType) -> dict[str, Any]:
    """A frame's variables by name.

    Until Python 3.12 the frame keeps the dict that it gives out, and so what is in it: it is emptied, unless it is the
    script's own (globals, or kept from ``locals()``).

    Example:
        >>> import sys
        >>> def function():
        ...     x = 1
        ...     return variables_of(sys._getframe())
        >>> function()
        {'x': 1}
    """
    given = frame.f_locals
    found = dict(given)
    unshared = type(given) is dict and sys.getrefcount(given) <= 3  # the frame, this function, the call
    if unshared and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        given.clear()
    return found


def _graphs(name: str, value: Any, ignored: frozenset[int]) -> Iterator[tuple[str, int]]:
    import torch

    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None and id(value) not in ignored:
            yield name, 1
    elif isinstance(value, CONTAINERS):
        yield from _inside(name, value)
    elif not isinstance(value, (type, torch.nn.Module, torch.optim.Optimizer)) or name == "self":
        for attribute, held in list(getattr(value, "__dict__", {}).items())[:100]:
            if isinstance(held, torch.Tensor) and held.grad_fn is not None and id(held) not in ignored:
                yield f"{name}.{attribute}", 1
            elif isinstance(held, CONTAINERS):
                yield from _inside(f"{name}.{attribute}", held)


def _inside(name: str, container: Any) -> Iterator[tuple[str, int]]:
    import torch

    items = list(container.values() if isinstance(container, dict) else container)[-LOOKED_INTO:]
    flat = [part for item in items for part in (item if isinstance(item, (list, tuple)) else (item,))]
    graphs = sum(isinstance(item, torch.Tensor) and item.grad_fn is not None for item in flat[: 2 * LOOKED_INTO])
    if graphs >= MANY or (graphs and isinstance(container, dict)):
        yield name, graphs
