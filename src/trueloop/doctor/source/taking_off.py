"""An activation that is taken off what it was applied to or gives way to another; a loss in the place of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.arguments import atom, given
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import put, together, without
from trueloop.doctor.source.events import LossCalled, Operated
from trueloop.doctor.source.fixes import Edit, Fix
from trueloop.doctor.source.naming import name_of
from trueloop.doctor.source.provenance import ancestors, endings
from trueloop.doctor.source.values import Tensor, Value

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program

_LAYERS = frozenset(("Softmax", "Softmax2d", "LogSoftmax", "Sigmoid", "LogSigmoid", "ReLU", "Tanh"))
_WANT_CHANCES = frozenset(("log", "logit", "multinomial", "bernoulli", "Categorical", "Bernoulli", "round"))


def taken_off(program: Program, value: Value, title: str) -> Fix | None:
    """Takes off the activation that a value ends in, if one place in this file applies it."""
    end = _one(value)
    if end is None:
        return None
    call = _call(program, end)
    return together(title, _out_of_chain(program, end) if call is None else _off(program, end, call))


def exchanged(program: Program, value: Value, op: str, layer: str, title: str, *, bare: bool = False) -> Fix | None:
    """Another activation in the place of the one that a value ends in.

    Args:
        program: the file.
        value: what ends in it; one place in this file must apply it.
        op: the other one's name as a function and a method.
        layer: the same as a layer.
        title: the fix's.
        bare: it takes no arguments; else it gets those of the old one.
    """
    end = _one(value)
    if end is None:
        return None
    call: Any = _call(program, end) if end.layer is None else end.layer.node
    inside: Any = None if call is None or end.layer is not None else _applied_to(end, call)
    if kind(getattr(call, "func", None)) != "Attribute" or (end.layer is None) is (inside is None):
        return None
    if end.layer is not None and call.func.attr.value not in _LAYERS:
        return None
    if not bare:
        return together(title, put(program, call.func.attr, op if end.layer is None else layer))
    base = program.unit.text(call.func.value)
    if end.layer is not None:
        return together(title, put(program, call, f"{base}.{layer}()"))
    of_method = inside is call.func.value
    text = f"{base}.{op}()" if of_method else f"{base}.{op}({program.unit.text(inside)})"
    return together(title, put(program, call, text))


def other_loss(program: Program, event: LossCalled, layer: str, function: str, title: str) -> Fix | None:
    """Another loss in the place of one that gets the same kind of input wherever it is called; its arguments stay."""
    made: Any = _made(event)
    if kind(getattr(made, "func", None)) != "Attribute":
        return None
    those = [one for run in program.runs for one in run.of(LossCalled) if _made(one) is made]
    ops = {end.op if isinstance(end, Tensor) else "" for one in those for end in endings(one.input)}
    if len(ops) != 1 or len({one.kind for one in those}) != 1:
        return None
    return together(title, put(program, made.func.attr, function if event.loss is None else layer))


def is_read_otherwise(program: Program, value: Value, loss: str) -> bool:
    """Whether what a value's activation makes also goes to a loss of another kind, or to what wants chances."""
    end = endings(value)[0]
    read: list[Value] = []
    for run in program.runs:
        read += [event.input for event in run.of(LossCalled) if event.kind != loss]
        for event in run.of(Operated):
            if event.name.rpartition(".")[2] in _WANT_CHANCES:
                read += [*event.args, *event.kwargs.values()]
    return any(isinstance(one, Tensor) and _same(one, end) for given in read for one in ancestors(given))


def is_cut_at_a_half(program: Program) -> bool:
    """Whether the file compares something with a number between 0 and 1, or rounds it: as one does with chances."""
    for one in blocks.walk(program.unit.tree):
        what: Any = one
        number: Any = getattr(what, "comparator", None) if kind(one) == "ComparisonTarget" else None
        if kind(number) == "Float" and 0 < number.evaluated_value < 1:
            return True
        if kind(one) == "Call" and kind(what.func) == "Attribute" and what.func.attr.value == "round":
            return True
    return False


