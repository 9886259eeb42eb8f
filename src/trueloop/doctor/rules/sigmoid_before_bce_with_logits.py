"""BCE-with-logits is given probabilities: it applies a sigmoid by itself, so there are two.

Sees: the input of ``binary_cross_entropy_with_logits`` was made by a sigmoid or a softmax (the graph says so; for a
sigmoid written by hand or compiled code, all values lie within 0 and 1 on eight calls in a row).

Why it matters: a sigmoid of a number from 0 to 1 lies between 0.5 and 0.73. The loss cannot fall below 0.31 for
positive and 0.69 for negative samples, and the model cannot say that it is sure.

Usual causes: the network ends in ``nn.Sigmoid`` from the days of ``BCELoss``; ``forward`` returns probabilities
because they are wanted for prediction.

Fix: give ``BCEWithLogitsLoss`` the raw scores, and take the sigmoid only where probabilities are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.activations import in_module
from trueloop.doctor.endings import ending
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends, readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import endings
from trueloop.doctor.source.taking_off import is_cut_at_a_half, is_read_otherwise, other_loss, taken_off

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKS = 10  # calls of the loss that are looked at on each line
SURE = 8  # calls in a row with all values in [0, 1], where the graph does not name a sigmoid; a guess
VALUES = 64  # as many values at least, over those calls; a guess
BY_HAND = ("Reciprocal", "Div", "Where")
"""How ``1 / (1 + exp(-x))`` ends; a linear layer's scores are never judged by their range."""


class SigmoidBeforeBceWithLogits(Rule):
    """Knows it by the operation that made the loss's input."""

    name = "sigmoid-before-bce-with-logits"
    code = 302
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._within: dict[Place | None, tuple[int, int]] = {}  # calls in a row with all in [0, 1], values in them
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if fact.kind != "binary_cross_entropy_with_logits" or self._looks[fact.place] >= LOOKS:
            return
        if fact.error is not None or not fact.input.requires_grad or not readable(fact.input):
            return
        self._looks[fact.place] += 1
        node = ending(fact.input)
        op = "" if node is None else node.op
        if node is not None and op == "Mul":  # torch makes 1 / x as a reciprocal times 1
            op = next((one.op for one in node.inputs if one is not None and one.op == "Reciprocal"), op)
        if node is not None and op in ("Sigmoid", "Softmax"):
            if op == "Softmax" and fact.input.shape[-1] == 1:
                return  # softmax-over-one-value's
            where = node.place or fact.place
            low, high = ends(fact.input) or (0.0, 0.0)
            self._looks[fact.place] = LOOKS
            yield self.finding(
                f"the input of BCE-with-logits has passed a {op.lower()} already, and the loss applies a sigmoid to it",
                f"{op}Backward0 made it{in_module(node)}; its values lie between {low:.3g} and {high:.3g}",
                place=where,
                related=[(fact.place, "the loss that applies a sigmoid by itself")] if where != fact.place else (),
            )
            return
        between = ends(fact.input)
        judged = op in BY_HAND or "Compiled" in op or "Checkpoint" in op
        if not judged or between is None or between[0] < 0 or between[1] > 1:
            self._within[fact.place] = (0, 0)
            self._right += 1
            return
        calls, values = self._within.get(fact.place, (0, 0))
        self._within[fact.place] = calls, values = calls + 1, values + fact.input.numel()
        if calls >= SURE and values >= VALUES:
            self._looks[fact.place] = LOOKS
            yield self.finding(
                "the input of BCE-with-logits seems to have passed a sigmoid already: it never leaves 0 to 1",
                f"all {values} values of {calls} calls in a row were within 0 and 1",
                place=fact.place,
                certainty="measured",
            )

    def passed(self) -> str | None:
        return "the input of BCE-with-logits was raw scores, no sigmoid" if self._right else None


