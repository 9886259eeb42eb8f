"""The loss is divided by the number of batches after backward has used it.

Sees: in a loop that adds up gradients over several batches, the loss is divided after ``backward``, and was not before.

Why it matters: the gradients were made by the undivided loss. The step is as many times too large as there are batches
in a window, as if the learning rate were; the printed loss looks right.

Usual causes: the lines were exchanged; the division was added for the log.

Fix: divide first: ``(loss / k).backward()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import LOSSES
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
            if backward.loss.op not in LOSSES.values():
                continue
            counts = [window_of(step, backward, run) for step in run.of(read.Stepped)]
            count = next((one for one in counts if one), "")
            for event in events[number + 1 :]:
                if not isinstance(event, read.Operated) or event.name != "Tensor.div" or not count:
                    continue
                late = event.args[0] is backward.loss and event.at.loops == backward.at.loops
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
                yield Checked(finding)


READ_FIRES = {
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
