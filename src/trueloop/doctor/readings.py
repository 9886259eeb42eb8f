"""Numbers that several rules read from the same tensor: its ends, and whether its rows are probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_ends: Any = None  # a tensor -> its version, and its ends; they are read once, for whoever asks


def readable(tensor: Tensor) -> bool:
    """Whether there are plain numbers to read: not on the meta device, not inside ``vmap``, not sparse, not empty."""
    import torch

    return (
        tensor.layout == torch.strided
        and not tensor.is_meta
        and not tensor.is_complex()
        and not tensor.is_quantized
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and tensor.numel() > 0
    )


def ends(tensor: Tensor) -> tuple[float, float] | None:
    """The smallest and the largest value.

    Returns:
        None where they cannot be read, or one of them is NaN.

    Example:
        >>> import torch
        >>> ends(torch.tensor([[3, -1], [2, 0]]))
        (-1.0, 3.0)
        >>> ends(torch.tensor([1.0, float("nan")])) is None
        True
    """
    global _ends
    import torch
    from torch.utils.weak import WeakIdKeyDictionary

    if not readable(tensor):
        return None
    if _ends is None:
        _ends = WeakIdKeyDictionary()
    version = None if tensor.is_inference() else tensor._version
    known = _ends.get(tensor)
    if known is None or known[0] != version or version is None:
        values = tensor.detach()
        if values.dtype not in (torch.float32, torch.float64, torch.int64, torch.int32):
            values = values.float()
        low, high = (float(end) for end in torch.stack(torch.aminmax(values)).tolist())
        known = _ends[tensor] = version, None if math.isnan(low) or math.isnan(high) else (low, high)
    found: tuple[float, float] | None = known[1]
    return found


def off_one(tensor: Tensor, dim: int, *, log: bool = False) -> float:
    """How far from 1 the sums over a dimension are, in the middle of them (a few masked rows say nothing).

    Args:
        tensor: of floats.
        dim: the dimension that is summed over.
        log: the values are logarithms: their exponentials are summed.

    Example:
        >>> import torch
        >>> off_one(torch.tensor([[0.2, 0.8], [0.5, 0.5]]), 1) < 1e-6
        True
        >>> round(off_one(torch.zeros(4, 3), 1, log=True), 4)
        2.0
    """
    values = tensor.detach().float()
    sums = (values.exp() if log else values).sum(dim)
    return float((sums - 1).abs().flatten().median())
