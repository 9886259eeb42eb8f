"""Listens to optimizers: made, about to step, stepped. Fires for every subclass, whoever calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim import optimizer as hooks

from trueloop.doctor import phases
from trueloop.doctor.facts import OptimizerMade, Stepped, Stepping
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.seen import Accumulation, OptimizerSeen
from trueloop.doctor.trace import Trace
from trueloop.doctor.vitals import Before, after_step, before_step

WATCHED = 4
"""Parameters of an optimizer whose gradients are looked at around each backward."""
SMALL = 65_536
"""A larger gradient is not looked at, where there are smaller ones."""
COPIED_ALWAYS = 2_000_000
"""With more parameters than this in all, weights are copied (for the norms of updates) on each 10th close step."""


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; returns what ends it."""
    before: dict[int, tuple[Before | None, tuple[Accumulation, ...], bool]] = {}

    def elsewhere() -> bool:
        return torch.compiler.is_compiling() or trace.deaf or threading.get_ident() != trace.thread

    def wrap_init(original: Any) -> Any:
        @wraps(original)
        def init(self: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if not elsewhere():
                seen = trace.optimizer_of(self)
                seen.place = here()
                watch(seen)  # from the start: what comes before the first step counts as well
                trace.tell(OptimizerMade(seen, seen.place))

        return init

    def stepping(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        if not trace.deaf and not trace.step and threading.get_ident() != trace.thread:
            trace.follow(threading.get_ident())
        if trace.dozes or elsewhere():
            return
        seen = trace.optimizer_of(optimizer)
        if not seen.watched or not seen.accumulated:  # groups were added, layers frozen or thawed
            watch(seen)
        given = [*args[1:], kwargs.get("closure")]  # the first one is the optimizer itself
        closure = any(one is not None for one in given)
        accumulated = tuple(seen.accumulated)
        trace.tell(Stepping(seen, accumulated, closure, trace.by_scaler is not None, here()))
        copies = None
        if trace.wants(Stepped) and not closure:
            groups = [(list(group["params"]), float(group.get("lr", 0.0))) for group in optimizer.param_groups]
            many = sum(p.numel() for parameters, _ in groups for p in parameters) > COPIED_ALWAYS
            copies = None if many and trace.step % 10 else before_step(groups)
        before[id(optimizer)] = (copies, accumulated, closure)

    def stepped(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if elsewhere():
            if not torch.compiler.is_compiling() and not trace.deaf:
                trace.note("another thread took optimizer steps as well: what it trained was not seen")
            return
        if trace.dozes:
            trace.counted(optimizer)
            return
        seen = trace.optimizer_of(optimizer)
        copies, accumulated, closure = before.pop(id(optimizer), (None, (), False))
        passes = tuple(seen.passes)
        if closure:
            accumulated = tuple(seen.accumulated)
        place = here()
        seen.steps += 1
        seen.last_step_place = place
        seen.accumulated.clear()
        seen.passes.clear()
        seen.reach.clear()
        phases.stepped(trace, seen, accumulated, passes)
        trace.step += 1
        trace.heard += 1
        vitals = None if copies is None else after_step(copies)
        seen.course.add(trace.step - 1, accumulated, vitals)
        trace.tell(Stepped(seen, accumulated, passes, vitals, trace.by_scaler is not None, place))
        trace.partial = False
        trace.rest()
        trace.lines.begin()
        if trace.each_step is not None:
            trace.each_step()

    patches.replace(Optimizer, "__init__", wrap_init)
    handles = [
        hooks.register_optimizer_step_pre_hook(trace.guarded(stepping)),
        hooks.register_optimizer_step_post_hook(trace.guarded(stepped)),
    ]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def watch(seen: OptimizerSeen) -> None:
    """Chooses the parameters that are watched: the first, the last and the smallest, if trained and small.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> seen = Trace().optimizer_of(optimizer)
        >>> watch(seen)
        >>> [tuple(p.shape) for p in seen.watched]
        [(2, 3), (2,)]
    """
    trained = [p for p in seen.parameters() if p.requires_grad and not is_lazy(p)]
    small = [p for p in trained if p.numel() <= SMALL] or sorted(trained, key=Tensor.numel)[:1]
    chosen = [*small[:1], *small[-1:], *sorted(small, key=Tensor.numel)]
    seen.watched = list({id(p): p for p in chosen}.values())[:WATCHED]
