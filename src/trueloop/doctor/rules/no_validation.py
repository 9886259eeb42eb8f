"""Training goes over the same samples several times, and no held-out evaluation is made.

Sees: several epochs over the training data, and at the end of the script no pass over samples that are not trained on.
In the text: a script with a loop over epochs, one supervised loss, and no forward or word that speaks of an evaluation.

Why it matters: the training loss falls for as long as the network can memorise. Whether it has learnt anything that
holds for new samples, and when to stop, is not known.

Usual causes: a first version of a script; validation is done elsewhere.

Fix: keep some samples apart, and evaluate on them after each epoch, in eval mode and without gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Evaluated, Settled, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors, touches
from trueloop.doctor.source.ritual import is_stepped, learned_from, optimizers
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.findings import Place
    from trueloop.doctor.source.program import Program
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


JUDGES = ("val", "test", "eval", "held", "metric", "score", "accura", "generat", "sampl", "predict", "infer")
TRIALS = ("overfit", "toy", "demo", "bench", "profil", "smoke", "example", "reward", "policy", "env.", "contrastive")
"""Words of scripts that judge the model somewhere, or in which there is nothing to hold out."""


def in_source(program: Program) -> Iterator[Checked]:
    """A script trains one model for epochs, every forward is for training, and no word speaks of anything else."""
    run = program.runs[0] if program.runs else None
    text = "\n".join(line.partition("#")[0] for line in program.lines).lower()
    if run is None or not run.complete or any(word in text for word in (*JUDGES, *TRIALS)):
        return
    steppers = optimizers(run)
    if len(steppers) != 1 or not isinstance(steppers[0], values.Object) or not _has_epochs(run):
        return
    supervised = [event for event in run.of(read.LossCalled) if event.kind in SUPERVISED and not _is_made(event.target)]
    calls = [call for call in run.of(read.Called) if is_stepped(run, call.target)]
    if any(call.grad is False for call in run.of(read.Called)):
        return  # some model is looked at without gradients
    if not supervised or not calls or not all(any(True for _ in learned_from(run, call)) for call in calls):
        return
    if any(touches(event.values, calls[0].target) for event in run.of(read.Escaped)):
        return
    finding = program.finding(
        NoValidation,
        "the model is never evaluated on held-out samples",
        "the script trains for epochs, and every forward of the model is for training",
        at=calls[0],
        certainty="likely",
    )
    yield Checked(finding)


SUPERVISED = ("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits")


def _is_made(target: values.Value) -> bool:
    """Whether the targets are no labels: places in a batch, or ones and zeros, as in contrastive learning."""
    made = ("arange", "zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "eye")
    return any(isinstance(one, values.Tensor) and one.op in made for one in ancestors(target))


def _has_epochs(run: Run) -> bool:
    """Whether the batches are gone through in a loop that counts epochs."""
    for backward in run.of(read.Backward):
        for turn in backward.at.loops[:-1]:
            node: Any = turn.node
            target = getattr(getattr(node, "target", None), "value", "")
            if isinstance(target, str) and target.lower() in ("epoch", "ep", "e", "epoch_idx", "i_epoch"):
                return True
    return False


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

READ_FIRES = {
    "ten epochs on everything": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
        net = nn.Linear(13, 3)
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.Adam(net.parameters())
        for epoch in range(10):
            running = 0.0
            for inputs, labels in loader:
                optimizer.zero_grad()
                loss = criterion(net(inputs), labels)
                loss.backward()
                optimizer.step()
                running += loss.item()
            print(epoch, running)
    """,
    "in functions": """
        import torch
        import torch.nn.functional as F
        def train(net, loader, optimizer):
            for x, y in loader:
                optimizer.zero_grad()
                F.mse_loss(net(x), y).backward()
                optimizer.step()
        def main():
            net = torch.nn.Linear(4, 1)
            optimizer = torch.optim.Adam(net.parameters())
            for epoch in range(10):
                train(net, batches, optimizer)
        main()
    """,
}

READ_SILENT = {
    "it is evaluated": """
        import torch
        from torch import nn
        net = nn.Linear(13, 3)
        optimizer = torch.optim.Adam(net.parameters())
        for epoch in range(10):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                print(nn.functional.cross_entropy(net(a), b))
    """,
    "steps without epochs, and a game": """
        import torch
        from torch import nn
        net, other = nn.Linear(13, 13), nn.Linear(13, 1)
        optimizer = torch.optim.Adam(net.parameters())
        for step in range(1000):
            for x in batches:
                optimizer.zero_grad()
                nn.functional.mse_loss(net(x), x).backward()
                optimizer.step()
        more = torch.optim.Adam(other.parameters())
        for epoch in range(10):
            for x in batches:
                more.zero_grad()
                nn.functional.mse_loss(other(net(x)), x).backward()
                more.step()
    """,
    "handed on": """
        import torch
        from torch import nn
        from mine import report
        net = nn.Linear(13, 3)
        optimizer = torch.optim.Adam(net.parameters())
        for epoch in range(10):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            report(net)
    """,
}
