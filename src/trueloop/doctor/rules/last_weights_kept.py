"""The best validation was earlier, and its weights are gone.

Sees: the validation loss at the end is clearly above its lowest, and no weights were taken or saved during the
training.

Why it matters: the script goes on with a model that is worse than one it had.

Usual causes: no checkpoint of the best epoch; no early stopping.

Fix: at each new best validation keep ``copy.deepcopy(model.state_dict())`` (or save it), and load it after the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, Evaluated, StateSaved, StateTaken
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.written import says

if TYPE_CHECKING:
    from trueloop.doctor.seen import Round
    from trueloop.doctor.trace import Trace

ROUNDS = 4  # evaluations
WORSE = 1.1  # times the lowest: SageMaker's and training-doctor's limit for overfitting is also a tenth
BEFORE = 2  # evaluations between the best and the last
COPIES = ("deepcopy",)  # of the model itself, which is not heard


class LastWeightsKept(Rule):
    """Decides at the end."""

    name = "last-weights-kept"
    code = 604
    level = "note"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._losses: dict[tuple[int, int | None], list[tuple[float, Round]]] = {}
        self._taken: set[int] = set()  # the steps at which weights were taken or saved

    def state_taken(self, fact: StateTaken) -> None:
        self._taken.add(self.trace.step)

    def state_saved(self, fact: StateSaved) -> None:
        self._taken.add(self.trace.step)

    def evaluated(self, fact: Evaluated) -> None:
        of = fact.of
        if of.evaluates and of.data == "held-out" and (loss := of.loss) is not None and loss == loss:
            key = (of.model.number, None if of.loader is None else of.loader.number)
            self._losses.setdefault(key, []).append((loss, of))

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if fact.error is not None:
            return
        for losses in self._losses.values():
            figures = [loss for loss, _ in losses]
            best = min(range(len(figures)), key=figures.__getitem__)
            last, of = losses[-1]
            if len(figures) < ROUNDS or best > len(figures) - 1 - BEFORE or last <= WORSE * figures[best] or last <= 0:
                continue
            kept = any(losses[best][1].step <= step < of.step for step in self._taken)
            if kept or says(of.passes[0].place, COPIES, above=40, below=40):
                continue
            yield self.finding(
                f"the best validation of {of.model.kind} was number {best + 1} of {len(figures)}; its weights are gone",
                f"validation loss {figures[best]:.4g} after step {losses[best][1].step}, {last:.4g} at the end",
                place=of.passes[0].place,
            )
            return


FIRES = {
    "memorising": """
        x, y = torch.randn(60, 16), torch.randn(60, 1)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-2)
        for epoch in range(10):
            for rows in torch.randperm(30).split(5):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                print(F.mse_loss(model(x[30:]), y[30:]).item())
    """,
    "with loaders": """
        x, y = torch.randn(60, 16), torch.randint(0, 2, (60,))
        train = DataLoader(TensorDataset(x[:30], y[:30]), batch_size=5, shuffle=True)
        val = DataLoader(TensorDataset(x[30:], y[30:]), batch_size=10)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2))
        opt = torch.optim.Adam(model.parameters(), lr=1e-2)
        for epoch in range(10):
            for a, b in train:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                print(sum(F.cross_entropy(model(a), b).item() for a, b in val))
    """,
}

SILENT = {
    "the weights are taken": """
        import copy
        x, y = torch.randn(60, 16), torch.randn(60, 1)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-2)
        lowest = math.inf
        for epoch in range(10):
            for rows in torch.randperm(30).split(5):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                loss = F.mse_loss(model(x[30:]), y[30:]).item()
            if loss < lowest:
                lowest, kept = loss, copy.deepcopy(model.state_dict())
        model.load_state_dict(kept)
    """,
    "it goes on falling": """
        x = torch.randn(200, 4)
        y = x.sum(1, keepdim=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-2)
        for epoch in range(6):
            for rows in torch.randperm(150).split(15):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                print(F.mse_loss(model(x[150:]), y[150:]).item())
    """,
}
