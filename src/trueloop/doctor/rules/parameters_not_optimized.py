"""Some trainable parameters get gradients, but no optimizer holds them: they stay as they were at the start.

Sees: at least 5 backwards reach a parameter that requires a gradient, no optimizer has ever held it, and its values are
still those of the start. (5 is a guess: enough to leave out a test pass.) It is told after 100 backwards, or at the end
of the script: until then an optimizer may still be made for it.

Why it matters: this part of the model keeps its random start. The rest learns to work around it, and the result is
worse than that of the model you think you train, without any error.

Usual causes: layers in a plain Python list or dict (use ``nn.ModuleList``, ``nn.ModuleDict``), so that ``parameters()``
does not find them; two modules and an optimizer for one of them; a layer that was added after the optimizer was made; a
loss with weights of its own; a raw tensor with ``requires_grad=True``: a log-variance, a coefficient (of at most 16
numbers, and no model's input).

Fix: give all of them to the optimizer. If they are meant to stay as they are, say so with ``requires_grad_(False)``,
which also saves their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, Called, Ended, GradientsTaken, StateLoaded
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.edits import behind, ends, put, spelled, together
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.library import TWO_MODES, is_layer, is_optimizer
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.naming import is_seen, name_of
from trueloop.doctor.source.provenance import ancestors, held, touches, trains
from trueloop.doctor.source.ritual import used_for_training
from trueloop.doctor.source.ways import Run
from trueloop.doctor.untended import Untended, named

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

TIMES = 5
TOLD_AFTER = 100
EVERY = 10  # backwards between two looks


class ParametersNotOptimized(Rule):
    """Knows it by identity: the leaves of each backward's graph against what the optimizers hold."""

    name = "parameters-not-optimized"
    code = 105
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._untended = Untended(trace)
        self._done = False
        self._place: Place | None = None
        self._pending: Finding | None = None
        self._of: list[Any] = []  # weak references to the parameters that it names

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if self._done:
            return
        self._untended.backward(fact)
        self._place = fact.place
        if self._untended.backwards == TIMES or self._untended.backwards % EVERY == 0:
            self._pending = self._judged()
        if self._untended.backwards == TOLD_AFTER:
            yield from self._told()

    def called(self, fact: Called) -> None:
        self._untended.given(fact.inputs)

    def gradients_taken(self, fact: GradientsTaken) -> None:
        self._untended.given(fact.inputs)

    def state_loaded(self, fact: StateLoaded) -> None:
        self._untended.loaded(fact)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if not self._done:
            if any(ref() is not None for ref in self._of):
                self._pending = self._judged()
            yield from self._told()

    def _told(self) -> Iterator[Finding]:
        if self._pending is not None:
            self._done = True
            yield self._pending

    def _judged(self) -> Finding | None:
        """What is to be told if it stays so: at the end the model may be gone."""
        import weakref

        trace = self.trace
        steppers = [seen for seen in trace.optimizers if seen.steps]
        training = [seen for seen in steppers if any(p in trace.names for p in seen.parameters())] or [
            seen
            for seen in steppers
            if seen.optimizer is None  # its model and it lived in a function
        ]
        if not training:  # nothing trains a module: a picture or a disturbance is optimized through a fixed network
            return None
        forgotten = self._untended.parameters(TIMES)
        if not forgotten:
            return None
        self._of = [weakref.ref(parameter) for parameter in forgotten]
        seen = training[-1]
        where = hidden_in([model.module for model in trace.models], forgotten)
        names = where[0] if where else named(trace, forgotten)
        numbers = sum(p.numel() for p in forgotten)
        return self.finding(
            f"{len(forgotten)} trainable parameters ({names}) get gradients, but no optimizer holds them",
            f"{numbers} numbers have the values that they had at the start, after {trace.step} optimizer steps",
            *([f"they are in {where[1]}, where parameters() does not look"] if where else []),
            place=seen.place or self._place,
            related=[(self._place, "this backward computes their gradients")],
        )

    def passed(self) -> str | None:
        if self._done or not self._untended.backwards:
            return None
        return (
            f"every parameter that {self._untended.backwards} backwards reached is in an optimizer, or updated by hand"
        )


