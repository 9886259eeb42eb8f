"""A loss that does not fit class labels: a distance between class numbers, or cross-entropy over a single column.

Sees: ``mse_loss`` or ``l1_loss`` of one number a sample against whole numbers 0, 1, 2 … of which each comes up, in
a script that counts hits or an accuracy (its comments are not read) and reports no error as amounts have; the same
against a column of class numbers where the model has one output a class; or cross-entropy over one output column. Two
classes by squared distance are only a note. Numbers whose ends are rare (a bell), as amounts have, are left alone.

Why it matters: a distance says that class 9 is nearer to 8 than to 0. Classes have no such order, and the model
spends itself on it. Cross-entropy over one column is 0 whatever the weights are: nothing is learnt.

Usual causes: a regression script taken over for classes; one output for two classes with ``CrossEntropyLoss``.

Fix: give the last layer one output a class and use ``CrossEntropyLoss`` on the labels; for two classes one output
and ``BCEWithLogitsLoss``.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from trueloop.doctor.endings import class_dimension
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends, readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.data import gives_one, loaded, rank, stored
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import endings

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
CALLS, VALUES = 3, 40  # so many calls, and targets in them, are seen before it is judged
MOST = 30  # classes; whole numbers beyond are counts or ages
LOOKS = 30  # calls of the loss that are looked at on each line
CLASSES = re.compile(
    r"accura|\bacc\b|_acc\b|\bacc_|correct|\bhits?\b|argmax|n_?class|\bclasses\b|classif|LabelEncoder"
    r"|load_(?:iris|wine|digits|breast_cancer)\b|MNIST|CIFAR",
    re.I,
)
"""What a script that means classes calls or prints; its comments are not read."""
FROM_ONE = re.compile(r"argmax|n_?class|\bclasses\b|classif|LabelEncoder", re.I)
"""The same where the numbers begin at 1, as stars and floors do."""
ORDERED = re.compile(
    r"ordinal|\bratings?\b|\bstars?\b|\bgrades?\b|quality|severity|likert|\bages?\b|\bcounts\b|counting", re.I
)
"""Words of a script whose whole numbers are an amount or an order."""
ERRORS = re.compile(r"\bmae\b|_mae\b|\bmae_|rmse|r2_score|mean[_ ]absolute", re.I)
"""What is reported of amounts, and of classes never."""
NARROW, ENDS = 0.6, 4  # a variance so much below that of equal shares, over so many values: a bell, as amounts have


@dataclass
class _Site:
    """One line with a loss."""

    calls: int = 0
    targets: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    columns: int = 0
    done: bool = False


class RegressionLossOnClasses(Rule):
    """Knows it by shapes, by targets that are class numbers, and by what the script calls them."""

    name = "regression-loss-on-classes"
    code = 305
    level = "warning"
    certainty = "likely"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._sites: dict[Place | None, _Site] = {}

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if fact.error is not None or not fact.input.requires_grad:
            return
        site = self._sites.setdefault(fact.place, _Site())
        if site.done or fact.kind not in (*DISTANCES, "cross_entropy"):
            return
        site.calls += 1
        site.done = site.calls >= LOOKS
        if fact.kind == "cross_entropy":
            yield from self._one_column(fact, site)
        elif fact.input.dim() and fact.target.dim() and len(fact.target) and readable(fact.target):
            yield from self._distance(fact, site)

    def _one_column(self, fact: LossCalled, site: _Site) -> Iterator[Finding]:
        scores = fact.input
        if scores.dim() < 2 or scores.shape[class_dimension(scores)] != 1 or scores.numel() < 2:
            site.columns = -LOOKS  # a size that changes from call to call is a number of candidates
            return
        site.columns += 1
        if site.columns == CALLS:
            site.done = True
            yield self.finding(
                f"cross_entropy is given one output column {tuple(scores.shape)}: over one class it is 0, or constant, "
                "whatever the weights are",
                f"the loss is {float(fact.output.mean()) if fact.output is not None else 0:.4g}; its gradient is 0",
                place=fact.place,
                level="error",
                certainty="certain",
            )

    def _distance(self, fact: LossCalled, site: _Site) -> Iterator[Finding]:
        guess, target = fact.input, fact.target
        samples = len(target)
        wide = guess.dim() == 2 and guess.shape[1] > 2 and target.numel() == samples == len(guess)
        if not wide and (guess.numel() != samples or target.numel() != samples):
            site.done = True  # several numbers a sample: one-hot rows (Brier), images, vectors
            return
        classes = _class_numbers(target)
        if classes is None:
            site.done = True
            return
        site.seen.update(classes)
        site.targets += samples
        top = max(site.seen)
        if site.calls < CALLS or site.targets < VALUES or min(site.seen) not in (0, 1) or len(classes) < 2:
            return
        if wide and top < guess.shape[1]:
            site.done = True
            yield self.finding(
                f"{fact.kind} compares an output a class {tuple(guess.shape)} with class numbers {tuple(target.shape)}",
                f"{site.targets} targets are the whole numbers {_shown(site.seen)}",
                place=fact.place,
                certainty="certain",
            )
        elif len(site.seen) == top - min(site.seen) + 1 and fact.place is not None and not _bell(site.seen):
            script = "".join(linecache.getlines(fact.place.file))
            if not _means_classes(script, min(site.seen)) or (fact.kind == "mse_loss" and ERRORS.search(script)):
                return
            site.done = len(site.seen) > 2 or site.done
            if len(site.seen) == 2 and site.calls < LOOKS - 1:
                return  # more classes may come
            site.done = True
            yield self.finding(
                f"{fact.kind} fits the class numbers {_shown(site.seen)} as one number, as if classes had an order",
                f"{site.targets} targets of {site.calls} calls are whole numbers, each from {min(site.seen)} to {top} "
                "comes up, and the script speaks of classes or an accuracy",
                place=fact.place,
                level="note" if len(site.seen) == 2 else None,
            )


def _class_numbers(target: Tensor) -> Counter[int] | None:
    """How often each whole number is in it; None if they are not whole, or too many or too large for classes."""
    between = ends(target)
    if between is None or between[0] < 0 or between[1] > MOST or between[0] % 1 or between[1] % 1:
        return None
    values = Counter(target.detach().flatten()[:2000].tolist())
    return None if any(value % 1 for value in values) else Counter({int(value): n for value, n in values.items()})


def _bell(shares: Counter[int]) -> bool:
    """Whether the middle values come far oftener than those at the ends: amounts and grades do so, classes seldom."""
    many, values = sum(shares.values()), len(shares)
    mean = sum(value * n for value, n in shares.items()) / many
    variance = sum(n * (value - mean) ** 2 for value, n in shares.items()) / many
    return values >= ENDS and variance < NARROW * (values**2 - 1) / 12


@lru_cache(maxsize=8)
def _means_classes(script: str, first: int) -> bool:
    return bool((CLASSES if first == 0 else FROM_ONE).search(_spoken(script))) and not ORDERED.search(script)


def _spoken(text: str) -> str:
    """A script's names, and the texts that it uses; no comments and no docstrings.

    Example:
        >>> _spoken("x = 1  # accuracy")
        'x'
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    words: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            words.append(node.value)
        words += [
            getattr(node, name) for name in ("id", "attr", "arg", "name") if isinstance(getattr(node, name, None), str)
        ]
    return "\n".join(words)


