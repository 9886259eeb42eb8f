"""Whether a sample's output depends on its neighbours in the batch: the model is asked, once, by a copy of it.

A copy, in eval mode, is called twice on the same batch, once with half of the samples replaced; the outputs of the
other half must not change. The model itself is not called, and the random numbers are put back, so the training does
not notice. What is done to the whole batch on purpose (attention over it, a table of similarities) is not asked
about.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import io
import math
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trueloop.doctor.places import here
from trueloop.doctor.samples import tensors_in, variety

if TYPE_CHECKING:
    from trueloop.doctor.facts import Called
    from trueloop.doctor.findings import Place
    from trueloop.doctor.trace import Trace

MODELS = 2
"""So many models of a run are asked."""
LARGEST = 50_000_000
"""A model with more parameters is not copied."""
BITS = 16.0
"""Samples must be able to differ by so much, or they come again in other company by chance."""
CHANGED = 0.01
"""An output that changes by more than this share of the largest one depends on its neighbours; rounding and
quantisation change less (a guess)."""
PLAIN = (
    *(bool, int, float, complex, str, bytes, slice, range, type, Enum, Tensor, nn.Module),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(FunctionType, BuiltinFunctionType, functools.partial, weakref.ref),
)
"""What a model may hold, for a copy of it to be asked."""
PASSES, LONGEST = 100, 400
"""So many passes an evaluation is awaited, and samples that come again in other company."""


@dataclass
class Mixing:
    """What was found out."""

    change: float = 0.0
    """How far an output moved, as a share of the largest; 0 where none did."""
    layer: str = ""
    """The first layer whose output moved while its input had not."""
    module: nn.Module | None = None
    reshapes: list[tuple[tuple[int, ...], tuple[int, ...], Place | None]] = field(default_factory=list)
    """Reshapes that read as exchanges of the batch's dimension with another: from, to, where."""
    inside: list[tuple[tuple[int, ...], tuple[int, ...], Place | None]] = field(default_factory=list)
    """Reshapes that read as bringing channels to the front for a convolution: no neighbour is needed to see it."""


@dataclass
class _Company:
    """The samples of one model, and with whom they came."""

    first: dict[int, int] = field(default_factory=dict)  # sample -> the first pass that had it
    passes: int = 0
    shuffled: bool = False
    done: bool = False


def mixing(trace: Trace, fact: Called) -> Mixing | None:
    """Asks, if the time has come: once a model, when its batches are known to be samples in changing company.

    Returns:
        None as long as nothing was asked; the same answer to every rule that asks about the same pass.
    """
    if not fact.of.samples:
        return None
    known = trace.answers.get("mixing")
    if known is None or known[0] != fact.of.number:
        known = trace.answers["mixing"] = fact.of.number, _now(trace, fact)
    answer: Mixing | None = known[1]
    return answer


def _now(trace: Trace, fact: Called) -> Mixing | None:
    of, answers = fact.of, trace.answers
    companies: dict[int, _Company] = answers.setdefault("companies", {})
    company = companies.get(of.model.number)
    if company is None:
        company = companies[of.model.number] = _Company(shuffled=answers.get("shuffled", False))
    if company.done or answers.get("asked", 0) >= MODELS:
        return None
    if not _changing(company, of.number, of.samples) or of.model.trained == 0:
        return None
    if of.grad and company.passes < PASSES:  # better asked in an evaluation, which the model is made for
        return None
    company.done = True
    module = of.model.module
    if module is None or trace.compiled or not askable(module):
        return None
    answers["asked"] = answers.get("asked", 0) + 1
    try:
        return ask(module, fact)
    except Exception as error:  # a model that cannot be copied, or that wants exactly this batch
        trace.note(f"{of.model.kind} could not be asked whether samples of a batch mix: {type(error).__name__}")
        return None


