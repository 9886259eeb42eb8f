"""A split by hand: ``x[:800]`` is trained on, and ``x[800:]`` is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from trueloop.doctor.source.data import part_of
from trueloop.doctor.source.events import Called
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import is_stepped, used_for_training
from trueloop.doctor.source.values import Class, Items, Object, Tensor, Unknown, Value, constant
from trueloop.doctor.source.ways import Run

MOST = 200  # objects and values that are gone through


class Cut(NamedTuple):
    """What was cut in two, and the evaluation of the part that is not trained on."""

    whole: Value
    evaluation: Called


def cuts(run: Run) -> Iterator[Cut]:
    """What was cut by hand into rows to train on and rows to evaluate on."""
    calls = {id(call.node): call for call in run.of(Called) if is_stepped(run, call.target)}.values()
    learns = [call for call in calls if used_for_training(run, call.result)]
    trained = [part for call in learns for given in call.args for part in _parts(given)]
    for call in calls if trained else ():
        if call not in learns and (call.grad is False or call.training is False):
            for of, key in (part for given in call.args for part in _parts(given)):
                if any(other is of and _are_apart(own, key) for other, own in trained):
                    yield Cut(of, call)


def made_of(value: Value) -> Iterator[Value]:
    """A value and all that went into it, also where a loader or a data set holds it."""
    seen: set[int] = set()
    left = [value]
    while left and len(seen) < MOST:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for inner in ancestors(one):
            yield inner
            if isinstance(inner, Object) and inner.kind.startswith("torch.utils.data."):
                own = isinstance(inner.cls, Class)
                left += [v for v in inner.attrs.values() if isinstance(v, Value)] if own else inner.args
                left += () if own else inner.kwargs.values()


def is_part(value: Value) -> bool:
    """Whether a value is some of the rows of another."""
    return any(_is_rows(part_of(one)[1]) for one in ancestors(value))


def _parts(value: Value) -> Iterator[tuple[Value, Value]]:
    for one in made_of(value):
        of, key = part_of(one)
        if isinstance(one, Object) and one.cls == "torch.utils.data.Subset" and len(one.args) == 2:
            of, key = one.args
        if of is not None and key is not None:
            yield of, key


def _is_rows(key: Value | None) -> bool:
    bounds = _bounds(key)
    return bounds != (None, None) if bounds is not None else isinstance(key, (Tensor, Unknown))


def _are_apart(one: Value, other: Value) -> bool:
    """Whether two keys are the two sides of one cut."""
    ours, theirs = _bounds(one), _bounds(other)
    if ours is not None and theirs is not None:
        (first, cut), (again, last) = (ours, theirs) if _is_start(ours[0]) else (theirs, ours)
        return _is_start(first) and _is_end(last) and cut is not None and again is not None and _is_same(cut, again)
    if _inverted(one) is other or _inverted(other) is one:
        return True
    (of, key), (its, rest) = part_of(one), part_of(other)
    return of is not None and of is its and key is not None and rest is not None and _are_apart(key, rest)


def _bounds(key: Value | None) -> tuple[Value | None, Value | None] | None:
    """Where a slice of rows, or a range of their numbers, begins and where it ends."""
    if isinstance(key, Items) and key.all():  # x[:800, 1:]
        key = key.all()[0]
    if isinstance(key, Unknown) and key.via == "slice":
        first, last, _ = key.attrs.get("bounds", (None, None, None))
        return _or_none(first), _or_none(last)
    return None


def _or_none(value: Value | None) -> Value | None:
    return None if constant(value, "") is None else value


def _is_start(value: Value | None) -> bool:
    return value is None or constant(value, "") == 0


def _is_end(value: Value | None) -> bool:
    """Whether nothing is left behind it, as far as is known: ``x[800:]``, ``x[800:1000]``."""
    return value is None or not _is_start(value)


def _is_same(one: Value, other: Value) -> bool:
    known = constant(one, "")
    return one is other or (isinstance(known, (int, float)) and known == constant(other, ""))


def _inverted(key: Value) -> Value | None:
    """The mask of which a key is the opposite."""
    if isinstance(key, Tensor) and key.op in ("neg", "logical_not", "bitwise_not") and key.inputs:
        return key.inputs[0]
    if isinstance(key, Unknown) and key.via == "neg" and key.inputs:
        return key.inputs[0]
    return None
