"""Two backwards go through one graph without need.

Sees: one and the same loss is backpropagated twice in a row, and the first backward does not retain the graph.

Why it matters: the first backward frees what the second needs: torch stops with "Trying to backward through the graph a
second time". With ``retain_graph=True`` it would only add the same gradients once more.

Usual causes: a line that was copied; a loss that was to be computed anew before.

Fix: call ``backward`` once; add losses that share a graph, and call it on their sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source.events import Backward
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import weights
from trueloop.doctor.source.values import Tensor

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class DoubleBackwardOnFreedGraph(Rule):
    """Is read only."""

    name = "double-backward-on-freed-graph"
    code = 115
    level = "note"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """Two backwards in a row of the same tensor, on one way through the script."""
    told: set[int] = set()
    for run in program.runs:
        for first, second in pairwise(run.of(Backward)):
            loss = first.loss
            if loss is not second.loss or not isinstance(loss, Tensor) or not loss.graph or id(second.node) in told:
                continue
            if first.node is second.node or first.at != second.at or first.kwargs or not weights(loss)[0]:
                continue
            told.add(id(second.node))
            finding = program.finding(
                DoubleBackwardOnFreedGraph,
                "this loss was backpropagated already, and its graph is freed",
                f"`{first.at.unit.text(first.node)}` and then `{second.at.unit.text(second.node)}`",
                at=second,
                related=[(first, "the first backward")],
            )
            yield Checked(finding)


READ_FIRES = {
    "twice": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            loss.backward()
            opt.step()
    """,
}

READ_SILENT = {
    "two passes": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
    """,
    "either of them": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if half:
                loss.backward()
            else:
                loss.backward()
            opt.step()
    """,
}
