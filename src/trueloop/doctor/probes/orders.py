"""Listens to orders: each permutation that the user's lines or torch's samplers draw, by a fingerprint."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch

from trueloop.doctor.facts import Permuted
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here, is_users
from trueloop.doctor.trace import Trace

SAMPLERS = ("torch.utils.data.sampler", "torch.utils.data.distributed")


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen where a rule asks for it; nothing but the patches has to be taken out."""
    if trace.wants(Permuted):
        patches.replace(torch, "randperm", partial(_drawing, trace))
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            patches.replace(numpy.random, "permutation", partial(_drawing, trace))
    return lambda: None


def _drawing(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def permutation(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if torch.compiler.is_compiling() or trace.deaf or threading.get_ident() != trace.thread:
            return result
        caller = sys._getframe(1)
        by_sampler = caller.f_globals.get("__name__") in SAMPLERS
        if by_sampler or is_users(caller.f_code.co_filename):
            order = order_of(result)
            if order is not None:
                trace.tell(Permuted(order, len(result), by_sampler, here()))
        return result

    return permutation


def order_of(result: Any) -> int | None:
    """A fingerprint of a permutation; None for what is not one, or is not in the computer's own memory.

    Example:
        >>> order_of(torch.tensor([2, 0, 1])) == order_of(torch.tensor([2, 0, 1])), order_of("words")
        (True, None)
    """
    if isinstance(result, torch.Tensor):
        if result.device.type != "cpu" or result.dim() != 1 or type(result) is not torch.Tensor:
            return None
        result = result.numpy()
    if getattr(result, "dtype", None) is None or result.dtype.kind != "i" or result.ndim != 1:
        return None
    return hash(result.tobytes())
