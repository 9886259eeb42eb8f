"""Training and validation inputs are scaled differently.

Sees: the inputs' features spread several times wider or narrower in evaluation passes than in training passes: all of
them together, and most of them by themselves.

Why it matters: the network meets numbers that it has never seen. Its validation figure says nothing, and at
prediction it fails in the same way.

Usual causes: normalisation, or the division by 255, is in the training branch only; another transform for validation.

Fix: scale both by the same function, with the statistics of the training data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Called, Evaluated, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.findings import Place
    from trueloop.doctor.trace import Trace

TIMES = 2.5  # digits from 0 to 1 against the same, standardised, differ by 2.7, MNIST's by 3.2 (from their spreads)
ALONE = 10.0  # with fewer than FEW features, which may be sampled more widely on purpose (extrapolation)
FEW = 4
MANY = 0.25  # of the features are scaled otherwise, and half of them are so or are far away: each by its own factor
SHIFT = 5.0  # standard deviations of the training data
SAMPLES = 20  # on each side
FEATURES = 256  # that are looked at
PASSES = 20  # on each side, whose inputs are read
OPEN = 100  # passes whose sums wait to be told what they were for


@dataclass
class _Sums:
    """Of a pass's inputs, by feature."""

    count: int
    total: Tensor
    squares: Tensor
    place: Place | None

    def add(self, other: _Sums) -> None:
        self.count += other.count
        self.total = self.total + other.total
        self.squares = self.squares + other.squares

    @property
    def spread(self) -> Tensor:
        mean = self.total / self.count
        return (self.squares / self.count - mean * mean).clamp_min(0).sqrt()


