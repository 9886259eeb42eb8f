"""Listens to ``backward``, ``autograd.grad``, ``zero_grad`` and clipping, and watches how gradients pile up.

Around each backward the gradients of a few parameters of each optimizer are looked at: None or zero before it is
*clean*. That decides a forgotten ``zero_grad`` whatever way of clearing the script uses, or leaves out.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad

from trueloop.doctor.facts import BackwardBegun, BackwardEnded, Clipped, GradientsTaken, Zeroed
from trueloop.doctor.findings import Place
from trueloop.doctor.graph import graph_of
from trueloop.doctor.parts import own_part
from trueloop.doctor.patches import Patches
from trueloop.doctor.phases import settle
from trueloop.doctor.places import here
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.seen import Accumulation, OptimizerSeen, Pass
from trueloop.doctor.trace import Batch, Trace


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; nothing but the patches has to be taken out."""
    patches.replace(torch.autograd, "backward", lambda original: _backward(trace, original))
    patches.replace(torch.autograd, "grad", lambda original: _grad(trace, original))
    patches.replace(torch.optim.Optimizer, "zero_grad", lambda original: _zero_grad(trace, original))
    patches.replace(nn.Module, "zero_grad", lambda original: _zero_grad(trace, original))
    for kind, name in (("norm", "clip_grad_norm_"), ("value", "clip_grad_value_")):
        clipping = _clip(trace, kind, getattr(clip_grad, name))
        for owner in (clip_grad, nn.utils):
            patches.replace(owner, name, partial(_always, clipping))
    return lambda: None


def _always(put: Any, original: Any) -> Any:
    return put


def _elsewhere(trace: Trace) -> bool:
    return torch.compiler.is_compiling() or trace.deaf or trace.dozes or threading.get_ident() != trace.thread


