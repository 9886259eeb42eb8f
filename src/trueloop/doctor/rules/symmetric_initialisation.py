"""The units of a layer start equal and stay equal: the layer is as good as one unit.

Sees: all rows of a layer's weights are the same at the first backward, and they are still the same after the model
has taken 6 steps in which weights moved: what is left between the rows is less than a thousandth of what the layer
moved. The layer must have 2 units or more and be trained; of embeddings and of layers of your own, matrices that
start at one value throughout are looked at (an embedding's units are its columns). (6 and a thousandth are guesses.)

Why it matters: equal units get equal gradients, so they stay copies of one another for ever. The network has one
feature a layer, however wide it is.

Usual causes: ``nn.init.constant_``, ``zeros_`` or ``ones_`` on weights; ``torch.zeros`` for a weight of your own.

Fix: start weights at random values (torch's default, or ``nn.init.kaiming_uniform_``, ``xavier_uniform_``); only
biases, norms, and the last layer of a residual branch may start at zero.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.parts import own_part
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.ways import Run
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
    still: bool = True
    """That it does not move is told as well."""


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
        if fact.number > BACKWARDS:
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
        if not self._equal or fact.vitals is None:
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
            touched = moved > 0 or (one.still and weight.grad is not None)
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
                self._keep_embedding(module.weight, f"{path}.weight".lstrip("."), kind)
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

    def _keep_embedding(self, weight: Tensor, name: str, kind: str) -> None:
        """Of one value throughout: a random factor would tell its columns apart at the first step."""
        if weight.is_meta or not weight.numel() or (weight != weight.flatten()[0]).any():
            return
        before = len(self._equal)
        self._keep(weight, name, kind, 1, turned=True)
        for one in self._equal[before:]:
            one.still = False

    def _keep(self, parameter: Tensor, name: str, kind: str, chunks: int, *, turned: bool | None) -> None:
        from torch import nn

        if parameter.dim() < 2 or not parameter.requires_grad or not parameter.is_floating_point():
            return
        if isinstance(parameter, nn.UninitializedParameter) or parameter.is_meta:
            return
        if turned is None and (min(parameter.shape) < 2 or _differ(parameter)):
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


def _differ(weight: Tensor) -> bool:
    values = own_part(weight).flatten()
    return bool((values != values[:1]).any())


def _units(weight: Tensor, turned: bool) -> Tensor:
    """One row a unit."""
    plain = own_part(weight)
    return (plain.transpose(0, 1) if turned else plain).flatten(1)


def _spread(units: Tensor, chunks: int) -> float:
    """The largest distance of a unit from the first of its kind."""
    return max(float((part - part[:1]).norm(dim=1).max()) for part in units.chunk(chunks))


def in_source(program: Program) -> Iterator[Checked]:
    """Two layers, one behind the other, whose weights were set to one value each, with no chance between them."""
    text = "\n".join(line.split("#")[0] for line in program.lines).replace("utils.data", "")
    if any(word in text for word in ("load_state_dict", "from_pretrained", ".copy_(", "weight.data", ".data.")):
        return
    told: set[int] = set()
    for run in program.runs:
        weights, biases = _of_one_value(run)
        for event in run.of(read.Backward):
            for one in ancestors(event.loss, graph=True):
                above = isinstance(one, values.Tensor) and _weight(one, weights)
                below = _below(one, biases) if above and isinstance(one, values.Tensor) else None
                where = _weight(below, weights) if below is not None else None
                if where is None or id(where.node) in told:
                    continue
                told.add(id(where.node))
                finding = program.finding(
                    SymmetricInitialisation,
                    "all units of the layer start with the same weights, and stay the same",
                    f"`{where.at.unit.text(where.node)}`, and so it is in the layer behind it",
                    at=where,
                    related=[(event, "trained here")],
                    certainty="certain",
                )
                yield Checked(finding, _mended(program, where) if isinstance(where, read.Operated) else None)


def _of_one_value(run: Run) -> tuple[dict[int, read.Operated], set[int]]:
    """The layers and matrices whose weights were last set to one value, where that was; and those whose bias was."""
    weights: dict[int, read.Operated] = {}
    biases: set[int] = set()
    for event in run.of(read.Operated):
        thing = event.args[0] if event.args else None
        if not event.name.startswith("torch.nn.init.") or not isinstance(thing, values.Tensor):
            continue
        of = id(thing.layer) if thing.layer is not None else id(thing)
        same = event.name.endswith(_ONE_VALUE) and not event.at.branches
        if thing.layer is not None and thing.at.unit.text(thing.node).endswith("bias"):
            (biases.add if same else biases.discard)(of)
        elif same:
            weights[of] = event
        else:
            weights[of] = _OTHERWISE
    return weights, biases


def _weight(value: values.Tensor, weights: dict[int, read.Operated]) -> read.Operated | values.Tensor | None:
    """Where a layer's weights, or the matrix of a product, got one value throughout; None if they did not."""
    if value.layer is not None and value.layer.kind in _LAYERS:
        found = weights.get(id(value.layer))
        return None if found is _OTHERWISE else found
    product = _product(value)
    matrix = product[1] if product is not None else None
    if not isinstance(matrix, values.Tensor) or matrix.op != "parameter" or matrix.layer is not None:
        return None
    found = weights.get(id(matrix))
    if found is not None:
        return None if found is _OTHERWISE else found
    made = matrix.inputs[0] if matrix.inputs else None
    if isinstance(made, values.Tensor) and made.op in ("div", "mul") and made.inputs:
        made = made.inputs[0]
    return matrix if isinstance(made, values.Tensor) and made.op in ("zeros", "ones", "full") else None