def in_source(program: Program) -> Iterator[Checked]:
    """The last operation on the loss's input is a sigmoid or a softmax, by whichever way it came there."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            if event.kind != "binary_cross_entropy_with_logits":
                continue
            ends = [
                end
                for end in endings(event.input)
                if isinstance(end, values.Tensor) and end.op in ("sigmoid", "softmax")
            ]
            if len(ends) != len(endings(event.input)) or id(ends[0].node) in told:
                continue
            told.add(id(ends[0].node))
            finding = program.finding(
                SigmoidBeforeBceWithLogits,
                f"the input of binary_cross_entropy_with_logits has passed a {ends[0].op}, and the loss applies a "
                "sigmoid by itself",
                f"it is made by `{ends[0].at.unit.text(ends[0].node)}`",
                at=event,
                related=[(ends[0], f"the {ends[0].op}")],
            )
            yield Checked(finding, _mended(program, event, ends[0].op))


def _mended(program: Program, event: read.LossCalled, op: str) -> Fix | None:
    """The activation off; where its probabilities are used as such, the loss that wants them."""
    if not is_read_otherwise(program, event.input, event.kind) and not is_cut_at_a_half(program):
        return taken_off(program, event.input, f"give the loss the raw scores: take the {op} off")
    known = event.result.options if isinstance(event.result, values.Tensor) else {"pos_weight": event.result}
    if op != "sigmoid" or set(known) - {"weight", "reduction"}:
        return None
    title = "take the loss of probabilities, as the script uses them as such elsewhere"
    return other_loss(program, event, "BCELoss", "binary_cross_entropy", title)


FIRES = {
    "functional": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            prob = torch.sigmoid(model(x)).squeeze(1)
            loss = F.binary_cross_entropy_with_logits(prob, (x[:, 0] > 0).float())
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "sigmoid written by hand": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(4, 2)

            def forward(self, x):
                return 1 / (1 + torch.exp(-self.body(x)))

        model = Net()
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        criterion = nn.BCEWithLogitsLoss()
        for _ in range(12):
            x = torch.randn(16, 4)
            opt.zero_grad()
            criterion(model(x), (x[:, :2] > 0).float()).backward()
            opt.step()
    """,
}

SILENT = {
    "sigmoid only for the metric": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(12):
            x = torch.randn(16, 4)
            logits = model(x).squeeze(1)
            y = (x[:, 0] > 0).float()
            shown = ((torch.sigmoid(logits) > 0.5) == y.bool()).float().mean()
            opt.zero_grad()
            F.binary_cross_entropy_with_logits(logits, y).backward()
            opt.step()
    """,
    "probabilities into BCELoss": """
        model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(12):
            x = torch.randn(16, 4)
            opt.zero_grad()
            nn.BCELoss()(model(x), (x[:, :1] > 0).float()).backward()
            opt.step()
    """,
    "positive scores of a linear layer": """
        model = nn.Linear(4, 1)
        nn.init.zeros_(model.weight)
        nn.init.constant_(model.bias, 0.4)
        opt = torch.optim.SGD(model.parameters(), lr=1e-2)
        for _ in range(30):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.binary_cross_entropy_with_logits(model(x), (x[:, :1] > -0.8).float()).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "in the model": """
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
        loss_fn = nn.BCEWithLogitsLoss()
        for x, y in loader:
            loss_fn(net(x).squeeze(1), y).backward()
    """,
    "a function": """
        import torch
        from torch import nn
        def step(model, x, y):
            out = torch.sigmoid(model(x))
            return nn.functional.binary_cross_entropy_with_logits(out, y)
    """,
}

READ_SILENT = {
    "probabilities to BCELoss, scores to the other": """
        import torch
        from torch import nn
        a, b = nn.BCELoss(), nn.BCEWithLogitsLoss()
        net = nn.Linear(4, 1)
        for x, y in loader:
            out = net(x)
            (a(torch.sigmoid(out), y) + b(out, y)).backward()
    """,
}
