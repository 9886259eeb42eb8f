"""Cross-entropy is given probabilities: it applies a softmax by itself, so there are two.

Sees: the input of ``cross_entropy`` was made by a softmax or a sigmoid (the graph says so; where code is compiled,
rows that are probabilities on three calls in a row do). A log-softmax is only a note: doing it twice changes
nothing.

Why it matters: cross-entropy takes its input for raw scores. Probabilities lie within 1 of each other, so the loss
can never come near 0 (with 10 classes it stays above 1.46), gradients are small, and learning is slow or stops
early.

Usual causes: the model ends in ``nn.Softmax``; ``forward`` returns ``F.softmax(…)`` because probabilities are
wanted for prediction; a loop that was written for ``NLLLoss`` or for another library.

Fix: give ``cross_entropy`` the raw scores of the last layer, and take the softmax only where probabilities are
shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.activations import in_module
from trueloop.doctor.endings import SOFTMAXES, class_dimension, ending
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends, off_one, readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import endings
from trueloop.doctor.source.taking_off import is_read_otherwise, taken_off

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKS = 5  # calls of the loss that are looked at on each line: the graph is the same every time
SURE = 3  # calls with rows of probabilities, where the graph does not tell; in a row, by chance, they do not come


class SoftmaxBeforeCrossEntropy(Rule):
    """Knows it by the operation that made the loss's input."""

    name = "softmax-before-cross-entropy"
    code = 301
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._probabilities: Counter[Place | None] = Counter()
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if fact.kind != "cross_entropy" or self._looks[fact.place] >= LOOKS:
            return
        scores = fact.input
        if fact.error is not None or not scores.requires_grad or not readable(scores):
            return
        self._looks[fact.place] += 1
        dim = class_dimension(scores)
        if scores.shape[dim] < 2:
            return
        node = ending(scores)
        op = "" if node is None else node.op
        if op in SOFTMAXES and off_one(scores, dim, log=op == "LogSoftmax") > 0.05:
            return  # over another dimension: that is argmax-over-wrong-dimension's
        where = (node and node.place) or fact.place
        if op in ("Softmax", "Sigmoid", "LogSoftmax"):
            low, high = ends(scores) or (0.0, 0.0)
            rows = "" if op == "Sigmoid" else f"; rows sum to {1 + off_one(scores, dim, log=op == 'LogSoftmax'):.3f}"
            what = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log-softmax"}[op]
            twice = (
                "the same once more: no harm, only work"
                if op == "LogSoftmax"
                else "a softmax of it: the scores are squashed twice"
            )
            self._looks[fact.place] = LOOKS
            yield self.finding(
                f"the input of cross_entropy is already a {what}, and the loss takes {twice}",
                f"{op}Backward0 made it{in_module(node)}; values from {low:.3g} to {high:.3g}"
                + rows.replace("rows", "the exponentials of its rows" if op == "LogSoftmax" else "rows"),
                place=where,
                related=[(fact.place, "the loss that applies a softmax by itself")] if where != fact.place else (),
                level="note" if op == "LogSoftmax" else None,
            )
            return
        between = ends(scores)
        if between is None or between[0] < 0 or between[1] > 1.0001 or len(scores) < 2 or off_one(scores, dim) > 1e-4:
            self._probabilities[fact.place] = 0
            self._right += 1
            return
        self._probabilities[fact.place] += 1
        if self._probabilities[fact.place] == SURE:
            yield self.finding(
                "the input of cross_entropy is probabilities already, and the loss takes a softmax of them",
                f"on {SURE} calls in a row all values were from 0 to 1 and each row summed to 1.000",
                place=fact.place,
                certainty="measured",
            )

    def passed(self) -> str | None:
        return "the input of cross_entropy was raw scores, no softmax" if self._right else None


def in_source(program: Program) -> Iterator[Checked]:
    """The last operation on the loss's input is a softmax, a log-softmax or a sigmoid, wherever it was done."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            if event.kind != "cross_entropy":
                continue
            ends = endings(event.input)
            ops = {_op(end) for end in ends if isinstance(end, values.Tensor) and not _over_the_batch(end)}
            first = ends[0]
            if len(ops) != 1 or not ops <= set(_SAID) or not all(isinstance(end, values.Tensor) for end in ends):
                continue
            if not isinstance(first, values.Tensor) or id(first.node) in told:
                continue
            told.add(id(first.node))
            what = _SAID[_op(first)]
            twice = "the same once more: no harm, only work" if what == "log-softmax" else "a softmax of it once more"
            finding = program.finding(
                SoftmaxBeforeCrossEntropy,
                f"the input of cross_entropy is already a {what}, and the loss takes {twice}",
                f"it is made by `{first.at.unit.text(first.node)}`",
                at=event,
                related=[(first, f"the {what}")],
                level="note" if what == "log-softmax" else "error",
            )
            yield Checked(finding, _mended(program, event, what))


def _mended(program: Program, event: read.LossCalled, what: str) -> Fix | None:
    """The activation off; not where what it makes is used for more than this loss and a largest value."""
    if what == "log-softmax" or is_read_otherwise(program, event.input, event.kind):
        return None
    return taken_off(program, event.input, f"give the loss the raw scores: take the {what} off")


_SAID = {"softmax": "softmax", "log_softmax": "log-softmax", "sigmoid": "sigmoid"}


def _op(end: values.Tensor) -> str:
    """The operation; a softmax also where it is written out: ``z.exp() / z.exp().sum(1, keepdim=True)``."""
    if end.op != "div" or len(end.inputs) != 2:
        return end.op
    power, total = end.inputs
    if not isinstance(power, values.Tensor) or power.op != "exp" or not isinstance(total, values.Tensor):
        return end.op
    dim = total.options.get("dim") or (total.inputs[1] if len(total.inputs) > 1 else None)
    if total.op != "sum" or values.constant(dim) not in (1, -1):
        return end.op
    summed = total.inputs[0]
    alike = isinstance(summed, values.Tensor) and summed.op == "exp" and summed.inputs[0] is power.inputs[0]
    return "softmax" if summed is power or alike else end.op


def _over_the_batch(end: values.Tensor) -> bool:
    """``dim=0``: that is another rule's."""
    dim = end.options.get("dim") or (end.inputs[1] if len(end.inputs) > 1 else None)
    if end.layer is not None:
        dim = end.layer.option("dim", 0)
    return values.constant(dim) == 0 and dim is not None


