"""Every rule by name: found in the folder ``rules``, one file each. Reading the catalogue does not import torch."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType

from trueloop.doctor import rules
from trueloop.doctor.rule import Rule


@cache
def files() -> tuple[ModuleType, ...]:
    """The rules' files, by the order of their names."""
    return tuple(import_module(f"{rules.__name__}.{info.name}") for info in pkgutil.iter_modules(rules.__path__))


@cache
def dynamic_rules() -> tuple[type[Rule], ...]:
    """The rules that listen, by code.

    Example:
        >>> "missing-zero-grad" in [rule.name for rule in dynamic_rules()]
        True
    """
    found = [
        thing
        for file in files()
        for thing in vars(file).values()
        if inspect.isclass(thing)
        and issubclass(thing, Rule)
        and thing.__module__ == file.__name__
        and not inspect.isabstract(thing)
    ]
    return tuple(sorted(found, key=lambda rule: rule.code))
