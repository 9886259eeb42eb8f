"""Parameters in an optimizer never get a gradient, so they are never trained.

Sees: an optimizer takes 20 steps or more, and at none of them did some of its parameters have a gradient, while others
did. Parameters with ``requires_grad=False`` are left out (they are meant to rest), and so are parts that are one of
several of a kind of which others do learn (experts, heads of other tasks). It is told at the end of the script, or
after 500 steps: a part may begin to learn later. Both numbers are guesses.

Why it matters: these weights keep their random start. The model learns around them, or learns less than it could, and
nothing warns.

Usual causes: the output of a part was detached (``.data``, ``.detach()``, ``.numpy()``, ``torch.tensor(output)``), or
computed under ``no_grad``; a layer is made and never used in ``forward``.

Fix: let the gradient through where the part should learn; remove the layer where it is not used; freeze it with
``requires_grad_(False)`` where it should rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, Ended, ModuleCalled, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import here
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors, held, weights
from trueloop.doctor.source.ritual import optimizers
from trueloop.doctor.untended import figure, named

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 20
TOLD_AFTER = 500
FEWEST = 4  # of them that are looked at, where not all are
MAPPED = 3  # passes of a model in which the lines of its modules' calls are learnt


@dataclass
class _Layer:
    """How a module was called in the first passes."""

    name: str
    place: Place | None
    needs_grad: bool
    from_grad: bool


class ParametersWithoutGradient(Rule):
    """Knows it by ``p.grad``: None after each of an optimizer's steps."""

    name = "parameters-without-gradient"
    code = 107
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        from torch.utils.weak import WeakIdKeyDictionary, WeakTensorKeyDictionary

        super().__init__(trace)
        self._without: dict[int, list[Any]] = {}  # optimizer -> weak references to what had no gradient so far
        self._looked_at: dict[int, int] = {}  # optimizer -> steps
        self._moved: set[int] = set()  # optimizers of which some parameters had a gradient
        self._layers: Any = WeakIdKeyDictionary()
        self._mapped: dict[int, int] = {}
        self._figures: Any = WeakTensorKeyDictionary()  # of what had no gradient at first: a number for its values
        self._place: Place | None = None
        self._pending: dict[int, Finding | None] = {}
        self._found = False

    def module_called(self, fact: ModuleCalled) -> None:
        model = fact.of.model.number
        if self._mapped.get(model, 0) >= MAPPED:
            return
        if not fact.name:
            self._mapped[model] = self._mapped.get(model, 0) + 1
        elif fact.of.training or fact.module not in self._layers:
            needs = any(tensor.requires_grad for tensor in tensors_in(fact.output, 4))
            given = any(tensor.requires_grad for tensor in tensors_in(fact.inputs, 4))
            self._layers[fact.module] = _Layer(fact.name, here(), needs, given)

    def backward_begun(self, fact: BackwardBegun) -> None:
        self._place = fact.place

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        import weakref

        number = fact.optimizer.number
        before = self._without.get(number)
        if before is None:
            held = fact.optimizer.parameters()
            left = [p for p in held if p.requires_grad and p.grad is None]
            if self.trace.seldom:
                self._figures.update((p, figure(p)) for p in left)
        elif not before:
            return
        else:
            held = [p for ref in before if (p := ref()) is not None]
            left = [p for p in held if p.requires_grad and p.grad is None]
        fewer = before is None or len(left) < len(before)
        if fewer:
            self._without[number] = [weakref.ref(p) for p in left]
        looked_at = self._looked_at[number] = self._looked_at.get(number, 0) + 1
        if number not in self._moved and len(left) < len(fact.optimizer.parameters()):
            self._moved.add(number)
        if looked_at >= STEPS and (fewer or looked_at % STEPS == 0):
            self._pending[number] = self._judged(fact.optimizer, left)
        if fact.optimizer.steps >= TOLD_AFTER and number in self._pending:
            self._without[number] = []
            yield from self._told(number)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if self.trace.seldom:
            self._pending = {seen.number: self._unmoved(seen) for seen in self.trace.optimizers}
        for number in list(self._pending):
            yield from self._told(number)

    def _told(self, number: int) -> Iterator[Finding]:
        finding = self._pending.pop(number, None)
        if finding is not None and self._moved:  # that nothing at all moves is another rule's
            self._found = True
            yield finding

    def _unmoved(self, seen: OptimizerSeen) -> Finding | None:
        """Where few steps were heard, all of them speak by the values: without a gradient they are those of then."""
        without = [p for ref in self._without.get(seen.number, ()) if (p := ref()) is not None]
        left = [p for p in without if p.grad is None and self._figures.get(p) == figure(p)]
        enough = self.trace.step >= STEPS and self._looked_at.get(seen.number, 0) >= FEWEST
        return self._judged(seen, left) if left and enough else None

    def _judged(self, seen: OptimizerSeen, left: list[Tensor]) -> Finding | None:
        """What is to be told at the end if it stays so: the model may be gone by then."""
        left = [p for p in left if not self._one_of_several(p)]
        if not left:
            return None
        part = self._part(left)
        layer = self._layers.get(part) if part is not None else None
        if layer is None:
            why = "no module that holds them was called" if part is not None else "the loss does not depend on them"
        elif layer.needs_grad:
            why = f"the output of '{layer.name}' has a graph, but the loss is cut off from it behind this line"
        else:
            why = f"the output of '{layer.name}' has no graph: it is computed without gradients"
        return self.finding(
            f"{len(left)} parameters in {seen.kind} never get a gradient: {named(self.trace, left)}",
            f"at none of {self._looked_at[seen.number]} steps had they one: {sum(p.numel() for p in left)} numbers",
            why,
            place=(layer.place if layer else None) or self._place,
            related=[(seen.place, "the optimizer that holds them")],
        )

    def _owners(self, parameter: Tensor) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        """The modules that hold a parameter, each with its path and root, the outermost first."""
        for seen in self.trace.models:
            root = seen.module
            if root is not None and any(p is parameter for p in root.parameters()):
                for path, module in root.named_modules():
                    if any(p is parameter for p in module.parameters()):
                        yield module, path, root

    def _one_of_several(self, parameter: Tensor) -> bool:
        """Whether it belongs to a part of a ModuleList or ModuleDict of which another part does learn."""
        from torch import nn

        for module, _, _ in self._owners(parameter):
            if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
                parts = list(module.children())
                mine = [part for part in parts if any(p is parameter for p in part.parameters())]
                if (
                    mine
                    and mine[0] not in self._layers
                    and any(
                        type(part) is type(mine[0]) and any(p.grad is not None for p in part.parameters())
                        for part in parts
                    )
                ):
                    return True
        return False

    def _part(self, left: list[Tensor]) -> nn.Module | None:
        """The outermost module all of whose trainable parameters are among those, and that holds the first of them."""
        alone = {id(p) for p in left}
        for module, path, _ in self._owners(left[0]):
            if all(id(p) in alone for p in module.parameters() if p.requires_grad) and (path or module in self._layers):
                return module
        return None

    def passed(self) -> str | None:
        steps = sum(self._looked_at.values())
        return (
            f"all parameters in the optimizers got gradients, over {steps} steps" if steps and not self._found else None
        )

    def unseen(self) -> str | None:
        short = [n for n, steps in self._looked_at.items() if self._without.get(n) and steps < STEPS]
        return f"some parameters had no gradient in fewer than {STEPS} steps: too few to judge" if short else None


