"""What the model says of a sample depends on the other samples of its batch.

Sees: a copy of the model, in eval mode, is called twice on one batch, once with half of the samples replaced; outputs
of the other half change by more than 1 % of the largest (rounding changes less; the limit is a guess). It is asked
once for each of two models, when batches are known to be samples in changing company. Attention over the batch and
tables of similarities between samples are left alone, and so is BatchNorm without running statistics.

Why it matters: a prediction changes with whatever else is in the batch, and with the batch's size. Figures of
validation are not those of single samples in use, and gradients go to the wrong samples.

Usual causes: mean, maximum or normalisation over dimension 0 instead of the features; ``view`` where ``permute`` is
meant; a recurrent or attention layer that wants time first (``batch_first=False``) and gets the batch first; softmax
over dimension 0.

Fix: reduce over the feature dimensions; bring the dimensions into order with ``permute`` or ``transpose``; say
``batch_first=True``; use BatchNorm, which has statistics of its own in eval mode, or LayerNorm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Called
from trueloop.doctor.findings import Finding
from trueloop.doctor.places import forward_of
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace


class BatchSamplesMix(Rule):
    """Asks ``neighbours`` at the first pass for which it has an answer."""

    name = "batch-samples-mix"
    code = 517
    level = "error"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._asked = False
        self._right: list[str] = []

    def called(self, fact: Called) -> Iterator[Finding]:
        if not fact.of.samples:
            return
        from trueloop.doctor.neighbours import mixing

        found = mixing(self.trace, fact)
        if found is None:
            return
        model = fact.of.model
        self._asked = True
        if not found.change:
            self._right.append(model.kind)
            return
        layer = found.module
        named = f": in {found.layer} ({type(layer).__name__})" if layer is not None else ""
        yield self.finding(
            f"what {model.kind} says of a sample depends on the other samples of its batch{named}",
            f"in eval mode, replacing half of a batch of {len(fact.of.samples)} changes the other half's outputs by "
            f"up to {found.change:.0%} of the largest",
            place=forward_of(layer) or forward_of(model.module) or fact.of.place,
            related=[(fact.of.place, "the model is called here")],
        )

    def passed(self) -> str | None:
        return f"outputs of {self._right[0]} do not depend on the batch's other samples" if self._right else None

    def unseen(self) -> str | None:
        if self._asked or not self.trace.models:
            return None
        return "no model could be asked whether samples of a batch mix (no shuffled batches in evaluation, or compiled)"


FIRES = {
    "normalised over the batch": """
        class Norm(nn.Module):
            def forward(self, h):
                return (h - h.mean(0)) / (h.std(0) + 1e-5)
        model = nn.Sequential(nn.Linear(6, 8), Norm(), nn.Linear(8, 2))
        x, y = torch.randn(96, 6), torch.randint(0, 2, (96,))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(4):
            model.train()
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                model(x[72:])
    """,
    "attention that wants time first": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=False)
                self.out = nn.Linear(8, 3)
            def forward(self, x):
                return self.out(self.layer(x).mean(1))
        x, y = torch.randn(90, 5, 8), torch.randint(0, 3, (90,))
        train = DataLoader(TensorDataset(x[:70], y[:70]), batch_size=14, shuffle=True)
        val = DataLoader(TensorDataset(x[70:], y[70:]), batch_size=20)
        model = Net()
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for a, b in train:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                for a, b in val:
                    model(a)
            model.train()
    """,
}

SILENT = {
    "noise in the forward pass": """
        class Vae(nn.Module):
            def __init__(self):
                super().__init__()
                self.enter, self.out = nn.Linear(6, 8), nn.Linear(4, 6)
            def forward(self, x):
                mean, log_std = self.enter(x).chunk(2, 1)
                return self.out(mean + torch.randn_like(mean) * log_std.exp())
        model = Vae()
        x = torch.randn(96, 6)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(4):
            model.train()
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                model(x[72:])
    """,
    "batch normalisation": """
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        x, y = torch.randn(96, 6), torch.randint(0, 2, (96,))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(4):
            model.train()
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                model(x[72:])
    """,
    "attention over the batch by design": """
        class Rows(nn.Module):
            def __init__(self):
                super().__init__()
                self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
                self.enter, self.out = nn.Linear(6, 8), nn.Linear(8, 2)
            def forward(self, x):
                h = self.enter(x)[None]
                return self.out((h + self.attend(h, h, h)[0])[0])
        model = Rows()
        x, y = torch.randn(96, 6), torch.randint(0, 2, (96,))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(4):
            model.train()
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                model(x[72:])
    """,
    "a recurrent net over one series": """
        rnn, out = nn.LSTM(3, 8), nn.Linear(8, 1)
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.out = nn.LSTM(3, 8), nn.Linear(8, 1)
            def forward(self, x):
                return self.out(self.rnn(x)[0])
        model = Net()
        series, target = torch.randn(40, 3), torch.randn(40, 1)
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(30):
            opt.zero_grad()
            F.mse_loss(model(series), target).backward()
            opt.step()
            if step % 10 == 9:
                with torch.no_grad():
                    model(series)
    """,
}
