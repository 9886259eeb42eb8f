"""The training data are shuffled into the same order in every epoch.

Sees: a permutation that a sampler (or the script itself, by ``torch.randperm`` or ``numpy.random.permutation``) draws
for an epoch of training is one that it drew before for the same optimizer, and steps were taken in between. With 12
samples or more that is no chance. Where the script draws it, the first batch must be the same one, too.

Why it matters: the batches are the same ones in every epoch. Shuffling is there to make them new ones; gradients
repeat their errors in one rhythm, and the random numbers of augmentation and dropout mostly repeat as well.

Usual causes: ``torch.manual_seed(…)`` inside the epoch loop, or in a function that it calls; a loader or a generator
that is made anew, with the same seed, in each epoch.

Fix: set the seed once, at the head of the script; or make it differ by epoch (``seed + epoch``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import OptimizerMade, Permuted, Seeded, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import before, moved, together, without
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LENGTH = 12  # of a permutation: one in 479 million is drawn twice by chance
KEPT = 2000  # permutations


class SameOrderEveryEpoch(Rule):
    """Knows it by the permutation itself, so augmentation does not hide it."""

    name = "same-order-every-epoch"
    code = 519
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._drawn: Permuted | None = None
        self._drawn_step = 0
        self._used: dict[tuple[int, int], tuple[int, int | None]] = {}  # (order, length) -> its step, its first batch
        self._seeded: Place | None = None
        self._seeds = 0
        self._told = False

    def optimizer_made(self, fact: OptimizerMade) -> None:
        """Another run, fold or stage may begin with the same seed."""
        self._used.clear()
        self._drawn = None

    def seeded(self, fact: Seeded) -> None:
        if self.trace.step:
            self._seeded, self._seeds = fact.place, self._seeds + 1

    def permuted(self, fact: Permuted) -> None:
        if fact.length >= LENGTH and not self._told:
            self._drawn, self._drawn_step = fact, self.trace.step

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        drawn = self._drawn
        if drawn is None:
            return
        self._drawn = None
        batch = next((hash(one.samples) for one in fact.passes if one.samples), None)
        key = (drawn.order, drawn.length)
        before = self._used.get(key)
        if len(self._used) < KEPT:
            self._used[key] = self._drawn_step, batch
        if before is None or before[0] == self._drawn_step:
            return
        same_batch = batch is not None and batch == before[1]
        if drawn.by_sampler or same_batch:
            self._told = True
            again = f"; torch.manual_seed was called {self._seeds} times since training began" if self._seeds else ""
            yield self.finding(
                f"the {drawn.length:,} training samples come in the same shuffled order again",
                f"the order drawn before step {self._drawn_step + 1} is the one of step {before[0] + 1}{again}",
                place=drawn.place,
                related=[(self._seeded, "the seed is set anew here")],
            )

    def passed(self) -> str | None:
        return (
            f"{len(self._used)} epochs began with different orders" if len(self._used) > 1 and not self._told else None
        )


def in_source(program: Program) -> Iterator[Checked]:
    """In each turn of a loop around the training, torch's random numbers begin anew from one seed."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Operated):
            if event.name not in ("torch.manual_seed", "Generator.manual_seed", "torch.random.manual_seed"):
                continue
            given = event.args[-1] if event.args else None
            turn = event.at.loops
            if not turn or event.at.branches or id(event.node) in told or not isinstance(given, values.Constant):
                continue
            if event.name.startswith("Generator") and not _is_fresh(event) and len(event.args) < 2:
                continue
            step = next(
                (one for one in run.of(read.Stepped) if one.at.loops[: len(turn)] == turn != one.at.loops), None
            )
            if step is None or not _draws(run, turn, event) or _begins_anew(step, turn):
                continue
            told.add(id(event.node))
            finding = program.finding(
                SameOrderEveryEpoch,
                "the seed is set anew in every epoch: each one shuffles as the one before",
                f"`{event.at.unit.text(event.node)}` runs in every turn of the loop around the training, with one seed",
                at=event,
                related=[(step, "trained on in the same turn")],
                help="set the seed once, above the loop over the epochs",
            )
            yield Checked(finding, _mended(program, event))


