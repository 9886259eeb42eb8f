"""Modules: what they are made of, their modes, and what a call of one does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.source import library
from trueloop.doctor.source.events import Called, LossCalled, ModeSet
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.results import result
from trueloop.doctor.source.values import (
    Bound,
    Class,
    Function,
    Items,
    Object,
    Tensor,
    Unknown,
    Value,
    constant,
    options,
)

if TYPE_CHECKING:
    import libcst as cst

_RECURRENT = frozenset(("torch.nn.LSTM", "torch.nn.GRU", "torch.nn.RNN", "torch.nn.MultiheadAttention"))


def is_module(value: Value | None) -> bool:
    """Whether a value is surely a module."""
    return isinstance(value, Object) and (library.is_module(value.kind) or value.kind in library.LOSSES)


def parts(module: Value, seen: set[int] | None = None) -> Iterator[Object]:
    """A module and all that it holds, as far as it is known."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, Object):
        if is_module(module):
            yield module
        elif isinstance(module.cls, str):
            return
        for name, value in list(module.attrs.items()):
            # torch does not look into a plain list: what stands there is no part of the module
            if isinstance(value, Object) or (isinstance(value, Items) and name == "children"):
                yield from parts(value, seen)
    elif isinstance(module, Items):
        for value in module.all():
            for one in options(value):
                if isinstance(one, (Object, Items)):
                    yield from parts(one, seen)


def set_mode(m: Machine, module: Value, training: bool | None, node: cst.CSTNode) -> None:
    """``module.train(training)``"""
    for option in options(module):
        m.tell(ModeSet(node, m.at, option, training))
        _set(m, option, training)


def _set(m: Machine, module: Value, training: bool | None) -> None:
    whole = owner(module)
    if isinstance(module, Unknown) and whole is not module and whole is not None:
        # one of its modules, or several of them: which ones is not known
        for one in parts(whole):
            if one is not whole:
                m.write(one.attrs, "training", None)
        return
    if isinstance(module, Unknown):
        m.write(module.attrs, "training", training)
        m.write(module.attrs, "asked", True)
        return
    for one in parts(module):
        m.write(one.attrs, "training", training)
        m.write(one.attrs, "asked", True)


def set_frozen(m: Machine, module: Value, frozen: bool | None) -> None:
    """``module.requires_grad_(not frozen)``"""
    for one in parts(module):
        m.write(one.attrs, "frozen", frozen)


def trains(module: Object) -> bool | None:
    """Whether a module's own parameters require gradients; None if some were frozen, and it is not known which."""
    frozen = module.attrs.get("frozen", False)
    return not frozen if isinstance(frozen, bool) else None


def owner(value: Value | None, depth: int = 8) -> Value | None:
    """The module whose parameter, part or list of parameters a value is; None if it is none that is known."""
    while value is not None and depth > 0:
        if is_module(value):
            return value
        if isinstance(value, Unknown) and value.via in ("parameters", "parts", "each", "[]", ".", "call"):
            value = value.of
        elif isinstance(value, Tensor) and value.op == "parameter":
            value = value.layer
        else:
            return None
        depth -= 1
    return None


def call_module(
    m: Machine, module: Object, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode
) -> Value:
    """A module's call: the user's ``forward`` is gone through, torch's layers are operations."""
    if module.kind in library.LOSSES:
        return call_loss(m, library.LOSSES[module.kind], module, args, kwargs, node)
    training, asked, grad = module.attrs.get("training"), "asked" in module.attrs, m.state["grad"]
    layers = None if m.inside or m.silent else two_modes(module)
    frozen = () if m.inside or m.silent else _frozen_norms(module)
    forward = _own_forward(module)
    if isinstance(forward, Function) and forward.grad is False:
        grad = False  # `@torch.no_grad()` above it
    m.inside += 1
    try:
        value = _forward(m, module, args, kwargs, node)
    finally:
        m.inside -= 1
    if not m.inside:
        mode = training if isinstance(training, bool) else None
        m.tell(Called(node, m.at, module, args, value, mode, layers, asked, grad, frozen))
    return value


def two_modes(module: Object) -> tuple[tuple[str, bool | None], ...]:
    """The layers in a module that have two modes, and in which each is."""
    return tuple(
        (one.kind.rpartition(".")[2], one.attrs.get("training"))
        for one in parts(module)
        if one.kind in library.TWO_MODES and constant(one.option("p", 0), 1) != 0
    )


def _frozen_norms(module: Object) -> tuple[Object, ...]:
    norms = (one for one in parts(module) if "BatchNorm" in one.kind and one.attrs.get("training") is True)
    return tuple(one for one in norms if one.attrs.get("frozen") is True)


def _own_forward(module: Object) -> Value | None:
    return module.attrs.get("forward") or (module.cls.find("forward") if isinstance(module.cls, Class) else None)


def _forward(m: Machine, module: Object, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode) -> Value:
    forward = _own_forward(module)
    if isinstance(forward, Function):
        return m.invoke(m, Bound(forward, module), args, kwargs, node)
    if module.kind == "torch.nn.Sequential":
        return _chain(m, module, args, kwargs, node)
    op = library.ACTIVATIONS.get(module.kind) or module.name
    graph = False if module.kind in library.ACTIVATIONS else trains(module)
    made = result(m, op, args, dict(module.kwargs) | kwargs, node, layer=module, graph=graph)
    if module.kind in _RECURRENT:
        return Items("tuple", node, m.at, {"items": (made, made)})
    return made


def _chain(m: Machine, module: Object, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode) -> Value:
    children = module.attrs.get("children")
    known = children.items if isinstance(children, Items) and children.attrs.get("each") is None else None
    if known is None:
        whole = result(m, "Sequential", args, {}, node, layer=module, graph=True)
        known = children.attrs.get("last", ()) if isinstance(children, Items) else ()
        value: Value = whole
    else:
        value = args[0] if args else Unknown()
    for child in known:
        value = m.invoke(m, child, (value,), {}, node)
    return value


def call_loss(
    m: Machine, kind: str, loss: Object | None, args: tuple[Value, ...], kwargs: dict[str, Value], node: cst.CSTNode
) -> Value:
    """A loss of torch's is called, as a module or as a function."""
    first = kwargs.get("input") or (args[0] if args else Unknown())
    target = kwargs.get("target") or (args[1] if len(args) > 1 else Unknown())
    given = {**(loss.kwargs if loss is not None else {}), **kwargs}
    rest = {name: value for name, value in given.items() if name not in ("input", "target")}
    made = result(m, kind, (first, target), rest, node, layer=loss)
    m.tell(LossCalled(node, m.at, kind, first, target, made, loss))
    return made