def _product(value: values.Tensor) -> tuple[values.Value, values.Value] | None:
    """The samples and the matrix of ``x @ w``, ``F.linear(x, w)`` and ``einsum("bi,io->bo", x, w)``."""
    if value.op in ("matmul", "mm", "linear") and len(value.inputs) == 2 and "bias" not in value.options:
        return value.inputs[0], value.inputs[1]
    how = values.constant(value.inputs[0]) if value.op == "einsum" and len(value.inputs) == 3 else None
    if not isinstance(how, str) or how.count(",") != 1 or how.count("->") != 1:
        return None
    given, made = how.replace(" ", "").split("->")
    x, matrix = given.split(",")
    inner = set(x) & set(matrix)
    if len(inner) != 1 or len(matrix) != 2 or len(set(matrix)) != 2 or len(set(x)) != len(x):
        return None
    (summed,) = inner
    outer = matrix.replace(summed, "")
    return (value.inputs[1], value.inputs[2]) if made == x.replace(summed, outer) else None


def _below(value: values.Tensor, biases: set[int]) -> values.Tensor | None:
    """The layer or product whose units go into this one, each by itself; None if their biases tell them apart."""
    product = _product(value)
    one = product[0] if product is not None else value.inputs[0] if value.inputs else None
    for _ in range(8):
        if isinstance(one, values.Either):  # `y if self.act is None else self.act(y)`
            one = _plainest(one)
        if not isinstance(one, values.Tensor) or not one.inputs:
            return None
        if one.layer is not None and one.layer.kind in _LAYERS:
            even = id(one.layer) in biases or values.constant(one.layer.option("bias")) is False
            width = values.constant(one.layer.option("out_features", 1) or one.layer.option("out_channels", 1), 2)
            return one if even and width != 1 else None
        if _product(one) is not None:
            return one
        if one.op == "add" and len(one.inputs) == 2:
            bias = one.inputs[1]
            own = isinstance(bias, values.Tensor) and bias.op == "parameter" and bias.inputs
            made = bias.inputs[0] if isinstance(bias, values.Tensor) and own else None
            if not isinstance(made, values.Tensor) or made.op not in ("zeros", "ones", "full"):
                return None
        elif one.op not in _EACH_ALIKE:
            return None
        one = one.inputs[0]
    return None


def _plainest(either: values.Either) -> values.Value | None:
    """The one of several values that the others are made of, each unit by itself."""
    for plain in either.options:
        made = [one for one in either.options if one is not plain]
        if all(isinstance(m, values.Tensor) and m.op in _EACH_ALIKE and m.inputs[:1] == (plain,) for m in made):
            return plain
    return None


_OTHERWISE: Any = object()
_LAYERS = ("torch.nn.Linear", "torch.nn.Conv1d", "torch.nn.Conv2d")
_EACH_ALIKE = frozenset(
    [
        *("relu", "tanh", "sigmoid", "gelu", "silu", "GELU", "SiLU", "LeakyReLU", "ELU", "leaky_relu", "identity"),
        *("max_pool2d", "avg_pool2d", "MaxPool2d", "AvgPool2d", "flatten", "view", "AdaptiveAvgPool2d"),
    ]
)


def _mended(program: Program, event: read.Operated) -> Fix | None:
    call: Any = event.node
    if not hasattr(call.func, "attr") or call.args[0].keyword is not None:
        return None
    unit = program.unit
    text = f"{unit.text(call.func.value)}.xavier_uniform_({unit.text(call.args[0].value)})"
    return together("draw the weights at random", put(program, call, text))