def hidden_in(roots: Sequence[nn.Module | None], forgotten: Sequence[Tensor]) -> tuple[str, str] | None:
    """Names for parameters of modules that stand in a plain list or dict of a model, and what holds them."""
    from torch import nn

    sought = {id(parameter) for parameter in forgotten}
    for root in roots:
        for path, module in () if root is None else root.named_modules():
            for attribute, value in vars(module).items():
                if not attribute.startswith("_") and isinstance(value, (list, tuple, dict)):
                    items = list(value.items() if isinstance(value, dict) else enumerate(value))[:100]
                    held = [(key, layer) for key, layer in items if isinstance(layer, nn.Module)]
                    found = [(k, layer) for k, layer in held if any(id(p) in sought for p in layer.parameters())]
                    if found:
                        kind, place = type(value).__name__, ".".join(filter(None, (path, attribute)))
                        names = ", ".join(f"{place}[{key!r}]" for key, _ in found[:3])
                        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                        return names + more, f"the plain Python {kind} '{place}'"
    return None


WEIGHED = (
    "Linear",
    "Conv",
    "Embedding",
    "LSTM",
    "GRU",
    "RNN",
    "BatchNorm",
    "LayerNorm",
    "Bilinear",
    "MultiheadAttention",
)


def in_source(program: Program) -> Iterator[Checked]:
    """A loss that an optimizer steps for goes through a layer that no optimizer of the run holds."""
    for run in program.runs:
        optimizers = _known(run)
        if not run.complete or not optimizers or any(run.of(read.GradientsUsed)):
            continue
        all_held: set[int] = set().union(*(held(one.option("params", 0))[0] for one in optimizers))
        all_held |= {id(one) for module in _loaded(run) for one in parts(module)}
        told: set[int] = set()
        resting = [call for call in run.of(read.Called) if call.training is False]
        teachers = {id(one) for call in resting for one in parts(call.target) if used_for_training(run, call.result)}
        for backward in run.of(read.Backward):
            used = next((one for one in optimizers if trains(one, backward.loss)), None)
            if used is None or not backward.at.loops:
                continue
            for layer in _layers(backward.loss):
                if any(id(original) in all_held for original in layer.attrs.get("copied", ())):
                    continue  # that is stale-optimizer's as well
                if id(layer) in all_held | teachers or id(layer.node) in told or "frozen" in layer.attrs:
                    continue
                if any(touches(event.values, layer) for event in run.of(read.Escaped)):
                    continue
                told.add(id(layer.node))
                finding = program.finding(
                    ParametersNotOptimized,
                    f"a {layer.name} that the loss goes through is in no optimizer: it never changes",
                    f"backward reaches it, and {used.name} was not given its parameters",
                    at=layer,
                    related=[(used, "the optimizer"), (backward, "the backward")],
                    help="give the optimizer these parameters too; layers in a plain list belong in an nn.ModuleList",
                )
                fix = _as_modules(program, layer) or _handed_over(program, run, layer, used, all_held)
                yield Checked(finding, fix)
                break


