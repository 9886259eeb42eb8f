"""Listens to ``torch.compile``: what happens inside compiled code cannot be heard, which is to be said."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn

from trueloop.doctor.patches import Patches
from trueloop.doctor.trace import Trace


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out."""

    def noting(original: Any) -> Any:
        @wraps(original)
        def compile(*args: Any, **kwargs: Any) -> Any:
            trace.compiled = True
            return original(*args, **kwargs)

        return compile

    patches.replace(torch, "compile", noting)
    patches.replace(nn.Module, "compile", noting)
    return lambda: None
