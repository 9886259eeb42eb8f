"""Training goes over the same samples several times, and no held-out evaluation is made.

Sees: several epochs over the training data, and at the end of the script no pass over samples that are not trained
on.

Why it matters: the training loss falls for as long as the network can memorise. Whether it has learnt anything that
holds for new samples, and when to stop, is not known.

Usual causes: a first version of a script; validation is done elsewhere.

Fix: keep some samples apart, and evaluate on them after each epoch, in eval mode and without gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, Evaluated, Settled, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.findings import Place
    from trueloop.doctor.trace import Trace

STEPS = 30  # a guess: fewer are a trial
TIMES = 3  # that the same samples came; a guess


class NoValidation(Rule):
    """Decides at the end."""

    name = "no-validation"
    code = 603
    level = "note"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._held_out = 0
        self._met: dict[int, int] = {}  # a sample of the first step -> how often it was trained on
        self._times = 0
        self._place: Place | None = None
        self._first = True  # of several processes (of torchrun) the first may evaluate alone

    def evaluated(self, fact: Evaluated) -> None:
        self._held_out += fact.of.data != "training"

    def settled(self, fact: Settled) -> None:
        """A model that is never stepped on by itself (a copy, an average) may be validated too."""
        of = fact.of
        self._held_out += of.phase == "unused" and of.model.first_step is None and of.step > 0 and not of.needs_grad

    def stepped(self, fact: Stepped) -> None:
        if self._place is None:
            self._first = os.environ.get("RANK", "0") == "0"
        self._place = fact.place
        samples = {sample for one in fact.passes for sample in one.samples}
        if not self._met:
            self._met = dict.fromkeys(samples, 0)
        if samples and not samples.isdisjoint(self._met):
            for sample in samples & self._met.keys():
                self._met[sample] += 1
            self._times = max(self._met.values())

    def ended(self, fact: Ended) -> Iterator[Finding]:
        epochs = max([self._times, *(seen.iterations for seen in self.trace.loaders if seen.trains)])
        if fact.error is not None or self._held_out or self.trace.alternates or not self._first:
            return
        if self.trace.step >= STEPS and epochs >= TIMES:
            yield self.finding(
                "the model is never evaluated on held-out samples",
                f"{self.trace.step} steps were taken, over the same samples {epochs} times",
                place=self._place,
            )

    def passed(self) -> str | None:
        return "the model is evaluated on held-out samples" if self._held_out else None


FIRES = {
    "a loader": """
        loader = DataLoader(TensorDataset(torch.randn(80, 8), torch.randn(80, 1)), batch_size=8, shuffle=True)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for a, b in loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
    """,
    "a full batch": """
        x, y = torch.randn(40, 8), torch.randn(40, 1)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(50):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}

SILENT = {
    "one of several processes, which leaves it to the first": """
        import os
        os.environ["RANK"] = "1"
        try:
            x, y = torch.randn(60, 4), torch.randn(60, 1)
            model = nn.Linear(4, 1)
            opt = torch.optim.SGD(model.parameters(), lr=0.01)
            for epoch in range(5):
                for rows in torch.arange(60).split(6):
                    opt.zero_grad()
                    F.mse_loss(model(x[rows]), y[rows]).backward()
                    opt.step()
        finally:
            del os.environ["RANK"]
    """,
    "validated once at the end": """
        x, y = torch.randn(60, 8), torch.randn(60, 1)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(50):
            opt.zero_grad()
            F.mse_loss(model(x[:40]), y[:40]).backward()
            opt.step()
        with torch.no_grad():
            print(F.mse_loss(model(x[40:]), y[40:]).item())
    """,
    "new samples in every batch": """
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in range(50):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
    """,
}
