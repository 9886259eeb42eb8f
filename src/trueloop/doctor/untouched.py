"""Whether the gradients at a step are still those that backward left: a script may divide, replace or clear them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueloop.doctor.parts import own_part
from trueloop.doctor.seen import OptimizerSeen

if TYPE_CHECKING:
    from torch import Tensor

Mark = tuple[int, int | None] | None
"""A gradient's identity and version; the version is None where it may change by right."""


class Untouched:
    """Remembers the watched gradients of each optimizer as the last backward (or clipping) left them.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> seen = OptimizerSeen(0, None, "SGD", watched=[weight])
        >>> weight.sum().backward()
        >>> untouched = Untouched()
        >>> untouched.mark(seen)
        >>> before = untouched.holds(seen)
        >>> weight.grad /= 2
        >>> before, untouched.holds(seen)
        (True, False)
    """

    def __init__(self) -> None:
        self._marks: dict[int, list[Mark]] = {}

    def mark(self, seen: OptimizerSeen) -> None:
        """The gradients are now as they should be at the step."""
        self._marks[seen.number] = [_mark(parameter) for parameter in seen.watched]

    def allow(self, seen: OptimizerSeen) -> None:
        """They are about to be changed in place by right (unscaled)."""
        self._marks[seen.number] = [None if one is None else (one[0], None) for one in map(_mark, seen.watched)]

    def holds(self, seen: OptimizerSeen) -> bool:
        """Whether they are as marked."""
        then, now = self._marks.get(seen.number), [_mark(parameter) for parameter in seen.watched]
        return then is not None and len(then) == len(now) and all(map(_same, then, now))


def is_zero(gradient: Tensor | None) -> bool:
    """Whether there is no gradient, or only zeros."""
    if gradient is None:
        return True
    return not bool((gradient._values() if gradient.is_sparse else own_part(gradient)).any())


def _mark(parameter: Tensor) -> Mark:
    gradient = parameter.grad
    return None if gradient is None else (id(gradient), gradient._version)


def _same(then: Mark, now: Mark) -> bool:
    if then is None or now is None:
        return then is now
    return then[0] == now[0] and then[1] in (None, now[1])
