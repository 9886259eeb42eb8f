"""Dropout stays at work in eval mode.

Sees: in a pass whose root is in eval mode, a dropout that does not ask for the mode is at work: the function with its
default ``training=True``, a dropout layer that no module holds, attention with a fixed ``dropout_p``.

Why it matters: ``model.eval()`` does not switch it off. Every validation and every prediction is that of a randomly
crippled network.

Usual causes: ``F.dropout(x, p)`` without ``training=self.training``; ``nn.Dropout(p)(x)`` made within ``forward``;
layers kept in a plain list; ``scaled_dot_product_attention(..., dropout_p=p)``.

Fix: make ``nn.Dropout`` in ``__init__`` and call it in ``forward``, or pass ``training=self.training``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import DroppedOut
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.rules.evaluation_in_train_mode import ON_PURPOSE
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import atom, given
from trueloop.doctor.source.edits import behind, put, spelled, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import is_module
from trueloop.doctor.written import says

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class DropoutAlwaysOn(Rule):
    """Knows it by the call itself. A mask that the script draws by hand is not seen."""

    name = "dropout-always-on"
    code = 207
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def dropped_out(self, fact: DroppedOut) -> Iterator[Finding]:
        from torch.nn.modules.dropout import _DropoutNd

        if fact.asked and not isinstance(fact.module, _DropoutNd):
            return  # `training=` was given: on purpose
        if says(fact.place, ON_PURPOSE, above=20):
            return
        root = fact.of.model.module
        if isinstance(fact.module, _DropoutNd):
            if root is None or any(module is fact.module for module in root.modules()):
                return  # a layer of the model's that was put in train mode by itself: Monte-Carlo dropout
            message = (
                f"a {type(fact.module).__name__} that {fact.of.model.kind} does not hold stays at work in eval mode"
            )
            evidence = f"p = {fact.module.p}; it is not among the model's modules, so `eval()` does not reach it"
        else:
            if fact.module.training:
                return
            message = f"`{fact.kind}` in {type(fact.module).__name__} stays at work in eval mode"
            evidence = (
                "it was called without `training=`, which is True by default"
                if fact.kind != "scaled_dot_product_attention"
                else "it was called with dropout_p > 0 in eval mode"
            )
        yield self.finding(
            message,
            evidence,
            f"the pass was made in eval mode, after step {fact.of.step}",
            place=fact.place or fact.of.place,
            related=[(fact.of.place, "the pass")],
        )

    def unseen(self) -> str | None:
        if any(model.passes > model.trained for model in self.trace.models):
            return None
        return "no pass was made in eval mode: whether all dropout rests there was not seen"


FUNCTIONS = {f"torch.nn.functional.{name}": 2 for name in ("dropout", "dropout1d", "dropout2d", "dropout3d")}
FUNCTIONS |= {"torch.nn.functional.alpha_dropout": 2, "torch.nn.functional.feature_alpha_dropout": 2}
"""The functions, and at which place `training` may be given."""


def in_source(program: Program) -> Iterator[Checked]:
    """In a module's method, a dropout that is on by default, or a dropout layer that is made where it is called."""
    told: set[int] = set()
    rests = {id(e.node) for run in program.runs for e in run.of(read.Operated) if _is_off(e)}
    for run in program.runs:
        events: list[read.Operated | read.Made] = [*run.of(read.Operated), *run.of(read.Made)]
        for event in events:
            if id(event.node) in told | rests or not _in_module(event.function):
                continue
            found = _made_in_forward(event) if isinstance(event, read.Made) else _on_by_default(event)
            if found is None or any(word in program.text_around(event, above=20).lower() for word in ON_PURPOSE):
                continue
            told.add(id(event.node))
            message, evidence = found
            finding = program.finding(DropoutAlwaysOn, message, evidence, at=event)
            yield Checked(finding, _mended(program, event))


def _is_off(event: read.Operated) -> bool:
    """Attention without dropout: where the same line has it at other times, the mode is asked."""
    given = event.kwargs.get("dropout_p")
    return given is not None and not (isinstance(given, values.Constant) and given.value)


def _in_module(function: values.Function | None) -> bool:
    owner = function.owner if function is not None else None
    return isinstance(owner, values.Class) and any(isinstance(one, str) and is_module(one) for one in owner.line())


def _on_by_default(event: read.Operated) -> tuple[str, str] | None:
    if event.name == "torch.nn.functional.scaled_dot_product_attention":
        given = event.kwargs.get("dropout_p") or (event.args[4] if len(event.args) > 4 else None)
        text = event.at.unit.text(event.node)
        if isinstance(given, values.Constant) and given.value and "training" not in text:
            return (
                "scaled_dot_product_attention drops out in eval mode as well",
                "dropout_p is a number that never changes",
            )
        return None
    place = FUNCTIONS.get(event.name)
    if place is None or "training" in event.kwargs or "**" in event.kwargs or len(event.args) > place:
        return None
    p = event.kwargs.get("p") or (event.args[1] if len(event.args) > 1 else None)
    if p is not None and values.constant(p) in (0, 0.0):
        return None
    name = event.name.rpartition(".")[2]
    return f"`{name}` stays at work in eval mode", "it is called without `training=`, which is True by default"


