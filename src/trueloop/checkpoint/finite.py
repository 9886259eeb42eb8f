"""Weights that are not finite any more are not saved: they would push out those that are good."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from trueloop.errors import CheckpointError
from trueloop.optim.parts import own_part


class StaysFinite:
    """Looks at the weights of each checkpoint before it is written.

    Args:
        names: of the weights. What is not finite at first (a mask of -inf, say) may stay so.

    Example:
        >>> check = StaysFinite(["weight"])
        >>> check({"weight": torch.ones(1)})
        >>> check({"weight": torch.tensor([torch.nan])})
        Traceback (most recent call last):
        trueloop.errors.CheckpointError: the weights hold NaN or Inf (weight): those that were saved before ...
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = frozenset(names)
        self._never: frozenset[str] | None = None

    def __call__(self, weights: Mapping[str, Tensor]) -> None:
        """Raises CheckpointError; of tensors that lie in parts, each process looks at its own."""
        found = frozenset(name for name in self._names if name in weights and not is_finite(own_part(weights[name])))
        if self._never is None:
            self._never = found
        if broken := found - self._never:
            few = ", ".join(sorted(broken)[:3]) + (" …" if len(broken) > 3 else "")
            raise CheckpointError(f"the weights hold NaN or Inf ({few}): those that were saved before stay as they are")


def is_finite(weight: Tensor) -> bool:
    """Whether a weight holds neither NaN nor Inf; reads it whole.

    Example:
        >>> is_finite(torch.ones(2)), is_finite(torch.tensor([torch.inf]))
        (True, False)
    """
    if not weight.is_floating_point():
        return True
    return bool(torch.isfinite(weight.float() if weight.itemsize == 1 else weight).all())  # torch knows no float8 here
