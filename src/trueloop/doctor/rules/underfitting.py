"""It underfits: the training loss is flat and still large, and the validation loss is the same.

Sees: over the second half of at least 60 steps the training loss falls by less than 4 %, it is still above half of
its first value, and the last validation loss is within a fifth of it. A note: the task may be no easier than that.

Why it matters: the model, its features or its rate do not let it learn more; more epochs will not help.

Usual causes: a model that is too small or too strongly regularised; a rate that is too low, or has decayed too early;
features that say little of the target.

Fix: try a larger model, a higher rate or less regularisation; try whether one batch can be overfitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.course import CourseRule, is_plain
from trueloop.doctor.facts import Ended, Evaluated
from trueloop.doctor.findings import Finding

if TYPE_CHECKING:
    from trueloop.doctor.facts import Stepped
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.trace import Trace

STEPS = 60
FLAT = 0.04
LARGE = 0.5
LIKE = 0.2


class Underfitting(CourseRule):
    """Reads the course of training at its end, and the last evaluation."""

    name = "underfitting"
    code = 602
    level = "note"
    certainty = "likely"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._held_out: float | None = None

    def evaluated(self, fact: Evaluated) -> None:
        if fact.of.evaluates and fact.of.data != "training" and fact.of.loss is not None:
            self._held_out = fact.of.loss

    def stepped(self, fact: Stepped) -> None:
        """Only the end tells."""

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if all(finding.level == "note" or finding.name == "not-learning" for finding in self.trace.findings):
            yield from super().ended(fact)

    def judge(self, seen: OptimizerSeen) -> Iterator[Finding]:
        losses = [row.loss for row in seen.course.rows if row.loss is not None]
        if len(losses) < STEPS or self._held_out is None or min(losses) <= 0 or not is_plain(self.trace, seen):
            return
        half = losses[len(losses) // 2 :]
        middle = len(half) // 2
        before, after = sum(half[:middle]) / middle, sum(half[middle:]) / (len(half) - middle)
        if not math.isfinite(after) or after < LARGE * losses[0] or before - after > FLAT * before:
            return
        if abs(self._held_out - after) > LIKE * after:
            return
        yield self.finding(
            f"it underfits: the training loss is {after:.4g} and falls no more; it began at {losses[0]:.4g}",
            f"in the second half it went from {before:.4g} to {after:.4g}; the last validation loss is "
            f"{self._held_out:.4g}",
            place=seen.last_step_place,
        )


FIRES = {
    "features that say little": """
        x, xv = torch.randn(300, 3), torch.randn(100, 3)
        y, yv = 0.5 * x[:, :1] + torch.randn(300, 1), 0.5 * xv[:, :1] + torch.randn(100, 1)
        model = nn.Linear(3, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(100):
            model.train()
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
            if epoch % 10 == 9:
                model.eval()
                with torch.no_grad():
                    F.mse_loss(model(xv), yv)
    """,
    "a linear model of half a circle": """
        x = torch.randn(400, 2)
        y = ((x + 0.4).norm(dim=1) > 1.3).long()
        train = DataLoader(TensorDataset(x[:300], y[:300]), batch_size=300)
        val = DataLoader(TensorDataset(x[300:], y[300:]), batch_size=50)
        net = nn.Linear(2, 2)
        opt = torch.optim.Adam(net.parameters(), lr=0.1)
        for epoch in range(120):
            for a, b in train:
                opt.zero_grad()
                F.cross_entropy(net(a), b).backward()
                opt.step()
            if epoch % 20 == 19:
                net.eval()
                with torch.no_grad():
                    for a, b in val:
                        F.cross_entropy(net(a), b)
                net.train()
    """,
}

SILENT = {
    "it fits": """
        x, xv = torch.randn(300, 3), torch.randn(100, 3)
        model = nn.Linear(3, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(100):
            model.train()
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
            if epoch % 10 == 9:
                model.eval()
                with torch.no_grad():
                    F.mse_loss(model(xv), xv[:, :1])
    """,
    "no validation": """
        x = torch.randn(300, 3)
        y = 0.5 * x[:, :1] + torch.randn(300, 1)
        model = nn.Linear(3, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(100):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}
