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
def rules_by_code() -> tuple[type[Rule], ...]:
    """Every rule, those that are only read among them.

    Example:
        >>> "unsafe-load" in [rule.name for rule in rules_by_code()]
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


@cache
def dynamic_rules() -> tuple[type[Rule], ...]:
    """The rules that listen, by code.

    Example:
        >>> "missing-zero-grad" in [rule.name for rule in dynamic_rules()]
        True
    """
    return tuple(rule for rule in rules_by_code() if "run" in rule.seen_by)


SAMPLED = (
    "anomaly-mode-left-on",
    "argmax-over-wrong-dimension",
    "arguments-exchanged",
    "batch-of-one-with-batchnorm",
    "broadcast-loss",
    "dead-units",
    "dropout-always-on",
    "dropout-without-effect",
    "frozen-batchnorm-moves",
    "inputs-not-scaled",
    "logits-in-probability-loss",
    "non-finite-input",
    "output-range-too-small",
    "preprocessing-differs",
    "regression-loss-on-classes",
    "reshape-instead-of-transpose",
    "saturated-activations",
    "sigmoid-before-bce-with-logits",
    "softmax-before-cross-entropy",
    "softmax-over-one-value",
    "symmetric-initialisation",
    "targets-out-of-range",
    "train-method-overridden",
    "vanishing-gradients",
)
"""The rules that are right also when only some steps are heard, and that our own loop does not make impossible."""


@cache
def sampled_rules() -> tuple[type[Rule], ...]:
    """The rules that listen in ``Trainer``, by code."""
    return tuple(rule for rule in dynamic_rules() if rule.name in SAMPLED)
