"""What a run depends on and no ``state_dict`` gives: plain attributes, closures, globals, generators of one's own.

Two looks at it, before and after some steps, show which of it moves with the training; a look after a resume, which of
that did not come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trueloop.data.arrays import is_arrays
from trueloop.data.generators import KINDS, generators_in, states
from trueloop.data.replay import samplers
from trueloop.verify_resume.record import Entries, bits, entries, short


def unsaved(roots: Mapping[str, Any]) -> Entries:
    """The values that objects hold beside parameters, buffers and what belongs to torch, by where they are held.

    Nothing of the user's is called. Large tensors and long lists are passed over.

    Args:
        roots: the objects, by what to call them.

    Example:
        >>> class Counting(nn.Module):
        ...     def __init__(self): super().__init__(); self.calls = 3; self.head = nn.Linear(1, 1)
        >>> unsaved({"model": Counting()})
        {'model.calls': '3'}
    """
    held: Entries = {}
    seen: dict[int, Any] = {}  # the objects themselves: an id is used again
    queue: deque[tuple[str, Any, int]] = deque((name, root, 0) for name, root in roots.items())
    while queue and len(seen) < _MOST:
        path, value, depth = queue.popleft()
        if (text := _plain(value)) is not None:
            held[path] = text
        elif id(value) not in seen and depth < _DEEPEST and not isinstance(value, _PASSED):
            seen[id(value)] = value
            queue.extend((path + step, inner, depth + 1) for step, inner in _held(value))
    for name, root in roots.items():
        held |= _of_generators(generators_in(root, name))
    return held


def of_data(data: Any) -> dict[str, Any]:
    """What of the training data may keep state, by what to call it.

    Example:
        >>> list(of_data(DataLoader([1, 2]))), of_data(torch.zeros(3))
        (['dataset', 'collate_fn'], {})
    """
    if is_arrays(data):
        return {}
    if isinstance(data, DataLoader):
        return {**samplers(data), "dataset": data.dataset, "collate_fn": data.collate_fn}
    return {"dataset": data}


_MOST = 10_000
_DEEPEST = 6
_WIDEST = 100
_LONGEST = 10_000
"""Numbers in a list that is looked at as one value."""
_LARGEST = 2**20
"""Elements of a tensor that is looked at."""
_NOT_THE_USERS = ("builtins", "torch", "torchdata", "torchvision", "torchmetrics", "numpy", "typing", "abc")
_ROWS = (list, tuple, set, frozenset, deque)
_SCALARS = (bool, int, float, complex, str, bytes, np.generic)
_PASSED = (*KINDS, type, ModuleType, nn.Parameter, Tensor, np.ndarray, torch.optim.Optimizer)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _plain(value: Any) -> str | None:
    """The value as text; None if it is to be looked into, or passed over."""
    if isinstance(value, _SCALARS):
        return short(repr(value))
    if isinstance(value, Tensor):
        is_small = not isinstance(value, nn.Parameter) and value.numel() <= _LARGEST
        return bits(value) if is_small else None
    if isinstance(value, np.ndarray):
        return bits(torch.from_numpy(value.copy())) if value.size <= _LARGEST and value.dtype.kind in "biuf" else None
    if type(value) not in _ROWS or len(value) > _LONGEST or not all(isinstance(item, _SCALARS) for item in value):
        return None
    texts = [repr(item) for item in value]
    return short(repr(sorted(texts) if isinstance(value, (set, frozenset)) else texts))


def _of_generators(generators: Mapping[str, Any]) -> Entries:
    return {path: " ".join(entries({"": {"state": state}}).values()) for path, state in states(generators).items()}


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, and the step from it to there."""
    if isinstance(value, nn.Module):
        yield from ((f".{name}", child) for name, child in value.named_children())
        if _is_the_users(type(value)):
            yield from ((f".{key}", item) for key, item in vars(value).items() if key not in _OF_EVERY_MODULE)
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in islice(value.items(), _WIDEST))
    elif isinstance(value, _ROWS):
        yield from ((f"[{index}]", item) for index, item in enumerate(islice(value, _WIDEST)))
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, MethodType):
        yield from ((".__self__", value.__self__), ("", value.__func__))
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif _is_the_users(type(value)) or type(value).__module__.startswith("torch.utils.data"):
        yield from ((f".{key}", item) for key, item in _attributes(value).items())
    for kind in type(value).__mro__:
        if _is_the_users(kind):
            for name, member in list(vars(kind).items()):
                if isinstance(member, FunctionType):
                    yield from _of_function(member)
                elif not name.startswith("__") and isinstance(member, (*_SCALARS, Tensor, list, dict, deque)):
                    yield f".{name}", member


def _attributes(value: Any) -> dict[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")  # not the user's __getattr__
    except AttributeError:
        return {}
    return dict(found) if isinstance(found, dict) else {}


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What it closes over, and the globals that it reads, where they are values."""
    if not _is_the_users(function):
        return
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        if name != "__class__":
            try:
                yield f" {function.__name__}(): {name}", cell.cell_contents
            except ValueError:  # not filled yet
                continue
    for name in code.co_names:
        known = function.__globals__.get(name)
        if isinstance(known, (*_SCALARS, Tensor, np.ndarray, list, dict, set, deque)):
            yield f" {function.__name__}(): global {name}", known


def _is_the_users(kind: Any) -> bool:
    return getattr(kind, "__module__", "builtins").partition(".")[0] not in _NOT_THE_USERS
