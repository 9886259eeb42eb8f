"""Where a model's mode is to be switched: ahead of the loop that trains it, ahead of the loop that judges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import before, called
from trueloop.doctor.source.events import Backward, Called, Stepped, Zeroed
from trueloop.doctor.source.fixes import Edit
from trueloop.doctor.source.mending import is_plain
from trueloop.doctor.source.values import Class

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.ways import Run


def woken(program: Program, call: Called, rests: Sequence[Any]) -> Edit | None:
    """``model.train()`` ahead of the loop in which a model is trained.

    Args:
        program: the file.
        call: the forward that is trained.
        rests: where the model is put into eval mode: if that is in the same loop, each forward gets its own.
    """
    loops = blocks.loops(program.unit, call.node)
    whole = bool(loops) and not any(blocks.holds(program.unit, loops[0], event) for event in rests)
    name = named(program, call)
    return before(program, loops[0] if whole else call.node, f"{name}.train()") if name else None


def rested(program: Program, run: Run, call: Called) -> Edit | None:
    """``model.eval()`` ahead of the whole evaluation that a forward belongs to."""
    place, name = evaluation(program, run, call), named(program, call)
    if place is None or not name:
        return None
    return called(program, place, f"{name}.eval()") or before(program, place, f"{name}.eval()")


def evaluation(program: Program, run: Run, call: Called) -> cst.CSTNode | None:
    """The outermost loop or ``with`` around a forward in which nothing is trained; or its statement."""
    unit = program.unit
    place = blocks.statement(unit, call.node)
    busy = [event for event in run.events if isinstance(event, (Backward, Stepped, Zeroed))]
    root = named(program, call).partition(".")[0]
    while place is not None:
        outer: Any = blocks.holder(unit, place)
        if kind(outer) not in ("For", "While", "With") or any(blocks.holds(unit, outer, event) for event in busy):
            break
        if root in blocks.stored(unit, outer):  # one model after the other
            break
        place = outer
    return place


def named(program: Program, call: Called) -> str:
    """What a model is called where it is called; empty where that is more than a name."""
    func = getattr(call.node, "func", None)
    if func is None or call.at.unit is not program.unit:
        return ""
    name = program.unit.text(func).removesuffix(".forward")
    cls = getattr(call.target, "cls", None)
    own = isinstance(cls, Class) and cls.find("train") is not None  # which may do anything
    return name if is_plain(name) and not own else ""