def _as_modules(program: Program, layer: values.Object) -> Fix | None:
    """A plain list or dict of layers that is set on ``self`` as one that the module looks into."""
    unit = program.unit
    above: list[Any] = list(blocks.around(unit, layer.node))
    cls: Any = next((one for one in above if blocks.kind(one) == "ClassDef"), None)
    if cls is None or not any(unit.text(base.value).endswith("Module") for base in cls.bases):
        return None
    calls = [one for one in above if blocks.kind(one) == "Call"]
    call = next((one for one in calls if unit.text(one.func).endswith(".append")), None)
    listed: Any = next((n for n, one in enumerate(above) if blocks.kind(one) == "Assign"), 0)
    whole: Any = above[listed - 1] if listed else None
    if call is not None:
        name = unit.text(call.func.value)
        made = [one for one in blocks.walk(cls) if blocks.kind(one) == "Assign" and blocks.stored(unit, one) == {name}]
        whole = made[0].value if len(made) == 1 else None  # type: ignore[attr-defined]
        if blocks.kind(whole) != "List" or whole.elements:
            return None
    elif whole is None or not unit.text(above[listed].targets[0].target).startswith("self."):
        return None
    kind = {"List": "ModuleList", "ListComp": "ModuleList", "Dict": "ModuleDict", "DictComp": "ModuleDict"}
    name = kind.get(blocks.kind(whole), "")
    inside = [one.value for one in getattr(whole, "elements", ())] or [
        one for one in (getattr(whole, "elt", None), getattr(whole, "value", None)) if one is not None
    ]
    if not name or any(blocks.kind(one) != "Call" for one in inside):
        return None
    spelling, added = spelled(program, f"torch.nn.{name}")
    text = "" if blocks.kind(whole) == "List" and not inside else unit.text(whole)
    return together(f"make it an nn.{name}", put(program, whole, f"{spelling}({text})"), added)


def _handed_over(
    program: Program, run: Run, layer: values.Object, used: values.Object, all_held: set[int]
) -> Fix | None:
    """The whole that a layer is part of, given to the optimizer that is made after it."""
    unit = program.unit
    made = [event.made for event in run.of(read.Constructed) if any(one is layer for one in parts(event.made))]
    whole: Any = made[-1] if made else layer
    node = whole.node
    for one in blocks.around(unit, node):
        if blocks.kind(one) in ("Assign", "Element") or blocks.function(unit, one) is not blocks.function(unit, node):
            break
        node = one if blocks.kind(one) == "Call" else node
    name = name_of(unit, node)
    known = whole if made else next((one for one in _wholes(run) if one.node is node), layer)
    given_now: Any = given(used.node, "params", 0)
    if blocks.kind(given_now) == "Name":  # what it was set to, if that is once
        home: Any = blocks.function(unit, used.node) or unit.tree
        sets: list[Any] = [one for one in blocks.walk(home) if blocks.kind(one) == "Assign"]
        sets = [one for one in sets if blocks.stored(unit, one) == {given_now.value}]
        given_now = sets[0].value if len(sets) == 1 else None
    if not name or given_now is None or used.at.unit is not unit or not is_seen(unit, name, node, used.node):
        return None
    if all_held & {id(one) for one in parts(known)} or ends(program, node) > ends(program, given_now):
        return None
    return together(f"optimize {name} as well", _with_more(program, given_now, name))


def _wholes(run: Run) -> Iterator[values.Object]:
    for event in run.of(read.Called):
        yield from (one for one in parts(event.target))


def _with_more(program: Program, now: Any, name: str) -> Edit | None:
    """What an optimizer is given, and these parameters."""
    text = program.unit.text(now)
    if blocks.kind(now) == "Call" and blocks.kind(now.func) == "Attribute" and now.func.attr.value == "parameters":
        return put(program, now, f"[*{text}, *{name}.parameters()]")
    if blocks.kind(now) == "List" and now.elements:
        last = now.elements[-1].value
        group = blocks.kind(last) == "Dict"
        return behind(program, last, f', {{"params": {name}.parameters()}}' if group else f", *{name}.parameters()")
    if blocks.kind(now) == "BinaryOperation" and "list(" in text:
        return behind(program, now, f" + list({name}.parameters())")
    if blocks.kind(now) == "Call" and program.unit.text(now.func).endswith("chain") and now.args:
        return behind(program, now.args[-1].value, f", {name}.parameters()")
    return None


def _known(run: Run) -> list[values.Object]:
    """The optimizers of the run, if all that they hold is known; none otherwise."""
    found = [event.made for event in run.of(read.Made) if is_optimizer(event.made.kind)]
    stepped = [event.target for event in run.of(read.Stepped)]
    whole = all(not held(one.option("params", 0))[1] for one in found)
    known = all(any(target is one for one in found) for target in stepped)
    grown = any(event.name.endswith(".add_param_group") for event in run.of(read.Operated))
    return found if whole and known and not grown else []


