"""Where a dataset's random numbers come from: its own functions are read, and the generators that it keeps are found.

Reading, not running: the functions that ``__getitem__`` reaches in the user's code, by the names that they use.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from trueloop.doctor.findings import Place
from trueloop.doctor.places import is_users

MOST = 40
"""Functions that are read."""
SEEDS = ("seed", "manual_seed", "seed_all", "seed_everything", "set_seed", "manual_seed_all", "fix_seed")
_DRAWS = {
    "numpy": re.compile(r"\b(?:np|numpy)\.random\.(?!default_rng|Generator|RandomState|seed|get_state|set_state)\w+\("),
    "python": re.compile(r"(?<![\w.])random\.(?!seed|Random|getstate|setstate)\w+\("),
    "torch": re.compile(
        r"torch\.(?:rand|randn|randint|randperm|bernoulli|normal|rand_like|randn_like|multinomial)\(|\.(?:random_|uniform_|"
        r"normal_|bernoulli_)\(|F\.dropout\("
    ),
}
_OTHERS = ("get_worker_info", "initial_seed", "urandom", "time", "getpid", "get_state", "SeedSequence")
"""Words that say that a seed differs from worker to worker."""


class Seed(NamedTuple):
    """A call that sets a seed."""

    kind: str
    """``numpy``, ``python``, ``torch``, or ``all`` of a function of the user's."""
    text: str
    place: Place | None


def functions_of(dataset: Any, also: tuple[Any, ...] = ()) -> list[FunctionType]:
    """The user's functions that a dataset's ``__getitem__`` reaches: its methods, transforms, and what these name."""
    base = dataset
    while hasattr(base, "indices") and hasattr(base, "dataset"):  # a Subset
        base = base.dataset
    rest: list[Any] = [getattr(type(base), "__getitem__", None), *also]
    rest += _callables(base, 2)
    found: dict[int, FunctionType] = {}
    while rest and len(found) < MOST:
        function = _plain(rest.pop(0))
        if function is None or id(function) in found or not is_users(function.__code__.co_filename):
            continue
        found[id(function)] = function
        for name in _names(function.__code__):
            for thing in (function.__globals__.get(name), getattr(type(base), name, None)):
                if isinstance(thing, (FunctionType, MethodType)):
                    rest.append(thing)
    return list(found.values())


def drawn_by(functions: list[FunctionType]) -> set[str]:
    """From which global generators they draw: ``numpy``, ``python``, ``torch``."""
    text = "\n".join(source_of(function) for function in functions)
    return {kind for kind, pattern in _DRAWS.items() if pattern.search(text)}


def generators_of(dataset: Any, functions: list[FunctionType]) -> Iterator[tuple[str, Any]]:
    """The generators that a dataset, or its module, keeps and that these functions use, by name."""
    base = dataset
    while hasattr(base, "indices") and hasattr(base, "dataset"):
        base = base.dataset
    used = {name for function in functions for name in _names(function.__code__)}
    for owner in (base, *_parts(base)):
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if name in used and _is_generator(value):
                yield name, value
    for function in functions:
        for name in _names(function.__code__):
            value = function.__globals__.get(name)
            if _is_generator(value):
                yield name, value


def fixed_seeds(function: Any, *, constant: bool) -> list[Seed]:
    """The calls in a function that set a seed which is always the same.

    Args:
        function: a function, a lambda or a partial.
        constant: only numbers that are written there count; otherwise whatever does not depend on the function's
            argument (the worker's number), on the worker or on a clock.
    """
    plain = _plain(function)
    if plain is None or not is_users(plain.__code__.co_filename):
        return []
    text = source_of(plain)
    tree = _parsed(text)
    if tree is None:
        return []
    bound = set(function.keywords) if isinstance(function, partial) else set()
    parameters = [name for name in plain.__code__.co_varnames[: plain.__code__.co_argcount] if name not in bound]
    if not constant:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if used & set(parameters) or any(word in text for word in _OTHERS):
            return []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not (node.args or node.keywords):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        makes = constant and last in ("default_rng", "RandomState", "Random")
        if not (last in SEEDS or makes) or (constant and not all(isinstance(one, ast.Constant) for one in given)):
            continue
        if makes and any(isinstance(one, ast.Constant) and one.value is None for one in given):
            continue
        kind = (
            "numpy"
            if "np." in name or "numpy" in name
            else "torch"
            if "torch" in name or last == "manual_seed"
            else "all"
        )
        kind = "python" if name in ("random.seed", "random.Random") else "own" if makes else kind
        line = plain.__code__.co_firstlineno + node.lineno - 1
        found.append(Seed(kind, ast.unparse(node), Place(plain.__code__.co_filename, line)))
    return found


def source_of(function: FunctionType) -> str:
    """A function's text; empty where it cannot be read."""
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError, IndentationError):
        return ""


def _parsed(text: str) -> ast.AST | None:
    try:
        return ast.parse(text)
    except SyntaxError:  # a lambda in the middle of a call
        start = text.find("lambda")
        for end in range(len(text), start, -1) if start >= 0 else ():
            try:
                return ast.parse(text[start:end], mode="eval")
            except SyntaxError:
                continue
        return None


def _plain(thing: Any) -> FunctionType | None:
    if isinstance(thing, partial):
        thing = thing.func
    if isinstance(thing, MethodType):
        thing = thing.__func__
    return thing if isinstance(thing, FunctionType) else None


def _names(code: Any) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names(constant)
    return names


def _parts(thing: Any) -> Iterator[Any]:
    """Transforms: the attributes that can be called, and what lists of them hold."""
    for value in list(getattr(thing, "__dict__", {}).values()):
        inner = getattr(value, "transforms", value)
        for one in inner if isinstance(inner, (list, tuple)) and len(inner) < 50 else (value,):
            if callable(one) and not isinstance(one, type):
                yield one


def _callables(thing: Any, depth: int) -> list[Any]:
    found: list[Any] = []
    for one in _parts(thing):
        found.append(one)
        found += [getattr(type(one), name) for name in ("__call__", "forward") if hasattr(type(one), name)]
        if depth > 1:
            found += _callables(one, depth - 1)
    return found


def _is_generator(value: Any) -> bool:
    import random
    import sys

    import torch

    if isinstance(value, (random.Random, torch.Generator)):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.random.Generator, numpy.random.RandomState))
