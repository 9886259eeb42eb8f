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

from trueloop.doctor.facts import DroppedOut
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.rules.evaluation_in_train_mode import ON_PURPOSE
from trueloop.doctor.written import says


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
