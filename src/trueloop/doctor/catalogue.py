"""Every rule by name: found in the folder ``rules``, one file each. Reading the catalogue does not import torch."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
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
    return tuple(sorted((rule for file in files() for rule in _rules_in(file)), key=lambda rule: rule.code))


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
    "batch-samples-mix",
    "broadcast-loss",
    "dead-units",
    "detached-loss",
    "dropout-always-on",
    "dropout-without-effect",
    "exploding-gradients",
    "frozen-batchnorm-moves",
    "initial-loss-off",
    "input-ignored",
    "inputs-not-scaled",
    "iterable-not-sharded",
    "learning-rate-too-high",
    "learning-rate-too-low",
    "loader-bound",
    "logits-in-probability-loss",
    "loss-is-constant",
    "loss-term-without-model",
    "metric-from-wrong-counts",
    "non-finite-input",
    "output-range-too-small",
    "parameters-not-optimized",
    "parameters-without-gradient",
    "preprocessing-differs",
    "regression-loss-on-classes",
    "reshape-instead-of-transpose",
    "retained-graph",
    "saturated-activations",
    "sigmoid-before-bce-with-logits",
    "softmax-before-cross-entropy",
    "softmax-over-one-value",
    "stale-optimizer",
    "symmetric-initialisation",
    "targets-out-of-range",
    "train-method-overridden",
    "training-data-not-shuffled",
    "vanishing-gradients",
    "weights-do-not-move",
)
"""The rules that are right also when only some steps are heard, and that our own loop does not make impossible."""


@cache
def sampled_rules() -> tuple[type[Rule], ...]:
    """The rules that listen in ``Trainer``, by code. The files of the others are not imported."""
    own = [import_module(f"{rules.__name__}.{name.replace('-', '_')}") for name in SAMPLED]
    return tuple(sorted((rule for file in own for rule in _rules_in(file)), key=lambda rule: rule.code))


def _rules_in(file: ModuleType) -> Iterator[type[Rule]]:
    for thing in vars(file).values():
        own = inspect.isclass(thing) and issubclass(thing, Rule) and thing.__module__ == file.__name__
        if own and not inspect.isabstract(thing):
            yield thing
