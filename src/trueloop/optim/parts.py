"""Tensors that lie in parts on several processes (torch's ``DTensor``): what one process does with its own part."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def lies_in_parts(tensor: Tensor) -> bool:
    """Whether this process has a part of it alone. (To ask for its class, half a second of imports would be needed.)

    Example:
        >>> import torch
        >>> lies_in_parts(torch.ones(1))
        False
    """
    return hasattr(tensor, "device_mesh")


def own_part(tensor: Any) -> Tensor:
    """This process's part, in the same memory; of a plain tensor, itself.

    Example:
        >>> import torch
        >>> own_part(torch.ones(1))
        tensor([1.])
    """
    part: Tensor = tensor.to_local() if lies_in_parts(tensor) else tensor
    return part


def cut_as(like: Any, whole: Tensor) -> Tensor:
    """A whole tensor, which every process has, in parts as another one of its shape; nothing travels.

    Args:
        like: one that lies in parts; for any other, ``whole`` stays as it is.
        whole: the same on every process.

    Example:
        >>> import torch
        >>> cut_as(torch.zeros(2), torch.ones(2))
        tensor([1., 1.])
    """
    if not lies_in_parts(like) or lies_in_parts(whole) or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
