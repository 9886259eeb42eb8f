"""``thing.name``: what it stands for, whatever the thing is."""

from __future__ import annotations

from collections.abc import Callable

import libcst as cst

from trueloop.doctor.source.events import GradientsUsed
from trueloop.doctor.source.library import canonical, is_module
from trueloop.doctor.source.machine import MISSING, End, Machine
from trueloop.doctor.source.modules import trains
from trueloop.doctor.source.results import result
from trueloop.doctor.source.values import (
    Bound,
    Class,
    Constant,
    Either,
    Function,
    Items,
    Method,
    Module,
    Named,
    Object,
    Super,
    Tensor,
    Unknown,
    Value,
    join,
)

_NUMBERS = frozenset(
    [
        "shape",
        "dtype",
        "device",
        "ndim",
        "requires_grad",
        "is_leaf",
        "grad_fn",
        "layout",
        "is_cuda",
        "names",
        "itemsize",
    ]
)


def attribute(m: Machine, of: Value, name: str, node: cst.CSTNode) -> Value:
    """The value of an attribute."""
    if isinstance(of, Named):
        return Named(canonical(f"{of.name}.{name}"))
    if isinstance(of, Object):
        return _of_object(m, of, name, node)
    if isinstance(of, Tensor):
        return _of_tensor(m, of, name, node)
    if isinstance(of, Unknown):
        return _of_unknown(m, of, name, node)
    if isinstance(of, Module):
        return of.scope.names.get(name) or Unknown(name, of, ".")
    if isinstance(of, Class):
        found = of.find(name)
        if found is not None:
            return found
        outside = next((one for one in of.line() if isinstance(one, str) and one), "")
        return Named(f"{outside}.{name}") if outside else Unknown(name, of, ".")
    if isinstance(of, Super):
        return _of_super(of, name)
    if isinstance(of, Either):
        return each_way(m, of, lambda one: attribute(m, one, name, node))
    if isinstance(of, Items) and of.kind == "tuple" and len(of.items or ()) == 2 and name in ("values", "indices"):
        return of.all()[name == "indices"]  # of `max(dim)`
    if isinstance(of, (Items, Constant)):
        return Method(of, name)
    return Unknown(name, of, ".")


def each_way(m: Machine, either: Either, ask: Callable[[Value], Value]) -> Value:
    """What is got from each of several values; None is left out, as nothing is got from it."""
    those = [one for one in either.options if not (isinstance(one, Constant) and one.value is None)]
    if len(those) == 1:
        return ask(those[0])
    found: list[Value] = []

    def arm(one: Value) -> Callable[[], End]:
        def run() -> End:
            found.append(ask(one))
            return None

        return run

    m.part(f"either {id(either)}", [arm(one) for one in those])
    value: Value = found[0] if found else Unknown()
    for other in found[1:]:
        value = join(value, other)
    return value


def _of_object(m: Machine, of: Object, name: str, node: cst.CSTNode) -> Value:
    held = of.attrs.get(name, MISSING)
    if isinstance(held, Value):
        return held
    if isinstance(of.cls, Class):
        found = of.cls.find(name)
        if isinstance(found, Function):
            return _function_of(m, found, of, node)
        if found is not None:
            return found
        if name == "__class__":
            return of.cls
    if name == "training" and is_module(of.kind):
        return Constant(held) if isinstance(held, bool) else Unknown(name, of, ".")
    if name in ("weight", "bias") and is_module(of.kind):
        return Tensor("parameter", (of,), {}, trains(of), node, m.at, of)
    how = _PROBABILITIES.get(of.kind) if name == "probs" else None
    if how is not None and "logits" in of.kwargs:
        return result(m, how, (of.kwargs["logits"],), {"dim": Constant(-1)} if how == "softmax" else {}, node)
    if of.kind:
        given = of.kwargs.get(name)
        if given is not None and name in ("dataset", "sampler", "batch_size"):
            return given
        if name == "dataset" and of.args:
            return of.args[0]
        return Method(of, name)
    if isinstance(of.cls, Class) and "" in of.cls.line():
        return Method(of, name)  # of a base that is not known
    found_once = Unknown(name, of, ".")
    of.attrs[name] = found_once
    return found_once


_PROBABILITIES = {
    "torch.distributions.Categorical": "softmax",
    "torch.distributions.OneHotCategorical": "softmax",
    "torch.distributions.Bernoulli": "sigmoid",
}
"""What a distribution that was made of logits makes of them."""


def _function_of(m: Machine, found: Function, of: Value, node: cst.CSTNode) -> Value:
    names = {one.rpartition(".")[2] for one in found.decorators}
    if "staticmethod" in names:
        return found
    if names & {"property", "cached_property"}:
        return m.invoke(m, Bound(found, of), (), {}, node)
    if "classmethod" in names and isinstance(of, Object):
        return Bound(found, of.cls if isinstance(of.cls, Class) else of)
    return Bound(found, of)


def _of_tensor(m: Machine, of: Tensor, name: str, node: cst.CSTNode) -> Value:
    if name in of.attrs:
        return of.attrs[name]
    if name == "grad":
        m.tell(GradientsUsed(node, m.at, of))
        return result(m, "grad", (of,), {}, node)
    if name in ("data", "T", "mT", "real"):
        return result(m, name, (of,), {}, node)
    if name in _NUMBERS:
        return Unknown(name, of, name)
    return Method(of, name)


def _of_unknown(m: Machine, of: Unknown, name: str, node: cst.CSTNode) -> Value:
    if name == "grad":
        m.tell(GradientsUsed(node, m.at, of))
        return Unknown(name, of, "grad")
    held = of.attrs.get(name)
    if held is None:
        held = of.attrs[name] = Unknown(name, of, "data" if name == "data" else ".")
    return held if isinstance(held, Value) else Unknown(name, of, ".")


def _of_super(of: Super, name: str) -> Value:
    mro = list(of.of.cls.line()) if isinstance(of.of, Object) and isinstance(of.of.cls, Class) else []
    after = mro[mro.index(of.owner) + 1 :] if of.owner in mro else list(of.owner.line())[1:]
    for one in after:
        if isinstance(one, Class) and name in one.attrs:
            found = one.attrs[name]
            return Bound(found, of.of) if isinstance(found, Function) else found
    return Method(of, name)