def _made(event: LossCalled) -> cst.CSTNode:
    return event.node if event.loss is None else event.loss.node


def _same(one: Tensor, other: Value) -> bool:
    """Whether the same piece of text made both."""
    if not isinstance(other, Tensor) or (one.layer is None) is not (other.layer is None):
        return False
    if one.layer is not None and other.layer is not None:
        return one.layer.node is other.layer.node
    return one.node is other.node and one.op == other.op


def _one(value: Value) -> Tensor | None:
    """What a value ends in, if one piece of text makes that, which is not also met on the way there."""
    ends = endings(value)
    first = ends[0]
    if not isinstance(first, Tensor) or not all(isinstance(one, Tensor) and _same(one, first) for one in ends):
        return None
    before = [one for inside in first.inputs for one in ancestors(inside)]
    again = any(isinstance(one, Tensor) and one.op == first.op and _same(one, first) for one in before)
    looped = first.layer is not None and bool(first.layer.at.loops)
    return None if again or looped else first


def _call(program: Program, end: Tensor) -> Any:
    """The call that applies an activation by its own name; None if a chain of layers does."""
    call: Any = end.node
    if kind(call) != "Call":
        return None
    if end.layer is None or call.func is end.layer.node:
        return call
    named = name_of(program.unit, end.layer.node)
    return call if named and named == program.unit.text(call.func) else None


def _applied_to(end: Tensor, call: Any) -> Any:
    """The expression that an activation's call is applied to: its first argument, or what it is a method of."""
    if any(one.star for one in call.args):
        return None
    placed = [one.value for one in call.args if one.keyword is None]
    if end.layer is None and len(end.inputs) == len(placed) + 1:
        return getattr(call.func, "value", None)
    return placed[0] if placed else given(call, "input")


def _off(program: Program, end: Tensor, call: Any) -> Edit | None:
    """What the call is applied to in its place; nothing where that leaves ``x = x``."""
    inside = _applied_to(end, call)
    if inside is None:
        return None
    if name_of(program.unit, call) == program.unit.text(inside):
        return without(program, call)
    return put(program, call, atom(program, inside))


def _out_of_chain(program: Program, end: Tensor) -> Edit | None:
    """A layer taken out of the list that it is made in; a layer that does nothing where it stands in none."""
    made: Any = None if end.layer is None else end.layer.node
    func = getattr(made, "func", None)
    if func is None or program.unit.text(func).rpartition(".")[2] not in _LAYERS:
        return None
    chain: list[Any] = list(blocks.around(program.unit, made))
    if [kind(one) for one in chain[:2]] == ["Element", "Tuple"] and kind(chain[2]) == "Element":
        chain = chain[2:]  # ("name", layer)
    if [kind(one) for one in chain[:2]] == ["Arg", "Call"] and "Sequential" in program.unit.text(chain[1].func):
        listed = list(chain[1].args)
    else:
        listed = list(chain[1].elements) if [kind(one) for one in chain[:2]] == ["Element", "List"] else []
    if len(listed) > 1 and listed.index(chain[0]) > 0:
        return _out_of_list(program, listed, chain[0])
    return put(program, made, f"{program.unit.text(func.value)}.Identity()") if kind(func) == "Attribute" else None


def _out_of_list(program: Program, listed: list[Any], one: Any) -> Edit:
    """One of several taken out, with the comma before it; what a comment says of its neighbour stays."""
    span = program.unit.span(one.value)
    first, last = program.lines[span.start.line - 1], program.lines[span.end.line - 1]
    rest = last[span.end.column :].split("#")[0].strip()
    if not first[: span.start.column].strip() and rest == ",":
        return Edit((span.start.line, 0), (span.end.line + 1, 0), "")
    end = program.unit.span(listed[listed.index(one) - 1].value).end
    between = program.lines[end.line - 1 : span.start.line]
    commented = any("#" in line for line in (between[0][end.column :], *between[1:]))
    start = span.start if commented else end
    return Edit((start.line, start.column), (span.end.line, span.end.column), "")
