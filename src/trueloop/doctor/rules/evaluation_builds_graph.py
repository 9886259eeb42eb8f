"""Validation records a graph that nobody uses.

Sees: evaluation passes whose outputs need a gradient, and through which neither ``backward`` nor ``autograd.grad``
goes.

Why it matters: each of these passes keeps all its activations until its output dies, and takes the time to record
them: up to several times the memory of a pass without gradients. Results that are kept hold on to it all.

Usual causes: ``torch.no_grad()`` is missing around validation (``model.eval()`` does not switch gradients off).

Fix: put validation under ``with torch.no_grad():`` (or ``torch.inference_mode()``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Evaluated
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, results
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import indent, spelled, together, wrapped
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.modes import evaluation
from trueloop.doctor.source.ritual import is_trained, used_for_training
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.seen import Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

PASSES = 2  # one at the end of a script harms nobody: that is a note


class EvaluationBuildsGraph(Rule):
    """Knows it by the outputs of evaluation passes, once they are settled."""

    name = "evaluation-builds-graph"
    code = 203
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._with: dict[int, list[Pass]] = {}  # model -> the first evaluation passes with a graph
        self._told: set[int] = set()
        self._without = 0

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        of = fact.of
        if not of.evaluates or not (of.data == "held-out" or (of.loader is not None and not of.passes[0].training)):
            return
        graphs = [one for one in of.passes if one.needs_grad]
        self._without += len(of.passes) - len(graphs)
        kept = self._with.setdefault(of.model.number, [])
        kept.extend(graphs[:PASSES])
        if len(kept) >= PASSES and of.model.number not in self._told:
            yield self._finding(kept)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for number, kept in self._with.items():
            if kept and number not in self._told:
                yield self._finding(kept)

    def _finding(self, kept: list[Pass]) -> Finding:
        first = kept[0]
        self._told.add(first.model.number)
        return self.finding(
            f"the evaluation of {first.model.kind} records a graph that nobody uses",
            f"{len(kept)} evaluation {'pass' if len(kept) == 1 else 'passes'} the first after step {first.step}, "
            "gave outputs that need a gradient, and no backward went through them",
            place=first.place,
            level="warning" if len(kept) >= PASSES else "note",
        )

    def passed(self) -> str | None:
        return f"{self._without} evaluation passes were made without a graph" if self._without else None


def in_source(program: Program) -> Iterator[Checked]:
    """A model that the run trains is called in eval mode, with gradients on, and no backward follows from it."""
    for run in program.runs:
        if not run.complete or any(run.of(read.GradientsUsed)):
            continue
        told: set[int] = set()
        for call in run.of(read.Called):
            if call.training is not False or call.grad is not True or id(call.node) in told:
                continue
            if call.layers is not None and results.graph_of(call.result) is not True:
                continue
            if used_for_training(run, call.result) or not is_trained(run, call.target):
                continue
            told.add(id(call.node))
            finding = program.finding(
                EvaluationBuildsGraph,
                "the evaluation records a graph that nothing uses",
                "the model is in eval mode here, gradients are on, and no backward follows from what it gives",
                at=call,
                level=None if call.at.loops else "note",
                help="put `with torch.no_grad():` around the evaluation",
            )
            yield Checked(finding, _mended(program, run, call))


def _mended(program: Program, run: Run, call: read.Called) -> Fix | None:
    """``torch.no_grad()`` for the function, if it does nothing else than evaluate; else around the evaluation."""
    unit = program.unit
    same = [event for event in run.of(read.Called) if event.node is call.node]
    place = evaluation(program, run, call)
    if place is None or any(e.training is not False or used_for_training(run, e.result) for e in same):
        return None
    name, added = spelled(program, "torch.no_grad")
    inner: Any = blocks.function(unit, call.node)
    trained: list[object] = [e for e in run.events if isinstance(e, (read.Backward, read.Stepped, read.Zeroed))]
    trained += [e for e in run.of(read.Called) if e.training]
    plain = blocks.kind(inner) == "FunctionDef" and inner.asynchronous is None and inner.name.value != "forward"
    if plain and not any(blocks.holds(unit, inner, event) for event in trained):
        line = unit.span(inner).start.line
        decorator = Edit((line, 0), (line, 0), f"{indent(program, inner)}@{name}()\n")
        return together("evaluate under no_grad", decorator, added)
    return together("evaluate under no_grad", wrapped(program, place, place, f"with {name}():"), added)


FIRES = {
    "held-out rows in every epoch": """
        x, y = torch.randn(120, 8), torch.randn(120, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for rows in torch.randperm(80).split(10):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            print(F.mse_loss(model(x[80:]), y[80:]).item())
    """,
    "a validation loader": """
        train, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            model.train()
            for a, b in DataLoader(train, batch_size=10, shuffle=True):
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            model.eval()
            losses = [F.mse_loss(model(a), b) for a, b in DataLoader(val, batch_size=10)]
            print(sum(losses).item())
    """,
}

SILENT = {
    "gradients of the input": """
        x, y = torch.randn(120, 8), torch.randn(120, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for rows in torch.randperm(80).split(10):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            held_out = x[80:].clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(model(held_out).sum(), held_out)
    """,
    "actions with a graph": """
        policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
        memory = []
        for step in range(60):
            state = torch.randn(1, 4)
            memory.append((state, policy(state).argmax(1)))
            if step > 10 and step % 3 == 0:
                s, a = (torch.cat(part) for part in zip(*random.sample(memory, 8)))
                opt.zero_grad()
                F.cross_entropy(policy(s), a).backward()
                opt.step()
    """,
    "fakes for the discriminator": """
        G, D = nn.Linear(4, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for step in range(30):
            od.zero_grad()
            (D(G(torch.randn(8, 4)).detach()).mean() - D(torch.randn(8, 2)).mean()).backward()
            od.step()
            og.zero_grad()
            (-D(G(torch.randn(8, 4))).mean()).backward()
            og.step()
    """,
}

READ_FIRES = {
    "no no_grad": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            net.eval()
            for x, y in val_loader:
                print(nn.functional.cross_entropy(net(x), y).item())
    """,
    "a trainer's method, torch under another name": """
        from torch.nn import CrossEntropyLoss, Linear
        from torch.optim import SGD
        class Trainer:
            def __init__(self):
                self.net = Linear(4, 3)
                self.opt = SGD(self.net.parameters(), lr=0.1)
                self.loss = CrossEntropyLoss()
            def evaluate(self, loader):
                self.net.eval()
                return sum((self.net(x).argmax(1) == y).sum().item() for x, y in loader)
            def fit(self, a, b):
                for epoch in range(3):
                    self.net.train()
                    for x, y in a:
                        self.opt.zero_grad()
                        self.loss(self.net(x), y).backward()
                        self.opt.step()
                    print(self.evaluate(b))
    """,
    "a text of several lines": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            net.eval()

            # validation
            for x, y in val_loader:
                print(f'''loss
        of this batch {nn.functional.cross_entropy(net(x), y).item()}''',
                      epoch)
                if epoch == 2:
                    break  # enough
    """,
}

READ_SILENT = {
    "a decorator says it": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        @torch.inference_mode()
        def evaluate(model, loader):
            model.eval()
            return [model(x) for x, y in loader]
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            evaluate(net, val_loader)
    """,
    "saliency": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
        net.eval()
        x = torch.randn(2, 4, requires_grad=True)
        (g,) = torch.autograd.grad(net(x).sum(), x)
    """,
}
