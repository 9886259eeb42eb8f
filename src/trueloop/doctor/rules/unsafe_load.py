"""A file is loaded in a way that runs the code in it.

Sees: ``torch.load(…, weights_only=False)``.

Why it matters: such a file is a pickle, and a pickle may hold any program: whoever wrote it runs what they like, with
the rights of whoever loads it.

Usual causes: a checkpoint that holds more than tensors would not load otherwise; a line copied from older code.

Fix: save a ``state_dict`` and load it with ``weights_only=True``; keep weights in safetensors files; allow single
classes by ``torch.serialization.add_safe_globals``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source.events import Operated
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.mending import argument, replaced
from trueloop.doctor.source.values import Constant

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class UnsafeLoad(Rule):
    """Is read only."""

    name = "unsafe-load"
    code = 801
    level = "warning"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """``torch.load`` is told to run what it finds."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(Operated):
            given = event.kwargs.get("weights_only")
            if event.name != "torch.load" or not isinstance(given, Constant) or given.value is not False:
                continue
            if id(event.node) in told:
                continue
            told.add(id(event.node))
            finding = program.finding(
                UnsafeLoad, "this load runs whatever code the file holds", "`weights_only=False`", at=event
            )
            value = argument(event.node, "weights_only")
            here = value is not None and event.at.unit is program.unit
            fix = replaced(program, value, "True", "load tensors only") if here and value is not None else None
            yield Checked(finding, fix)


READ_FIRES = {
    "weights_only=False": """
        import torch
        model.load_state_dict(torch.load("best.pt", weights_only=False))
    """,
}

READ_SILENT = {
    "tensors only": """
        import torch
        model.load_state_dict(torch.load("best.pt", weights_only=True))
        model.load_state_dict(torch.load("best.pt"))
    """,
}