def _changing(company: _Company, number: int, samples: tuple[int, ...]) -> bool:
    """Whether these samples are known from several other passes: so they are samples, and not steps of one series."""
    company.passes += 1
    company.done = company.passes >= LONGEST and not company.shuffled
    first = company.first
    before = [first[sample] for sample in samples if sample in first]
    if len(first) < 20_000:
        for sample in samples:
            if sample:
                first.setdefault(sample, number)
    if len(samples) >= 4 and len(before) >= 0.9 * len(samples) and len(set(before)) >= 3:
        company.shuffled = True
    return company.shuffled and len(samples) >= 4


def askable(model: nn.Module) -> bool:
    """Whether a copy of the model can be called without anybody noticing."""
    if "OptimizedModule" in type(model).__name__ or "Parallel" in type(model).__name__:
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return False
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        return False
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        if (
            any(hooks)
            or getattr(module, "_compiled_call_impl", None) is not None
            or isinstance(module, torch.jit.ScriptModule)
        ):
            return False
        own = isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.track_running_stats
        if own:  # batch statistics at all times, on purpose
            return False
        if not all(_copyable(value) for value in vars(module).values()):
            return False  # an optimizer, a trainer, an environment: a copy of it is no copy of the model
    return True


def _copyable(value: Any, depth: int = 4) -> bool:
    """Whether a copy has nothing in common with the original that calling it could change."""
    if isinstance(value, dict):
        return depth > 0 and all(_copyable(one, depth - 1) for one in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return depth > 0 and all(_copyable(one, depth - 1) for one in value)
    if dataclasses.is_dataclass(value) or isinstance(value, (argparse.Namespace, SimpleNamespace)):
        return depth > 0 and all(_copyable(one, depth - 1) for one in vars(value).values())
    return value is None or isinstance(value, PLAIN)


def ask(model: nn.Module, fact: Called) -> Mixing | None:
    """Calls a copy of the model twice, the second time with half of the samples replaced; None if it cannot be told."""
    given = fact.inputs
    first = next(iter(tensors_in(given)), None)
    if first is None or first.dim() < 2 or variety(first) < BITS:
        return None
    size = len(first)
    if any(not isinstance(one, (Tensor, bool, int, float, str, type(None))) for one in given):
        return None
    if any(isinstance(one, Tensor) and (one.dim() == 0 or len(one) != size) for one in given):
        return None  # a graph's edges, a shared memory: not only samples
    rows = torch.arange(size, device=first.device)
    half = (size + 1) // 2
    rows[half:] = torch.arange(size - half, device=first.device)  # the second half becomes the first
    replaced = tuple(one[rows] if isinstance(one, Tensor) else one for one in given)
    with _unnoticed():
        twin = copy.deepcopy(model)
        for module in twin.modules():
            module.training = False  # not eval(): it may be the user's
        reshapes = _Reshapes(size)
        with _unnoticed():  # both draw the same random numbers
            before, seen = _call(twin, given, fact.keywords, reshapes)
        after, seen_after = _call(twin, replaced, fact.keywords, None)
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.dim() and len(a) == size]
    if not pairs or any(a.dim() == 2 and a.shape == (size, size) for a, _ in pairs):
        return None  # a table of similarities between the samples
    if reshapes.over_batch:  # on purpose
        return None
    change = max(_change(a[:half], b[:half]) for a, b in pairs)
    if change <= CHANGED:
        return Mixing(inside=reshapes.inside)
    layer, moved = "", None
    for (name, module, out), (_, _, other) in zip(seen, seen_after, strict=False):
        if out is not None and other is not None and len(out) == size and _change(out[:half], other[:half]) > CHANGED:
            layer, moved = name, module
            break
    original = dict(model.named_modules()).get(layer) if moved is not None else None
    return Mixing(change, layer, original, reshapes.exchanging)


def _change(before: Tensor, after: Tensor) -> float:
    if before.shape != after.shape or not before.is_floating_point():
        return 0.0
    largest = float(before.abs().amax())
    moved = float((before - after).abs().amax())
    return moved / largest if largest > 0 and moved == moved else 0.0


Output = tuple[str, nn.Module, Tensor | None]


