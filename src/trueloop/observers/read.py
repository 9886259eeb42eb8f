"""The one place where observers read tensors: many at once, because each reading waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

STEPS_PENDING = 256
"""So many steps are kept as references before they are read: in one stack, a loss costs 0.2 µs instead of 2."""
SECONDS_PENDING = 1.0
"""Steps wait no longer than this: so much of its record a killed run may lose."""


def read(scalars: Sequence[Tensor]) -> list[float]:
    """The values of many one-element tensors, by one stack and one copy to the host.

    Args:
        scalars: tensors of one element each, () or (1,), on any device.

    Example:
        >>> import torch
        >>> read([torch.tensor(1.5), torch.tensor(2.0)])
        [1.5, 2.0]
    """
    if not scalars:
        return []
    import torch

    try:
        values: list[float] = torch.stack(tuple(scalars)).flatten().tolist()
    except RuntimeError:  # a loss dict may hold terms of several devices or shapes: rare, so one by one will do
        values = [float(scalar.detach()) for scalar in scalars]
    return values
