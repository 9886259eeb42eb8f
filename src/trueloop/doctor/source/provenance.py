"""Where a value came from: what made it last, what went into it, which parameters it reaches."""

from __future__ import annotations

from collections.abc import Iterator

from trueloop.doctor.source.library import RESHAPES
from trueloop.doctor.source.modules import is_module, parts
from trueloop.doctor.source.values import Either, Items, Method, Object, Tensor, Unknown, Value

MOST = 400  # values that are gone through


def ending(value: Value) -> Value:
    """What made a value, without what only changes its form: its last operation, or something else that is known."""
    for _ in range(MOST):
        if isinstance(value, Tensor) and value.op in RESHAPES and value.inputs:
            first = value.inputs[0]
            if value.op in ("stack", "cat") and len({type(one) for one in value.inputs}) > 1:
                return value
            value = first
        elif isinstance(value, Items) and len(value.all()) == 1:
            value = value.all()[0]
        else:
            break
    return value


def endings(value: Value) -> tuple[Value, ...]:
    """The endings of all that a value may be."""
    end = ending(value)
    return tuple(one for option in end.options for one in endings(option)) if isinstance(end, Either) else (end,)


def ancestors(value: Value, *, graph: bool = False) -> Iterator[Value]:
    """A value and all that went into it, each once.

    Args:
        value: where to begin.
        graph: only along the graph: not through ``detach`` and the like.
    """
    seen: set[int] = set()
    left = [value]
    while left and len(seen) < MOST:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if graph and isinstance(one, Tensor) and one.graph is False:
            continue
        yield one
        if isinstance(one, Tensor):
            left += [*one.inputs, *one.options.values()]
        elif isinstance(one, Items):
            left += one.all()
        elif isinstance(one, Either):
            left += one.options
        elif isinstance(one, Unknown):
            left += one.inputs
            if one.of is not None:
                left.append(one.of)


def weights(value: Value) -> tuple[set[int], bool]:
    """The layers and parameters that a value's gradient reaches, and whether there may be others that are not known."""
    found: set[int] = set()
    unknown = False
    for one in ancestors(value, graph=True):
        if isinstance(one, Tensor):
            if one.layer is not None:
                found.add(id(one.layer))
                if is_module(one.layer):
                    found |= {id(inner) for inner in parts(one.layer)}
            leaf = one.graph and not any(isinstance(given, Tensor) and given.graph for given in one.inputs)
            if one.op in ("parameter", "requires_grad_") or leaf:
                found.add(id(one))
        elif isinstance(one, Unknown):
            found.add(id(one))
            unknown = unknown or one.via == "call"  # what comes as data is taken for data
        elif isinstance(one, Object):
            found |= {id(inner) for inner in parts(one)}
    return found, unknown


def held(parameters: Value | None) -> tuple[set[int], bool]:
    """The layers and parameters among what an optimizer was given, and whether there may be others."""
    if parameters is None:
        return set(), True
    found: set[int] = set()
    unknown = False
    seen: set[int] = set()
    left = [parameters]
    while left and len(seen) < MOST:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Object):
            inside = {id(inner) for inner in parts(one)}
            found |= inside
            unknown = unknown or not inside
        elif isinstance(one, Tensor):
            found.add(id(one))
            if one.layer is not None:
                found.add(id(one.layer))
        elif isinstance(one, Items):
            left += one.all()
        elif isinstance(one, Either):
            left += one.options
        elif isinstance(one, Method) and one.name == "param_groups" and isinstance(one.of, Object):
            more, others = held(one.of.option("params", 0))
            found |= more
            unknown = unknown or others
        elif isinstance(one, Unknown):
            found.add(id(one))
            if one.via == "parameters" and one.inputs:  # what the module was made up of when it was asked
                found |= {id(inner) for inner in one.inputs}
                continue
            known = one.of is not None and one.via in ("parameters", "each", ".", "[]", "parts")
            unknown = unknown or not (known or one.inputs)
            left += [*one.inputs, *((one.of,) if one.of is not None else ())]
    return found, unknown


def lost(parameters: Unknown) -> bool:
    """Whether a module has no longer all that it was made up of when it was asked for its parameters."""
    now = {id(one) for one in parts(parameters.of)} if parameters.of is not None else set()
    return any(id(one) not in now for one in parameters.inputs)


def trains(optimizer: Value, loss: Value) -> bool | None:
    """Whether a loss's gradient reaches what an optimizer holds; None if that is not known."""
    if not isinstance(optimizer, Object):
        return None
    own, more_held = held(optimizer.option("params", 0))
    reached, more_reached = weights(loss)
    if own & reached:
        return True
    return None if more_held or more_reached else False


def clears(target: Value, optimizer: Value) -> bool | None:
    """Whether clearing one thing's gradients clears those of an optimizer; None if that is not known."""
    if target is optimizer:
        return True
    if not isinstance(optimizer, Object):
        return None
    given = target.option("params", 0) if isinstance(target, Object) and not is_module(target) else target
    those, unknown = held(given)
    own, more = held(optimizer.option("params", 0))
    if own & those:
        return True
    return None if more or unknown else False


def touches(values: tuple[Value, ...], thing: Value) -> bool:
    """Whether what was handed over holds a thing, or, for an optimizer, what it steps."""
    own = held(thing.option("params", 0))[0] if isinstance(thing, Object) else set()
    return any(_holds(value, thing, own, 3) for value in values)


def _holds(value: Value, thing: Value, own: set[int], depth: int) -> bool:
    if value is thing or id(value) in own:
        return True
    if depth == 0:
        return False
    if isinstance(value, Items):
        return any(_holds(one, thing, own, depth - 1) for one in value.all())
    if isinstance(value, Either):
        return any(_holds(one, thing, own, depth - 1) for one in value.options)
    if isinstance(value, Object):
        inside = [one for one in value.attrs.values() if isinstance(one, (Object, Items, Unknown))]
        return any(_holds(one, thing, own, depth - 1) for one in (*inside, *value.args, *value.kwargs.values()))
    if isinstance(value, Unknown) and value.via in ("parameters", "each"):
        return value.of is not None and _holds(value.of, thing, own, depth - 1)
    return False


def feeds(value: Value, into: Value, *, graph: bool = False) -> bool:
    """Whether one value went into another."""
    return any(one is value for one in ancestors(into, graph=graph))


def by_a_model(value: Value) -> bool:
    """Whether it has passed a layer."""
    return any(isinstance(one, Tensor) and one.layer is not None for one in ancestors(value))
