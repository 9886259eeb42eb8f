"""The best validation was earlier, and its weights are gone.

Sees: the validation loss at the end is clearly above its lowest, and no weights were taken or saved during the
training. In the text: the loop that trains keeps the best score, or a list whose least is asked for, and nothing of the
weights; the model is used afterwards.

Why it matters: the script goes on with a model that is worse than one it had.

Usual causes: no checkpoint of the best epoch; no early stopping.

Fix: at each new best validation keep ``copy.deepcopy(model.state_dict())`` (or save it), and load it after the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Evaluated, StateSaved, StateTaken
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.ritual import is_stepped
from trueloop.doctor.source.ways import Run, common_loop
from trueloop.doctor.written import says

if TYPE_CHECKING:
    from trueloop.doctor.seen import Round
    from trueloop.doctor.source.program import Program
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


KEEPS = ("state_dict", "save", "deepcopy", "checkpoint", "ckpt", "break", "swa", "ema")


def in_source(program: Program) -> Iterator[Checked]:
    """In the loop that trains, the best score is kept and nothing of the weights; the model is used afterwards."""
    for run in program.runs:
        found = _best(program, run) if run.complete else None
        if found is None:
            continue
        event, what = found
        loop = event.at.loops[0]
        if any(word in event.at.unit.tree.code_for_node(loop.node).lower() for word in KEEPS):
            continue
        if any(word in one.name for one in run.of(read.Remembered) for word in ("model", "net", "weight", "state")):
            continue  # what is kept, live or copied, is for another rule
        use = next((one for one in run.events[run.events.index(event) :] if _uses(run, one)), None)
        if use is None or any(_takes(one) and one.at.loops for one in run.events):
            continue
        finding = program.finding(
            LastWeightsKept,
            "the best epoch's score is kept, and its weights are not: the last ones are used",
            what,
            at=event,
            related=[(use, "used with the last weights")],
            certainty="likely",
        )
        yield Checked(finding)


def _best(program: Program, run: Run) -> tuple[read.Remembered | read.Kept, str] | None:
    """Where a score is compared with the best one so far, or put into a list of which the least is asked later."""
    steps = list(run.of(read.Stepped))
    kept: list[read.Remembered | read.Kept] = [*run.of(read.Remembered), *run.of(read.Kept)]
    for event in kept:
        if not any(common_loop(event.at, step.at) is not None for step in steps):
            continue
        if isinstance(event, read.Remembered) and event.at.branches and _is_score(event.value):
            compared = event.at.branches[-1].key
            if event.name in compared and ("<" in compared or ">" in compared):
                return event, f"`{event.name}` is a number, and no weights are copied or saved in the loop"
        if isinstance(event, read.Kept) and event.how == "append" and _is_score(event.value):
            node: Any = event.node
            name = event.at.unit.text(node.func.value)
            if f"min({name})" in program.unit.code and len(event.at.loops) < max(len(one.at.loops) for one in steps):
                return event, f"the least of `{name}` is asked for, and no weights are copied or saved in the loop"
    return None


def _is_score(value: values.Value) -> bool:
    """A number that was read from a loss or a metric."""
    if isinstance(value, values.Tensor):
        return value.op == "item"
    return isinstance(value, values.Unknown) and value.via in ("item", "call", "div", "sum")


def _takes(event: read.Event) -> bool:
    return isinstance(event, (read.Operated, read.Escaped)) and event.name.endswith(("state_dict", "save"))


def _uses(run: Run, event: read.Event) -> bool:
    """Whether the trained model is used, outside of all loops."""
    if isinstance(event, read.Called):
        return not event.at.loops and is_stepped(run, event.target)
    return isinstance(event, read.Operated) and event.name == "Module.state_dict" and not event.at.loops


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
    "another loss inside the model": """
        class Coded(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 1)
            def forward(self, x):
                return self.layer(x), F.mse_loss(x, x)
        x = torch.randn(80, 4)
        y = x.sum(1, keepdim=True)
        model = Coded()
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(8):
            for rows in torch.randperm(60).split(20):
                opt.zero_grad()
                F.mse_loss(model(x[rows])[0], y[rows]).backward()
                opt.step()
            with torch.no_grad():
                print(F.mse_loss(model(x[60:])[0], y[60:]).item())
    """,
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

READ_FIRES = {
    "a number is kept": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters())
        best_val, best_epoch = float("inf"), -1
        for epoch in range(40):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.mse_loss(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                val = nn.functional.mse_loss(net(xv), yv).item()
            if val < best_val:
                best_val, best_epoch = val, epoch
        torch.save(net.state_dict(), "last.pt")
    """,
    "the least of a list is told": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters())
        history = []
        for epoch in range(40):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.mse_loss(net(x), y).backward()
                opt.step()
            net.eval()
            with torch.no_grad():
                history.append(nn.functional.mse_loss(net(xv), yv).item())
            net.train()
        print(history.index(min(history)), min(history))
        net.eval()
        with torch.no_grad():
            print(nn.functional.mse_loss(net(xt), yt).item())
    """,
}

READ_SILENT = {
    "its weights are kept": """
        import copy
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters())
        best_val = float("inf")
        for epoch in range(40):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.mse_loss(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                val = nn.functional.mse_loss(net(xv), yv).item()
            if val < best_val:
                best_val, best = val, copy.deepcopy(net.state_dict())
        net.load_state_dict(best)
        torch.save(net.state_dict(), "best.pt")
    """,
    "by a function; and nothing is used later": """
        import torch
        from torch import nn
        from mine import remember
        def train(net, keep):
            opt = torch.optim.Adam(net.parameters())
            best_val = float("inf")
            for epoch in range(40):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.mse_loss(net(x), y).backward()
                    opt.step()
                with torch.no_grad():
                    val = nn.functional.mse_loss(net(xv), yv).item()
                if val < best_val:
                    best_val = val
                    if keep:
                        torch.save(net.state_dict(), "best.pt")
            print(best_val)
        def search(net):
            opt = torch.optim.Adam(net.parameters())
            best_val = float("inf")
            for epoch in range(40):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.mse_loss(net(x), y).backward()
                    opt.step()
                with torch.no_grad():
                    val = nn.functional.mse_loss(net(xv), yv).item()
                if val < best_val:
                    best_val = val
            return best_val
    """,
}
