"""Training and validation inputs are scaled differently.

Sees: the inputs' features spread several times wider or narrower in evaluation passes than in training passes: all of
them together, and most of them by themselves. In the text: two parts of one data set come to one model, and one is
divided or scaled where the other is not, or by another number; or one transform of torchvision's has a ``Normalize``
and the other has none.

Why it matters: the network meets numbers that it has never seen. Its validation figure says nothing, and at
prediction it fails in the same way.

Usual causes: normalisation, or the division by 255, is in the training branch only; another transform for validation.

Fix: scale both by the same function, with the statistics of the training data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Called, Evaluated, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.data import loaded, scaled
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.ritual import is_stepped, learned_from, used_for_training
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.findings import Place
    from trueloop.doctor.source.program import Program
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


def in_source(program: Program) -> Iterator[Checked]:
    """Two parts of one data set come to one model, and only one was divided, or each by another number."""
    for run in program.runs:
        if not run.complete:
            continue
        learning = [call for call in run.of(read.Called) if call.args and any(True for _ in learned_from(run, call))]
        judging = [call for call in run.of(read.Called) if call.args and _is_judged(run, call)]
        found = [_differ(one, other) for one in learning for other in judging if one.target is other.target]
        if not found or "" in found:
            continue
        finding = program.finding(
            PreprocessingDiffers,
            "training and evaluation inputs are scaled differently",
            found[0],
            at=judging[0],
            related=[(learning[0], "the model in training")],
            certainty="certain",
        )
        yield Checked(finding)


def _is_judged(run: Run, call: read.Called) -> bool:
    return call.grad is False and is_stepped(run, call.target) and not used_for_training(run, call.result)


def _differ(learning: read.Called, judging: read.Called) -> str:
    """What is done to the one and not to the other, down to the data that both are parts of; empty if none is known."""
    one, by = scaled(learning.args[0])
    other, and_by = scaled(judging.args[0])
    if one is other or (loaded(one) == loaded(other) and loaded(one)[0]):
        factors = _factor(by), _factor(and_by)
        if None not in factors and math.isclose(factors[0] or 0, factors[1] or 0, rel_tol=0.01):
            return ""
        if bool(by) is not bool(and_by):
            which = "training" if by else "evaluation"
            return f"only the {which} inputs are divided or scaled; both are parts of the same data"
        if None not in factors:
            words = f"{factors[0]:.3g} times in training, {factors[1]:.3g} times in evaluation"
            return f"the inputs are taken {words}; both are parts of the same data"
        return ""
    normalised = [_normalised(one), _normalised(other)]
    if by or and_by or None in normalised or normalised[0] == normalised[1]:
        return ""
    which = "training" if normalised[0] else "evaluation"
    return f"only the {which} data set's transform has a `Normalize`"


def _factor(by: list[tuple[str, values.Value]]) -> float | None:
    """By how much all of it multiplies; None if that is not known."""
    factor = 1.0
    for op, operand in by:
        number = values.constant(operand)
        if not isinstance(number, (int, float)) or not number:
            return None
        factor = factor / number if op == "div" else factor * number
    return factor


def _normalised(batch: values.Value) -> bool | None:
    """Whether the pictures of a data set of torchvision's are normalised; None if all that is done is not known."""
    fetched = batch.inputs[0] if isinstance(batch, values.Tensor) and batch.op == "getitem" else None
    loader = fetched.inputs[0] if isinstance(fetched, values.Tensor) and fetched.op == "fetched" else None
    data = loader.option("dataset", 0) if isinstance(loader, values.Object) else None
    while isinstance(data, values.Object) and data.kind == "torch.utils.data.Subset":
        data = data.option("dataset", 0)
    if not isinstance(data, values.Object) or not _from(data, "torchvision.datasets."):
        return None
    compose = data.kwargs.get("transform")
    steps = (
        compose.option("transforms", 0) if isinstance(compose, values.Object) and compose.name == "Compose" else None
    )
    those = steps.items if isinstance(steps, values.Items) else (compose,)
    if those is None or not all(_is_torchvisions(one) for one in those):
        return None
    return any(isinstance(one, values.Object) and one.name == "Normalize" for one in those)


def _is_torchvisions(value: values.Value | None) -> bool:
    return isinstance(value, values.Object) and _from(value, "torchvision.transforms.")


def _from(value: values.Object, module: str) -> bool:
    """Whether it is of a class of a library's module itself, not of one that descends from it."""
    return isinstance(value.cls, str) and value.cls.startswith(module)


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

