"""Listens to dropout where it should rest: in passes that are made in eval mode. Elsewhere it costs one question."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch.nn import functional

from trueloop.doctor.facts import DroppedOut
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.trace import Trace

FUNCTIONS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen where a rule asks for it; nothing but the patches has to be taken out."""
    if trace.wants(DroppedOut):
        for name in FUNCTIONS:
            patches.replace(functional, name, partial(_dropping, trace))
        patches.replace(functional, "scaled_dot_product_attention", partial(_attending, trace))
    return lambda: None


def _dropping(trace: Trace, original: Any) -> Any:
    default = inspect.signature(original).parameters["training"].default

    @wraps(original)
    def drop(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling() and trace.running:
            asked = len(args) > 2 or "training" in kwargs
            active = kwargs.get("training", args[2]) if len(args) > 2 else kwargs.get("training", default)
            if active and kwargs.get("p", args[1] if len(args) > 1 else 0.5):
                _tell(trace, original.__name__, asked)
        return original(*args, **kwargs)

    return drop


def _attending(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def attend(*args: Any, **kwargs: Any) -> Any:
        at_work = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
        if at_work and not torch.compiler.is_compiling() and trace.running:
            _tell(trace, "scaled_dot_product_attention", False)
        return original(*args, **kwargs)

    return attend


def _tell(trace: Trace, kind: str, asked: bool) -> None:
    module, of = trace.running[-1]
    if of is not None and of.close and not of.training and not trace.deaf and threading.get_ident() == trace.thread:
        trace.tell(DroppedOut(kind, module, asked, of, here()))