def _shown(numbers: Iterable[int]) -> str:
    known = sorted(numbers)
    return ", ".join(map(str, known[:4])) + (" …" if len(known) > 4 else "")


def in_source(program: Program) -> Iterator[Checked]:
    """A layer with one output meets the class numbers of a known data set, or goes into cross-entropy as it is."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            if id(event.node) in told:
                continue
            direct = event.kind == "cross_entropy" and all(gives_one(one) for one in values.options(event.input))
            direct = direct and rank(event.input) == 2  # of three, they may be the scores of candidates
            name = _whose_classes(event.target)
            distance = event.kind in DISTANCES and bool(name)
            if distance and not (
                all(gives_one(one) for one in endings(event.input)) and CLASSES.search(_code(program))
            ):
                continue
            if not direct and not distance:
                continue
            told.add(id(event.node))
            finding = program.finding(
                RegressionLossOnClasses,
                "cross_entropy is given one output column: over one class it is 0 whatever the weights are"
                if direct
                else f"{event.kind} takes the distance between class numbers: the classes of {name}",
                "the last layer has one output",
                at=event,
                level="error" if direct else None,
                certainty="certain" if direct else None,
            )
            yield Checked(finding)


_CLASSES = ("load_digits", "load_iris", "load_wine")
_IMAGES = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "SVHN", "ImageFolder", "STL10")


def _whose_classes(target: values.Value) -> str:
    """The data set whose class numbers a target is; empty if none is known."""
    target = stored(target)
    name, part = loaded(target)
    if name in _CLASSES and part == "target":
        return name
    batch = target.inputs[0] if isinstance(target, values.Tensor) and target.op == "getitem" else None
    if not isinstance(batch, values.Tensor) or batch.op != "fetched" or not isinstance(target, values.Tensor):
        return ""
    loader = batch.inputs[0]
    data = loader.option("dataset", 0) if isinstance(loader, values.Object) else None
    while isinstance(data, values.Object) and data.name == "Subset":
        data = data.option("dataset", 0)
    known = isinstance(data, values.Object) and data.kind.startswith("torchvision.datasets.") and data.name in _IMAGES
    if not known or not isinstance(data, values.Object) or "target_transform" in data.kwargs:
        return ""
    return data.name if values.constant(target.options.get("key")) == 1 else ""


def _code(program: Program) -> str:
    return "\n".join(line.split("#")[0] for line in program.lines if "import " not in line and "load_" not in line)


FIRES = {
    "ten classes as one number": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        correct = 0
        for _ in range(8):
            x = torch.randn(32, 4)
            y = x.argmax(1)
            out = model(x).squeeze(1)
            correct += (out.round() == y).sum().item()
            opt.zero_grad()
            F.mse_loss(out, y.float()).backward()
            opt.step()
    """,
    "cross-entropy over one column": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(32, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[:, :1] > 0).float()).backward()
            opt.step()
    """,
    "an output a class against numbers": """
        model = nn.Linear(4, 4)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(32, 4)
            opt.zero_grad()
            nn.L1Loss()(model(x), x.argmax(1, keepdim=True).float()).backward()
            opt.step()
    """,
}

SILENT = {
    "one-hot rows": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(32, 4)
            y = x[:, :3].argmax(1)
            accuracy = (model(x).argmax(1) == y).float().mean()
            opt.zero_grad()
            F.mse_loss(torch.softmax(model(x), 1), F.one_hot(y, 3).float()).backward()
            opt.step()
    """,
    "ratings": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(32, 4)
            stars = (x[:, 0] * 2 + 3).round().clamp(1, 5)
            out = model(x).squeeze(1)
            accuracy = (out.round() == stars).float().mean()
            opt.zero_grad()
            F.mse_loss(out, stars).backward()
            opt.step()
    """,
    "an amount with a bell, and a word in a comment": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        correct = 0
        for _ in range(8):
            x = torch.randn(32, 4)
            rooms = (x[:, 0] + 3).round().clamp(0, 6)
            out = model(x).squeeze(1)
            correct += (out.round() == rooms).sum().item()
            opt.zero_grad()
            F.mse_loss(out, rooms).backward()
            opt.step()
        floors = nn.Linear(4, 1)  # no classifier
        opt = torch.optim.SGD(floors.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(32, 4)
            opt.zero_grad()
            F.mse_loss(floors(x).squeeze(1), torch.randint(1, 5, (32,)).float()).backward()
            opt.step()
    """,
    "an amount whose error is reported": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(32, 4)
            people = torch.randint(0, 6, (32,)).float()
            out = model(x).squeeze(1)
            mae, accuracy = (out - people).abs().mean(), (out.round() == people).float().mean()
            opt.zero_grad()
            F.mse_loss(out, people).backward()
            opt.step()
    """,
    "least-squares GAN": """
        D = nn.Linear(4, 1)
        opt = torch.optim.SGD(D.parameters(), lr=0.01)
        for _ in range(40):
            real, fake = D(torch.randn(32, 4)), D(torch.rand(32, 4))
            accuracy = (real > 0.5).float().mean()
            loss = F.mse_loss(real, torch.ones(32, 1)) + F.mse_loss(fake, torch.zeros(32, 1))
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

