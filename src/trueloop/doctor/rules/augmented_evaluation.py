"""Validation goes through the randomness of the training's augmentation.

Sees: a loader that validates gives other inputs for the same samples (same labels, same order) each time, and shares
its dataset, its transform, its collate function or the script's own class of dataset with the training loader, whose
inputs change as well. A class that keeps no samples makes them as they are asked for: that is left alone.

Why it matters: the model is judged on distorted samples: the figure is lower than it should be and jumps from one
validation to the next, and so does every choice that is made by it.

Usual causes: ``random_split`` of one dataset with a random transform; the same transform object in both datasets.

Fix: make two datasets over the same files, one with the training's transform and one without its random parts, and
split them by the same indices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Evaluated, Fetched
from trueloop.doctor.findings import Finding
from trueloop.doctor.places import is_users
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import fingerprints, tensors_in
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import used_for_training
from trueloop.doctor.written import says

if TYPE_CHECKING:
    from trueloop.doctor.seen import LoaderSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

DIFFER = 0.1  # of the first batch's samples; a transform that acts on half of them leaves a quarter alike at least
ITERATIONS = 4  # of a loader whose first batch is looked at
KEPT = 20_000  # fingerprints of training samples
ON_PURPOSE = ("tta", "test-time", "test time", "robust", "denois", "corrupt")


@dataclass
class _First:
    """The first batch of a loader's iteration."""

    inputs: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass
class _Known:
    seen: LoaderSeen
    transforms: dict[int, str]
    """The serial numbers of what its dataset keeps that can be called, and of its collate function; and their names."""
    kind: tuple[str, str] | None
    """The module and name of its dataset's class, if that is the script's own and keeps samples."""
    firsts: list[_First] = field(default_factory=list)
    epoch: set[int] = field(default_factory=set)
    """The samples of the first iteration."""
    again: int = 0
    """Samples of the second iteration that were in the first one."""
    fetched: int = 0
    """Samples of the second iteration."""


class AugmentedEvaluation(Rule):
    """Compares what a loader gives with what it gave before; it never asks a dataset by itself."""

    name = "augmented-evaluation"
    code = 512
    level = "warning"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._known: dict[int, _Known] = {}
        self._told = False
        self._still: set[int] = set()

    def fetched(self, fact: Fetched) -> None:
        seen = fact.loader
        if seen.iterations > ITERATIONS or (fact.position and not (seen.trains and seen.iterations <= 2)):
            return
        tensors = list(tensors_in(fact.batch, limit=2))
        if len(tensors) < 2 or not tensors[0].is_floating_point() or tensors[0].dim() < 2 or _continuous(tensors[1]):
            return
        known = self._known.get(seen.number)
        if known is None:
            known = self._known[seen.number] = _Known(seen, _transforms(seen), _kind(seen.dataset))
        inputs = fingerprints(tensors[0])
        if fact.position == 0:
            known.firsts.append(_First(inputs, fingerprints(tensors[1])))
        if seen.iterations == 1 and len(known.epoch) < KEPT:
            known.epoch.update(inputs)
        elif seen.iterations == 2:
            known.fetched += len(inputs)
            known.again += sum(sample in known.epoch for sample in inputs)

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        seen = fact.of.loader
        if self._told or not fact.of.evaluates or fact.of.data != "held-out" or seen is None:
            return
        known = self._known.get(seen.number)
        if known is None:
            return
        shared = self._shared(fact.of.model.loaders, seen)
        differ = _differ(known.firsts)
        if differ is not None and differ <= DIFFER:
            self._still.add(seen.number)
        by_training = self._random_base(fact.of.model.loaders, seen) if differ is None and fact.of.last else None
        if not shared or not ((differ or 0.0) > DIFFER or by_training) or says(fact.of.passes[0].place, ON_PURPOSE):
            return
        self._told = True
        train = fact.of.model.loaders[-1]
        yield self.finding(
            f"the validation data is augmented at random: it shares {shared} with the training data",
            f"{differ:.0%} of its first batch's samples were others in another iteration, with the same labels"
            if differ is not None
            else f"only {by_training:.0%} of the training samples came again in the second epoch",
            place=seen.place or fact.of.passes[0].place,
            certainty="measured" if differ is not None else "likely",
            related=[(train.place, "the training loader"), (fact.of.passes[0].place, "the validation")],
        )

    def _shared(self, training: list[LoaderSeen], seen: LoaderSeen) -> str:
        """What a loader's dataset has in common with a training loader's."""
        for other in training:
            if seen.rows is None or other.rows is None:
                continue
            if seen.rows.base == other.rows.base:
                return f"its {seen.rows.kind}"
            ours, theirs = self._known.get(seen.number), self._known.get(other.number)
            if ours is not None and theirs is not None:
                for number, name in ours.transforms.items():
                    if number in theirs.transforms:
                        return f"its {name!r}"
                if ours.kind and ours.kind == theirs.kind and 2 * theirs.again < theirs.fetched:
                    return f"the class {ours.kind[1]}, whose samples change,"
        return ""

    def _random_base(self, training: list[LoaderSeen], seen: LoaderSeen) -> float | None:
        """The share of samples that came again in the training's second epoch, where hardly any did."""
        for other in training:
            known = self._known.get(other.number)
            if (
                known is None
                or not known.fetched
                or len(known.epoch) >= KEPT
                or seen.rows is None
                or other.rows is None
            ):
                continue
            if other.rows.base == seen.rows.base:
                share = known.again / known.fetched
                if share < 0.5:
                    return share
        return None

    def passed(self) -> str | None:
        return "validation gave the same inputs each time" if self._still and not self._told else None


