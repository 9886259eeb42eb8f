"""Random generators that the user's objects keep for themselves: found, read, and put back.

A sampler's ``generator``, the ``rng`` of a dataset, of one of its transforms, of a layer: no global state tells of
them, and a resumed run that does not put them back draws other numbers. Nothing of the user's is called in looking for
them.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

KINDS = (torch.Generator, random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState)

_DEEPEST = 8
"""Steps from the root, or from the last module on the way: models are nested deeper than anything else."""
_WIDEST = 100
"""Entries of one container that are looked at: a list of a million samples is no place for a generator."""
_MOST = 10_000
"""Objects that are looked at, the nearest first."""


def generators_in(root: Any, name: str = "") -> dict[str, Any]:
    """The generators that ``root`` holds, by where: in attributes, containers, closures, the methods of its class.

    The global ones do not count, wherever they are held: they are not its own.

    Args:
        root: a loader, a dataset, a model, a function.
        name: what to call it in the names.

    Example:
        >>> class Noisy:
        ...     def __init__(self): self.transforms = [{"rng": random.Random(0)}, torch.Generator()]
        >>> list(generators_in(Noisy(), "dataset"))
        ['dataset.transforms[1]', "dataset.transforms[0]['rng']"]
    """
    generators: dict[str, Any] = {}
    seen: dict[int, Any] = {id(known): known for known in _global()}  # the objects themselves: an id is used again
    queue: deque[tuple[str, Any, int]] = deque([(name, root, 0)])
    while queue and len(seen) < _MOST:
        path, value, depth = queue.popleft()
        if value is None or isinstance(value, _PLAIN) or id(value) in seen:
            continue
        if type(value) in _CONTAINERS and not value:  # a module has a dozen such, which would count among _MOST
            continue
        seen[id(value)] = value
        if isinstance(value, KINDS):
            if not isinstance(value, random.SystemRandom):  # it has no state
                generators[path] = value
        elif depth < _DEEPEST:
            inside = 1 if isinstance(value, nn.Module) else depth + 1
            queue.extend((path + step if path else step.lstrip("."), inner, inside) for step, inner in _held(value))
    return generators


def states(generators: Mapping[str, Any]) -> dict[str, Any]:
    """What each would draw next, in plain values, tensors and arrays.

    Example:
        >>> rng = {"rng": np.random.default_rng(0)}
        >>> before = states(rng); first = rng["rng"].random(); put(rng, before); rng["rng"].random() == first
        []
        True
    """
    return {path: _state(generator) for path, generator in generators.items()}


def put(generators: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Puts each generator where ``states`` found it.

    Returns:
        The names that have a state and no generator, or one of another kind.
    """
    missing = []
    for path, state in saved.items():
        try:
            _set_state(generators[path], state)
        except (
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
        ):  # what each kind says to another's state
            missing.append(path)
    return missing


_PLAIN = (str, bytes, int, float, complex, Tensor, np.ndarray, type, ModuleType, range)
_CONTAINERS = (dict, OrderedDict, list, tuple, set)


def _global() -> Iterable[Any]:
    python, legacy = vars(random)["_inst"], vars(np.random.mtrand)["_rand"]
    return python, legacy, legacy._bit_generator, torch.default_generator


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, and the step from it to there."""
    if isinstance(value, nn.Module):  # all of its children, however many
        children = object.__getattribute__(value, "__dict__").get("_modules", {})
        yield from ((f"._modules[{name!r}]", child) for name, child in children.items())
    if isinstance(value, Mapping):
        if isinstance(value, dict):  # another one's items may be files to read
            yield from ((_at(key, n), item) for n, (key, item) in enumerate(islice(value.items(), _WIDEST)))
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from ((f"[{index}]", item) for index, item in enumerate(islice(value, _WIDEST)))
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, (MethodType, BuiltinMethodType)):  # self.draw = rng.random
        yield from ((".__self__", value.__self__), (".__func__", getattr(value, "__func__", None)))
    elif isinstance(value, FunctionType):
        yield from _held_by_function(value)
    yield from _attributes(value)
    for kind in type(value).__mro__:
        if kind.__module__.partition(".")[0] not in _NOT_THE_USERS:
            for name, member in list(vars(kind).items()):
                if isinstance(member, KINDS):
                    yield f".{name}", member
                elif isinstance(member, FunctionType):  # what it closes over, and the ``rng`` of its module
                    yield from _held_by_function(member)


def _at(key: Any, number: int) -> str:
    """The step to a dict's item; by its number where the key's text may be long, or another in each process."""
    return f"[{key!r}]" if isinstance(key, (str, bytes, int, float)) else f"[item {number}]"


_NOT_THE_USERS = ("builtins", "torch", "torchdata", "torchvision", "numpy", "typing", "collections", "abc", "functools")


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        attributes = object.__getattribute__(value, "__dict__")  # not the user's __getattr__
    except AttributeError:
        attributes = {}
    if isinstance(attributes, dict):
        # A DataLoader's _iterator comes and goes with the epoch.
        yield from ((f".{key}", item) for key, item in list(attributes.items()) if key != "_iterator")
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__"):
                try:
                    yield f".{slot}", object.__getattribute__(value, slot)
                except AttributeError:  # empty, or with a name that the class has mangled
                    continue


def _held_by_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code, inside = function.__code__, f".{function.__name__}:"
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield inside + name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for index, default in enumerate(function.__defaults__ or ()):
        yield f"{inside}default {index}", default
    for name in _names(code):
        known = function.__globals__.get(name)
        is_beside = isinstance(known, FunctionType) and known.__globals__ is function.__globals__  # of the same file
        if isinstance(known, KINDS) or is_beside:
            yield inside + name, known


def _names(code: CodeType) -> dict[str, None]:
    """The global names that a function reads, also in the comprehensions and functions inside it, in their order."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return getattr(generator, "bit_generator", generator).state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        getattr(generator, "bit_generator", generator).state = state