def _call(
    model: nn.Module, given: tuple[Any, ...], keywords: tuple[str, ...], mode: TorchFunctionMode | None
) -> tuple[list[Tensor], list[Output]]:
    """Calls the copy, and keeps what each of its layers gave."""
    seen: list[Output] = []
    count = len(given) - len(keywords)
    handles = []
    for name, module in model.named_modules():
        if name:

            def keep(_: nn.Module, __: Any, output: Any, name: str = name, module: nn.Module = module) -> None:
                first = next(iter(tensors_in(output)), None)
                seen.append((name, module, None if first is None or not first.dim() else first.detach().clone()))

            handles.append(module.register_forward_hook(keep))
    try:
        with mode if mode is not None else contextlib.nullcontext():
            output = model(*given[:count], **dict(zip(keywords, given[count:], strict=True)))
    finally:
        for handle in handles:
            handle.remove()
    return [tensor.detach().clone() for tensor in tensors_in(output)], seen


class _Reshapes(TorchFunctionMode):
    """Notes reshapes that read as an exchange of dimensions, and what is done over the whole batch on purpose."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.exchanging: list[tuple[tuple[int, ...], tuple[int, ...], Place | None]] = []
        self.over_batch: list[str] = []
        self.inside: list[tuple[tuple[int, ...], tuple[int, ...], Place | None]] = []
        self._turned: list[tuple[Tensor, tuple[int, ...], Place | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], Tensor):
            if name in ("view", "reshape", "flatten", "unflatten"):
                self._reshaped(tuple(args[0].shape), tuple(result.shape))
                if _channels_first(tuple(args[0].shape)) == result.shape != args[0].shape:
                    self._turned.append((result, tuple(args[0].shape), here()))
            elif name in ("conv1d", "conv2d", "conv3d"):
                found = [(old, tuple(new.shape), place) for new, old, place in self._turned if new is args[0]]
                self.inside.extend(found)
            elif name == "softmax" and result.shape[-2:] == (self.size, self.size) and result.shape[:-2].numel() == 1:
                self.over_batch.append(name)
            elif name == "scaled_dot_product_attention" and args[0].shape[-2] == self.size:
                if args[0].dim() < 4 or args[0].shape[0] == 1:
                    self.over_batch.append(name)
            elif name == "multi_head_attention_forward" and args[0].shape[0] == self.size:
                if args[0].dim() == 2 or args[0].shape[1] == 1:
                    self.over_batch.append(name)
            elif name == "_native_multi_head_attention" and 1 in args[0].shape[:2] and self.size in args[0].shape[:2]:
                self.over_batch.append(name)
        return result

    def _reshaped(self, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        """Whether the batch's dimension is there before and after, and does not hold the same values."""
        before, after = _starts(old, self.size), _starts(new, self.size)
        if before and after and not before & after and self.size > 1:
            self.exchanging.append((old, new, here()))


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(samples, …, channels) as (samples, channels, …); nothing where one of them is 1, for then a reshape is right."""
    return () if len(shape) < 3 or shape[-1] == 1 or 1 in shape[1:-1] else (shape[0], shape[-1], *shape[1:-1])


def _starts(shape: tuple[int, ...], size: int) -> set[int]:
    """For each dimension of this size: the product of those before it, which a reshape of the others keeps."""
    return {math.prod(shape[:dim]) for dim, length in enumerate(shape) if length == size}


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Random numbers are put back, and nothing is printed."""
    numpy = sys.modules.get("numpy")
    put_back: list[Callable[[], Any]] = []
    state = torch.get_rng_state()
    put_back.append(lambda: torch.set_rng_state(state))
    python = random.getstate()
    put_back.append(lambda: random.setstate(python))
    if numpy is not None:
        others = numpy.random.get_state()
        put_back.append(lambda: numpy.random.set_state(others))
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        on_devices = torch.cuda.get_rng_state_all()
        put_back.append(lambda: torch.cuda.set_rng_state_all(on_devices))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for back in put_back:
            back()
