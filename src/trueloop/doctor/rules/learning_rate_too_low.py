"""The learning rate is too low: the steps move the weights, but by next to nothing.

Sees: over at least 60 steps the weights change by less than 1e-5 of their size a step (the median over layers; a
usual figure is 1e-3) and none by more than 1e-4, though gradients are there; and the loss falls by less than 1 % or
than its noise. (Published limits lie between 1e-8 and 1e-5; at 1e-5 a hundred steps change a thousandth.) Layers with
a small rate beside others with a usual one, the end of a decay, and a warm-up that still rises are left alone.

Why it matters: the training costs time and changes nothing; the model is the one it was at the start.

Usual causes: a rate for fine-tuning used from scratch; a mistyped exponent; a schedule that divides at each step;
weights that are large beside the rate.

Fix: multiply the rate by ten until the loss falls; 1e-3 is a usual start for Adam, 0.1 to 0.01 for SGD.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.course import CourseRule, middle, noise, rate_rises
from trueloop.doctor.findings import Finding

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen

STEPS = 60
SMALL = 1e-5
MOST = 1e-4
ALIVE = 1e-4  # gradient / weights: with less, it is the gradient that is small, not the rate


class LearningRateTooLow(CourseRule):
    """Reads the relative updates of an optimizer's steps, and how far the loss came."""

    name = "learning-rate-too-low"
    code = 403
    level = "warning"
    certainty = "measured"

    def judge(self, seen: OptimizerSeen) -> Iterator[Finding]:
        rows = seen.course.with_loss
        losses = [row.loss for row in rows if row.loss is not None]
        if len(rows) < STEPS or not all(math.isfinite(loss) for loss in losses) or rate_rises(rows):
            return
        update, most = middle([row.update for row in rows]), max(row.most for row in rows)
        if not 0 < update < SMALL or most > MOST or middle([row.relative for row in rows]) < ALIVE:
            return
        quarter = len(losses) // 4
        before, after = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
        if before - after > max(0.01 * abs(before), 2 * noise(losses) * math.sqrt(2 / quarter)):
            return
        rate = max(row.lr for row in rows)
        yield self.finding(
            f"the learning rate of {seen.kind} ({rate:g}) is too low: in {seen.steps} steps the loss went from "
            f"{before:.5g} to {after:.5g}",
            f"a step changes the weights by {update:.2g} of their size (median over layers and steps; 0.001 is usual)",
            f"the gradients are there: their norm is {middle([row.relative for row in rows]):.2g} of the weights'",
            place=seen.place or seen.last_step_place,
            related=[(seen.last_step_place, "the step")] if seen.place else [],
        )

    def unseen(self) -> str | None:
        if self.trace.optimizers and all(len(one.course.with_loss) < STEPS for one in self.trace.optimizers):
            return f"fewer than {STEPS} steps whose loss was read: too few to call a rate too low"
        return None


FIRES = {
    "SGD at 1e-7": """
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        opt = torch.optim.SGD(model.parameters(), lr=1e-7)
        x = torch.randn(256, 8)
        y = x[:, :3].argmax(1)
        for _ in range(10):
            for index in torch.randperm(256).split(32):
                opt.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                opt.step()
    """,
    "Adam at 1e-8, a loss of one's own": """
        model = nn.Linear(8, 1)
        opt = torch.optim.AdamW(model.parameters(), lr=1e-8)
        x = torch.randn(256, 8)
        y = 3 * x[:, :1]
        step = 0
        while step < 80:
            loss = ((model(x) - y) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
    """,
}

SILENT = {
    "a small rate for one part": """
        body, head = nn.Linear(8, 32), nn.Linear(32, 1)
        model = nn.Sequential(body, nn.ReLU(), head)
        opt = torch.optim.Adam([{"params": body.parameters(), "lr": 1e-8}, {"params": head.parameters()}], lr=1e-3)
        x = torch.randn(256, 8)
        for _ in range(80):
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
    """,
    "a warm-up": """
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: step / 1e6)
        x = torch.randn(256, 8)
        for _ in range(80):
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
            schedule.step()
    """,
    "it has come to its end": """
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.2)
        x = torch.randn(256, 8)
        for _ in range(150):
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
    """,
}
