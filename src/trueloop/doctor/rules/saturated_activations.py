"""Activations are saturated: the sigmoid or tanh outputs of a hidden layer sit at their ends, where there is no slope.

Sees: over ten looks, seven in ten outputs of a hidden sigmoid are below 0.01 or above 0.99, or those of a tanh beyond
±0.99 (the median over looks; TheDeepChecker asks for half of the units at a mean of 0.85, in which nets that learn
well were seen). Outputs of a model, what stands after the last layer with weights, and gates (what is multiplied with
something) are left alone: they are at their ends by right.

Why it matters: at its ends an activation's slope is below 0.02, so nearly no gradient passes.

Usual causes: wide initial weights; inputs that were not scaled; a rate that is too high.

Fix: initialise with ``nn.init.xavier_normal_``, scale the inputs to about mean 0 and deviation 1, put a normalisation
before the activation, or use ReLU or GELU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.activations import Activation, activations, tag_module, tag_output
from trueloop.doctor.course import middle
from trueloop.doctor.facts import BackwardBegun, Called, Ended, ModuleCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

EVERY = 3  # steps
LOOKS = 10
FEWEST = 6
SHARE = 0.7
END = 0.01
ONE_LAYER = 16  # activations of one layer that are read at a look: a recurrence has one a time step
GATES = frozenset(("Mul",))


class SaturatedActivations(Rule):
    """Reads what the sigmoids and tanhs of the graph made, now and then."""

    name = "saturated-activations"
    code = 409
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: dict[tuple[object, ...], deque[float]] = {}
        self._about: dict[tuple[object, ...], tuple[str, Place | None]] = {}
        self._told: set[tuple[object, ...]] = set()

    def module_called(self, fact: ModuleCalled) -> None:
        tag_module(fact)

    def called(self, fact: Called) -> None:
        tag_output(fact)  # it may be looked at in a later step: a GAN's fakes

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding] | None:
        return self._look(fact) if self._looking() else None

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for key in list(self._looks):
            yield from self._judge(key, FEWEST)

    def _looking(self) -> bool:
        return self.trace.seldom or self.trace.heard % EVERY == 0 or self.trace.backwards < EVERY

    def _look(self, fact: BackwardBegun) -> Iterator[Finding]:
        shares: dict[tuple[object, ...], list[float]] = {}
        for one in activations(fact.graph, "Tanh", "Sigmoid"):
            if one.after & GATES or len(shares.get(one.key, ())) >= ONE_LAYER:
                continue
            shares.setdefault(one.key, []).append(_at_ends(one))
            _, known = self._about.get(one.key, ("", None))
            self._about[one.key] = one.label, known or one.place or fact.place
        for key, found in shares.items():
            self._looks.setdefault(key, deque(maxlen=LOOKS)).append(sum(found) / len(found))
            yield from self._judge(key, LOOKS)

    def _judge(self, key: tuple[object, ...], least: int) -> Iterator[Finding]:
        looks = list(self._looks.get(key, ()))
        share = middle(looks)
        if key in self._told or len(looks) < least or share < SHARE:
            return
        self._told.add(key)
        label, place = self._about[key]
        yield self.finding(
            f"{label} is saturated: {share:.0%} of its outputs sit at its ends",
            f"the median of {len(looks)} batches; the last has {looks[-1]:.0%}",
            place=place,
        )

    def passed(self) -> str | None:
        return "hidden sigmoid and tanh outputs are off their ends" if self._looks and not self._told else None


def _at_ends(one: Activation) -> float:
    result = one.result
    ends = (result.abs() > 1 - END) if one.node.op == "Tanh" else ((result < END) | (result > 1 - END))
    return float(ends.float().mean())


FIRES = {
    "wide weights": """
        body = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        for layer in body:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=5.0)
        model = nn.Sequential(body, nn.Linear(32, 2))
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(50):
            x = torch.randn(32, 16)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            opt.step()
    """,
    "far off in a sigmoid": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.hidden, self.out = nn.Linear(5, 24), nn.Linear(24, 1)
                self.hidden.weight.data *= 200
            def forward(self, x):
                return self.out(torch.sigmoid(self.hidden(x))).squeeze(1)
        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(50):
            x = torch.randn(64, 5)
            loss = ((net(x) - x[:, 0]) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "outputs at their ends": """
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
        opt = torch.optim.Adam(model.parameters(), lr=0.05)
        x = torch.randn(128, 8)
        y = (x[:, :1] > 0).float()
        for _ in range(100):
            opt.zero_grad()
            F.binary_cross_entropy(model(x), y).backward()
            opt.step()
    """,
    "gates": """
        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.value, self.gate, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 1)
                nn.init.constant_(self.gate.bias, 9.0)
            def forward(self, x):
                return self.out(self.value(x) * torch.sigmoid(self.gate(x)))
        model = Gated()
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(60):
            x = torch.randn(32, 8)
            opt.zero_grad()
            F.mse_loss(model(x), x[:, :1]).backward()
            opt.step()
    """,
    "a generator of black and white": """
        gen = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh())
        dis = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        nn.init.normal_(gen[2].weight, std=20.0)
        opt_g = torch.optim.Adam(gen.parameters(), lr=1e-3)
        opt_d = torch.optim.Adam(dis.parameters(), lr=1e-3)
        bce = nn.BCEWithLogitsLoss()
        for _ in range(40):
            real = torch.randn(32, 8).sign()
            fake = gen(torch.randn(32, 4))
            opt_d.zero_grad()
            (bce(dis(real), torch.ones(32, 1)) + bce(dis(fake.detach()), torch.zeros(32, 1))).backward()
            opt_d.step()
            opt_g.zero_grad()
            bce(dis(fake), torch.ones(32, 1)).backward()
            opt_g.step()
    """,
}
