"""The loss is constant: over many different batches it has the same value.

Sees: from the first steps on, at least 20 losses in a row that are equal to a millionth though the inputs differ and
an optimizer steps. A loss that came down to its value (a hinge at zero) is left alone, and so are losses without data
or a loss function of torch's (no reward yet). Where the weights stand still and the loss depends on its inputs, each
batch has its own loss: that is weights-do-not-move.

Why it matters: the loss does not depend on the inputs or on the weights; nothing is learned.

Usual causes: a softmax or cross-entropy over one column; outputs that are rounded or replaced; weights that never
move; one input that is made anew but always the same.

Fix: print the model's output for two different batches; where they are equal, follow the input through ``forward``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardBegun, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

SAME = 20
EQUAL = 1e-6


@dataclass(eq=False)
class _Values:
    """The first losses of one ``backward``."""

    values: list[float] = field(default_factory=list)
    inputs: set[tuple[int, ...]] = field(default_factory=set)
    steps: int = 0
    """The run's steps when the first was seen."""
    of_data: bool = False
    done: bool = False


class LossIsConstant(Rule):
    """Compares the losses that are backpropagated with each other, from the first one on."""

    name = "loss-is-constant"
    code = 410
    level = "error"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._known: dict[Place | None, _Values] = {}
        self._losses = False
        self._moves = 0

    def loss_called(self, fact: LossCalled) -> None:
        self._losses = True

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding] | None:
        if not fact.values:
            return None
        known = self._known.setdefault(fact.place, _Values(steps=self.trace.step))
        if known.done:
            return None
        known.values.append(sum(fact.values))
        for one in fact.passes[-1:]:
            known.of_data = known.of_data or self._losses or one.loader is not None
            if len(known.inputs) < 4 and one.samples:
                known.inputs.add(one.samples)
        if len(known.values) < SAME:
            return None
        return self._judge(known, fact.place)

    def _judge(self, known: _Values, place: Place | None) -> Iterator[Finding]:
        if not _equal(known.values):
            known.done = True
            self._moves += 1
            return
        if not known.of_data or len(known.inputs) < 2 or self.trace.step - known.steps < SAME - 2:
            return
        known.done = True
        yield self.finding(
            f"the loss is {known.values[-1]:.6g} at each of {len(known.values)} steps, over different batches",
            f"the smallest is {min(known.values)!r}, the largest {max(known.values)!r}",
            f"an optimizer stepped {self.trace.step - known.steps} times meanwhile",
            place=place,
        )

    def passed(self) -> str | None:
        return "the loss changes from step to step" if self._moves else None


def _equal(values: list[float]) -> bool:
    low, high = min(values), max(values)
    return high - low <= EQUAL * max(abs(low), abs(high))


FIRES = {
    "the output is replaced": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(5, 3)
            def forward(self, x):
                logits = self.out(x)
                return logits - logits  # meant: minus its mean
        model = Net()
        opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
        loader = DataLoader(TensorDataset(torch.randn(160, 5), torch.randint(0, 3, (160,))), 16, shuffle=True)
        for epoch in range(4):
            for x, y in loader:
                loss = F.cross_entropy(model(x), y)
                opt.zero_grad()
                loss.backward()
                opt.step()
    """,
    "a margin that is never reached": """
        embed = nn.Linear(6, 8)
        opt = torch.optim.SGD(embed.parameters(), lr=0.1, weight_decay=1e-3)
        loader = DataLoader(TensorDataset(torch.randn(200, 6), 9 + torch.randn(200, 6)), batch_size=20, shuffle=True)
        for epoch in range(3):
            for a, b in loader:
                distance = (embed(a) - embed(b)).norm(dim=1)
                opt.zero_grad()
                loss = (0.05 - distance).clamp(min=0).square().mean()
                loss.backward()
                opt.step()
    """,
}

SILENT = {
    "a hinge that came to zero": """
        x = torch.randn(200, 4)
        x[:, 0] += 4 * x[:, 0].sign()
        y = x[:, 0].sign()
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(10):
            for index in torch.randperm(200).split(20):
                loss = F.relu(1 - y[index] * model(x[index]).squeeze(1)).mean()
                opt.zero_grad()
                loss.backward()
                opt.step()
    """,
    "no reward yet": """
        policy = nn.Linear(4, 2)
        opt = torch.optim.Adam(policy.parameters(), lr=1e-2)
        for episode in range(40):
            logs = [torch.log_softmax(policy(torch.randn(4)), 0)[0] for _ in range(3)]
            loss = -(torch.stack(logs) * (episode > 24)).sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}