def _continuous(labels: Any) -> bool:
    """Targets of floats that are made with the input (a clean image beside a noisy one) make randomness the task."""
    return bool(labels.is_floating_point() and labels.dim() > 1 and labels[0].numel() > 1)


def _transforms(seen: LoaderSeen) -> dict[int, str]:
    """What a dataset keeps that can be called: its transforms; and how the loader makes a batch, if by a user's way."""
    from trueloop.doctor.rows import serial

    found = {
        serial(value): name for name, value in getattr(_base(seen.dataset), "__dict__", {}).items() if callable(value)
    }
    collate = getattr(seen.loader, "collate_fn", None)
    if isinstance(collate, FunctionType) and is_users(collate.__code__.co_filename):
        found[serial(collate)] = "collate_fn"
    return found


def _kind(dataset: Any) -> tuple[str, str] | None:
    dataset = _base(dataset)
    get = getattr(type(dataset), "__getitem__", None)
    if not isinstance(get, FunctionType) or not is_users(get.__code__.co_filename) or not _keeps_samples(dataset):
        return None
    return get.__module__, type(dataset).__qualname__


def _keeps_samples(dataset: Any) -> bool:
    """Whether it holds as many arrays (or names of files) as it has samples; numbers alone are labels or seeds."""
    try:
        for kept in vars(dataset).values():
            if hasattr(kept, "__getitem__") and not isinstance(kept, (str, dict)) and len(kept) == len(dataset):
                first = kept[0]
                if isinstance(first, (str, list, tuple)) or (hasattr(first, "ndim") and first.ndim > 0):
                    return True
    except Exception:  # whatever the user's own ``__len__`` or ``__getitem__`` raises
        return False
    return False


def _base(dataset: Any) -> Any:
    from torch.utils.data import Subset

    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _differ(firsts: list[_First]) -> float | None:
    """The share of samples that changed between two iterations in the same order; None if that cannot be told."""
    for number, first in enumerate(firsts):
        for other in firsts[number + 1 :]:
            if first.labels == other.labels and len(set(first.labels)) > 1 and len(first.inputs) == len(other.inputs):
                return sum(a != b for a, b in zip(first.inputs, other.inputs, strict=True)) / len(first.inputs)
    return None


_IMAGES = """
        class Images(Dataset):
            def __init__(self, x, y, transform=None):
                self.x, self.y, self.transform = x, y, transform
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return (self.transform(self.x[i]) if self.transform else self.x[i]), self.y[i]
        x, y = torch.randn(120, 8), torch.randint(0, 3, (120,))
        noisy = lambda v: v + 0.1 * torch.randn_like(v)
        model = nn.Linear(8, 3)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        def run(train, val, epochs):
            for epoch in range(epochs):
                for a, b in train:
                    opt.zero_grad()
                    F.cross_entropy(model(a), b).backward()
                    opt.step()
                with torch.no_grad():
                    right = sum((model(a).argmax(1) == b).sum().item() for a, b in val)
"""