def _mended(program: Program, event: read.Operated) -> Fix | None:
    """Set once, above the loop."""
    unit, loop = program.unit, event.at.loops[-1].node
    node: Any = event.node
    title = "set the seed once, above the loop"
    if event.at.calls and "seed" in getattr(getattr(blocks.function(unit, node), "name", None), "value", ""):
        node = event.at.calls[-1]  # `set_seed(0)`
    small = blocks.small(unit, node)
    if small is None:
        return None
    if loop in blocks.loops(unit, node):
        statement = blocks.statement(unit, node)
        return None if statement is None else together(title, moved(program, statement, loop, behind=False))
    args = [one.value for one in getattr(node, "args", ())]
    if blocks.kind(small) != "Expr" or event.name.startswith("Generator") or len(args) != 1:
        return None
    seed = event.args[-1].value if isinstance(event.args[-1], values.Constant) else 0
    line = f"{unit.text(node.func)}({seed!r})"
    return together(title, without(program, node), before(program, loop, line))


def _begins_anew(step: read.Stepped, turn: tuple[values.Turn, ...]) -> bool:
    """Whether the optimizer is made in the turn: then each turn is a training of its own, and may repeat on purpose."""
    optimizer = step.target
    return not isinstance(optimizer, values.Object) or optimizer.at.loops[: len(turn)] == turn


def _is_fresh(event: read.Operated) -> bool:
    of = event.args[0]
    return isinstance(of, values.Object) and of.at.loops == event.at.loops


def _draws(run: Run, turn: tuple[values.Turn, ...], event: read.Operated) -> bool:
    """Whether an order is drawn after it in the same turn: a permutation, or a loader that shuffles is gone through."""
    after = run.events[next(n for n, one in enumerate(run.events) if one is event) :]
    for one in (one for one in after if isinstance(one, read.Operated)):
        if one.name == "torch.randperm" and one.at.loops[: len(turn)] == turn and event.name != "Generator.manual_seed":
            return True
    for backward in (one for one in after if isinstance(one, read.Backward)):
        if backward.at.loops[: len(turn)] != turn:
            continue
        for value in ancestors(backward.loss):
            loader = value.inputs[0] if isinstance(value, values.Tensor) and value.op == "fetched" else None
            if not isinstance(loader, values.Object) or values.constant(loader.option("shuffle", 2)) is not True:
                continue
            generator = loader.option("generator")
            own = event.name == "Generator.manual_seed"
            if (generator is None and not own) or (own and generator is event.args[0]):
                return True
    return False


FIRES = {
    "seeded in each epoch": """
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        loader = DataLoader(data, batch_size=10, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            torch.manual_seed(42)
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x + 0.1 * torch.rand(1)), y).backward()
                opt.step()
    """,
    "the loader is made anew with its generator": """
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            g = torch.Generator().manual_seed(0)
            for x, y in DataLoader(data, batch_size=10, shuffle=True, generator=g):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "without a loader": """
        x, y = torch.randn(40, 4), torch.randn(40, 1)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        def run_epoch():
            torch.manual_seed(1)
            for rows in torch.randperm(len(x)).split(10):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
        for epoch in range(3):
            run_epoch()
    """,
}

SILENT = {
    "one seed for each run": """
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        loader = DataLoader(data, batch_size=10, shuffle=True)
        for lr in (0.1, 0.01):
            torch.manual_seed(0)
            model = nn.Linear(4, 1)
            opt = torch.optim.SGD(model.parameters(), lr=lr)
            for epoch in range(2):
                for x, y in loader:
                    opt.zero_grad()
                    F.mse_loss(model(x), y).backward()
                    opt.step()
    """,
    "only the evaluation is seeded": """
        x, y = torch.randn(60, 4), torch.randn(60, 1)
        loader = DataLoader(TensorDataset(x[:40], y[:40]), batch_size=10, shuffle=True)
        val_loader = DataLoader(TensorDataset(x[40:], y[40:]), batch_size=10, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            state = torch.get_rng_state()
            torch.manual_seed(7)
            with torch.no_grad():
                for a, b in val_loader:
                    F.mse_loss(model(a), b)
            torch.set_rng_state(state)
    """,
}

READ_FIRES = {
    "in a function that trains one epoch": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        def one_epoch(loader, seed=0):
            torch.manual_seed(seed)
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
        loader = DataLoader(data, shuffle=True)
        for epoch in range(5):
            one_epoch(loader)
    """,
}

READ_SILENT = {
    "another seed for each epoch, or for each run": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        def run(seed):
            torch.manual_seed(0)
            net = nn.Linear(4, 3)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            loader = DataLoader(data, shuffle=True)
            for epoch in range(5):
                torch.manual_seed(seed + epoch)
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    opt.step()
        for rate in (0.1, 0.01):
            run(3)
    """,
}