READ_FIRES = {
    "only the training pictures are divided": """
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        X, y = load_digits(return_X_y=True)
        X_train, X_val, y_train, y_val = train_test_split(X, y)
        train_x = torch.tensor(X_train, dtype=torch.float32) / 16.0
        val_x = torch.tensor(X_val, dtype=torch.float32)
        train = DataLoader(TensorDataset(train_x, torch.tensor(y_train)), batch_size=64, shuffle=True)
        val = DataLoader(TensorDataset(val_x, torch.tensor(y_val)), batch_size=64)
        model = nn.Linear(64, 10)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(6):
            for x, t in train:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), t).backward()
                opt.step()
            with torch.no_grad():
                print(sum((model(x).argmax(1) == t).sum().item() for x, t in val))
    """,
    "in the training loop, the rows by index": """
        import torch
        from torch import nn
        def fit(X, y):
            net = nn.Linear(4, 1)
            opt = torch.optim.Adam(net.parameters())
            mean, std = X[:700].mean(0), X[:700].std(0)
            for epoch in range(6):
                for rows in torch.randperm(700).split(50):
                    x = (X[rows] - mean) / std
                    opt.zero_grad()
                    nn.functional.mse_loss(net(x), y[rows]).backward()
                    opt.step()
                net.eval()
                with torch.no_grad():
                    print(nn.functional.mse_loss(net(X[700:]), y[700:]).item())
    """,
    "a scaler that the validation never meets": """
        import torch
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
        from torch import nn
        a, b, ya, yb = train_test_split(X, y)
        a = torch.tensor(StandardScaler().fit_transform(a)).float()
        b = torch.tensor(b).float()
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(6):
            opt.zero_grad()
            nn.functional.mse_loss(net(a), ya).backward()
            opt.step()
        with torch.no_grad():
            print(nn.functional.mse_loss(net(b), yb).item())
    """,
    "Normalize in one transform": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        from torchvision import datasets, transforms
        train_set = datasets.MNIST(".", train=True, transform=transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.13,), (0.31,))]))
        test_set = datasets.MNIST(".", train=False, transform=transforms.ToTensor())
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for x, t in DataLoader(train_set, batch_size=64, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), t).backward()
                opt.step()
            with torch.no_grad():
                for x, t in DataLoader(test_set, batch_size=64):
                    print((net(x).argmax(1) == t).float().mean())
    """,
}

READ_SILENT = {
    "both, by the training part's statistics": """
        import torch
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import StandardScaler
        from torch import nn
        a, b, ya, yb = train_test_split(X, y)
        scaler = StandardScaler().fit(a)
        a, b = torch.tensor(scaler.transform(a)).float(), torch.tensor(scaler.transform(b)).float()
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(6):
            noisy = a + 0.1 * torch.randn_like(a)
            opt.zero_grad()
            nn.functional.mse_loss(net(noisy), ya).backward()
            opt.step()
        with torch.no_grad():
            print(nn.functional.mse_loss(net(b), yb).item())
    """,
    "the same in other words, and dropped inputs": """
        import torch
        from torch import nn
        def fit(X, y):
            net = nn.Linear(4, 1)
            opt = torch.optim.Adam(net.parameters())
            for epoch in range(6):
                for rows in torch.randperm(700).split(50):
                    opt.zero_grad()
                    nn.functional.mse_loss(net((X[rows] / 255 - 0.5) / 0.5), y[rows]).backward()
                    opt.step()
                with torch.no_grad():
                    print(nn.functional.mse_loss(net(X[700:] * (1 / 127.5) - 1), y[700:]).item())
        def drop(X, y):
            net = nn.Linear(4, 1)
            opt = torch.optim.Adam(net.parameters())
            for rows in torch.randperm(700).split(50):
                mask = (torch.rand(50, 4) > 0.2).float()
                opt.zero_grad()
                nn.functional.mse_loss(net(X[rows] * mask / 0.8), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                print(nn.functional.mse_loss(net(X[700:]), y[700:]).item())
    """,
    "each at its own place": """
        import torch
        from torch import nn
        def fit(X, y):
            net = nn.Linear(4, 1)
            opt = torch.optim.Adam(net.parameters())
            mean, std = X[:700].mean(0), X[:700].std(0)
            held_out = (X[700:] - mean) / std
            for epoch in range(6):
                for rows in torch.randperm(700).split(50):
                    x = (X[rows] - mean) / std
                    opt.zero_grad()
                    nn.functional.mse_loss(net(x), y[rows]).backward()
                    opt.step()
                with torch.no_grad():
                    print(nn.functional.mse_loss(net(held_out), y[700:]).item())
    """,
    "mixed up in training, scaled by a function that is not known": """
        import torch
        from torch import nn
        from mine import normalise
        def fit(X, y):
            net = nn.Linear(4, 1)
            opt = torch.optim.Adam(net.parameters())
            for epoch in range(6):
                for rows in torch.randperm(700).split(50):
                    x = 0.7 * X[rows] / 255 + 0.3 * X[rows.flip(0)] / 255
                    opt.zero_grad()
                    nn.functional.mse_loss(net(x), y[rows]).backward()
                    opt.step()
                with torch.no_grad():
                    print(nn.functional.mse_loss(net(normalise(X[700:])), y[700:]).item())
    """,
    "augmented, and normalised on both sides": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        from torchvision import datasets, transforms
        norm = transforms.Normalize((0.13,), (0.31,))
        train_set = datasets.MNIST(".", train=True, transform=transforms.Compose(
            [transforms.RandomRotation(5), transforms.ToTensor(), norm]))
        test_set = datasets.MNIST(".", train=False, transform=transforms.Compose([transforms.ToTensor(), norm]))
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for x, t in DataLoader(train_set, batch_size=64, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), t).backward()
                opt.step()
            with torch.no_grad():
                for x, t in DataLoader(test_set, batch_size=64):
                    print((net(x).argmax(1) == t).float().mean())
    """,
}
