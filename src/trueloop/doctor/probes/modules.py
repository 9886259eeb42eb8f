"""Listens to modules: which is called as a root, in which mode, on what, and what came out.

Global forward hooks, which see every module of a hand-written loop and of any framework. Calls of ``model.forward(x)``
and functional networks are not seen. Inside ``torch.compile`` the hooks return at once, and so break no graph.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from trueloop.doctor.facts import Called, ForwardFailed, ModeSet, ModuleCalled
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.readings import readable
from trueloop.doctor.samples import fingerprints, tensors_in
from trueloop.doctor.seen import Pass
from trueloop.doctor.trace import CLOSE_UNUSED, Trace, two_modes

OUTPUTS = 4
"""An output with more tensors is known by its first few; a guess."""


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen; returns what ends it."""
    running = trace.running
    names = _Names()
    inside: list[bool] = []  # train() calls itself for every child

    def elsewhere() -> bool:
        return torch.compiler.is_compiling() or trace.deaf or threading.get_ident() != trace.thread

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not elsewhere():
            current = running[-1][1] if running else None
            running.append((module, _begin(trace, module) if current is None else current))

    def after(module: nn.Module, inputs: tuple[Any, ...], *rest: Any) -> None:
        if elsewhere():
            return
        kwargs, output = rest if len(rest) == 2 else ({}, rest[0])  # after an error torch leaves the keyword ones out
        while running and running[-1][0] is not module:  # a forward that was left without its hook
            running.pop()
        if not running:
            return
        current = running.pop()[1]
        if current is None:
            return
        is_root = not running or running[-1][1] is None
        root = module if is_root else next(module for module, of in running if of is not None)
        given = (*inputs, *kwargs.values())
        error = sys.exc_info()[1] if output is None else None
        if error is not None:
            trace.tell(ForwardFailed(module, names.of(root, module), given, current, error))
            return
        if is_root:
            _end(trace, current, given, output)
        if current.close:
            trace.tell(ModuleCalled(module, names.of(root, module), given, output, current))
        if is_root:
            trace.tell(Called(current, given, output, tuple(kwargs)))

    def wrap_train(original: Any) -> Any:
        def train(self: nn.Module, mode: bool = True) -> Any:
            if inside or elsewhere():
                return original(self, mode)
            inside.append(True)
            changes = self.training != mode
            try:
                result = original(self, mode)
            finally:
                inside.clear()
            trace.tell(ModeSet(self, mode, here()))
            if changes:
                trace.stir()
            return result

        return train

    patches.replace(nn.Module, "train", wrap_train)
    handles: list[RemovableHandle] = []

    def put_in() -> None:
        if not handles:
            handles.append(hooks.register_module_forward_pre_hook(trace.guarded(before)))
            handles.append(hooks.register_module_forward_hook(trace.guarded(after), with_kwargs=True, always_call=True))

    def take_out() -> None:
        for handle in handles:
            handle.remove()
            hooks._global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch leaves it
        handles.clear()

    put_in()
    costly = put_in, take_out
    trace.costly.append(costly)

    def remove() -> None:
        trace.costly.remove(costly)
        take_out()

    return remove


class _Names:
    """The names of modules in their root; learnt when first asked, and again when one is not known."""

    def __init__(self) -> None:
        self._by_root: Any = WeakIdKeyDictionary()

    def of(self, root: nn.Module, module: nn.Module) -> str:
        if module is root:
            return ""
        known = self._by_root.get(root)
        if known is None or id(module) not in known:
            known = self._by_root[root] = {id(layer): name for name, layer in root.named_modules()}
        return str(known.get(id(module), type(module).__name__))


def _begin(trace: Trace, module: nn.Module) -> Pass | None:
    """A root's pass begins. Its modes are those of now, since they may be other ones when it is settled.

    What has no parameters (a loss, a metric, a transform) is no model: there is no pass, and what it calls may be one.
    Nor is what trueloop puts around a model on several processes (``parallel/replicate.py`` marks it).
    """
    model = trace.known(module)
    if model is None:
        if "_trueloop_wraps" in vars(module) or next(module.parameters(), None) is None:
            return None
        model = trace.model_of(module)
    grad = torch.is_grad_enabled()
    close = grad or model.unused < CLOSE_UNUSED
    if close or not model.passes:
        model.layers = two_modes(module)
    trace.passes += 1
    return Pass(
        number=trace.passes,
        model=model,
        training=module.training,
        grad=grad,
        needs_grad=False,
        step=trace.step,
        epoch=trace.epoch,
        place=here(),
        moving=tuple(name for name, layer in model.layers if layer.training),
        resting=tuple(name for name, layer in model.layers if not layer.training),
        close=close,
    )


def _end(trace: Trace, current: Pass, given: tuple[Any, ...], output: Any) -> None:
    """A root's pass returned. A hook on what came out tells whether a backward goes through it."""
    inputs = list(tensors_in(given))
    current.shapes = tuple(tuple(tensor.shape) for tensor in inputs)
    if inputs and inputs[0].grad_fn is not None:
        current.model.fed = True
    if trace.last_batch is not None and trace.last_batch.holds(inputs):
        current.loader = trace.last_batch.loader
        current.owned = trace.last_batch.owns(inputs)
    if current.close and inputs and readable(inputs[0]):
        current.samples = fingerprints(inputs[0])
    current.model.passes += 1

    def reach(_: Tensor) -> None:
        trace.reached[current.number] = current

    known = True
    for tensor in tensors_in(output, OUTPUTS):
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            known = False  # what a backward of torch.func goes through is not seen: it is not told what it was for
        elif tensor.requires_grad:
            current.needs_grad = True
            tensor.register_hook(reach)  # type: ignore[no-untyped-call]
    trace.last_pass = current
    if known:
        trace.open.append(current)
