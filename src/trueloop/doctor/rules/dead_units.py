"""Units are dead: ReLU units of a layer give zero for every sample, and so get no gradient.

Sees: over ten spaced batches (and 200 samples), half of a layer's ReLU units or more give zero for all samples. In
deep or narrow nets, units that never fire and units that always do come in like numbers, by the geometry of the data;
so the dead must be four times as many as the always active. In layers of fewer than 16 units, or of fewer than 8
inputs, 19 in 20 must be dead; those whose weights are frozen are left alone. (SageMaker and torchmortem warn at 50 %;
zeros as such say nothing, 50 to 90 % are usual.) Activations under an L1 penalty are sparse by design and left alone.

Why it matters: a dead unit passes no gradient to its weights, so it stays dead; the layer is as narrow as what is
left.

Usual causes: a rate that is too high; a large negative bias; inputs far from zero; a bad initialisation.

Fix: lower the rate, scale the inputs, start biases at zero; or use ``nn.LeakyReLU`` or ``nn.GELU``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.activations import Activation, activations, tag_module, tag_output
from trueloop.doctor.facts import BackwardBegun, Called, Ended, ModuleCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.nonfinite import finite
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.trace import Trace

EVERY = 3  # steps
LOOKS = 10
FEWEST = 6  # looks, at the end of a short script
SAMPLES = 200
DEAD = 0.5
MORE = 4.0  # dead / always active
NEARLY_ALL = 0.95
UNITS = 16
INPUTS = 8
PENALTIES = frozenset(("Abs", "LinalgVectorNorm", "Norm", "Sgn"))


class DeadUnits(Rule):
    """Reads what the ReLUs of the graph made, now and then."""

    name = "dead-units"
    code = 406
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: dict[tuple[object, ...], deque[tuple[Tensor, Tensor, int]]] = {}
        self._about: dict[tuple[object, ...], tuple[str, Place | None, int | None]] = {}
        self._told: set[tuple[object, ...]] = set()
        self._alive = 0

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
        for one in activations(fact.graph, "Relu"):
            if not one.after & PENALTIES:
                self._keep(one, fact.place)
                yield from self._judge(one.key, LOOKS)

    def _keep(self, one: Activation, place: Place | None) -> None:
        _, known, _ = self._about.get(one.key, ("", None, None))
        self._about[one.key] = one.label, known or one.place or place, one.fan_in
        if self.trace.step < EVERY or not finite(one.result):
            return  # the first steps may mend much, and NaN is no zero
        result = one.result
        others = [dim for dim in range(result.dim()) if dim != one.features]
        looks = self._looks.setdefault(one.key, deque(maxlen=LOOKS))
        samples = result.numel() // max(result.shape[one.features], 1)
        looks.append((result.amax(others) > 0, result.amin(others) > 0, samples))

    def _judge(self, key: tuple[object, ...], least: int) -> Iterator[Finding]:
        import torch

        looks = self._looks.get(key, ())
        if key in self._told or len(looks) < least or sum(samples for _, _, samples in looks) < SAMPLES:
            return
        dead = ~torch.stack([any_ for any_, _, _ in looks]).any(0)
        always = torch.stack([all_ for _, all_, _ in looks]).all(0)
        units, share, active = dead.numel(), float(dead.float().mean()), float(always.float().mean())
        label, place, fan_in = self._about[key]
        self._alive += 1
        if fan_in is None:  # frozen: whoever froze it knows
            return
        small = units < UNITS or fan_in < INPUTS
        if share < (NEARLY_ALL if small else DEAD) or share < MORE * active:
            return
        self._told.add(key)
        yield self.finding(
            f"{int(dead.sum())} of {units} units of {label} are dead: they give zero for every sample",
            f"seen in {len(looks)} batches, {sum(samples for _, _, samples in looks)} samples",
            f"{int(always.sum())} units are always active",
            place=place,
        )

    def passed(self) -> str | None:
        return "the ReLU units of hidden layers fire" if self._alive and not self._told else None


FIRES = {
    "a large negative bias": """
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
        nn.init.constant_(model[0].bias, -8.0)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(60):
            x = torch.rand(32, 20)
            opt.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "a convolution that gives nothing": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm, self.out = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Linear(16, 2)
                nn.init.constant_(self.norm.bias, -6.0)
            def forward(self, x):
                return self.out(F.relu(self.norm(self.conv(x))).mean((2, 3)))
        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(60):
            x = torch.randn(16, 1, 8, 8)
            loss = F.cross_entropy(net(x), (x.mean((1, 2, 3)) > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "a plain net": """
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(60):
            x = torch.rand(32, 20)
            opt.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "one input, clipped weights": """
        model = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        opt = torch.optim.RMSprop(model.parameters(), lr=1e-3)
        for _ in range(60):
            x = 1.5 + 0.5 * torch.randn(64, 1)
            opt.zero_grad()
            F.mse_loss(model(x), x.sin()).backward()
            opt.step()
            with torch.no_grad():
                for p in model.parameters():
                    p.clamp_(-0.3, 0.3)
    """,
    "a sparse code": """
        encode, decode = nn.Linear(16, 64), nn.Linear(64, 16)
        nn.init.constant_(encode.bias, -3.0)
        opt = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=1e-3)
        for _ in range(60):
            x = torch.randn(32, 16)
            code = F.relu(encode(x))
            loss = F.mse_loss(decode(code), x) + 1e-2 * code.abs().sum(1).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}
