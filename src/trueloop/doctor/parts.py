"""Weights that lie in parts on several processes (FSDP2): each process looks at its own part alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def own_part(tensor: Tensor) -> Tensor:
    """The values that this process holds, without their graph: all of them, unless others hold some.

    To read a value of a tensor that is cut up (a ``DTensor``) is an exchange with all other processes. They need not be
    looking at the same moment, and would wait, or take it for another exchange.

    Example:
        >>> import torch
        >>> own_part(torch.ones(2, requires_grad=True))
        tensor([1., 1.])
    """
    values: Tensor = tensor.detach()
    local = getattr(values, "to_local", None)
    return values if local is None else local()


def holds_none_of(tensor: Tensor) -> bool:
    """Whether all values are other processes': a weight may have fewer rows than there are processes.

    Example:
        >>> import torch
        >>> holds_none_of(torch.ones(2))
        False
    """
    return tensor.numel() > 0 and own_part(tensor).numel() == 0
