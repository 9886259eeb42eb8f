"""Listens to learning-rate schedulers: made, and stepped."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.optim import lr_scheduler

from trueloop.doctor.facts import Scheduled, SchedulerMade
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.trace import Trace


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out."""
    inside: list[Any] = []  # constructors step once, and a schedule of schedules steps its parts

    def wrap_init(original: Any) -> Any:
        @wraps(original)
        def init(self: Any, optimizer: Any = None, *args: Any, **kwargs: Any) -> None:
            if optimizer is None:
                optimizer = kwargs.pop("optimizer", None)
            inside.append(self)
            try:
                original(self, optimizer, *args, **kwargs)
            finally:
                inside.pop()
            if not inside and not trace.deaf:
                trace.tell(SchedulerMade(self, optimizer, here()))

        return init

    def wrap_step(original: Any) -> Any:
        @wraps(original)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            if inside or trace.deaf:
                return original(self, *args, **kwargs)
            inside.append(self)
            try:
                result = original(self, *args, **kwargs)
            finally:
                inside.pop()
            trace.tell(Scheduled(self, getattr(self, "optimizer", None), (*args, *kwargs.values()), here()))
            return result

        return step

    kinds = [
        kind
        for kind in vars(lr_scheduler).values()
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler)
    ]
    for kind in kinds:
        if "__init__" in vars(kind):
            patches.replace(kind, "__init__", wrap_init)
        if "step" in vars(kind):
            patches.replace(kind, "step", wrap_step)
    return lambda: None