class PreprocessingDiffers(Rule):
    """Compares the features' spreads over the first passes of each kind."""

    name = "preprocessing-differs"
    code = 515
    level = "warning"
    certainty = "measured"
    seen_by = ("run", "source")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._open: dict[int, _Sums] = {}  # a pass -> its sums
        self._training: dict[int, tuple[int, _Sums]] = {}  # a model -> passes, and their sums
        self._told: set[int] = set()
        self._alike = 0

    def called(self, fact: Called) -> None:
        of = fact.of
        trained = self._training.get(of.model.number)
        if (
            not of.close
            or of.model.fed
            or len(self._open) >= OPEN
            or (of.needs_grad and trained is not None and trained[0] >= PASSES)
        ):
            return
        first = next(iter(tensors_in(fact.inputs, limit=1)), None)
        if (
            first is None
            or first.requires_grad
            or first.dim() < 2
            or not first.is_floating_point()
            or not readable(first)
        ):
            return
        flat = first.detach().reshape(len(first), -1)
        flat = flat[:, :: max(1, flat.shape[1] // FEATURES)][:, :FEATURES].double()
        self._open[of.number] = _Sums(len(flat), flat.sum(0), (flat * flat).sum(0), of.place)

    def stepped(self, fact: Stepped) -> None:
        for one in fact.passes:
            sums = self._open.pop(one.number, None)
            if sums is None:
                continue
            passes, known = self._training.get(one.model.number, (0, None))
            if known is None:
                self._training[one.model.number] = (1, sums)
            elif known.total.shape == sums.total.shape:
                known.add(sums)
                self._training[one.model.number] = (passes + 1, known)
        if len(self._open) >= OPEN:
            for number in list(self._open)[: OPEN // 2]:
                del self._open[number]

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        of = fact.of
        sums = [found for one in of.passes if (found := self._open.pop(one.number, None)) is not None]
        if not of.evaluates or of.model.fed or of.data != "held-out" or of.model.number in self._told or not sums:
            return
        _, training = self._training.get(of.model.number, (0, None))
        together = sums[0]
        for more in sums[1:]:
            if more.total.shape == together.total.shape:
                together.add(more)
        if training is None or training.total.shape != together.total.shape:
            return
        if min(training.count, together.count) < SAMPLES:
            return
        ours, theirs = training.spread, together.spread
        varied = (ours > 0) & (theirs > 0) & ours.isfinite() & theirs.isfinite()
        if not varied.any():
            return
        ours, theirs = ours[varied], theirs[varied]
        ratios = theirs / ours
        shifts = (together.total / together.count - training.total / training.count)[varied].abs() / ours
        limit = TIMES if int(varied.sum()) >= FEW else ALONE
        median, pooled = float(ratios.median()), float((theirs.square().mean() / ours.square().mean()).sqrt())
        off = (ratios > limit) | (ratios < 1 / limit)
        all_alike = 1 / limit < median < limit
        many = float(off.double().mean()) >= MANY and float((off | (shifts > SHIFT)).double().mean()) >= 0.5
        if 1 / limit < pooled < limit or (all_alike and not many):
            self._alike += 1
            return
        self._told.add(of.model.number)
        times = f"{pooled:.3g} times as wide" if pooled > 1 else f"{1 / pooled:.3g} times as narrow"
        yield self.finding(
            f"the validation inputs of {of.model.kind} are scaled otherwise than the training inputs: {times}",
            f"standard deviation in validation by that in training, over {len(ours)} features: "
            f"{float(ratios.min()):.3g} to {float(ratios.max()):.3g}, median {median:.3g} "
            f"({together.count} and {training.count} samples)",
            f"means of all features: {float((together.total / together.count).mean()):.4g} in validation, "
            f"{float((training.total / training.count).mean()):.4g} in training",
            place=of.passes[0].place,
            related=[(training.place, "the training pass")],
        )

    def passed(self) -> str | None:
        return "training and validation inputs have the same scale" if self._alike else None


FIRES = {
    "features of many scales, raw in validation": """
        x = torch.randn(150, 8) * torch.tensor([0.3, 0.6, 0.9, 1.0, 1.2, 3.0, 15.0, 300.0]) + 20
        y, mean, std = torch.randint(0, 3, (150,)), x[:100].mean(0), x[:100].std(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for rows in torch.randperm(100).split(20):
                opt.zero_grad()
                F.cross_entropy(model((x[rows] - mean) / std), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                right = (model(x[100:]).argmax(1) == y[100:]).sum().item()
    """,
    "divided on one side only": """
        x, y = torch.rand(150, 16) * 255, torch.randint(0, 3, (150,))
        train = DataLoader(TensorDataset(x[:100] / 255, y[:100]), batch_size=20, shuffle=True)
        val = DataLoader(TensorDataset(x[100:], y[100:]), batch_size=25)
        model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in train:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                right = sum((model(a).argmax(1) == b).sum().item() for a, b in val)
    """,
    "standardised on one side only": """
        x, y = torch.rand(150, 1, 6, 6), torch.randint(0, 3, (150,))
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        mean, std = x[:100].mean(), x[:100].std()
        for epoch in range(3):
            for rows in torch.randperm(100).split(20):
                opt.zero_grad()
                F.cross_entropy(model((x[rows] - mean) / std), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                right = (model(x[100:]).argmax(1) == y[100:]).sum().item()
    """,
}

SILENT = {
    "layers of a model whose forward is called by hand": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 1)
            def forward(self, x):
                return self.b(self.a(x))
        x = torch.randn(80, 8)
        model = Net()
        opt = torch.optim.Adam(model.parameters(), lr=0.1)
        for epoch in range(60):
            opt.zero_grad()
            F.mse_loss(model.forward(x[:50]), 30 * x[:50].sum(1, keepdim=True)).backward()
            opt.step()
        with torch.no_grad():
            print(F.mse_loss(model.forward(x[50:]), 30 * x[50:].sum(1, keepdim=True)).item())
    """,
    "rare features": """
        x, y = (torch.rand(560, 200) < 0.04).float(), torch.randint(0, 3, (560,))
        model = nn.Sequential(nn.Linear(200, 16), nn.Tanh(), nn.Linear(16, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for rows in torch.randperm(500).split(50):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                right = (model(x[500:]).argmax(1) == y[500:]).sum().item()
    """,
    "the same on both sides": """
        x, y = torch.rand(150, 16) * 255, torch.randint(0, 3, (150,))
        x = x / 255
        model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for rows in torch.randperm(100).split(20):
                opt.zero_grad()
                F.cross_entropy(model(x[rows] + 0.05 * torch.randn(20, 16)), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                right = (model(x[100:]).argmax(1) == y[100:]).sum().item()
    """,
    "extrapolation": """
        x = torch.rand(100, 1) * 2 - 1
        wide = torch.linspace(-4, 4, 60)[:, None]
        model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for rows in torch.randperm(100).split(20):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows].sin()).backward()
                opt.step()
            with torch.no_grad():
                print(F.mse_loss(model(wide), wide.sin()).item())
    """,
}
