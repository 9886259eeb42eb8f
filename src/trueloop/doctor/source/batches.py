"""How the number of a batch's samples can be written where something is done with the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.blocks import kind

if TYPE_CHECKING:
    from trueloop.doctor.source.events import Kept, LossCalled
    from trueloop.doctor.source.program import Program


def length_of_batch(program: Program, event: Kept | LossCalled, loss: LossCalled | None) -> str | None:
    """The length of the loss's targets, or of what the loop over the batches gives last; None if neither has a name.

    Args:
        program: the file.
        event: where it is wanted.
        loss: the batch's loss, if it is known.
    """
    unit = program.unit
    if loss is not None and loss.at.calls == event.at.calls:
        targets = given(loss.node, "target", 1)
        if kind(targets) in ("Name", "Subscript", "Attribute"):
            return f"len({unit.text(targets)})"
    inner = next(iter(blocks.loops(unit, event.node)), None)
    target: Any = getattr(inner, "target", None)
    while kind(target) == "Tuple":
        target = target.elements[-1].value
        if kind(target) == "Name":
            return f"len({target.value})"
    return None
