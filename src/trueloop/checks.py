"""Checks of single settings, in one wording: what it must be, what came, what to do."""

from __future__ import annotations

import math

from trueloop.errors import ArgumentError


def check_count(name: str, value: object, hint: str = "") -> None:
    """Raises unless a value is a positive whole number.

    Example:
        >>> check_count("epochs", 3)
        >>> check_count("epochs", 0, hint="to only evaluate, call evaluate()")
        Traceback (most recent call last):
        trueloop.errors.ArgumentError: epochs must be a positive whole number, got epochs=0; to only evaluate, call ...
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name} must be a positive whole number, got {name}={value!r}" + (hint and f"; {hint}"))


def check_positive(name: str, value: object, hint: str = "") -> None:
    """Raises unless a value is a positive finite number, or None.

    Example:
        >>> check_positive("clip_norm", -1.0, hint="None does not clip")
        Traceback (most recent call last):
        trueloop.errors.ArgumentError: clip_norm must be a positive number, got clip_norm=-1.0; None does not clip
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ArgumentError(f"{name} must be a positive number, got {name}={value!r}" + (hint and f"; {hint}"))
