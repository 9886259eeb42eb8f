"""An optimizer's own step, to the bit, with less Python around it.

``optimizer.step()`` goes through a profiling wrapper and gathers its lists anew each time: 45 µs for the 4 tensors of a
small MLP, of which the fused kernel takes a tenth. Here the wrapper is left out where it has nothing to do (no hooks),
and for fused Adam and AdamW the lists are kept: 14 µs (docs/log.md). Whatever is not plain goes the ordinary way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks


def quick_step(optimizer: Optimizer) -> Callable[[], Any]:
    """A function that does what ``optimizer.step()`` does.

    Hooks are looked for at each call, so those that are registered later run; an instance whose ``step`` was replaced
    (torch's LRSchedulers do so) keeps its own.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> step = quick_step(torch.optim.SGD([weight], lr=0.5))
        >>> weight.grad = torch.tensor([1.0])
        >>> step(); weight.item()
        0.5
    """
    if "step" in vars(optimizer) or not type(optimizer).__module__.startswith("torch.optim."):
        return lambda: optimizer.step()  # looked up each time: it may be replaced again
    bare = inspect.unwrap(type(optimizer).step)
    has_kernel = type(optimizer) in (Adam, AdamW)
    kept = _Kept(optimizer)

    def step() -> None:
        if (
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or "step" in optimizer.__dict__
        ):
            optimizer.step()
            return
        grad = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # what no_grad() does, at a third of its cost
        try:
            if not has_kernel or not kept.run():
                bare(optimizer)
        finally:
            torch._C._set_grad_enabled(grad)

    return step


class _Kept:
    """The lists that the fused kernels of Adam and AdamW take, kept while the optimizer's state is the same."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._state: list[int] = []
        self._groups: list[tuple[dict[str, Any], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]] = []

    def run(self) -> bool:
        """Takes the step if all is plain; else does nothing and gives False."""
        optimizer = self._optimizer
        if hasattr(optimizer, "found_inf"):
            return False
        if self._state != _identity(optimizer):
            self._gather()
        if not self._groups:
            return False
        gradients: list[list[Tensor]] = []
        for _, parameters, _, _, _ in self._groups:
            group = [p.grad for p in parameters if p.grad is not None]
            if len(group) != len(parameters):
                return False
            gradients.append(group)
        for (settings, parameters, averages, squares, steps), group in zip(self._groups, gradients, strict=True):
            beta1, beta2 = settings["betas"]
            torch._foreach_add_(steps, 1)
            kernel = torch._fused_adamw_ if settings["decoupled_weight_decay"] else torch._fused_adam_
            kernel(
                parameters,
                group,
                averages,
                squares,
                [],
                steps,
                lr=settings["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=settings["weight_decay"],
                eps=settings["eps"],
                amsgrad=False,
                maximize=settings["maximize"],
                grad_scale=None,
                found_inf=None,
            )
        return True

    def _gather(self) -> None:
        """Reads the lists from the optimizer's state; none, if anything about it is not plain."""
        optimizer = self._optimizer
        self._groups, self._state = [], []
        if not all(_is_plain(group) for group in optimizer.param_groups):
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if len({(p.device, p.dtype) for p in parameters}) != 1 or not parameters[0].is_floating_point():
            return
        if any(p.grad is not None and p.grad.is_sparse for p in parameters):
            return
        if not all(optimizer.state.get(p) for p in parameters):
            return  # before the first step, which makes the state
        for group in optimizer.param_groups:
            states = [optimizer.state[p] for p in group["params"]]
            averages, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
            self._groups.append((group, list(group["params"]), averages, squares, steps))
        self._state = _identity(optimizer)


def _identity(optimizer: Optimizer) -> list[int]:
    """Which state, and how many parameters a group: another one where somebody loaded, cleared or replaced any."""
    return [*map(id, optimizer.state.values()), *[len(group["params"]) for group in optimizer.param_groups]]


def _is_plain(group: dict[str, Any]) -> bool:
    odd = group["amsgrad"] or group["capturable"] or group["differentiable"] or isinstance(group["lr"], Tensor)
    return bool(group.get("fused") and group["params"] and not odd)
