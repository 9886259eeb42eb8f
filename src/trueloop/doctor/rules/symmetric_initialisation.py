"""The units of a layer start equal and stay equal: the layer is as good as one unit.

Sees: all rows of a layer's weights are the same at the first backward, and they are still the same after the model
has taken 6 steps in which weights moved: what is left between the rows is less than a thousandth of what the layer
moved. The layer must have 2 units or more, be trained and not be an embedding; of layers of your own, matrices that
start at one value throughout are looked at. (6 and a thousandth are guesses.)

Why it matters: equal units get equal gradients, so they stay copies of one another for ever. The network has one
feature a layer, however wide it is.

Usual causes: ``nn.init.constant_``, ``zeros_`` or ``ones_`` on weights; ``torch.zeros`` for a weight of your own.

Fix: start weights at random values (torch's default, or ``nn.init.kaiming_uniform_``, ``xavier_uniform_``); only
biases, norms, and the last layer of a residual branch may start at zero.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 6
LEFT = 1e-3
BACKWARDS = 60  # after so many, new models are not looked at


@dataclass
class _Equal:
    """A weight whose units start equal."""

    ref: Any
    name: str
    kind: str
    chunks: int
    """Gates of a recurrent layer: units are equal within each."""
    turned: bool | None
    """Units are its columns; None where the script decides that (``x @ w``, ``w @ x``)."""
    start: Tensor
    """A copy of the first unit's weights at the start."""
    optimizer: int | None = None
    steps: int = 0


