"""The optimizer holds parameters that the trained model no longer has, so its steps change nothing that is used.

Sees: backwards reach trainable parameters that no optimizer holds, and at the same time the stepping optimizer holds
parameters that no backward reaches and that no module that is called has: the model, or a layer of it, was made anew
after the optimizer. It is told after 3 such steps (a guess: one or two may be a test of the parts).

Why it matters: the steps go to weights that are not used any more. The new ones never move, and the loss stays where
it is, or only a part of the model learns.

Usual causes: the model is made anew (for each fold, each seed, each setting) and the optimizer is not; the last layer
is replaced after the optimizer was made; the model is copied, loaded or rebuilt after it.

Fix: make the optimizer after the model has its final form, and again whenever the model, or a layer of it, is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardBegun, Called, Paused, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import is_optimizer
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.provenance import ancestors, held, lost
from trueloop.doctor.source.ways import Run, common_loop
from trueloop.doctor.untended import Untended, named

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 3
IDLE = 10  # a model that was not called in so many steps is not the one that is trained
LOOKED_AT = 300  # close steps of one optimizer, after which it is left alone


class StaleOptimizer(Rule):
    """Knows it by identity: what the optimizer holds, what the models hold, what backwards reach."""

    name = "stale-optimizer"
    code = 106
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._untended = Untended(trace)
        self._place: Place | None = None
        self._reached: set[int] = set()  # ids of the leaves that the backwards since the last step reach
        self._strangers = False  # one of them is a parameter that no optimizer holds
        self._stale: dict[int, int] = {}  # optimizer -> steps in a row
        self._told: set[int] = set()
        self._called: dict[int, int] = {}  # model -> how many steps had been heard when it was called last
        self._steps = 0

    def backward_begun(self, fact: BackwardBegun) -> None:
        if self._steps < LOOKED_AT:
            self._untended.backward(fact)
            self._reached.update(fact.graph.parameters)
            self._place = fact.place

    def called(self, fact: Called) -> None:
        self._called[fact.of.model.number] = self.trace.heard

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if not self._reached:
            return
        reached, self._reached = self._reached, set()
        self._steps += 1
        number = fact.optimizer.number
        if number in self._told:
            return
        held = fact.optimizer.parameters()
        idle = [p for p in held if p.requires_grad and id(p) not in reached]
        strangers = [p for p in self._untended.parameters(STEPS) if id(p) in reached] if idle else []
        orphans = self._without_a_model(idle) if strangers else []
        self._stale[number] = self._stale.get(number, 0) + 1 if orphans else 0
        if self._stale[number] == STEPS:
            self._told.add(number)
            whole = len(orphans) == len(held)
            yield self.finding(
                f"{fact.optimizer.kind} holds "
                + ("the parameters" if whole else f"{len(orphans)} parameters")
                + " of a model, or a layer, that is not the one that is trained",
                f"of the {len(held)} parameters that it holds, {len(orphans)} belong to no model that is called and "
                "get no gradient",
                f"{len(strangers)} parameters get gradients and are in no optimizer: {named(self.trace, strangers)}",
                place=fact.optimizer.place or fact.place,
                related=[
                    (fact.place, "the step that does not reach the model"),
                    (self._place, "whose gradients these are"),
                ],
            )

    def paused(self, fact: Paused) -> None:
        self._reached.clear()
        self._stale.clear()

    def _without_a_model(self, parameters: list[Tensor]) -> list[Tensor]:
        used = [seen for seen in self.trace.models if self._called.get(seen.number, -IDLE) > self.trace.heard - IDLE]
        modules = [module for seen in used if (module := seen.module) is not None]
        owned = {id(parameter) for module in modules for parameter in module.parameters()}
        return [parameter for parameter in parameters if id(parameter) not in owned]

    def passed(self) -> str | None:
        return (
            f"over {self._steps} steps, optimizers held parameters of the models that trained" if self._steps else None
        )


def in_source(program: Program) -> Iterator[Checked]:
    """A trained layer is in no optimizer, and it was put where, or made as, one that the stepping optimizer holds."""
    for run in program.runs:
        made = [event.made for event in run.of(read.Made) if is_optimizer(event.made.kind)]
        if not run.complete or any(held(one.option("params", 0))[1] for one in made):
            continue
        if any(event.name.endswith(".add_param_group") for event in run.of(read.Operated)):
            continue
        everything: set[int] = set().union(*(held(one.option("params", 0))[0] for one in made))
        for optimizer in made:
            step = next((event for event in run.of(read.Stepped) if event.target is optimizer), None)
            found = _new(run, optimizer, step, everything) if step is not None else None
            if step is None or found is None:
                continue
            layer, how = found
            finding = program.finding(
                StaleOptimizer,
                f"{optimizer.name} holds parameters that the trained model no longer has",
                f"a {layer.name} {how}, and is in no optimizer",
                at=step,
                related=[(optimizer, "made here"), (layer, "the new layer")],
                help="make the optimizer after the model is changed, and a new one for every new model",
            )
            yield Checked(finding)


def _new(
    run: Run, optimizer: values.Object, step: read.Stepped, everything: set[int]
) -> tuple[values.Object, str] | None:
    given = [one for one in ancestors(optimizer.option("params", 0) or values.NONE) if isinstance(one, values.Unknown)]
    asked = [one for one in given if one.via == "parameters" and one.inputs and one.of is not None]
    roots = {id(inner) for one in asked if lost(one) for inner in parts(one.of or values.NONE)}
    twins = {id(inner.node) for one in asked for inner in one.inputs if isinstance(inner, values.Object)}
    originals = {id(inner) for one in asked for inner in one.inputs}
    for backward in run.of(read.Backward):
        if common_loop(backward.at, step.at) is None:
            continue
        for one in ancestors(backward.loss, graph=True):
            layer = one.layer if isinstance(one, values.Tensor) else None
            if layer is None or not layer.kind.startswith("torch.nn.") or id(layer) in everything or not layer.args:
                continue
            if id(layer) in roots:
                return layer, "was put into the model after the optimizer was made"
            if id(layer.node) in twins:
                return layer, "was made anew, with the model, after the optimizer was made"
            by_hand = any(run.of(read.GradientsUsed))  # a replica's, that are averaged
            if not by_hand and any(id(original) in originals for original in layer.attrs.get("copied", ())):
                return layer, "is a copy of one that the optimizer holds"
    return None


FIRES = {
    "a new model for each fold": """
        def make():
            return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

        model = make()
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for fold in range(2):
            model = make()
            for _ in range(8):
                opt.zero_grad()
                F.cross_entropy(model(torch.randn(12, 4)), torch.randint(3, (12,))).backward()
                opt.step()
    """,
    "the head is replaced after the optimizer": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 100)

            def forward(self, x):
                return self.head(self.body(x).relu())

        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        net.head = nn.Linear(8, 3)
        for _ in range(10):
            net.zero_grad()
            F.cross_entropy(net(torch.randn(12, 4)), torch.randint(3, (12,))).backward()
            opt.step()
    """,
    "a copy is trained": """
        import copy
        first = nn.Linear(4, 1)
        opt = torch.optim.SGD(first.parameters(), lr=0.05)
        model = copy.deepcopy(first)
        for _ in range(10):
            model.zero_grad()
            F.mse_loss(model(torch.randn(12, 4)), torch.randn(12, 1)).backward()
            opt.step()
    """,
    "the second fold's optimizer is the first's": """
        opt = None
        for fold in range(2):
            model = nn.Linear(4, 1)
            if opt is None:
                opt = torch.optim.SGD(model.parameters(), lr=0.05)
            for _ in range(8):
                model.zero_grad()
                F.mse_loss(model(torch.randn(12, 4)), torch.randn(12, 1)).backward()
                opt.step()
    """,
}

