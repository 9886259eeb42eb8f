"""In what numbers a model computes: fp32, bf16, fp16 with a gradient scaler; and how its memory is laid out.

Weights stay fp32 in every case (mixed precision: https://arxiv.org/abs/1710.03740). Each choice comes with its reason,
which the plan prints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trueloop.errors import ArgumentError, UnknownNameError

NAMES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Precision:
    """What the forward pass computes in.

    Attributes:
        name: ``fp32``, ``bf16`` or ``fp16``.
        dtype: what autocast casts to; None for fp32, where nothing is cast.
        scaled: whether gradients are scaled up against underflow (fp16).
        reason: one line for the plan.
    """

    name: str
    dtype: torch.dtype | None
    scaled: bool
    reason: str

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass; does nothing for fp32."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def cast(self, compute: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        """The same function, run under autocast; the function itself for fp32, which then costs nothing."""
        return compute if self.dtype is None else torch.autocast(device.type, dtype=self.dtype)(compute)


def precision(name: str, device: torch.device) -> Precision:
    """The precision of that name on a device.

    Args:
        name: ``fp32`` (as the weights are), ``bf16`` (half the memory, the range of fp32), ``fp16`` (half the memory,
            a small range: gradients are scaled).
        device: where the model computes.

    Raises:
        UnknownNameError: another name.

    Example:
        >>> precision("fp32", torch.device("cpu")).reason
        'fp32: as the weights are; nothing is cast'
    """
    if name == "fp32":
        return Precision("fp32", None, False, "fp32: as the weights are; nothing is cast")
    if name == "bf16":
        native = "native here" if _has_native_bf16(device) else "NOT native here: expect no gain in speed"
        return Precision("bf16", torch.bfloat16, False, f"bf16: half the memory traffic, {native}; weights stay fp32")
    if name == "fp16":
        return Precision("fp16", torch.float16, True, "fp16: gradients scaled against underflow; weights stay fp32")
    raise UnknownNameError("precision", name, NAMES)


def lay_out(model: nn.Module, memory_format: str | None) -> str:
    """Lays the model's 4-D weights out in memory, in place, and gives the reason in one line.

    Args:
        model: convolutional weights are (out, in, height, width).
        memory_format: ``channels_last``, ``contiguous``, or None to leave the model as it is.

    Example:
        >>> lay_out(nn.Linear(2, 2), "channels_last")
        'channels_last: no effect, the model has no 4-D weights'
    """
    if memory_format is None:
        return "as the model is"
    if memory_format not in ("channels_last", "contiguous"):
        raise UnknownNameError("memory_format", memory_format, ("channels_last", "contiguous"))
    if not any(p.dim() == 4 for p in model.parameters()):
        return f"{memory_format}: no effect, the model has no 4-D weights"
    wanted = torch.contiguous_format if memory_format == "contiguous" else torch.channels_last
    for parameter in model.parameters():
        if parameter.dim() == 4:  # model.to() would try the weights of 3-D convolutions as well
            # to() and not contiguous(), which leaves the strides of weights with one input channel as they are: the
            # layout then ends at the first convolution, and bf16 is half as fast (docs/log.md)
            parameter.data = parameter.data.to(memory_format=wanted)
    if memory_format == "contiguous":
        return "contiguous: asked for"
    return "channels_last: convolutions read pixels together (1.3x in fp32 and 2.4x with bf16 on a CPU, docs/log.md)"


def gradient_scaler(chosen: Precision, device: torch.device, optimizer: torch.optim.Optimizer) -> Any:
    """The gradient scaler of a precision: torch's for fp16, None for the others."""
    if not chosen.scaled:
        return None
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ArgumentError("precision='fp16' scales gradients, which LBFGS's closure cannot; use fp32 or bf16")
    return torch.amp.GradScaler(device.type)


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False
