"""Torch's fused optimizers on weights that lie in parts: each number is rounded as where the weights are whole.

On a CPU these kernels take a weight's numbers by whole vectors of the processor, and what is left at its end one by
one, with another rounding (without fused multiply-add). The end of a part is the middle of a weight: its last numbers
are given to the kernel in a vector that is filled up, so that its bits are one process's. A GPU takes all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

_KERNELS = {
    torch.ops.aten._fused_adam_,
    torch.ops.aten._fused_adamw_,
    torch.ops.aten._fused_sgd_,
    torch.ops.aten._fused_adagrad_,
}


def aligned(step: Callable[[], Any]) -> Callable[[], Any]:
    """An optimizer's step, on a CPU, that rounds parts of weights as it would round whole ones.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> weight.grad = torch.ones(1)
        >>> aligned(torch.optim.SGD([weight], lr=0.5, fused=True).step)()
        >>> weight.item()
        0.5
    """

    pieces = _ByPieces()  # type: ignore[no-untyped-call]

    def stepped() -> Any:
        with pieces:
            return step()

    return stepped


_VECTOR_BYTES = 32
"""Torch compiles these kernels for AVX2, also where there is AVX-512 (measured with 2.13); elsewhere a guess."""


class _ByPieces(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives the fused kernels a part in pieces: numbers in whole vectors, the rest of those, the weight's own end."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket not in _KERNELS or not all(isinstance(one, DTensor) for one in args[0]):
            return func(*args, **(kwargs or {}))
        weights: Sequence[DTensor] = args[0]
        tensors = [len(one) == len(weights) if isinstance(one, (list, tuple)) else False for one in args]
        pieces: list[Any] = [[] if is_list else one for is_list, one in zip(tensors, args, strict=True)]
        lists = [number for number, is_list in enumerate(tensors) if is_list]
        filled: list[tuple[Tensor, Tensor]] = []
        for at, weight in enumerate(weights):
            vector, whole, inner, count = _cuts(weight)
            for number in lists:
                own = _flat(args[number][at])
                for begin, end in ((0, whole), (whole, inner), (inner, count)):
                    if begin == end:
                        continue
                    piece = own if own.ndim == 0 else own[begin:end]  # a count of steps is for all
                    if own.ndim and begin == whole and end == inner:
                        filled.append((piece, torch.cat([piece, piece.new_zeros(vector - len(piece))])))
                        piece = filled[-1][1]
                    pieces[number].append(piece)
        if not pieces[0]:  # this process has no part of any of these weights
            return None
        result = func(*pieces, **(kwargs or {}))
        for piece, full in filled:
            piece.copy_(full[: len(piece)])
        return result


def _cuts(weight: DTensor) -> tuple[int, int, int, int]:
    """Numbers in a vector; and of this process's part: in whole vectors, before the weight's own remainder, in all."""
    rows, mesh = weight.shape[0], weight.device_mesh
    begin = min(rows, mesh.get_local_rank() * -(-rows // mesh.size())) * (weight.numel() // max(1, rows))
    vector = _VECTOR_BYTES // weight.element_size()
    count = weight.to_local().numel()
    inner = max(0, min(count, weight.numel() // vector * vector - begin))
    return vector, inner // vector * vector, inner, count


def _flat(tensor: Tensor) -> Tensor:
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own if own.ndim == 0 else own.view(-1)
