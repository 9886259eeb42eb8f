"""It overfits: the validation loss has climbed from its best for several evaluations while the training loss fell.

Sees: at the end of the run, at least four evaluations after the best one, the validation loss (the mean of the last
three) is 20 % above its best and has lost a quarter of what had been gained, by more than three times its noise, and
the training loss has fallen by a tenth since. Where the best weights were loaded back at the end, nothing is said.
(The tuning playbook calls a rise of the validation error "problematic overfitting"; rules of one or two evaluations
are too eager.)

Why it matters: the last weights are worse on new data than earlier ones were; more steps make them worse still.

Usual causes: a model that is large beside the data; too many epochs; no regularisation; labels with noise.

Fix: keep the weights of the best evaluation or stop there; add weight decay, dropout or augmentation, or more data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.course import noise
from trueloop.doctor.facts import Ended, Evaluated, Settled, StateLoaded
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.seen import ModelSeen
    from trueloop.doctor.trace import Trace

AFTER = 4  # evaluations since the best
RISE = 0.2
LOST = 0.25
FALLEN = 0.9
KEPT = 20_000

Series = list[tuple[int, float]]
"""Step and loss."""


class Overfitting(Rule):
    """Follows the losses of evaluations and of training passes."""

    name = "overfitting"
    code = 601
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._held_out: dict[tuple[int, int | None], Series] = {}
        self._training: dict[int, Series] = {}
        self._places: dict[tuple[int, int | None], Place | None] = {}
        self._models: dict[int, ModelSeen] = {}
        self._loaded = -1

    def settled(self, fact: Settled) -> None:
        one = fact.of
        if one.losses and one.phase == "training":
            series = self._training.setdefault(one.model.number, [])
            if len(series) < KEPT:
                series.append((one.step, sum(one.losses)))

    def evaluated(self, fact: Evaluated) -> None:
        of, loss = fact.of, fact.of.loss
        if of.evaluates and of.data != "training" and loss is not None and math.isfinite(loss):
            key = of.model.number, None if of.loader is None else of.loader.number
            self._held_out.setdefault(key, []).append((of.step, loss))
            self._places[key] = of.passes[0].place
            self._models[of.model.number] = of.model

    def state_loaded(self, fact: StateLoaded) -> None:
        self._loaded = self.trace.step

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for key, series in self._held_out.items():
            model = self._models[key[0]]
            if self._loaded <= model.last_step:
                yield from self.judge(series, self._training.get(key[0], []), self._places[key], model)

    def judge(self, series: Series, training: Series, place: Place | None, model: ModelSeen) -> Iterator[Finding]:
        """What is wrong with the losses of a model's evaluations, beside those of its training."""
        if len(series) < AFTER + 1 or not training:
            return
        losses = [loss for _, loss in series]
        best = min(range(len(losses)), key=losses.__getitem__)
        last = sum(losses[-3:]) / 3
        rise = last - losses[best]
        if len(losses) - 1 - best < AFTER or min(losses) <= 0 or rise < RISE * losses[best]:
            return
        if rise < LOST * (losses[0] - losses[best]) or rise < 3 * noise(losses):
            return
        at = series[best][0]
        around = [
            loss for step, loss in training if abs(step - at) <= max(4, (series[-1][0] - at) // len(series[best:]))
        ]
        final = [loss for _, loss in training[-max(4, len(training) // len(series)) :]]
        before, after = sum(around) / max(len(around), 1), sum(final) / len(final)
        if not around or after > FALLEN * before:
            return
        yield self.finding(
            f"it overfits: the validation loss of {model.kind} rose from {losses[best]:.4g} to {last:.4g} while the "
            f"training loss fell from {before:.4g} to {after:.4g}",
            f"the best of {len(losses)} evaluations is number {best + 1}, after step {at}; {len(losses) - 1 - best} "
            "came after it",
            place=place,
        )

    def passed(self) -> str | None:
        enough = any(len(series) > AFTER for series in self._held_out.values())
        return "the validation loss did not climb while the training loss fell" if enough else None

    def unseen(self) -> str | None:
        if any(len(series) > AFTER for series in self._held_out.values()):
            return None
        return f"fewer than {AFTER + 1} evaluations whose loss was read: overfitting cannot be told"


FIRES = {
    "a wide net on noise": """
        x, xv = torch.randn(50, 10), torch.randn(200, 10)
        y, yv = (x[:, 0] + torch.randn(50) > 0).long(), (xv[:, 0] + torch.randn(200) > 0).long()
        model = nn.Sequential(nn.Linear(10, 256), nn.ReLU(), nn.Linear(256, 2))
        opt = torch.optim.Adam(model.parameters(), lr=5e-3)
        for epoch in range(30):
            model.train()
            for index in torch.randperm(50).split(10):
                opt.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                print(F.cross_entropy(model(xv), yv))
    """,
    "a regression with loaders": """
        x = torch.randn(240, 12)
        y = x[:, :1] + 1.5 * torch.randn(240, 1)
        train = DataLoader(TensorDataset(x[:40], y[:40]), batch_size=10, shuffle=True)
        val = DataLoader(TensorDataset(x[40:], y[40:]), batch_size=50)
        net = nn.Sequential(nn.Linear(12, 200), nn.Tanh(), nn.Linear(200, 1))
        opt = torch.optim.Adam(net.parameters(), lr=1e-2)
        mse = nn.MSELoss()
        def run(loader, train):
            net.train(train)
            with torch.set_grad_enabled(train):
                for a, b in loader:
                    loss = mse(net(a), b)
                    if train:
                        opt.zero_grad()
                        loss.backward()
                        opt.step()
        for epoch in range(30):
            run(train, True)
            run(val, False)
    """,
}

SILENT = {
    "it levels off": """
        x, xv = torch.randn(400, 6), torch.randn(200, 6)
        y, yv = (x[:, 0] > 0).long(), (xv[:, 0] > 0).long()
        model = nn.Linear(6, 2)
        opt = torch.optim.Adam(model.parameters(), lr=1e-2)
        for epoch in range(15):
            for index in torch.randperm(400).split(50):
                opt.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                print(F.cross_entropy(model(xv), yv))
            model.train()
    """,
}