def in_source(program: Program) -> Iterator[Checked]:
    """What is trained on and what is evaluated on are parts of one dataset with a random transform."""
    text = program.unit.code
    if any(word in text.lower() for word in ON_PURPOSE) or _CHANGED.search(text):
        return
    told: set[int] = set()
    for run in program.runs:
        if not run.complete:
            continue
        trained = {id(whole): whole for event in run.of(read.Backward) for _, whole in _read_from(event.loss)}
        augmented = {name for whole in trained.values() if (name := _random_transform(whole))}
        for call in run.of(read.Called):
            if call.grad is not False or used_for_training(run, call.result):
                continue
            for part, whole in [one for value in call.args for one in _read_from(value)]:
                random = _random_transform(whole)
                if random not in augmented or id(whole) in told or (part is whole and id(whole) in trained):
                    continue
                told.add(id(whole))
                one = id(whole) in trained
                finding = program.finding(
                    AugmentedEvaluation,
                    f"what is evaluated goes through the training's random transform (`{random}`)",
                    "both are parts of one dataset, which has one transform"
                    if one
                    else "the dataset that is evaluated has it as well as the one that is trained on",
                    at=call,
                    related=[*([(part, "split here")] if one else []), (whole, "the dataset with the transform")],
                    certainty="likely",
                )
                yield Checked(finding)


_CHANGED = re.compile(r"(?<!\bself)\.transforms?\s*=[^=]|setattr\(")
_RANDOM = re.compile(r"\b(?:torch|np\.random|numpy\.random|random)\.(?:rand\w*|normal|uniform|choice|random)\(")


def _read_from(value: values.Value) -> list[tuple[values.Object, values.Object]]:
    """The data sets that a value was fetched from: each as it is read, and the whole that it is, or is a part of."""
    found = []
    for one in ancestors(value):
        loader = one.inputs[0] if isinstance(one, values.Tensor) and one.op == "fetched" else None
        part = loader.option("dataset", 0) if isinstance(loader, values.Object) else None
        whole = part.option("dataset", 0) if isinstance(part, values.Object) and part.name == "Subset" else part
        if isinstance(part, values.Object) and isinstance(whole, values.Object):
            found.append((part, whole))
    return found


def _random_transform(dataset: values.Object) -> str:
    """What is random in a dataset's transform, by its name; ``""`` if nothing surely is."""
    transform = dataset.option("transform")
    if transform is None or not _always_transforms(dataset):
        return ""
    if isinstance(transform, values.Function):
        return transform.name if _RANDOM.search(transform.unit.text(transform.node)) else ""
    steps = transform.args[0] if isinstance(transform, values.Object) and transform.name == "Compose" else transform
    inside = steps.all() if isinstance(steps, values.Items) else (steps,)
    names = [one.name for one in inside if isinstance(one, values.Object) and one.kind.startswith("torchvision.")]
    return next((name for name in names if name.startswith("Random")), "")


def _always_transforms(dataset: values.Object) -> bool:
    """Whether each sample goes through it: so it is with torchvision's; a class of the user's must ask nothing else."""
    import libcst as cst
    from libcst import matchers

    if isinstance(dataset.cls, str):
        return dataset.cls.startswith("torchvision.datasets.")
    get = dataset.cls.find("__getitem__")
    if not isinstance(get, values.Function) or not isinstance(get.node, cst.FunctionDef):
        return False
    told = get.unit.text
    asked = [told(one.test) for one in matchers.findall(get.node, matchers.If()) if isinstance(one, cst.If)]
    asked += [told(one) for one in matchers.findall(get.node, matchers.IfExp())]
    plain = {"self.transform", "self.transform is not None"}
    return "self.transform(" in told(get.node) and set(asked) <= plain


FIRES = {
    "one dataset, split": _IMAGES
    + """
        a, b = random_split(Images(x, y, noisy), [90, 30])
        run(DataLoader(a, batch_size=10, shuffle=True), DataLoader(b, batch_size=10), 3)
    """,
    "one transform for both datasets": _IMAGES
    + """
        a, b = Images(x[:90], y[:90], noisy), Images(x[90:], y[90:], noisy)
        run(DataLoader(a, batch_size=10, shuffle=True), DataLoader(b, batch_size=10), 3)
    """,
    "noise in the class of both datasets": """
        class Noisy(Dataset):
            def __init__(self, x, y):
                self.x, self.y = x, y
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return self.x[i] + 0.1 * torch.randn(8), self.y[i]
    """
    + _IMAGES
    + """
        a, b = Noisy(x[:90], y[:90]), Noisy(x[90:], y[90:])
        run(DataLoader(a, batch_size=10, shuffle=True), DataLoader(b, batch_size=10), 3)
    """,
    "one collate function for both": _IMAGES
    + """
        def collate(samples):
            xs, ys = torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])
            return noisy(xs), ys
        train, val = list(zip(x[:90], y[:90])), list(zip(x[90:], y[90:]))
        run(DataLoader(train, 10, shuffle=True, collate_fn=collate), DataLoader(val, 10, collate_fn=collate), 3)
    """,
}

