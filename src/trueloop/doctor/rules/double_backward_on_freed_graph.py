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
from trueloop.doctor.source.edits import put, together, without
from trueloop.doctor.source.events import Backward, Stepped
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors, weights
from trueloop.doctor.source.values import Tensor, Value
from trueloop.doctor.source.ways import Run

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
            yield Checked(finding, together("leave the second backward out", without(program, second.node)))
        yield from _through_one_part(program, run, told)


def _through_one_part(program: Program, run: Run, told: set[int]) -> Iterator[Checked]:
    """Two backwards of a turn, of different losses, through a layer's output that is the same for both."""
    backwards = [event for event in run.of(Backward) if isinstance(event.loss, Tensor)]
    for number, second in enumerate(backwards):
        own = {id(one) for one in ancestors(second.loss, graph=True)}
        for first in backwards[:number]:
            if first.at != second.at or first.kwargs or first.loss is second.loss or id(second.node) in told:
                continue
            shared = next((one for one in ancestors(first.loss, graph=True) if id(one) in own and _is_freed(one)), None)
            if shared is None or any(event.node is second.node for event in run.of(Backward) if event.kwargs):
                continue
            told.add(id(second.node))
            finding = program.finding(
                DoubleBackwardOnFreedGraph,
                "this backward goes through a part of the graph that the first one freed",
                f"both losses go through `{shared.at.unit.text(shared.node)}`",  # type: ignore[attr-defined]
                at=second,
                related=[(first, "the first backward"), (shared, "what both go through")],
                help="add the losses up and call backward once; or detach what the second needs no gradient of",
            )
            asked = program.unit.text(first.node).removesuffix("()")
            between = run.events[run.events.index(first) : run.events.index(second)]
            simple = asked.endswith(".backward") and not any(isinstance(event, Stepped) for event in between)
            edit = put(program, first.node, f"{asked}(retain_graph=True)") if simple else None
            yield Checked(finding, together("keep the graph for the second backward", edit))


def _is_freed(value: Value) -> bool:
    """Whether a value was made by a layer with weights: backward frees what that kept."""
    layer = value.layer if isinstance(value, Tensor) and value.graph else None
    weighed = layer is not None and layer.name.startswith(("Linear", "Conv", "LSTM", "GRU", "Embedding"))
    return weighed and isinstance(value, Tensor) and value.op == getattr(layer, "name", "")


READ_FIRES = {
    "two heads of one body": """
        import torch
        from torch import nn
        body, a, b = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1)
        opt = torch.optim.SGD([*body.parameters(), *a.parameters(), *b.parameters()], lr=0.1)
        for x, y, z in loader:
            opt.zero_grad()
            h = torch.relu(body(x))
            one, other = nn.functional.cross_entropy(a(h), y), nn.functional.mse_loss(b(h), z)
            one.backward()
            other.backward()
            opt.step()
    """,
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
    "what the first made, without its graph": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for real in loader:
            fake = G(torch.randn(8, 2))
            od.zero_grad()
            (D(fake.detach()).mean() - D(real).mean()).backward()
            od.step()
            og.zero_grad()
            (-D(fake).mean()).backward()
            og.step()
    """,
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