def _loaded(run: Run) -> Iterator[values.Value]:
    """Modules whose weights were loaded before anything is trained: what is left out of the optimizer may rest."""
    for event in run.events:
        if isinstance(event, read.Backward):
            return
        if isinstance(event, read.Operated) and event.name == "Module.load_state_dict":
            yield event.args[0]


def _layers(loss: values.Value) -> Iterator[values.Object]:
    for one in ancestors(loss, graph=True):
        layer = one.layer if isinstance(one, values.Tensor) else None
        if (
            layer is not None
            and is_layer(layer.kind)
            and layer.name.startswith(WEIGHED)
            and layer.kind not in TWO_MODES
        ):
            yield layer


FIRES = {
    "layers in a plain list": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.inp, self.out = nn.Linear(4, 8), nn.Linear(8, 1)
                self.hidden = [nn.Linear(8, 8) for _ in range(2)]

            def forward(self, x):
                x = self.inp(x).relu()
                for layer in self.hidden:
                    x = layer(x).relu()
                return self.out(x)

        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(12):
            for layer in net.hidden:
                layer.zero_grad()
            opt.zero_grad()
            x = torch.randn(16, 4)
            F.mse_loss(net(x), x.sum(1, keepdim=True)).backward()
            opt.step()
    """,
    "the optimizer got the encoder alone": """
        encoder, decoder = nn.Sequential(nn.Linear(8, 4), nn.Tanh()), nn.Linear(4, 8)
        opt = torch.optim.SGD(encoder.parameters(), lr=0.1)
        for _ in range(12):
            x = torch.randn(16, 8)
            encoder.zero_grad(); decoder.zero_grad()
            F.mse_loss(decoder(encoder(x)), x).backward()
            opt.step()
    """,
    "raw log-variances": """
        net = nn.Linear(6, 2)
        log_vars = torch.zeros(2, requires_grad=True)
        opt = torch.optim.SGD(net.parameters(), lr=0.01)
        for _ in range(12):
            opt.zero_grad()
            x = torch.randn(16, 6)
            ((net(x) - x[:, :2]).square().mean(0) * (-log_vars).exp() + log_vars).sum().backward()
            opt.step()
    """,
    "a loss with weights of its own": """
        class Margin(nn.Module):
            def __init__(self):
                super().__init__()
                self.centres = nn.Parameter(torch.randn(3, 4))

            def forward(self, features, labels):
                return (features - self.centres[labels]).square().sum(1).mean()

        net, margin = nn.Linear(6, 4), Margin()
        opt = torch.optim.SGD(net.parameters(), lr=0.01)
        for _ in range(12):
            net.zero_grad(); margin.zero_grad()
            margin(net(torch.randn(16, 6)), torch.randint(3, (16,))).backward()
            opt.step()
    """,
}

SILENT = {
    "a generator's gradients pass through the other player": """
        G = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        D = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters(), lr=1e-3), torch.optim.Adam(D.parameters(), lr=1e-3)
        bce, ones, zeros = nn.BCEWithLogitsLoss(), torch.ones(16, 1), torch.zeros(16, 1)
        for _ in range(10):
            fake = G(torch.randn(16, 3))
            od.zero_grad()
            (bce(D(torch.randn(16, 2)), ones) + bce(D(fake.detach()), zeros)).backward()
            od.step()
            og.zero_grad()
            bce(D(fake), ones).backward()
            og.step()
    """,
    "one part is updated by hand": """
        body, head = nn.Linear(4, 8), nn.Linear(8, 1)
        opt = torch.optim.SGD(body.parameters(), lr=0.05)
        for _ in range(12):
            body.zero_grad(); head.zero_grad()
            x = torch.randn(16, 4)
            F.mse_loss(head(body(x).tanh()), x.sum(1, keepdim=True)).backward()
            opt.step()
            with torch.no_grad():
                for p in head.parameters():
                    p -= 0.05 * p.grad
    """,
    "a picture is optimized through a fixed network": """
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
        picture = torch.zeros(1, 6, requires_grad=True)
        opt = torch.optim.Adam([picture], lr=0.05)
        for _ in range(12):
            opt.zero_grad()
            net.zero_grad()
            (-net(picture)[0, 1]).backward()
            opt.step()
    """,
    "inputs that need a gradient": """
        net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        start = torch.zeros(1, requires_grad=True)
        t = torch.linspace(0, 1, 12, requires_grad=True)
        for _ in range(12):
            opt.zero_grad()
            slope = torch.autograd.grad(net(t[:, None]).sum(), t, create_graph=True)[0]
            ((slope - t).square().mean() + net(start).square().sum()).backward()
            opt.step()
    """,
    "a judge in eval mode": """
        net, judge = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(12):
            opt.zero_grad(); judge.zero_grad()
            x = torch.randn(16, 4)
            F.mse_loss(judge(net(x)), judge(x).detach()).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "layers in a list that grows": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self, depth):
                super().__init__()
                self.stem, self.blocks = nn.Linear(4, 8), []
                for _ in range(depth):
                    self.blocks.append(nn.Linear(8, 8))
            def forward(self, x):
                x = self.stem(x)
                for block in self.blocks:
                    x = x + block(x)
                return x
        net = Net(4)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "one part forgotten": """
        import torch
        from torch import nn
        body, head = nn.Linear(4, 8), nn.Linear(8, 3)
        opt = torch.optim.SGD(body.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(head(body(x)), y).backward()
            opt.step()
    """,
    "layers in a plain list": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = [nn.Linear(4, 4) for _ in range(3)]
                self.head = nn.Linear(4, 3)
            def forward(self, x):
                for layer in self.layers:
                    x = layer(x)
                return self.head(x)
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "layers that are put into a plain list, and in a dict": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = []
                for i in range(3):
                    self.layers.append(nn.Linear(4, 4))
                self.heads = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
                self.first = nn.Linear(4, 4)
            def forward(self, x):
                x = self.first(x)
                for layer in self.layers:
                    x = layer(x)
                return self.heads["a"](x) + self.heads["b"](x)
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "a part of a trainer": """
        import torch
        from torch import nn
        class Coder(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
            def forward(self, x):
                return self.fc(x)
        class Trainer:
            def __init__(self):
                self.enc, self.dec = Coder(), Coder()
                self.opt = torch.optim.Adam(self.enc.parameters(), lr=0.1)
            def fit(self):
                for x in loader:
                    self.opt.zero_grad()
                    nn.functional.mse_loss(self.dec(self.enc(x)), x).backward()
                    self.opt.step()
        Trainer().fit()
    """,
}