class SymmetricInitialisation(Rule):
    """Knows it by the weights, before the first step and after some."""

    name = "symmetric-initialisation"
    code = 408
    level = "error"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._known: set[int] = set()  # models and optimizers whose weights were looked at
        self._equal: list[_Equal] = []
        self._layers = 0
        self._place: Place | None = None
        self._pending: list[str] = []

    def backward_begun(self, fact: BackwardBegun) -> None:
        if fact.number > BACKWARDS or not self.trace.close:
            return
        for one in fact.passes:
            if one.model.number not in self._known and (module := one.model.module) is not None:
                self._known.add(one.model.number)
                self._place = fact.place
                self._look_at(module)
        if not fact.passes and fact.number == 0:  # no module is called: raw tensors in an optimizer
            self._place = fact.place
            for seen in self.trace.optimizers:
                for i, parameter in enumerate(seen.parameters()):
                    self._keep(parameter, f"parameter {i}", "tensor", 1, turned=None)

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if not self._equal or fact.vitals is None or not self.trace.close:
            return
        held = {
            id(parameter): update for parameter, update in zip(fact.vitals.parameters, fact.vitals.updates, strict=True)
        }
        if not any(held.values()):
            return
        stuck, ready = [], False
        for one in list(self._equal):
            weight = one.ref()
            if weight is None:
                self._equal.remove(one)
                continue
            if id(weight) not in held:
                continue
            one.steps += 1
            if one.steps < STEPS:
                continue
            self._equal.remove(one)
            ready = True
            ways = (False, True) if one.turned is None else (one.turned,)
            spread = min(_spread(_units(weight, turned), one.chunks) for turned in ways)
            moved = float((_units(weight, ways[0])[0] - one.start).norm())
            touched = moved > 0 or weight.grad is not None
            if touched and spread <= LEFT * moved:
                stuck.append((one, moved))
        if ready and stuck:
            names = ", ".join(f"{one.name} ({one.kind})" for one, _ in stuck[:4])
            first, moved = stuck[0]
            units = len(_units(first.ref(), first.turned is not False))
            yield self.finding(
                f"all units of {names} started with the same weights and are still the same",
                f"{first.name}: {units} units, all equal at the start (first weight {float(first.start[0]):g})",
                f"after {STEPS} steps each has moved by {moved:.3g}, all in the same way"
                if moved
                else f"after {STEPS} steps none has moved: a gradient has no way through equal layers of zeros",
                place=self._place,
            )

    def _look_at(self, root: Any) -> None:
        from torch import nn

        for path, module in root.named_modules():
            kind = type(module).__name__
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                continue
            gates = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}.get(kind, 1)
            gates = 3 if isinstance(module, nn.MultiheadAttention) else gates
            layer = isinstance(
                module, (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
            )
            turned = isinstance(module, nn.modules.conv._ConvTransposeNd)
            for name, parameter in module.named_parameters(recurse=False):
                own = not type(module).__module__.startswith("torch.") and parameter.dim() == 2
                if ("weight" in name and layer) or own:
                    self._layers += 1
                    self._keep(
                        parameter,
                        f"{path}.{name}".lstrip("."),
                        kind,
                        gates,
                        turned=None if own and not layer else turned,
                    )

    def _keep(self, parameter: Tensor, name: str, kind: str, chunks: int, *, turned: bool | None) -> None:
        from torch import nn

        if parameter.dim() < 2 or not parameter.requires_grad or not parameter.is_floating_point():
            return
        if isinstance(parameter, nn.UninitializedParameter) or parameter.is_meta:
            return
        if turned is None and (min(parameter.shape) < 2 or (parameter != parameter.flatten()[0]).any()):
            return
        units = _units(parameter, turned or False)
        if len(units) >= 2 * chunks and _spread(units, chunks) == 0:
            self._equal.append(_Equal(weakref.ref(parameter), name, kind, chunks, turned, units[0].clone()))

    def passed(self) -> str | None:
        return (
            f"the units of {self._layers} layers start with different weights"
            if self._layers and not self._equal
            else None
        )


def _units(weight: Tensor, turned: bool) -> Tensor:
    """One row a unit."""
    plain = weight.detach()
    return (plain.transpose(0, 1) if turned else plain).flatten(1)


def _spread(units: Tensor, chunks: int) -> float:
    """The largest distance of a unit from the first of its kind."""
    return max(float((part - part[:1]).norm(dim=1).max()) for part in units.chunk(chunks))


def in_source(program: Program) -> Iterator[Checked]:
    """A function that is applied to a model sets every linear layer's weights to one value; there are two or more."""
    text = "\n".join(line.split("#")[0] for line in program.lines)
    if "load_state_dict" in text or "from_pretrained" in text or not _deep(program):
        return
    for run in program.runs:
        entry = run.entry
        if entry is None or text.count(".apply(") != 1 or f".apply({entry.name})" not in text:
            continue
        events = [event for event in run.of(read.Operated) if event.name.startswith("torch.nn.init.")]
        weights = [event for event in events if event.args and _is_weight(event.args[0])]
        if len(weights) != 1 or text.count("init.") != len(events) or "weight.data" in text or ".copy_(" in text:
            continue
        event = weights[0]
        tests = [branch.key for branch in event.at.branches]
        whole = len(tests) == 1 and event.at.branches[0].arm == 0
        if not event.name.endswith(_ONE_VALUE) or not whole or not _LINEAR.fullmatch(tests[0]):
            continue
        finding = program.finding(
            SymmetricInitialisation,
            "all units of the linear layers start with the same weights, and stay the same",
            f"`{event.at.unit.text(event.node)}` for each of them",
            at=event,
            certainty="certain",
        )
        yield Checked(finding)


_ONE_VALUE = (".constant_", ".zeros_", ".ones_")
_LINEAR = re.compile(r"isinstance\(\w+, (torch\.)?(nn\.)?Linear\)")


def _is_weight(value: values.Value) -> bool:
    return isinstance(value, values.Unknown) and value.name == "weight" and value.via == "."


def _deep(program: Program) -> bool:
    """Whether each loss comes through two linear layers, one behind the other, with no chance (dropout) on the way."""
    found = []
    for run in program.runs:
        for event in run.of(read.Backward):
            layers = [one for one in ancestors(event.loss, graph=True) if isinstance(one, values.Tensor) and one.layer]
            kinds = [one.layer.kind for one in layers if one.layer is not None]
            chance = any("Dropout" in kind for kind in kinds) or any(one.op == "dropout" for one in layers)
            found.append(not chance and any(_on_another(one) for one in layers))
    return bool(found) and all(found)


def _on_another(value: values.Tensor) -> bool:
    """Whether a linear layer's input was made by another one."""
    if value.layer is None or value.layer.kind != "torch.nn.Linear" or not value.inputs:
        return False
    below = [one.layer for one in ancestors(value.inputs[0]) if isinstance(one, values.Tensor) and one.layer]
    return any(one.kind == "torch.nn.Linear" and one is not value.layer for one in below)


FIRES = {
    "a constant in every layer": """
        def init(m):
            if isinstance(m, nn.Linear):
                nn.init.constant_(m.weight, 0.1)
                nn.init.zeros_(m.bias)

        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        net.apply(init)
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            F.cross_entropy(net(torch.rand(16, 4)), torch.randint(3, (16,))).backward()
            opt.step()
    """,
    "all zeros": """
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        for p in net.parameters():
            nn.init.zeros_(p)
        opt = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            F.mse_loss(net(torch.randn(16, 4)), torch.ones(16, 1)).backward()
            opt.step()
    """,
    "a layer of one's own": """
        class Dense(nn.Module):
            def __init__(self, i, o):
                super().__init__()
                self.w, self.b = nn.Parameter(torch.ones(i, o) / i), nn.Parameter(torch.zeros(o))

            def forward(self, x):
                return x @ self.w + self.b

        net = nn.Sequential(Dense(4, 8), nn.Tanh(), Dense(8, 1))
        opt = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(12):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.mse_loss(net(x), x[:, :1]).backward()
            opt.step()
    """,
    "raw tensors": """
        w1, w2 = torch.full((4, 8), 0.1), torch.full((8, 1), 0.1)
        w1.requires_grad_(); w2.requires_grad_()
        opt = torch.optim.SGD([w1, w2], lr=0.05)
        for _ in range(12):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.mse_loss((x @ w1).tanh() @ w2, x[:, :1]).backward()
            opt.step()
    """,
}

SILENT = {
    "matrices that start at zero and are told apart": """
        class Adapter(nn.Module):
            def __init__(self):
                super().__init__()
                self.base = nn.Linear(4, 4)
                self.down, self.up = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.zeros(2, 4))

            def forward(self, x):
                return self.base(x) + x @ self.down @ self.up

        net = nn.Sequential(Adapter(), nn.Linear(4, 2))
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(12):
            opt.zero_grad()
            F.cross_entropy(net(torch.randn(16, 4)), torch.randint(2, (16,))).backward()
            opt.step()
    """,
    "logistic regression from zero": """
        net = nn.Linear(4, 3)
        nn.init.zeros_(net.weight); nn.init.zeros_(net.bias)
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            F.cross_entropy(net(torch.randn(16, 4)), torch.randint(3, (16,))).backward()
            opt.step()
    """,
    "the last layer of a branch starts at zero": """
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)
                nn.init.zeros_(self.b.weight)

            def forward(self, x):
                return x + self.b(self.a(x).relu())

        net = nn.Sequential(Block(), Block(), nn.Linear(4, 2))
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(12):
            opt.zero_grad()
            F.cross_entropy(net(torch.randn(16, 4)), torch.randint(2, (16,))).backward()
            opt.step()
    """,
    "an average that is fixed": """
        blur = nn.Conv2d(1, 2, 3, bias=False)
        nn.init.constant_(blur.weight, 1 / 9)
        blur.requires_grad_(False)
        net = nn.Sequential(blur, nn.Flatten(), nn.Linear(72, 3))
        opt = torch.optim.SGD(net[2].parameters(), lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            F.cross_entropy(net(torch.randn(16, 1, 8, 8)), torch.randint(3, (16,))).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "applied to every linear layer": """
        import torch
        from torch import nn
        def init(m):
            if isinstance(m, nn.Linear):
                nn.init.constant_(m.weight, 0.01)
                nn.init.zeros_(m.bias)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        net.apply(init)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "biases, and a single layer": """
        import torch
        from torch import nn
        def init(m):
            if isinstance(m, nn.Linear):
                nn.init.zeros_(m.bias)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        net.apply(init)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "regression from zero": """
        import torch
        from torch import nn
        def init(m):
            if isinstance(m, nn.Linear):
                nn.init.zeros_(m.weight)
        net = nn.Linear(4, 3)
        net.apply(init)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
}
