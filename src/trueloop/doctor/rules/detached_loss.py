"""The loss that is backpropagated was rebuilt from numbers, so no gradient comes to the weights.

Sees: backward is called on a tensor without a graph, or with a graph that begins at a new tensor which is no weight;
the model's output did have a graph, which was thrown away; and an optimizer steps on it, 3 times in a row (10 times
where other backwards did reach weights: a loss of zero for an empty batch is made from a number on purpose).

Why it matters: ``backward`` runs without an error and computes nothing for the model. The steps change no weight; the
figures move only with the batches.

Usual causes: ``torch.tensor(loss.item(), requires_grad=True)``, ``Variable(loss.data)``, or ``requires_grad_()`` on the
output of numpy or of ``.detach()``, added to silence "element 0 of tensors does not require grad".

Fix: compute the loss from the model's output with torch operations alone, without ``.item()``, ``.data``,
``.detach()``, ``.numpy()`` or a new tensor between the two, and call ``backward`` on that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardBegun, ModuleCalled, Stepping
from trueloop.doctor.findings import Finding
from trueloop.doctor.hollow import Hollow
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors, endings
from trueloop.doctor.source.results import CUTS
from trueloop.doctor.written import assigned, backwarded

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace


class DetachedLoss(Rule):
    """Knows it by the graph: no leaf of it is a weight."""

    name = "detached-loss"
    code = 117
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._hollow = Hollow(trace)
        self._leaf = False

    def module_called(self, fact: ModuleCalled) -> None:
        self._hollow.inside(fact)

    def backward_begun(self, fact: BackwardBegun) -> None:
        if self._hollow.backward(fact):
            self._leaf = all(loss.grad_fn is None for loss in fact.losses)

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        hollow = self._hollow
        if hollow.step(fact) and hollow.cut:
            name = backwarded(hollow.place)
            made = assigned(hollow.place, name, r"tensor|Variable|item|data|detach|numpy|float|requires_grad")
            what = "a tensor made from a number" if self._leaf else "a graph that begins at a tensor made from numbers"
            yield self.finding(
                f"backward is called on {what}: no gradient reaches the weights of {fact.optimizer.kind}",
                "the loss is a leaf: it has no grad_fn" if self._leaf else "no leaf of the loss's graph is a parameter",
                f"{fact.optimizer.kind} took its last steps without a single gradient from it",
                place=made or hollow.place,
                related=[(hollow.place, "backward stops here")] if made else [],
            )

    def passed(self) -> str | None:
        return "backward reached weights" if self._hollow.reached else None


MADE_ANEW = frozenset(
    ["tensor", "as_tensor", "FloatTensor", "values.Tensor", "variable", "parameter", "requires_grad_", "from_numpy"]
)


def in_source(program: Program) -> Iterator[Checked]:
    """The loss is a new tensor, made of what was cut off its graph, that is said to require gradients."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Backward):
            new = [
                end
                for end in endings(event.loss)
                if isinstance(end, values.Tensor) and end.op in MADE_ANEW and end.inputs
            ]
            new = new or _asked(event.loss)
            if not new or id(event.node) in told:
                continue
            cut = next((one for one in ancestors(new[0]) if one is not new[0] and _is_cut(one)), None)
            if cut is None:
                continue
            told.add(id(event.node))
            finding = program.finding(
                DetachedLoss,
                "the loss that is backpropagated was made anew from numbers: no gradient reaches the model",
                f"it is made by `{new[0].at.unit.text(new[0].node)}`, of values whose graph was cut off",
                at=event,
                related=[(new[0], "the new tensor")],
                help="backpropagate the loss itself, as the loss function gives it",
            )
            yield Checked(finding)


def _asked(loss: values.Value) -> list[values.Tensor]:
    """``loss.requires_grad_()`` as a line of its own leaves a mark on the value."""
    return [
        one for one in endings(loss) if isinstance(one, values.Tensor) and "asked" in one.attrs and one.graph is False
    ]


def _is_cut(value: values.Value) -> bool:
    return (isinstance(value, values.Tensor) and value.op in CUTS) or (
        isinstance(value, values.Unknown) and value.via in CUTS
    )


FIRES = {
    "a new tensor from the loss's number": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
            loss = torch.tensor(loss.item(), requires_grad=True)
            loss.backward()
            opt.step()
    """,
    "predictions went through numpy": """
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        opt = torch.optim.Adam(model.parameters())
        for _ in range(8):
            opt.zero_grad()
            guess = torch.from_numpy(model(torch.randn(8, 4)).detach().numpy()).requires_grad_()
            loss = ((guess - torch.randn(8, 1)) ** 2).mean()
            loss.backward()
            opt.step()
    """,
    "the model gives out detached values": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 1)

            def forward(self, x):
                return self.layer(x).data

        model, mse = Net(), nn.MSELoss()
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            loss = mse(model(torch.randn(8, 4)), torch.randn(8, 1))
            loss.requires_grad = True
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "attacks on the input between steps": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x, y = torch.randn(8, 4), torch.randint(3, (8,))
            model.requires_grad_(False)
            x.requires_grad_()
            F.cross_entropy(model(x), y).backward()
            model.requires_grad_(True)
            opt.zero_grad()
            F.cross_entropy(model((x + 0.1 * x.grad.sign()).detach()), y).backward()
            opt.step()
    """,
    "raw tensors updated by hand": """
        w = torch.randn(4, 1, requires_grad=True)
        for _ in range(8):
            loss = (torch.randn(8, 4) @ w).square().mean()
            loss.backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
                w.grad = None
    """,
    "a batch without objects": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for i in range(30):
            opt.zero_grad()
            if i % 7:
                loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
            else:
                loss = torch.tensor(0.0, requires_grad=True)
            loss.backward()
            opt.step()
    """,
    "a picture is optimized": """
        net = nn.Linear(6, 2).requires_grad_(False)
        picture = torch.zeros(1, 6, requires_grad=True)
        opt = torch.optim.Adam([picture], lr=0.05)
        for _ in range(8):
            opt.zero_grad()
            (-net(picture)[0, 1]).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "rebuilt from its number": """
        import torch
        def train(model, loader, criterion, optimizer):
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss = torch.tensor(loss.item(), requires_grad=True)
                loss.backward()
                optimizer.step()
    """,
    "a Variable of its data": """
        import torch
        from torch.autograd import Variable
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            Variable(loss.data, requires_grad=True).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "a weight that is a number": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            (loss * torch.tensor(0.5 / loss.item())).backward()
            opt.step()
    """,
}
