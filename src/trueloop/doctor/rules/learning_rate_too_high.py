"""The learning rate is too high: the loss rose far above its start, and did not come down again.

Sees: for at least a tenth of the steps the loss is more than twice the first one, in the last quarter it is still no
better than at the start (or three in ten steps were so high, or the loss ran off to infinity), and an update changes
the weights by more than a tenth of their size (the median over layers and steps; a usual figure is 0.001), or one of
the first by more than their size; after such a one, two steps with so high a loss are enough, if the rate stays, and
a loss that lies still in the second half, a little below its start, is no better. The
limits are starting points of RULES.md; the loss is compared with its own beginning only. Short spikes that heal,
warm-ups that still rise, GANs, actors and critics, and losses below zero are left alone.

Why it matters: each update throws the weights beyond the place it aims at. What was learned is lost again, and units
may be pushed to where they never come back from.

Usual causes: a rate for SGD given to Adam; a rate from another batch size; no warm-up; a schedule that multiplies.

Fix: divide the rate by ten, and again until the loss falls from the first steps on; 1e-3 is a usual start for Adam.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.course import CourseRule, is_plain, middle, rate_rises
from trueloop.doctor.findings import Finding

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen

STEPS = 30
FAR = 2.0
SHARE = 0.1
LONG = 0.3  # with so many high losses it is no spike, even if it heals
LARGE = 0.1
THROWN = 1.0  # a single early update as large as the weights themselves: units are saturated, and no later one is large
LEAPS = 2  # so many high losses are enough then: dead units leave the output, and so the loss, at a constant
STILL, NOT_FAR = 0.97, 0.6  # of the third quarter, and of the start, which may lie above that constant (guesses)
KEEPS = 0.1  # a rate that fell further than that is another one now: what a few first steps broke is told by itself
RUNAWAY = 4  # steps before the loss became NaN or Inf
AWAY = 100.0
FIRST = 10  # steps whose updates tell of the rate as well: later the weights may have grown with it


class LearningRateTooHigh(CourseRule):
    """Reads the losses and the relative updates of an optimizer's steps."""

    name = "learning-rate-too-high"
    code = 402
    level = "warning"
    certainty = "measured"

    def judge(self, seen: OptimizerSeen) -> Iterator[Finding]:
        rows = seen.course.with_loss
        broken = next((i for i, row in enumerate(rows) if not math.isfinite(row.loss or 0.0)), None)
        rows = rows[:broken]
        losses = [row.loss for row in rows if row.loss is not None]
        if len(rows) < (STEPS if broken is None else RUNAWAY) or min(losses) < 0 or losses[0] <= 0:
            return
        if rate_rises(rows) or not is_plain(self.trace, seen):
            return
        start = losses[0]
        high = [row for row in rows if row.loss is not None and row.loss > FAR * start]
        last = middle(losses[-max(8, len(losses) // 4) :])
        update = max(middle([row.update for row in rows[:FIRST]]), middle([row.update for row in high] or [0.0]))
        thrown = max(row.update for row in rows[:FIRST])
        if broken is not None:
            ran = losses[-1] > AWAY * start and len(high) > len(rows) // 2
        else:
            stays = rows[-1].lr > KEEPS * max(row.lr for row in rows[:FIRST])
            leapt = thrown > THROWN and len(high) >= LEAPS and stays
            third = middle(losses[len(losses) // 2 : -max(8, len(losses) // 4)] or losses)
            dead = leapt and last > NOT_FAR * start and last > STILL * third
            ran = dead or ((len(high) > SHARE * len(rows) or leapt) and last > 0.9 * start)
            ran = ran or (len(high) > LONG * len(rows) and last > 0.3 * start)
        if not ran or not (update > LARGE or thrown > THROWN):
            return
        rate = max(row.lr for row in rows)
        end = f"ends at {last:.4g}" if broken is None else "is NaN or Inf after that"
        yield self.finding(
            f"the learning rate of {seen.kind} ({rate:g}) is too high: the loss began at {start:.4g}, went up to "
            f"{max(losses):.4g} and {end}",
            f"{len(high)} of {len(rows)} steps have a loss above {FAR:g} times the first one",
            f"an update changes the weights by {update:.2g} of their size (median; 0.001 is usual)"
            if update > LARGE
            else f"an early update changed the weights by {thrown:.3g} times their size (0.001 is usual)",
            place=seen.place or seen.last_step_place,
            related=[(seen.last_step_place, "the step")] if seen.place else [],
        )

    def passed(self) -> str | None:
        seen = [one for one in self.trace.optimizers if len(one.course.with_loss) >= STEPS]
        return "the loss did not run away from its start" if seen else None

    def unseen(self) -> str | None:
        if self.trace.optimizers and all(len(one.course.with_loss) < STEPS for one in self.trace.optimizers):
            return f"fewer than {STEPS} steps whose loss was read: too few to judge the rate"
        return None


FIRES = {
    "Adam at one": """
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1.0)
        x = torch.randn(256, 8)
        y = x[:, :1].sin()
        for _ in range(10):
            for index in torch.randperm(256).split(32):
                opt.zero_grad()
                ((model(x[index]) - y[index]) ** 2).mean().backward()
                opt.step()
    """,
    "thrown away by the first step": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.fc = nn.LSTM(3, 16, batch_first=True), nn.Linear(16, 2)
            def forward(self, x):
                return self.fc(self.lstm(x)[1][0][-1])
        net = Net()
        opt = torch.optim.RMSprop(net.parameters(), lr=1.0)
        x = torch.randn(200, 8, 3)
        y = (x[:, :, 0].sum(1) > 0).long()
        for _ in range(12):
            for index in torch.randperm(200).split(40):
                opt.zero_grad()
                F.cross_entropy(net(x[index]), y[index]).backward()
                opt.step()
    """,
    "thrown so far in the first steps that most units die": """
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
        opt = torch.optim.Adam(model.parameters(), lr=0.3)
        x = torch.rand(960, 20)
        y = torch.randint(0, 5, (960,))
        for _ in range(4):
            for index in torch.randperm(960).split(32):
                opt.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                opt.step()
    """,
    "thrown by the first step, and still since, below its start": """
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        with torch.no_grad():
            model[4].bias.copy_(torch.tensor([1.0, -0.3]))
        opt = torch.optim.Adam(model.parameters(), lr=0.3)
        x = torch.rand(960, 20)
        y = (x[:, 0] > 0.5).long()
        for _ in range(6):
            for index in torch.randperm(960).split(32):
                opt.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                opt.step()
    """,
    "plain SGD far beyond": """
        x = torch.randn(400, 20)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        loader = DataLoader(TensorDataset(x, y), batch_size=40, shuffle=True)
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(20, 32), nn.Linear(32, 3)
            def forward(self, x):
                return self.b(torch.tanh(self.a(x)))
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=30.0)
        for epoch in range(8):
            for a, b in loader:
                loss = F.cross_entropy(net(a), b)
                opt.zero_grad()
                loss.backward()
                opt.step()
    """,
}

SILENT = {
    "a rate that fits": """
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-2)
        x = torch.randn(256, 8)
        y = x[:, :1].sin()
        for _ in range(10):
            for index in torch.randperm(256).split(32):
                opt.zero_grad()
                F.mse_loss(model(x[index]), y[index]).backward()
                opt.step()
        model.eval()
        with torch.no_grad():
            print(F.mse_loss(model(torch.randn(64, 8)), torch.zeros(64, 1)))
    """,
    "a search for the right rate": """
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-4)
        schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 1.15)
        x = torch.randn(256, 8)
        for _ in range(70):
            opt.zero_grad()
            loss = F.mse_loss(model(x), x[:, :1])
            if loss > 20:
                break
            loss.backward()
            opt.step()
            schedule.step()
    """,
    "a spike that heals": """
        x = torch.randn(256, 8)
        y = x[:, :1]
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(80):
            opt.zero_grad()
            loss = F.mse_loss(model(x), y)
            (loss * 30 if step in (5, 6) else loss).backward()
            opt.step()
    """,
}
