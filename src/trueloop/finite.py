"""Stopping before a NaN reaches the weights, without reading a value.

A loss is checked by the device itself, before backward. On a CPU torch's own assertion raises at once. On an
accelerator that assertion would end the process's context, so a flag stays on the device: it is handed to the fused
optimizer, which then changes nothing (this and every later step), and it is read when the run reads values anyway.
torchtitan checks in the same place (``torch._assert_async``), for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trueloop.errors import NonFiniteError

Guard = Callable[[Tensor], None]
"""Looks at a loss (a scalar without graph); raises ``NotFinite`` if it is NaN or Inf, now or when next read."""


class NotFinite(Exception):
    """The loss is NaN or Inf. Never leaves the package: the loop turns it into a NonFiniteError with its story."""


def check(loss: Tensor) -> None:
    """Raises ``NotFinite`` at once if a loss on the CPU is NaN or Inf. 2.7 µs, and no value is read.

    Example:
        >>> check(torch.tensor(1.0))
        >>> check(torch.tensor(float("nan")))
        Traceback (most recent call last):
        trueloop.finite.NotFinite
    """
    difference = loss - loss  # 0, or NaN for NaN and both infinities; isfinite() takes twice as long
    try:
        torch._assert_async(difference == difference)
    except RuntimeError:
        raise NotFinite from None


class Latch:
    """A flag on the device that, once up, keeps fused optimizers from changing anything.

    Args:
        optimizer: while the latch is attached, its steps look at the flag (``found_inf``, as with a GradScaler).
        device: where losses live.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.flag = torch.zeros((), dtype=torch.float32, device=device)
        self.protects = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self._optimizer = optimizer

    def __call__(self, loss: Tensor) -> None:
        """Raises the flag if the loss is NaN or Inf; reads nothing."""
        difference = loss - loss
        self.flag.logical_or_(difference != difference)

    def attach(self) -> None:
        """From now on the optimizer looks at the flag."""
        self.flag.zero_()
        if self.protects:
            self._optimizer.found_inf = self.flag  # type: ignore[attr-defined]

    def detach(self) -> None:
        """The optimizer is the user's again."""
        if getattr(self._optimizer, "found_inf", None) is self.flag:
            del self._optimizer.found_inf  # type: ignore[attr-defined]

    def check(self, epoch: int, step: int) -> None:
        """Raises NonFiniteError if any loss since ``attach`` was NaN or Inf. Waits for the device."""
        if bool(self.flag):
            kept = "the weights are those before it" if self.protects else "the weights have been updated with it"
            raise NonFiniteError(
                f"the loss became NaN or Inf in epoch {epoch}, at or before this step; {kept}; run it with "
                "device='cpu' to see which module breaks",
                step=step,
            )


def first_bad_module(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """The name of the first module, in order of execution, whose output is not finite; None if all were.

    Runs ``forward`` once more with hooks; RNGs and buffers are as before afterwards.

    Example:
        >>> model = nn.Sequential(nn.ReLU(), nn.LogSigmoid(), nn.Softplus())
        >>> first_bad_module(model, lambda: model(torch.tensor([float("inf")])))
        '0 (ReLU)'
    """
    names = {module: name or "the model" for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if not found and not all(bool(torch.isfinite(t).all()) for t in floats(output)):
            found.append(f"{names[module]} ({type(module).__name__})")

    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.random.fork_rng(), torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return found[0] if found else None


def bad_samples(value: Any) -> list[int]:
    """The indices along the first dimension at which a batch's float tensors hold NaN or Inf.

    Example:
        >>> bad_samples((torch.tensor([[0.0], [float("nan")], [1.0]]), torch.tensor([1, 2, 3])))
        [1]
    """
    bad: set[int] = set()
    for tensor in floats(value):
        if tensor.dim():
            bad.update(torch.nonzero(~torch.isfinite(tensor).flatten(1).all(1) if tensor.dim() > 1
                                     else ~torch.isfinite(tensor)).flatten().tolist())  # fmt: skip
    return sorted(bad)


def floats(value: Any) -> list[Tensor]:
    """All floating-point tensors in a nested structure of tuples, lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    elif hasattr(value, "__dataclass_fields__"):
        value = list(vars(value).values())
    return [tensor for part in value for tensor in floats(part)] if isinstance(value, (tuple, list)) else []