def _backward(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def backward(
        tensors: Any,
        grad_tensors: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if trace.dozes and not trace.deaf and _is_broken(tensors):
            _wake_at_once(trace)
        if _elsewhere(trace):
            return original(tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs)
        before: list[_Before] = []
        retains = bool(create_graph if retain_graph is None else retain_graph)
        trace.guarded(lambda: before.append(_begin(trace, tensors, retains, create_graph, here())))()
        error = None
        try:
            return original(tensors, grad_tensors, retain_graph, create_graph, *args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if before:
                trace.guarded(_end)(trace, before[0], error)

    return backward


class _Before(NamedTuple):
    """What was known before a backward."""

    begun: BackwardBegun
    watched: list[tuple[OptimizerSeen, list[_Watched]]]


def _begin(trace: Trace, tensors: Any, retain_graph: bool, create_graph: bool, place: Place | None) -> _Before:
    losses = tuple(t for t in ([tensors] if isinstance(tensors, Tensor) else tensors) if isinstance(t, Tensor))
    scale = trace.scaled.pop(id(losses[0]), None) if losses else None
    begun = BackwardBegun(
        losses=losses,
        values=_values(losses, scale or 1.0),
        graph=graph_of(*losses),
        retain_graph=retain_graph,
        create_graph=create_graph,
        scaled=scale is not None,
        passes=tuple(trace.open),
        number=trace.backwards,
        place=place,
    )
    trace.tell(begun)
    trace.lines.rest()
    return _Before(begun, [(seen, _watch(seen)) for seen in trace.optimizers])


def _end(trace: Trace, before: _Before, error: BaseException | None) -> None:
    trace.backwards += 1
    reached = settle(trace)
    for seen, watched in before.watched:
        _accumulated(seen, watched, before.begun, reached)
    trace.tell(BackwardEnded(before.begun, reached, error))


def _grad(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if _elsewhere(trace):
            return original(outputs, inputs, *args, **kwargs)
        of, to = _tensors(outputs), _tensors(inputs)
        create_graph = bool(kwargs.get("create_graph", args[2] if len(args) > 2 else False))
        trace.tell(GradientsTaken(of, to, create_graph, here()))
        result = original(outputs, inputs, *args, **kwargs)
        settle(trace)
        return result

    return grad


def _zero_grad(trace: Trace, original: Any) -> Any:
    @wraps(original)
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if not _elsewhere(trace):
            place = here()
            if isinstance(self, torch.optim.Optimizer):
                trace.optimizer_of(self).zeroed_place = place
            trace.tell(Zeroed(self, place))
        return result

    return zero_grad


def _clip(trace: Trace, kind: str, original: Any) -> Any:
    @wraps(original)
    def clip(parameters: Any, limit: float, *args: Any, **kwargs: Any) -> Any:
        if _elsewhere(trace):
            return original(parameters, limit, *args, **kwargs)
        given = (parameters,) if isinstance(parameters, Tensor) else tuple(parameters)  # a generator is read only once
        had = any(p.grad is not None for p in given)
        norm = original(given, limit, *args, **kwargs)
        trace.tell(Clipped(kind, given, float(limit), norm if isinstance(norm, Tensor) else None, had, here()))
        return norm

    names = {"norm": "max_norm", "value": "clip_value"}

    @wraps(original)
    def clip_by_name(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        limit, *rest = (kwargs.pop(names[kind]), *args) if names[kind] in kwargs else args
        return clip(parameters, limit, *rest, **kwargs)

    return clip_by_name


def _values(losses: Sequence[Tensor], scale: float) -> tuple[float, ...] | None:
    with torch.no_grad():
        values = tuple(float(loss) / scale for loss in losses if loss.numel() == 1)
    return values if len(values) == len(losses) else None


def _is_broken(loss: Any) -> bool:
    """Whether a loss is not finite; asked where its value is at hand, since an accelerator would be waited for."""
    if not isinstance(loss, Tensor) or loss.device.type != "cpu" or loss.numel() != 1 or loss.is_complex():
        return False
    return not math.isfinite(loss.item())


def _wake_at_once(trace: Trace) -> None:
    """A value broke while the trace dozed: this backward is heard, with the batch that led to it."""
    if threading.get_ident() == trace.thread:
        trace.wake()
        trace.partial = False
        if trace.unheard_batch is not None:
            seen, batch = trace.unheard_batch
            trace.last_batch = Batch(seen, list(tensors_in(batch)))


def _tensors(given: Any) -> tuple[Tensor, ...]:
    return (given,) if isinstance(given, Tensor) else tuple(t for t in given if isinstance(t, Tensor))


class _Watched(NamedTuple):
    """A watched parameter before a backward."""

    parameter: Tensor
    gradient: Tensor | None
    version: int
    clean: bool


def _watch(seen: OptimizerSeen) -> list[_Watched]:
    """Before a backward: whether each watched gradient is clean."""
    found = []
    for parameter in seen.watched:
        gradient = parameter.grad
        if gradient is None:
            found.append(_Watched(parameter, None, 0, True))
        else:
            found.append(_Watched(parameter, gradient, gradient._version, not own_part(gradient).any()))
    return found


def _accumulated(seen: OptimizerSeen, before: list[_Watched], begun: BackwardBegun, reached: tuple[Pass, ...]) -> None:
    """After a backward: what it added to, it reached."""
    changed = [
        was
        for was in before
        if was.parameter.grad is not None
        and (was.parameter.grad is not was.gradient or was.parameter.grad._version != was.version)
    ]
    if changed:
        seen.accumulated.append(Accumulation(begun.number, all(was.clean for was in changed), begun.place))
        if begun.values:
            seen.course.losses.append(sum(begun.values))
        cleared = {id(was.parameter) for was in changed if was.clean}
        for number in list(seen.reach):  # what was cleared before this backward is no part of the gradients any more
            seen.reach[number] -= cleared
            if not seen.reach[number]:
                del seen.reach[number]
        seen.passes[:] = [one for one in seen.passes if one.number in seen.reach]
        for one in reached:
            if one.number not in seen.reach:
                seen.passes.append(one)
            seen.reach.setdefault(one.number, set()).update(id(was.parameter) for was in changed)