def in_source(program: Program) -> Iterator[Checked]:
    """A layer's output is cut off by ``.data`` or ``.detach()``, and no loss reaches the layer by another way."""
    told: set[int] = set()
    for run in program.runs:
        if not run.complete:
            continue
        backwards = list(run.of(read.Backward))
        reached: set[int] = set()
        unknown = any(run.of(read.GradientsUsed))
        for backward in backwards:
            own, more = weights(backward.loss)
            reached |= own
            unknown = unknown or more
        stepped: set[int] = set()
        for optimizer in optimizers(run):
            if isinstance(optimizer, values.Object):
                stepped |= held(optimizer.option("params", 0))[0]
        if unknown or any(isinstance(one, values.Either) for event in backwards for one in ancestors(event.loss)):
            continue
        for backward in backwards:
            for cut in ancestors(backward.loss):
                if not isinstance(cut, values.Tensor) or cut.op not in ("data", "detach") or id(cut.node) in told:
                    continue
                behind = [one for one in ancestors(cut.inputs[0], graph=True) if isinstance(one, values.Tensor)]
                layers = {id(one.layer): one.layer for one in behind if one.layer is not None and one.op != "parameter"}
                lost = [one for number, one in layers.items() if number in stepped and one.name in _LEARN]
                if not lost or reached & set(layers):
                    continue
                told.add(id(cut.node))
                finding = program.finding(
                    ParametersWithoutGradient,
                    f"no gradient gets past `{cut.at.unit.text(cut.node)}`: what comes before it is never trained",
                    f"{_listed(lost)} before it {'is' if len(lost) == 1 else 'are'} in the optimizer, and no loss "
                    "reaches them by another way",
                    at=cut,
                    related=[(backward, "the backward")],
                )
                yield Checked(finding)


