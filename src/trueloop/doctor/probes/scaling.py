"""Listens to GradScalers: which loss was scaled, whether gradients were unscaled, stepped on, and the scale updated."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from trueloop.doctor.facts import Scaled, ScalerStepped, ScalerUpdated, Unscaled
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.trace import Trace


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out. A disabled scaler is none."""

    def wrap_scale(original: Any) -> Any:
        @wraps(original)
        def scale(self: Any, outputs: Any) -> Any:
            result = original(self, outputs)
            if self.is_enabled() and not (trace.deaf or trace.dozes):
                if isinstance(result, Tensor):
                    trace.scaled = {id(result): float(self.get_scale())}
                trace.tell(Scaled(self, here()))
            return result

        return scale

    def wrap_unscale(original: Any) -> Any:
        @wraps(original)
        def unscale_(self: Any, optimizer: Any) -> Any:
            if self.is_enabled() and not (trace.deaf or trace.dozes):
                trace.tell(Unscaled(self, optimizer, here()))
            return original(self, optimizer)

        return unscale_

    def wrap_step(original: Any) -> Any:
        @wraps(original)
        def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.is_enabled() or trace.deaf or trace.dozes:
                return original(self, optimizer, *args, **kwargs)
            outer, trace.by_scaler = trace.by_scaler, self
            steps = trace.step
            try:
                return original(self, optimizer, *args, **kwargs)
            finally:
                trace.by_scaler = outer
                trace.tell(ScalerStepped(self, optimizer, trace.step > steps, here()))

        return step

    def wrap_update(original: Any) -> Any:
        @wraps(original)
        def update(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if self.is_enabled() and not (trace.deaf or trace.dozes):
                trace.tell(ScalerUpdated(self, here()))
            return result

        return update

    scaler = torch.amp.GradScaler
    patches.replace(scaler, "scale", wrap_scale)
    patches.replace(scaler, "unscale_", wrap_unscale)
    patches.replace(scaler, "step", wrap_step)
    patches.replace(scaler, "update", wrap_update)
    return lambda: None