READ_SILENT = {
    "the head of a model that was trained before": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
            def forward(self, x):
                return self.head(torch.relu(self.body(x)))
        net = Net()
        net.load_state_dict(torch.load("known.pt", weights_only=True))
        opt = torch.optim.SGD(net.head.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "all of them, in several ways": """
        import itertools
        import torch
        from torch import nn
        a, b, c, d = nn.Linear(4, 4), nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)]), nn.Linear(4, 3)
        opt = torch.optim.SGD([*a.parameters(), *b.parameters()] + list(c.parameters()), lr=0.1)
        other = torch.optim.Adam([{"params": d.parameters(), "lr": 0.01}])
        for x, y in loader:
            opt.zero_grad()
            other.zero_grad()
            nn.functional.cross_entropy(d(c[0](b(a(x)))), y).backward()
            opt.step()
            other.step()
    """,
    "frozen": """
        import torch
        from torch import nn
        body, head = nn.Linear(4, 8), nn.Linear(8, 3)
        for p in body.parameters():
            p.requires_grad = False
        opt = torch.optim.SGD(head.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(head(body(x)), y).backward()
            opt.step()
    """,
    "a GAN's other player": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for real in loader:
            fake = G(torch.randn(8, 2))
            od.zero_grad()
            (D(fake.detach()).mean() - D(real).mean()).backward()
            od.step()
            og.zero_grad()
            (-D(fake).mean()).backward()
            og.step()
    """,
}
