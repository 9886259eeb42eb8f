"""Listens to weights that are kept and brought back: ``state_dict``, ``load_state_dict``, ``torch.save``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn

from trueloop.doctor.facts import StateLoaded, StateSaved, StateTaken
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.trace import Trace


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out."""
    inside: list[bool] = []  # state_dict calls itself for every child

    def elsewhere() -> bool:
        return torch.compiler.is_compiling() or bool(inside) or trace.deaf or threading.get_ident() != trace.thread

    def wrap_take(original: Any) -> Any:
        @wraps(original)
        def state_dict(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if elsewhere():
                return original(self, *args, **kwargs)
            inside.append(True)
            try:
                state = original(self, *args, **kwargs)
            finally:
                inside.clear()
            if trace.wants(StateTaken):
                trace.tell(StateTaken(self, state, here()))
            return state

        return state_dict

    def wrap_load(original: Any) -> Any:
        @wraps(original)
        def load_state_dict(self: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
            if not elsewhere() and trace.wants(StateLoaded) and hasattr(state_dict, "items"):
                trace.tell(StateLoaded(self, state_dict, here()))
            return original(self, state_dict, *args, **kwargs)

        return load_state_dict

    def wrap_save(original: Any) -> Any:
        @wraps(original)
        def save(obj: Any, *args: Any, **kwargs: Any) -> Any:
            if not elsewhere() and trace.wants(StateSaved):
                trace.tell(StateSaved(obj, here()))
            return original(obj, *args, **kwargs)

        return save

    patches.replace(nn.Module, "state_dict", wrap_take)
    patches.replace(nn.Module, "load_state_dict", wrap_load)
    for owner in (torch, torch.serialization):
        patches.replace(owner, "save", wrap_save)
    return lambda: None