READ_FIRES = {
    "pictures' labels as numbers": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        from torchvision import datasets, transforms
        loader = DataLoader(datasets.MNIST(".", transform=transforms.ToTensor()), batch_size=64, shuffle=True)
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
        right = 0
        for x, y in loader:
            out = net(x).squeeze(1)
            nn.functional.mse_loss(out, y.float()).backward()
            right += (out.round().long() == y).sum().item()
        print("accuracy", right / 60000)
    """,
    "digits as one number": """
        import torch
        from sklearn.datasets import load_digits
        from torch import nn
        X, y = load_digits(return_X_y=True)
        X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        opt = torch.optim.Adam(net.parameters())
        for step in range(100):
            opt.zero_grad()
            nn.functional.mse_loss(net(X).squeeze(1), y.float()).backward()
            opt.step()
        accuracy = (net(X).squeeze(1).round() == y).float().mean()
    """,
    "cross-entropy with one column": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        criterion = nn.CrossEntropyLoss()
        for x, y in loader:
            criterion(net(x), y).backward()
    """,
}

READ_SILENT = {
    "one hot, scores of candidates": """
        import torch
        from sklearn.datasets import load_digits
        from torch import nn
        X, y = load_digits(return_X_y=True)
        X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        score = nn.Linear(64, 1)
        opt = torch.optim.Adam(net.parameters())
        for step in range(100):
            opt.zero_grad()
            nn.functional.mse_loss(net(X).softmax(1), nn.functional.one_hot(y).float()).backward()
            nn.functional.mse_loss(score(X).squeeze(1), (y == 3).float()).backward()
            nn.functional.cross_entropy(score(X.view(3, -1, 64)).squeeze(-1), chosen).backward()
            opt.step()
        accuracy = (net(X).argmax(1) == y).float().mean()
    """,
}
