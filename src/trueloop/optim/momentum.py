"""SGD whose parameters get their first gradients at different steps, by torch's fused kernel."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import proxy

import torch
from torch import Tensor


def beginning_late(optimizer: torch.optim.SGD) -> torch.optim.SGD:
    """The optimizer, which begins with a momentum of 0 for a parameter that has its first gradient after others.

    torch's fused kernel refuses a group in which some parameters have a momentum and some have none yet (``expected
    Tensor … but got NoneType``, torch 2.13): where one is not used in the first step, say. Its other kernels begin so.

    Example:
        >>> first, later = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        >>> optimizer = beginning_late(torch.optim.SGD([first, later], lr=0.1, momentum=0.9, fused=True))
        >>> first.grad = torch.ones(1); optimizer.step()
        >>> later.grad = torch.ones(1); optimizer.step()
        >>> later.data
        tensor([0.9000])
    """
    itself = proxy(optimizer)  # else it would live on until Python looks for cycles
    optimizer._init_group = partial(_collected, itself)  # type: ignore[method-assign]
    return optimizer


def _collected(
    optimizer: torch.optim.SGD,
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    momentums: list[Tensor | None],
) -> bool:
    has_sparse: bool = torch.optim.SGD._init_group(optimizer, group, params, grads, momentums)  # type: ignore[no-untyped-call]
    new = [at for at, momentum in enumerate(momentums) if momentum is None]
    if new and group["fused"] and len(new) < len(momentums):
        for at in new:
            momentums[at] = torch.zeros_like(params[at])
    return has_sparse
