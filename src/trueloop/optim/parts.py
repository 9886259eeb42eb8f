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


def with_part(like: Any, part: Tensor) -> Tensor:
    """A tensor that lies in parts as another one does, of which this process's is ``part``, in the same memory.

    Example:
        >>> import torch
        >>> with_part(torch.zeros(1), torch.ones(1))
        tensor([1.])
    """
    if not lies_in_parts(like):
        return part
    from torch.distributed.tensor import DTensor

    # Not from_local(), which brings it to the device of the mesh.
    return DTensor(part, like._spec, requires_grad=False)  # type: ignore[no-untyped-call]


def cut_as(like: Any, value: Tensor) -> Tensor:
    """A tensor in parts as another one of its shape, and on its device; nothing travels.

    Args:
        like: one that lies in parts; for any other, ``value`` stays as it is.
        value: whole, the same on every process; or cut up in the same way, by a checkpoint that was read.

    Example:
        >>> import torch
        >>> cut_as(torch.zeros(2), torch.ones(2))
        tensor([1., 1.])
    """
    if not lies_in_parts(like) or value.shape != like.shape:
        return value
    if lies_in_parts(value):
        return with_part(like, own_part(value).to(own_part(like).device))
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
