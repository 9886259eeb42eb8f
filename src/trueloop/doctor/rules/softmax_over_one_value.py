"""A softmax over a single value: the output is 1 whatever the network says.

Sees: the last thing before the loss is a softmax or log-softmax over a dimension of size 1, for a batch of several.

Why it matters: a softmax makes values sum to 1 over its dimension. With one value that is always 1 (its logarithm
0): the prediction is constant, every gradient is exactly 0, and nothing is learnt.

Usual causes: a binary classifier with one output and ``Softmax`` in the place of ``Sigmoid``; ``dim=1`` where a
dimension was added in front of the classes.

Fix: for one output use ``BCEWithLogitsLoss`` on the raw score (a sigmoid to show it), or give the layer one output
a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import ELEMENTWISE, SOFTMAXES, dimension, softmax_behind
from trueloop.doctor.facts import BackwardBegun, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import SHAPE_ONLY, Node
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.data import gives_one
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import endings
from trueloop.doctor.source.taking_off import exchanged

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKS = 6  # calls of the loss that are looked at on each line
SURE = 2  # calls: a last batch may hold one sample, and a contrastive loss then one candidate
GRAPHS = 3  # the first graphs are read for losses by hand


class SoftmaxOverOneValue(Rule):
    """Knows it by the softmax's dimension in the graph."""

    name = "softmax-over-one-value"
    code = 315
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._single: Counter[Place | None] = Counter()
        self._entropies: set[Place | None] = set()
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if fact.kind == "cross_entropy":
            self._entropies.add(fact.place)
        if not fact.input.requires_grad or self._looks[fact.place] >= LOOKS:
            return
        self._looks[fact.place] += 1
        made = softmax_behind(fact.input)
        if made is not None:
            yield from self._look(made[0], fact.place, fact.kind)

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if fact.number >= GRAPHS:
            return
        rest = [Node(root) for root in fact.graph.roots[:1] if root is not None]
        for node in rest:  # straight down from the loss; where two branches meet, the softmax may be attention
            below = [one for one in node.inputs if one is not None]
            if node.op in SOFTMAXES and node.place in self._entropies:
                return  # cross-entropy's own
            if node.op in SOFTMAXES:
                yield from self._look(node, fact.place, "the loss")
            elif len(below) == 1 and (node.op in ELEMENTWISE or node.op in SHAPE_ONLY) and len(rest) < 50:
                rest.append(below[0])

    def passed(self) -> str | None:
        return "softmaxes before the loss ran over several values" if self._right else None

    def _look(self, node: Node, place: Place | None, loss: str) -> Iterator[Finding]:
        dim, shape = dimension(node), node.shape
        if dim is None or shape is None:
            return
        values = 1
        for size in shape:
            values *= size
        if shape[dim] > 1 or values == 1:
            self._right += shape[dim] > 1
            return
        if dim == 0 and len(shape) > 1 and shape[-1] > 1:
            return  # over a batch of one: argmax-over-wrong-dimension's
        self._single[place] += 1
        if self._single[place] == SURE:
            name = "softmax" if node.op == "Softmax" else "log-softmax"
            yield self.finding(
                f"the {name} before {loss} runs over one value (dim {dim} of {shape}): its output is constant",
                f"{node.op}Backward0 over dim {dim}, of size 1: every output is {1 if node.op == 'Softmax' else 0}, "
                "and every gradient 0",
                place=node.place or place,
                related=[(place, "the loss")] if node.place and node.place != place else (),
            )


