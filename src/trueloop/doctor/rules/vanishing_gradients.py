"""Gradients vanish on their way back: the first layers get next to none and do not learn.

Sees: over ten looks or more, the gradient of the first layers, a value (norm / square root of the count), is a
millionth of the largest layer's or less, and a step changes these layers by less than 1e-6 of their size.
(AutoTrainer asks for a ratio of 1e-3 and a norm below 1e-4; a millionth keeps off nets that learn slowly.) Layers
that are frozen, that get exact zeros (dead units, a residual branch that starts at zero), or that an adaptive
optimizer moves all the same are left alone.

Why it matters: only the last layers learn, on features that the first ones made at random.

Usual causes: many sigmoid or tanh layers; small initial weights in a deep net; activations at their ends.

Fix: use ReLU or GELU, normalisation (``nn.LayerNorm``, ``nn.BatchNorm1d``) or residual connections between the
layers, and an initialisation that fits them (``nn.init.kaiming_normal_``, ``nn.init.xavier_normal_``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.course import middle
from trueloop.doctor.facts import Ended, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.trace import Trace

LOOKS = 10
ENOUGH = 60
EVERY = 2  # close steps
SMALL = 1e-6
MOVES = 1e-6


class VanishingGradients(Rule):
    """Compares the gradients of an optimizer's matrices with each other, over many steps."""

    name = "vanishing-gradients"
    code = 404
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: dict[
            int, dict[tuple[int, str], list[tuple[float, float]]]
        ] = {}  # optimizer -> matrix -> gradient, update
        self._places: dict[int, Place | None] = {}
        self._judged = 0

    def stepped(self, fact: Stepped) -> Iterator[Finding] | None:
        vitals, seen = fact.vitals, fact.optimizer
        if vitals is None or self.trace.heard % EVERY or len(vitals.parameters) < 3:
            return None
        looks = self._looks.setdefault(seen.number, {})
        if fact.passes:
            self._places[seen.number] = fact.passes[-1].place
        many = 0
        numbers = zip(vitals.parameters, vitals.weights, vitals.gradients, vitals.updates, strict=True)
        for index, (parameter, weight, gradient, update) in enumerate(numbers):
            if parameter.dim() > 1 and gradient is not None and weight > 0:
                row = looks.setdefault((index, self.trace.name_of(parameter)), [])
                if len(row) < 2 * ENOUGH:
                    row.append((gradient / math.sqrt(parameter.numel()), update / weight))
                many = max(many, len(row))
        return self._judge(seen) if many == ENOUGH else None

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for seen in self.trace.optimizers:
            yield from self._judge(seen)

    def _judge(self, seen: OptimizerSeen) -> Iterator[Finding]:
        looks = {at: row for at, row in self._looks.get(seen.number, {}).items() if len(row) >= LOOKS}
        if len(looks) < 3:
            return
        self._judged += 1
        gradients = {at: middle([gradient for gradient, _ in row]) for at, row in looks.items()}
        moves = {at: middle([move for _, move in row]) for at, row in looks.items()}
        top = max(gradients, key=lambda at: gradients[at])
        weak = []
        for at in sorted(looks):  # from the first layer on
            if gradients[at] > SMALL * gradients[top] or moves[at] > MOVES:
                break
            weak.append(at)
        if not any(gradients[at] > 0 for at in weak) or not math.isfinite(gradients[top]):
            return
        self._looks.pop(seen.number)
        first, best, names = weak[0], top[1], [name for _, name in weak]
        yield self.finding(
            f"gradients vanish: {names[0]} gets {gradients[first]:.2g} a value where {best} gets {gradients[top]:.2g}",
            f"{len(weak)} of {len(looks)} layers get less than a millionth of the largest: {', '.join(names[:4])}"
            + (" …" if len(weak) > 4 else ""),
            f"a step changes {names[0]} by {moves[first]:.2g} of its size, {best} by {moves[top]:.2g}",
            place=self._places.get(seen.number) or seen.last_step_place,
        )

    def passed(self) -> str | None:
        return "the first layers' gradients were not lost on their way back" if self._judged else None


FIRES = {
    "deep sigmoid": """
        layers = [nn.Linear(8, 16), nn.Sigmoid()]
        for _ in range(12):
            layers += [nn.Linear(16, 16), nn.Sigmoid()]
        net = nn.Sequential(*layers, nn.Linear(16, 3))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(60):
            x = torch.randn(32, 8)
            opt.zero_grad()
            F.cross_entropy(net(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "small weights in a deep tanh net": """
        class Deep(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
                self.out = nn.Linear(16, 1)
                for layer in self.inner:
                    nn.init.normal_(layer.weight, std=0.02)
            def forward(self, x):
                for layer in self.inner:
                    x = torch.tanh(layer(x))
                return self.out(x)
        model = Deep()
        opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(60):
            x = torch.randn(32, 16)
            loss = ((model(x) - x[:, :1]) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "residual branches that start at zero": """
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.f, self.scale = nn.Linear(16, 16), nn.Parameter(torch.zeros(1))
            def forward(self, x):
                return x + self.scale * torch.tanh(self.f(x))
        model = nn.Sequential(*[Block() for _ in range(6)], nn.Linear(16, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        x = torch.randn(256, 16)
        for _ in range(8):
            for index in torch.randperm(256).split(32):
                opt.zero_grad()
                F.mse_loss(model(x[index]), x[index, :1]).backward()
                opt.step()
    """,
    "a plain net": """
        model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        x = torch.randn(256, 8)
        for _ in range(60):
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
    """,
}