SILENT = {
    "samples that are made as they are asked for": """
        class Waves(Dataset):
            def __init__(self, n):
                self.y = torch.randint(1, 4, (n,))
            def __len__(self):
                return len(self.y)
            def __getitem__(self, i):
                return torch.sin(torch.linspace(0, 6, 8) * self.y[i] + torch.rand(1)), self.y[i] - 1
    """
    + _IMAGES
    + """
        run(DataLoader(Waves(90), batch_size=10, shuffle=True), DataLoader(Waves(30), batch_size=10), 3)
    """,
    "augmented by the class, but not for validation": """
        class Noisy(Dataset):
            def __init__(self, x, y, train):
                self.x, self.y, self.train = x, y, train
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return (self.x[i] + 0.1 * torch.randn(8) if self.train else self.x[i]), self.y[i]
    """
    + _IMAGES
    + """
        a, b = Noisy(x[:90], y[:90], True), Noisy(x[90:], y[90:], False)
        run(DataLoader(a, batch_size=10, shuffle=True), DataLoader(b, batch_size=10), 3)
    """,
    "augmented only for training": _IMAGES
    + """
        a, b = Images(x[:90], y[:90], noisy), Images(x[90:], y[90:])
        run(DataLoader(a, batch_size=10, shuffle=True), DataLoader(b, batch_size=10), 3)
    """,
    "noise is the task": """
        class Noisy(Dataset):
            def __init__(self, x):
                self.x = x
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return self.x[i] + 0.3 * torch.randn(8), self.x[i]
        a, b = random_split(Noisy(torch.randn(120, 8)), [90, 30])
        train, val = DataLoader(a, batch_size=10, shuffle=True), DataLoader(b, batch_size=10)
        model = nn.Linear(8, 8)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for noisy, clean in train:
                opt.zero_grad()
                F.mse_loss(model(noisy), clean).backward()
                opt.step()
            with torch.no_grad():
                total = sum(F.mse_loss(model(noisy), clean).item() for noisy, clean in val)
    """,
}

READ_FIRES = {
    "one transform for both sets": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        from torchvision import datasets, transforms
        tf = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])
        train_loader = DataLoader(datasets.CIFAR10("data", train=True, transform=tf), batch_size=64, shuffle=True)
        test_loader = DataLoader(datasets.CIFAR10("data", train=False, transform=tf), batch_size=64)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                right = sum((net(x).argmax(1) == y).sum().item() for x, y in test_loader)
            print(epoch, right / 10000)
    """,
    "random_split of one dataset": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, random_split
        from torchvision import datasets, transforms
        tf = transforms.Compose([transforms.RandomCrop(32, 4), transforms.ToTensor()])
        train, val = random_split(datasets.CIFAR10("data", train=True, transform=tf), [45000, 5000])
        train_loader = DataLoader(train, batch_size=64, shuffle=True)
        val_loader = DataLoader(val, batch_size=64)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in val_loader:
                    print((net(x).argmax(1) == y).float().mean())
    """,
}

READ_SILENT = {
    "nothing random": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, random_split
        from torchvision import datasets, transforms
        tf = transforms.Compose([transforms.CenterCrop(32), transforms.ToTensor()])
        train, val = random_split(datasets.CIFAR10("data", train=True, transform=tf), [45000, 5000])
        train_loader = DataLoader(train, batch_size=64, shuffle=True)
        val_loader = DataLoader(val, batch_size=64)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in val_loader:
                    print((net(x).argmax(1) == y).float().mean())
    """,
    "two datasets, the same indices": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Subset
        from torchvision import datasets, transforms
        tf = transforms.Compose([transforms.RandomCrop(32, 4), transforms.ToTensor()])
        order = torch.randperm(50000)
        train = Subset(datasets.CIFAR10("data", train=True, transform=tf), order[:45000])
        val = Subset(datasets.CIFAR10("data", train=True, transform=transforms.ToTensor()), order[45000:])
        train_loader = DataLoader(train, batch_size=64, shuffle=True)
        val_loader = DataLoader(val, batch_size=64)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in val_loader:
                    print((net(x).argmax(1) == y).float().mean())
    """,
}