def _made_in_forward(event: read.Made) -> tuple[str, str] | None:
    layer = event.made
    function = event.function
    if not layer.name.startswith("Dropout") or function is None or function.name != "forward":
        return None
    above: Any = next(blocks.around(event.at.unit, event.node), None)
    if blocks.kind(above) == "Attribute" and above.attr.value == "train":
        return None  # `nn.Dropout(p).train(self.training)`
    return (
        f"a {layer.name} that is made in `forward` stays at work in eval mode",
        "the module does not hold it, so `eval()` does not reach it",
    )


def _mended(program: Program, event: read.Operated | read.Made) -> Fix | None:
    """Asks for the mode: by an argument, or, of a layer that is made where it is called, by the function."""
    node: Any = event.node
    params: Any = event.function.node.params.params if event.function is not None else ()
    inner = blocks.function(program.unit, node)
    if not params or event.function is None or inner is not event.function.node:
        return None
    mode = f"{params[0].name.value}.training"
    if isinstance(event, read.Made):
        return _as_function(program, node, mode)
    if "attention" not in event.name and node.args:
        return together("rest in eval mode", behind(program, node.args[-1].value, f", training={mode}"))
    p = given(node, "dropout_p", 4)
    text = None if p is None else put(program, p, f"{atom(program, p)} if {mode} else 0.0")
    return together("rest in eval mode", text)


def _as_function(program: Program, made: Any, mode: str) -> Fix | None:
    """``nn.Dropout(0.3)(x)`` as ``nn.functional.dropout(x, 0.3, training=self.training)``."""
    call: Any = next(blocks.around(program.unit, made), None)
    name = _NAMES.get(getattr(made.func, "attr", made.func).value)
    if blocks.kind(call) == "Assign":
        return together("rest in eval mode", behind(program, made, f".train({mode})"))
    if blocks.kind(call) != "Call" or call.func is not made or name is None or any(one.star for one in call.args):
        return None
    spelling, added = spelled(program, f"torch.nn.functional.{name}")
    if sum(one.keyword is None for one in made.args) > 1:
        return None  # the second is another than the function's
    args = [program.unit.text(one.value) if one.keyword is None else program.unit.text(one) for one in made.args]
    text = ", ".join([program.unit.text(call.args[0].value), *(one.rstrip(", ") for one in args), f"training={mode}"])
    return (
        together("rest in eval mode", put(program, call, f"{spelling}({text})"), added) if len(call.args) == 1 else None
    )


_NAMES = {f"Dropout{size}": f"dropout{size.lower()}" for size in ("", "1d", "2d", "3d")}
_NAMES |= {"AlphaDropout": "alpha_dropout", "FeatureAlphaDropout": "feature_alpha_dropout"}


FIRES = {
    "the function's default": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 1)
            def forward(self, x):
                return self.b(F.dropout(torch.relu(self.a(x)), 0.3))
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            model(torch.randn(16, 8))
    """,
    "a layer made in forward": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 1)
            def forward(self, x):
                x = nn.Dropout(0.3)(torch.relu(self.a(x)))
                return self.b(x)
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            model.train()
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            model(torch.randn(16, 8))
    """,
    "attention": """
        class Attend(nn.Module):
            def __init__(self):
                super().__init__()
                self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 1)
            def forward(self, x):
                q, k, v = self.qkv(x).chunk(3, -1)
                return self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=0.2)).mean(1)
        model = Attend()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(4, 6, 8)), torch.zeros(4, 1)).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            model(torch.randn(4, 6, 8))
    """,
}

SILENT = {
    "asked for the mode": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.drop = nn.Linear(8, 16), nn.Linear(16, 1), nn.Dropout(0.1)
            def forward(self, x):
                return self.b(self.drop(F.dropout(torch.relu(self.a(x)), 0.3, self.training)))
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            model(torch.randn(16, 8))
    """,
    "Monte-Carlo dropout": """
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        model.eval()
        model[1].train()
        x = torch.randn(16, 8)
        with torch.no_grad():
            torch.stack([model(x) for _ in range(10)]).std(0)
    """,
    "on purpose, in a prenet": """
        class Prenet(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Linear(8, 1)
            def forward(self, x):
                return F.dropout(self.a(x), p=0.5, training=True)
        model = Prenet()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            model(torch.randn(16, 8))
    """,
}

READ_FIRES = {
    "the function's default": """
        import torch.nn.functional as F
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 3)
            def forward(self, x):
                return self.fc(F.dropout(x, p=0.5))
    """,
    "made where it is called": """
        from torch import nn
        class Net(nn.Module):
            def forward(self, x):
                return nn.Dropout(0.3)(x)
    """,
    "attention": """
        import torch.nn.functional as F
        from torch import nn
        class Attend(nn.Module):
            def forward(self, q, k, v):
                return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
    """,
}

READ_SILENT = {
    "it asks for the mode": """
        import torch.nn.functional as F
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop = nn.Dropout(0.2)
            def forward(self, x, q):
                x = F.dropout(x, 0.5, self.training)
                x = F.dropout(x, p=0.5, training=True)
                y = F.scaled_dot_product_attention(q, q, q, dropout_p=0.1 if self.training else 0.0)
                return self.drop(F.dropout(x, training=self.training)) + y
    """,
    "in a function of its own": """
        import torch.nn.functional as F
        def augment(x):
            return F.dropout(x, 0.1)
    """,
}