def in_source(program: Program) -> Iterator[Checked]:
    """The loss's input is a softmax of what a layer with one output gives."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            for end in endings(event.input):
                if not isinstance(end, values.Tensor) or end.op not in ("softmax", "log_softmax") or not end.inputs:
                    continue
                before = endings(end.inputs[0])
                last = all(gives_one(one) for one in before) and not _over_the_batch(end)
                if id(end.node) in told or not (last or _over_what_was_added(end)):
                    continue
                told.add(id(end.node))
                finding = program.finding(
                    SoftmaxOverOneValue,
                    f"the {end.op} is over one value: its output is always {'1' if end.op == 'softmax' else '0'}",
                    "the layer before it has one output"
                    if last
                    else "that dimension was added by the `unsqueeze` before it",
                    at=end,
                    related=[(event, "the loss of a constant")],
                )
                yield Checked(finding, _mended(program, event, end))


def _mended(program: Program, event: read.LossCalled, end: values.Tensor) -> Fix | None:
    """A sigmoid where the loss wants one probability for each sample."""
    if event.kind != "binary_cross_entropy" or end.op != "softmax":
        return None
    return exchanged(program, event.input, "sigmoid", "Sigmoid", "make one probability by a sigmoid", bare=True)


def _over_what_was_added(end: values.Tensor) -> bool:
    """``log_softmax(scores.unsqueeze(-1), dim=-1)``"""
    before = end.inputs[0]
    if not isinstance(before, values.Tensor) or before.op != "unsqueeze" or len(before.inputs) != 2:
        return False
    dim = end.layer.option("dim", 0) if end.layer is not None else end.options.get("dim") or (*end.inputs, None)[1]
    added = values.constant(before.inputs[1])
    return type(added) is int and added == values.constant(dim)


def _over_the_batch(end: values.Tensor) -> bool:
    dim = end.options.get("dim") or (end.inputs[1] if len(end.inputs) > 1 else None)
    if end.layer is not None:
        dim = end.layer.option("dim", 0)
    return values.constant(dim, 1) not in (1, -1)


FIRES = {
    "one output and BCELoss": """
        model = nn.Sequential(nn.Linear(4, 1), nn.Softmax(dim=1))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            nn.BCELoss()(model(x), (x[:, :1] > 0).float()).backward()
            opt.step()
    """,
    "squeezed, and a loss by hand": """
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            y = (x[:, 0] > 0).float()
            p = F.softmax(net(x), dim=-1).squeeze(-1)
            opt.zero_grad()
            ((p - y) ** 2).mean().backward()
            opt.step()
    """,
}

SILENT = {
    "attention over one step": """
        class Attend(nn.Module):
            def __init__(self):
                super().__init__()
                self.score, self.head = nn.Linear(4, 1), nn.Linear(4, 2)

            def forward(self, x):
                return self.head((torch.softmax(self.score(x), 1) * x).sum(1))

        model = Attend()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 1, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[:, 0, 0] > 0).long()).backward()
            opt.step()
    """,
    "a contrastive batch of one": """
        enc = nn.Linear(4, 3)
        opt = torch.optim.SGD(enc.parameters(), lr=0.1)
        for n in (8, 8, 1, 8, 8, 1):
            a, b = enc(torch.randn(n, 4)), enc(torch.randn(n, 4))
            opt.zero_grad()
            F.nll_loss(F.log_softmax(a @ b.t(), 1), torch.arange(n)).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "over a dimension that was just added": """
        import torch
        import torch.nn.functional as F
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(24, 10)
            def forward(self, x):
                scores = self.fc(x).unsqueeze(-1)
                return F.log_softmax(scores, dim=-1).squeeze(-1)
        net = Net()
        for x, y in loader:
            F.nll_loss(net(x), y).backward()
    """,
    "one output": """
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Softmax(dim=1))
        for x, y in loader:
            nn.BCELoss()(net(x), y).backward()
    """,
}

READ_SILENT = {
    "a dimension is added elsewhere": """
        import torch
        import torch.nn.functional as F
        from torch import nn
        net = nn.Linear(24, 10)
        for x, y in loader:
            F.nll_loss(F.log_softmax(net(x).unsqueeze(-1), dim=1), y).backward()
            F.nll_loss(F.log_softmax(net(x).unsqueeze(1), dim=-1).squeeze(1), y).backward()
    """,
    "two outputs": """
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.LogSoftmax(dim=1))
        for x, y in loader:
            nn.NLLLoss()(net(x), y).backward()
    """,
}