SILENT = {
    "model and optimizer are made anew": """
        for fold in range(3):
            model = nn.Linear(4, 1)
            opt = torch.optim.SGD(model.parameters(), lr=0.05)
            for _ in range(6):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(12, 4)), torch.randn(12, 1)).backward()
                opt.step()
    """,
    "two players": """
        a, b = nn.Linear(4, 4), nn.Linear(4, 1)
        oa, ob = torch.optim.SGD(a.parameters(), lr=0.05), torch.optim.SGD(b.parameters(), lr=0.05)
        for i in range(12):
            oa.zero_grad(); ob.zero_grad()
            F.mse_loss(b(a(torch.randn(12, 4)).tanh()), torch.randn(12, 1)).backward()
            (oa if i % 2 else ob).step()
    """,
    "a frozen backbone and a new head": """
        body, head = nn.Linear(4, 8), nn.Linear(8, 1)
        model = nn.Sequential(body.requires_grad_(False), nn.ReLU(), head)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(12, 4)), torch.randn(12, 1)).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "a copy is trained": """
        import copy, torch
        from torch import nn
        template = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        opt = torch.optim.Adam(template.parameters())
        net = copy.deepcopy(template)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "a new head": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1000)
            def forward(self, x):
                return self.head(self.body(x))
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        net.head = nn.Linear(8, 3)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "a new model for each fold": """
        import torch
        from torch import nn
        def make():
            return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        net = make()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for fold in folds:
            net = make()
            for x, y in fold:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
}

READ_SILENT = {
    "a copy for each, and its optimizer": """
        import copy, torch
        from torch import nn
        template = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        for loader in loaders:
            net = copy.deepcopy(template)
            opt = torch.optim.Adam(net.parameters())
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "a new optimizer too": """
        import torch
        from torch import nn
        def make():
            return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        for fold in folds:
            net = make()
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for x, y in fold:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "a new head, trained by its own": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1000))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        net[1] = nn.Linear(8, 3)
        more = torch.optim.SGD(net[1].parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            more.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            more.step()
    """,
}