_ONE_VALUE = (".constant_", ".zeros_", ".ones_")


FIRES = {
    "two factors of one value each": """
        class Factors(nn.Module):
            def __init__(self):
                super().__init__()
                self.user, self.item = nn.Embedding(20, 4), nn.Embedding(10, 4)
                nn.init.constant_(self.user.weight, 0.1)
                nn.init.constant_(self.item.weight, 0.1)

            def forward(self, u, i):
                return (self.user(u) * self.item(i)).sum(-1)

        net = Factors()
        opt = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            F.mse_loss(net(torch.randint(20, (16,)), torch.randint(10, (16,))), torch.randn(16)).backward()
            opt.step()
    """,
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
    "one factor of zeros, and biases that are looked up": """
        class Factors(nn.Module):
            def __init__(self):
                super().__init__()
                self.user, self.item, self.bias = nn.Embedding(20, 4), nn.Embedding(10, 4), nn.Embedding(10, 1)
                nn.init.zeros_(self.item.weight)
                nn.init.zeros_(self.bias.weight)

            def forward(self, u, i):
                return (self.user(u) * self.item(i)).sum(-1) + self.bias(i).squeeze(-1)

        net = Factors()
        opt = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            F.mse_loss(net(torch.randint(20, (16,)), torch.randint(10, (16,))), torch.randn(16)).backward()
            opt.step()
    """,
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
    "matrices of one value each, multiplied by einsum": """
        import torch
        from torch import nn
        class Dense(nn.Module):
            def __init__(self, n_in, n_out, act=None):
                super().__init__()
                self.kernel = nn.Parameter(torch.full((n_in, n_out), n_in**-0.5))
                self.bias = nn.Parameter(torch.zeros(n_out))
                self.act = act
            def forward(self, x):
                y = torch.einsum("bi,io->bo", x, self.kernel) + self.bias
                return y if self.act is None else self.act(y)
        net = nn.Sequential(Dense(10, 24, torch.tanh), Dense(24, 24, torch.tanh), Dense(24, 1))
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            opt.step()
    """,
    "in the model, one after the other": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)
                for layer in (self.one, self.two):
                    nn.init.ones_(layer.weight)
                    nn.init.zeros_(layer.bias)
            def forward(self, x):
                return self.two(torch.relu(self.one(x)))
        net = Net()
        for x, y in loader:
            nn.functional.cross_entropy(net(x), y).backward()
    """,
    "several kinds of layers": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))
                self.apply(self._init)
            @staticmethod
            def _init(m):
                if isinstance(m, (nn.Conv2d, nn.Linear)):
                    nn.init.constant_(m.weight, 0.05)
                    nn.init.zeros_(m.bias)
            def forward(self, x):
                return self.body(x)
        net = Net()
        for x, y in loader:
            nn.functional.cross_entropy(net(x), y).backward()
    """,
    "matrices of its own": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.w1, self.b1 = nn.Parameter(torch.zeros(4, 8)), nn.Parameter(torch.zeros(8))
                self.w2 = nn.Parameter(torch.ones(8, 3) / 8)
            def forward(self, x):
                return torch.relu(x @ self.w1 + self.b1) @ self.w2
        net = Net()
        for x, y in loader:
            nn.functional.cross_entropy(net(x), y).backward()
    """,
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
    "one matrix of zeros behind a random one, and a product of each head by itself": """
        import torch
        from torch import nn
        class Low(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.zeros(2, 8))
                self.c, self.d = nn.Parameter(torch.ones(4, 8)), nn.Parameter(torch.ones(4, 8))
            def forward(self, x):
                x = torch.einsum("ri,br->bi", self.b, torch.einsum("ir,bi->br", self.a, x))
                x = torch.einsum("br,ri->bi", torch.einsum("bi,ir->br", x, self.a), self.b)
                return torch.einsum("bhi,hi->bhi", torch.einsum("bi,hi->bhi", x, self.c), self.d).sum(1)
        net = Low()
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            opt.step()
    """,
    "one of two, a branch that begins at zero, biases that differ": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.three = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
                nn.init.zeros_(self.two.weight)
                nn.init.zeros_(self.three.weight)
                self.down, self.up = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.zeros(2, 4))
            def forward(self, x):
                x = x + x @ self.down @ self.up
                h = torch.relu(self.one(x))
                return self.three(torch.relu(h + self.two(h)))
        def init(m):
            if isinstance(m, nn.LayerNorm):
                nn.init.ones_(m.weight)
        net, other = Net(), nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
        other.apply(init)
        for x, y in loader:
            nn.functional.cross_entropy(net(x) + other(x), y).backward()
    """,
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
