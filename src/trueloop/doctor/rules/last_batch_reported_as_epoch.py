"""The loss of the last batch is reported as the epoch's.

Sees: after the loop over a loader's batches, a line that speaks of the epoch prints the loss of the batch that came
last.

Why it matters: one batch says little: the figure jumps from epoch to epoch, and learning curves and comparisons are
made of noise.

Usual causes: ``print(epoch, loss.item())`` after the inner loop.

Fix: sum ``loss.item() * len(x)`` over the batches and divide by the number of samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.batches import length_of_batch
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import after, before, put, together
from trueloop.doctor.source.events import Backward, LossCalled, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.naming import name_of
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.values import At, Object, Tensor, Unknown, Value, constant, options

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program

MEANT = re.compile(r"batch|last|step|iter|sample|final", re.I)
"""Words by which a line says that it is of one batch."""


class LastBatchReportedAsEpoch(Rule):
    """Is read only."""

    name = "last-batch-reported-as-epoch"
    code = 313
    level = "note"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """A loss that was made in the loop over a loader is printed after it, on a line that speaks of the epoch."""
    told: set[int] = set()
    for run in program.runs:
        learned = {id(event.loss) for event in run.of(Backward)}
        losses = {id(event.result): event for event in run.of(LossCalled) if id(event.result) in learned}
        for event in run.of(Operated):
            if event.name != "builtins.print" or not event.at.loops or id(event.node) in told:
                continue
            text = event.at.unit.text(event.node)
            if not re.search("epoch", text, re.I) or MEANT.search(text):
                continue
            for value in _shown(event.args):
                made = [losses.get(id(_number(one))) for one in options(value)]
                if not all(one is not None and _after(event.at, one.at) and _in_batches(one) for one in made):
                    continue
                told.add(id(event.node))
                finding = program.finding(
                    LastBatchReportedAsEpoch,
                    "the loss that is printed for the epoch is that of its last batch",
                    "it was made in the loop over the batches, and is printed after it",
                    at=event,
                    related=[(made[0], "the loss of each batch")],
                )
                yield Checked(finding, _mended(program, event, made))
                break


def _mended(program: Program, event: Operated, made: list[LossCalled | None]) -> Fix | None:
    """A mean over the samples is kept beside the loss, and printed in its place."""
    first = made[0]
    nodes = {id(one.node) for one in made if one is not None}
    if first is None or len(nodes) != 1 or first.at.calls != event.at.calls:
        return None
    unit, batches = program.unit, first.at.loops[-1].node
    name, batch = name_of(unit, first.node), length_of_batch(program, first, first)
    shown = [one for one in blocks.walk(event.node) if unit.text(one) in (f"{name}.item()", f"float({name})")]
    if not shown:
        shown = [one for one in blocks.walk(event.node) if kind(one) == "Name" and unit.text(one) == name]
    taken = {"loss_sum", "samples"} & blocks.names(unit.tree)
    if not name.isidentifier() or batch is None or len(shown) != 1 or taken or kind(batches) != "For":
        return None
    return together(
        "print the mean over the epoch's samples",
        before(program, batches, "loss_sum, samples = 0.0, 0"),
        after(program, first.node, f"loss_sum += {name}.item() * {batch}\nsamples += {batch}"),
        put(program, shown[0], "loss_sum / samples"),
    )


def _shown(args: tuple[Value, ...]) -> Iterator[Value]:
    for one in args:
        yield from one.attrs.get("shown", ()) if isinstance(one, Unknown) else (one,)


def _number(value: Value) -> Value:
    while isinstance(value, Tensor) and value.op in ("item", "detach", "cpu") and value.inputs:
        value = value.inputs[0]
    return value


def _after(printed: At, made: At) -> bool:
    """Whether a loss was made in a loop that had ended, in the same turn of the loops around it."""
    around = len(printed.loops)
    return len(made.loops) == around + 1 and made.loops[:around] == printed.loops


def _in_batches(event: LossCalled) -> bool:
    """Whether the loss is that of a batch of a loader, of which there is surely more than one sample."""
    loaders = [one.inputs[0] for one in ancestors(event.input) if isinstance(one, Tensor) and one.op == "fetched"]
    sizes = [constant(one.option("batch_size", 1)) if isinstance(one, Object) else None for one in loaders]
    return bool(sizes) and all(isinstance(size, int) and size > 1 for size in sizes)


READ_FIRES = {
    "after the inner loop": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(data, batch_size=32, shuffle=True)
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                opt.step()
            print(f"epoch {epoch}: loss {loss.item():.4f}")
    """,
}

READ_SILENT = {
    "in the loop, a mean, or said to be the last": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(data, batch_size=32, shuffle=True)
        for epoch in range(3):
            total = 0.0
            for x, y in loader:
                opt.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                opt.step()
                total += loss.item() * len(x)
                print(f"epoch {epoch}: loss {loss.item():.4f}")
            print(f"epoch {epoch}: loss {total / len(data):.4f}")
            print(f"epoch {epoch}: loss of the last batch {loss.item():.4f}")
    """,
}