_LEARN = frozenset(("Linear", "Conv1d", "Conv2d", "Conv3d", "LSTM", "GRU", "RNN", "ConvTranspose2d"))


def _listed(layers: list[values.Object]) -> str:
    return ", ".join(sorted({f"nn.{one.name}" for one in layers}))


FIRES = {
    "the features are detached": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

            def forward(self, x):
                z = self.encoder(x).relu().detach()
                return self.head(z)

        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(25):
            opt.zero_grad()
            F.cross_entropy(net(torch.randn(16, 4)), torch.randint(2, (16,))).backward()
            opt.step()
    """,
    "a layer is never used": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.skip, self.b = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 1)

            def forward(self, x):
                return self.b(self.a(x).relu())

        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.01)
        for _ in range(25):
            net.zero_grad()
            F.mse_loss(net(torch.randn(16, 4)), torch.randn(16, 1)).backward()
            opt.step()
    """,
    "a part runs without gradients": """
        body, head = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 1)
        opt = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
        for _ in range(25):
            opt.zero_grad()
            with torch.no_grad():
                z = body(torch.randn(16, 4))
            F.mse_loss(head(z), torch.randn(16, 1)).backward()
            opt.step()
    """,
}

SILENT = {
    "experts that are not chosen, and heads of other tasks": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(4, 8)
                self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(4))

            def forward(self, x, task):
                return self.heads[task](self.body(x).relu())

        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.01)
        for i in range(25):
            opt.zero_grad()
            F.mse_loss(net(torch.randn(16, 4), i % 2), torch.randn(16, 1)).backward()
            opt.step()
    """,
    "a part is frozen but held": """
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        net[0].requires_grad_(False)
        opt = torch.optim.SGD(net.parameters(), lr=0.01)
        for _ in range(25):
            opt.zero_grad()
            F.mse_loss(net(torch.randn(16, 4)), torch.randn(16, 1)).backward()
            opt.step()
    """,
    "a branch that joins later": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)

            def forward(self, x, both):
                return self.a(x) + self.b(x) if both else self.a(x)

        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.01)
        for i in range(40):
            opt.zero_grad()
            F.mse_loss(net(torch.randn(16, 4), i >= 25), torch.randn(16, 1)).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "through .data": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
            def forward(self, x):
                return self.head(torch.relu(self.encoder(x)).data)
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "only the head is trained": """
        import torch
        from torch import nn
        encoder, head = nn.Linear(4, 8), nn.Linear(8, 3)
        opt = torch.optim.SGD(head.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(head(encoder(x).detach()), y).backward()
            opt.step()
    """,
    "reached by another loss": """
        import torch
        from torch import nn
        encoder, head = nn.Linear(4, 8), nn.Linear(8, 3)
        opt = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            z = encoder(x)
            loss = nn.functional.cross_entropy(head(z.detach()), y) + z.pow(2).mean()
            loss.backward()
            opt.step()
    """,
}
