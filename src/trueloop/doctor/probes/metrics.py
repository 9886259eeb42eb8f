"""Listens to what metrics are made of: ``argmax`` over a table, comparisons that broadcast, a loader's length."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.jit._builtins import _find_builtin, _get_builtin_table, _register_builtin
from torch.utils.data import DataLoader

from trueloop.doctor.facts import Chosen, Compared, LengthAsked
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here, is_users
from trueloop.doctor.trace import Trace


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen where a rule asks for it; returns what makes torch's compilers forget our functions."""
    scripted: list[int] = []

    def replace(owner: Any, name: str, wrapping: Any) -> None:
        operator = _find_builtin(getattr(owner, name)) if owner is torch else None  # type: ignore[no-untyped-call]
        patches.replace(owner, name, partial(wrapping, trace))
        if operator is not None:  # so that torch.jit.script still finds torch.max under this name
            _register_builtin(getattr(owner, name), operator)
            scripted.append(id(getattr(owner, name)))

    if trace.wants(Chosen):
        for name in ("argmax", "max"):
            replace(torch, name, _choosing)
            replace(Tensor, name, _choosing)
    if trace.wants(Compared):
        for name in ("eq", "ne"):
            replace(torch, name, _comparing)
            replace(Tensor, name, _comparing)
            replace(Tensor, f"__{name}__", _comparing)
    if trace.wants(LengthAsked):
        replace(DataLoader, "__len__", _measuring)

    def remove() -> None:
        for number in scripted:
            _get_builtin_table().pop(number, None)  # type: ignore[no-untyped-call]
        # torch.compile lists torch's functions once, when it is first used; ours must not be on that list afterwards.
        listed = getattr(sys.modules.get("torch._dynamo.trace_rules"), "get_torch_obj_rule_map", None)
        if listed is not None and scripted:
            listed.cache_clear()

    return remove


def _elsewhere(trace: Trace) -> bool:
    return torch.compiler.is_compiling() or trace.deaf or trace.dozes or threading.get_ident() != trace.thread


def _choosing(trace: Trace, original: Any) -> Any:
    flat = original.__name__ == "argmax"

    @wraps(original)
    def choose(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        tensor = args[0] if args else kwargs.get("input")
        if isinstance(tensor, Tensor) and tensor.dim() == 2 and not _elsewhere(trace):
            dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
            if (flat and dim is None) or type(dim) is int:
                trace.tell(Chosen(tensor, dim if dim is None else dim % 2, here()))
        return result

    return choose


def _comparing(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def compare(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        # The cheap question first: comparisons are many, and two dimensions out of one and two are few.
        if type(result) is Tensor and result.dim() == 2 and len(args) == 2:
            left, right = args
            if isinstance(right, Tensor) and {left.dim(), right.dim()} == {1, 2} and not _elsewhere(trace):
                trace.tell(Compared(left, right, here()))
        return result

    return compare


def _measuring(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def length(self: Any) -> int:
        batches: int = original(self)
        frame = sys._getframe(1)
        if is_users(frame.f_code.co_filename) and not _elsewhere(trace):
            trace.tell(LengthAsked(trace.loader_of(self), batches, frame, here()))
        return batches

    return length
