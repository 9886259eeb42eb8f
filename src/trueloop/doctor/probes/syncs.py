"""Listens to values that are read from an accelerator: the program waits there until all its work is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from trueloop.doctor.facts import Synchronised
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.trace import Trace

READINGS = ("item", "tolist", "cpu", "__float__", "__int__")
"""``bool(tensor)`` and ``nonzero`` wait as well; they are too many on a CPU to be listened to."""


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen where a rule asks for it; nothing but the patches has to be taken out."""
    if trace.wants(Synchronised):
        for name in READINGS:
            patches.replace(Tensor, name, partial(_reading, trace, name))
    return lambda: None


def _reading(trace: Trace, name: str, original: Any) -> Any:
    @wraps(original)
    def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        # On a CPU, where nothing waits, this question is all it costs.
        if self.device.type in ("cpu", "meta") or torch.compiler.is_compiling() or trace.deaf or trace.dozes:
            return original(self, *args, **kwargs)
        by_us = str(sys._getframe(1).f_globals.get("__name__")).startswith("trueloop.doctor.")
        if by_us or threading.get_ident() != trace.thread:
            return original(self, *args, **kwargs)
        began = time.perf_counter()
        result = original(self, *args, **kwargs)
        trace.tell(Synchronised(name.strip("_"), time.perf_counter() - began, here()))
        return result

    return read
