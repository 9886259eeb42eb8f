"""Gradients explode: again and again one is a thousand times the usual, and nothing limits it.

Sees: at three steps or more the norm of all gradients is over 1000 times the median of the steps before, and over ten
times that of the first steps; or the norms of the last steps are over 10 000 times those of the first, with the loss
rising. Gradients are not clipped, and the usual update is not itself too large (then the rate is to blame). Tools
publish limits from 10 to 1e6, as ratios and as numbers; only the ratio to the run's own median is used here.

Why it matters: one such step undoes many others, or makes the weights non-finite.

Usual causes: heavy-tailed targets or features in a squared error; a long recurrence; a division by something near
zero; large initial weights in a deep net.

Fix: clip with ``torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)`` between ``backward`` and ``step``; better,
mend the scale: take the logarithm of heavy-tailed targets, or use a loss like ``SmoothL1Loss``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.course import CourseRule, is_plain, middle
from trueloop.doctor.facts import Clipped
from trueloop.doctor.findings import Finding

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.trace import Trace

STEPS = 40
BEFORE = 20  # steps that a median needs
RECENT = 100
SPIKE = 1e3
OVER_FIRST = 10.0
TIMES = 3
GROWTH = 1e4
LARGE = 0.1


class ExplodingGradients(CourseRule):
    """Reads the norms of gradients as the steps used them."""

    name = "exploding-gradients"
    code = 405
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._clips = False

    def clipped(self, fact: Clipped) -> None:
        self._clips = True

    def judge(self, seen: OptimizerSeen) -> Iterator[Finding]:
        rows = [row for row in seen.course.rows if math.isfinite(row.gradient)]
        if self._clips or len(rows) < STEPS or not is_plain(self.trace, seen):
            return
        if middle([row.update for row in rows]) > LARGE:
            return
        norms = [row.gradient for row in rows]
        first = middle(norms[:10])
        spikes = []
        for index in range(BEFORE, len(norms)):
            usual = middle(norms[max(0, index - RECENT) : index])
            if norms[index] > SPIKE * usual > 0 and norms[index] > OVER_FIRST * first:
                spikes.append(rows[index])
        losses = [row.loss for row in rows if row.loss is not None]
        if len(spikes) >= TIMES:
            yield self.finding(
                f"gradients explode: {len(spikes)} of {len(rows)} steps have one over {SPIKE:g} times the usual norm",
                f"the median norm is {middle(norms):.3g}, the largest {max(norms):.3g}",
                f"at the steps {', '.join(str(row.step + 1) for row in spikes[:6])}",
                "gradients are not clipped",
                place=seen.last_step_place,
            )
        elif middle(norms[-10:]) > GROWTH * first > 0 and losses and middle(losses[-10:]) > 2 * middle(losses[:10]):
            yield self.finding(
                f"gradients explode: their norm grew from {first:.3g} to {middle(norms[-10:]):.3g}",
                f"the loss grew from {middle(losses[:10]):.3g} to {middle(losses[-10:]):.3g} with them",
                "gradients are not clipped",
                place=seen.last_step_place,
            )


FIRES = {
    "heavy-tailed targets": """
        rng = np.random.default_rng(0)
        x = torch.tensor(rng.normal(size=(800, 4)), dtype=torch.float32)
        y = torch.tensor(rng.pareto(0.4, 800), dtype=torch.float32)
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for index in torch.randperm(800).split(4):
            opt.zero_grad()
            F.mse_loss(model(x[index]).squeeze(1), y[index]).backward()
            opt.step()
    """,
    "a few wild rows": """
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-4)
        for step in range(120):
            x = torch.randn(16, 4)
            y = x[:, :1].clone()
            if step % 20 == 19:
                y[0] = 1e6
            loss = (model(x) - y).square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "clipped": """
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters(), lr=1e-4)
        for step in range(120):
            x = torch.randn(16, 4)
            y = x[:, :1].clone()
            if step % 20 == 19:
                y[0] = 1e6
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
    """,
    "it converges and stumbles": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.3)
        x = torch.randn(64, 4)
        for step in range(150):
            opt.zero_grad()
            y = x[:, :1] + (0.1 if step in (100, 120, 140) else 0.0)
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}
