"""``with`` and ``try``: what is done on every way out, and what a context makes of grad mode and modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libcst as cst

from trueloop.doctor.source.assigning import assign
from trueloop.doctor.source.events import Operated
from trueloop.doctor.source.machine import MISSING, End, Machine
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.units import statements_of
from trueloop.doctor.source.values import Bound, Class, Constant, Function, Named, Object, Unknown, Value, truth


def with_block(m: Machine, node: cst.With) -> End:
    """``with …``, one item after the other."""
    return _within(m, node, 0)


def _within(m: Machine, node: cst.With, number: int) -> End:
    """Enters one item of ``with`` after the other, then runs the body, and leaves them."""
    if number == len(node.items):
        return m.perform(m, statements_of(node.body))
    item = node.items[number]
    before = m.state["grad"]
    also = _on_every_way_out(m)
    ends: list[End] = []
    mark = len(m.trail)

    def inside() -> None:
        nonlocal mark
        ends.append(_within(m, node, number + 1))
        mark = len(m.trail)

    m.bodies[id(item.item)] = _as_body(m, item, inside)
    value = m.evaluate(m, item.item)
    m.bodies.pop(id(item.item), None)
    if ends:  # the body ran where the user's generator yields
        also(mark)
        return ends[0] if len(set(ends)) == 1 else None
    found = value.cls.find("__enter__") if isinstance(value, Object) and isinstance(value.cls, Class) else None
    entered = m.invoke(m, Bound(found, value), (), {}, item.item) if isinstance(found, Function) else _entered(value)
    if item.asname is not None:
        assign(m, item.asname.name, entered)
    grad = gradients(value)
    if grad is not MISSING:
        m.write(m.state, "grad", grad)
    for given in value.inputs if isinstance(value, Unknown) and value.via == "call" else ():
        for one in parts(given):  # `with evaluating(model)`: which mode it is in now is not known
            m.write(one.attrs, "training", None)
    inside()
    leave = value.cls.find("__exit__") if isinstance(value, Object) and isinstance(value.cls, Class) else None
    if isinstance(leave, Function):
        m.invoke(m, Bound(leave, value), (Constant(None),) * 3, {}, item.item)
    if isinstance(value, Unknown) and value.name in ("detect_anomaly", "set_detect_anomaly"):
        m.tell(Operated(node, m.at, f"{value.name}.__exit__", (value,), {}, value, m.frame.function))
    if grad is not MISSING:
        m.write(m.state, "grad", before)
    also(mark)
    return ends[0]


def _as_body(m: Machine, item: cst.WithItem, inside: Callable[[], None]) -> Callable[[Value], None]:
    """The body of ``with`` as a function that its generator calls, in the frame in which it stands."""
    depth, around = len(m.frames), (m.calls, m.ways, m.loops)

    def run(value: Value) -> None:
        frames, there = m.frames[depth:], (m.calls, m.ways, m.loops)
        del m.frames[depth:]
        m.calls, m.ways, m.loops = around
        if item.asname is not None:
            assign(m, item.asname.name, value)
        inside()
        m.frames += frames
        m.calls, m.ways, m.loops = there

    return run


def _on_every_way_out(m: Machine) -> Callable[[int], None]:
    """Has what is done after a mark be done as well where ``return``, ``break`` or ``continue`` leave from here on."""
    outs = [m.frame.exits, *((m.ways[-1].breaks, m.ways[-1].continues) if m.ways else ())]
    known = [len(out) for out in outs]

    def also(mark: int) -> None:
        done = m.written(mark)
        for out, count in zip(outs, known, strict=True):
            for exit in out[count:]:
                exit.update(done)

    return also


def _entered(value: Value) -> Value:
    """What ``with … as`` gives: for most, the thing itself."""
    return value if isinstance(value, Object) and isinstance(value.cls, str) else Unknown(of=value, via="with")


def gradients(value: Value) -> Any:
    """What a context or decorator makes of grad mode: True, False, None if not known; MISSING if nothing."""
    name = value.kind if isinstance(value, Object) else value.name if isinstance(value, Named) else ""
    if name in ("torch.no_grad", "torch.inference_mode"):
        mode = value.option("mode", 0) if isinstance(value, Object) and name.endswith("inference_mode") else None
        return False if mode is None else (None if truth(mode) is None else not truth(mode))
    if name == "torch.enable_grad":
        return True
    if name == "torch.set_grad_enabled" and isinstance(value, Object):
        mode = value.option("mode", 0)
        return None if mode is None else truth(mode)
    return MISSING


def try_block(m: Machine, node: cst.Try | cst.TryStar) -> End:
    """``try …``: its body as a whole, or one of its handlers, and what is done in the end."""
    mark = len(m.trail)
    also = _on_every_way_out(m)
    end = m.perform(m, statements_of(node.body))
    if end is None and node.orelse is not None:
        end = m.perform(m, statements_of(node.orelse.body))
    if node.handlers:
        unit, tried = m.frame.unit, end

        def handler(one: cst.ExceptHandler | cst.ExceptStarHandler) -> Callable[[], End]:
            def run() -> End:
                if one.name is not None:
                    assign(m, one.name.name, Unknown())
                return m.perform(m, statements_of(one.body))

            return run

        arms = [lambda: tried, *(handler(one) for one in node.handlers)]
        end = m.part(f"try {id(node)} {unit.path} {mark}", arms)
    if node.finalbody is not None:
        before = len(m.trail)
        last = m.perform(m, statements_of(node.finalbody.body))
        also(before)
        end = last or end
    return end
