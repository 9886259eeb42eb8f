"""The loss is divided by the number of batches after backward has used it.

Sees: in a loop that adds up gradients over several batches, the loss is divided after ``backward``, and was not before;
or it is divided by the same number twice.

Why it matters: the gradients were made by the undivided loss. The step is as many times too large as there are batches
in a window, as if the learning rate were; the printed loss looks right.

Usual causes: the lines were exchanged; the division was added for the log.

Fix: divide first: ``(loss / k).backward()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import WHOLE
from trueloop.doctor.source.edits import ends, together, without
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.library import LOSSES
from trueloop.doctor.source.mending import divided, moved_before
from trueloop.doctor.source.windows import window_of

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class LossDividedAfterBackward(Rule):
    """Is read only: a run shows the sum of gradients, which accumulation-not-divided tells."""

    name = "loss-divided-after-backward"
    code = 116
    level = "warning"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """What is backpropagated is the loss function's own value, and the same value is divided later in the turn."""
    told: set[int] = set()
    for run in program.runs:
        events = run.events
        for number, backward in enumerate(events):
            if not isinstance(backward, read.Backward) or not isinstance(backward.loss, values.Tensor):
                continue
            if backward.loss.op not in (*LOSSES.values(), "div"):
                continue
            counts = [window_of(step, backward, run) for step in run.of(read.Stepped)]
            count = next((one for one in counts if one), "")
            for event in events[number + 1 :]:
                if not isinstance(event, read.Operated) or event.name != "Tensor.div" or not count:
                    continue
                late = (
                    backward.loss.op != "div" and event.args[0] is backward.loss and event.at.loops == backward.at.loops
                )
                if not late or id(event.node) in told or count not in event.at.unit.text(event.node):
                    continue
                told.add(id(event.node))
                finding = program.finding(
                    LossDividedAfterBackward,
                    f"the loss is divided by {count} after backward: the gradients are {count} times as large",
                    "backward runs on the loss as its function gives it, and the division comes later in the turn",
                    at=event,
                    related=[(backward, "backward, on the undivided loss")],
                )
                yield Checked(finding, _mended(program, event, backward, count))
            if count and backward.loss.op == "div" and id(backward.node) not in told and _is_twice(backward.loss):
                told.add(id(backward.node))
                finding = program.finding(
                    LossDividedAfterBackward,
                    f"the loss is divided by {count} twice: the gradients are {count} times too small",
                    f"what is backpropagated is `loss / {count}` of a loss that was divided by it already",
                    at=backward,
                    related=[(backward.loss, "the second division")],
                    help="divide once",
                )
                yield Checked(finding, _once(program, backward.loss.node))


def _once(program: Program, node: Any) -> Fix | None:
    """A division taken out; with its line, if that gives the loss another value."""
    unit, left = program.unit, getattr(node, "left", None)
    small = blocks.small(unit, node)
    is_line = small is not None and (node is small or getattr(small, "value", None) is node)
    if is_line and small is not None and (left is None or blocks.stored(unit, small) == {unit.text(left)}):
        return together("divide once", without(program, node))
    if left is None or blocks.kind(left) not in WHOLE:
        return None
    (line, column), (end, last) = ends(program, node)
    wide = len(node.lpar)  # its brackets hold one name then
    return together("divide once", Edit((line, column - wide), (end, last + wide), unit.text(left)))


def _is_twice(loss: values.Tensor) -> bool:
    """Whether a quotient is one of the same divisor again."""
    inner = loss.inputs[0]
    if not isinstance(inner, values.Tensor) or inner.op != "div" or len(inner.inputs) != 2 or len(loss.inputs) != 2:
        return False
    one, other = loss.inputs[1], inner.inputs[1]
    same = isinstance(one, values.Constant) and isinstance(other, values.Constant) and one.value == other.value
    return one is other or same


def _mended(program: Program, late: read.Operated, backward: read.Backward, count: str) -> Fix | None:
    """The division moved before backward if it gives the loss itself another value; else one more, in backward."""
    unit = program.unit
    small: Any = blocks.small(unit, late.node)
    loss = getattr(getattr(backward.node, "func", None), "value", None)
    if small is not None and loss is not None and blocks.stored(unit, small) == {unit.text(loss)}:
        return moved_before(program, late, backward, "divide the loss before backward")
    return together(f"divide the loss by {count} before backward", divided(program, backward, count))


READ_FIRES = {
    "divided twice": """
        import torch
        from torch import nn
        def main(k):
            net = nn.Linear(4, 3)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for i, (x, y) in enumerate(loader):
                loss = nn.functional.cross_entropy(net(x), y) / k
                (loss / k).backward()
                if (i + 1) % k == 0:
                    opt.step()
                    opt.zero_grad()
    """,
    "divided late": """
        import torch
        from torch import nn
        def main(k=4):
            net = nn.Linear(4, 3)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for i, (x, y) in enumerate(loader):
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                loss = loss / k
                if (i + 1) % k == 0:
                    opt.step()
                    opt.zero_grad()
        main()
    """,
    "divided for the log only": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        total, k = 0.0, 4
        for i, (x, y) in enumerate(loader):
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            total += (loss / k).item()
            if (i + 1) % k == 0:
                opt.step()
                opt.zero_grad()
    """,
}

READ_SILENT = {
    "divided first, and averaged for the log": """
        import torch
        from torch import nn
        def main(k=4):
            net = nn.Linear(4, 3)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            total = 0.0
            for i, (x, y) in enumerate(loader):
                loss = nn.functional.cross_entropy(net(x), y) / k
                loss.backward()
                total += (loss * k / len(loader)).item()
                if (i + 1) % k == 0:
                    opt.step()
                    opt.zero_grad()
        main()
    """,
}