FIRES = {
    "model ends in softmax": """
        model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=-1))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        criterion = nn.CrossEntropyLoss()
        for _ in range(6):
            x = torch.randn(16, 4)
            loss = criterion(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "softmax by hand over tokens": """
        emb, head = nn.Embedding(9, 8), nn.Linear(8, 9)
        opt = torch.optim.Adam([*emb.parameters(), *head.parameters()], lr=0.01)
        for _ in range(6):
            tokens = torch.randint(0, 9, (4, 7))
            scores = head(emb(tokens)).exp()
            p = scores / scores.sum(-1, keepdim=True)
            loss = F.cross_entropy(p.view(-1, 9), tokens.roll(1, 1).view(-1))
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "sigmoid before cross-entropy": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.cross_entropy(torch.sigmoid(model(x)), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
}

SILENT = {
    "soft targets": """
        model, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            with torch.no_grad():
                soft = torch.softmax(teacher(x) / 2, 1)
            opt.zero_grad()
            F.cross_entropy(model(x) / 2, soft).backward()
            opt.step()
    """,
    "attention inside, softmax for the metric": """
        class Pool(nn.Module):
            def __init__(self):
                super().__init__()
                self.score, self.head = nn.Linear(4, 1), nn.Linear(4, 3)

            def forward(self, x):
                return self.head((torch.softmax(self.score(x), 1) * x).sum(1))

        model = Pool()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 5, 4)
            y = x.mean(1)[:, :3].argmax(1)
            logits = model(x)
            shown = (torch.softmax(logits, 1).argmax(1) == y).float().mean()
            opt.zero_grad()
            F.cross_entropy(logits, y).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "of a model that is handed in, and nothing calls it": """
        import torch
        from torch import nn
        def finetune(net, loader):
            for x, y in loader:
                nn.functional.cross_entropy(net(x).softmax(1), y).backward()
    """,
    "written out, and the criterion is a closure": """
        import torch
        from torch import nn
        def probabilities(z):
            e = torch.exp(z)
            return e / e.sum(dim=1, keepdim=True)
        def make(weight):
            ce = nn.CrossEntropyLoss()
            def criterion(out, y):
                return weight * ce(out, y)
            return criterion
        net, criterion = nn.Linear(4, 3), make(0.5)
        for x, y in loader:
            criterion(probabilities(net(x)), y).backward()
    """,
    "the model ends in it": """
        import torch.nn as nn
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1))
        criterion = nn.CrossEntropyLoss()
        for x, y in loader:
            criterion(net(x), y).backward()
    """,
    "in forward, far from the loss": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 3)
                self.last = nn.Softmax(-1)
            def forward(self, x):
                out = self.fc(x)
                return self.last(out)
        def step(model, loss_fn, x, y):
            out = model(x)
            return loss_fn(out, y)
        net = Net()
        loss = step(net, nn.CrossEntropyLoss(), torch.randn(2, 4), torch.tensor([0, 1]))
        loss.backward()
    """,
    "by a variable": """
        import torch
        from torch import nn
        def train(model, loader):
            for x, y in loader:
                p = torch.softmax(model(x), -1)
                nn.functional.cross_entropy(p.view(-1, 10), y).backward()
    """,
}

READ_SILENT = {
    "weights that are normalised otherwise": """
        import torch
        from torch import nn
        net, gate = nn.Linear(4, 3), nn.Linear(4, 3)
        for x, y in loader:
            w = gate(x).exp()
            out = net(x) * w / w.sum(0)
            nn.functional.cross_entropy(out.exp() / w.sum(1, keepdim=True), y).backward()
    """,
    "for the metric only": """
        import torch
        from torch import nn
        def train(model, loader):
            for x, y in loader:
                out = model(x)
                shown = torch.softmax(out, -1).argmax(-1)
                nn.functional.cross_entropy(out, y).backward()
    """,
    "a target": """
        import torch
        from torch import nn
        def train(model, teacher, loader):
            for x in loader:
                nn.functional.cross_entropy(model(x), torch.softmax(teacher(x), -1)).backward()
    """,
    "attention": """
        import torch
        from torch import nn
        layer = nn.Linear(4, 3)
        def train(loader):
            for x, y in loader:
                w = torch.softmax(x @ x.T, -1)
                nn.functional.cross_entropy(layer(w @ x), y).backward()
    """,
}
