"""The training data come sorted by class, in the same order in every epoch.

Sees: a training loader over a map-style dataset reads it in order (or, without a loader, the same batches come in the
same order again), and the labels come in long runs: neighbours differ less than a fifth as often as in a random
order, and a run is longer than half a batch.

Why it matters: each batch holds one class or two. The model learns to say the class of the moment and forgets the one
before; batch statistics are those of single classes.

Usual causes: ``shuffle=True`` was left out; the data are stored class by class.

Fix: ``DataLoader(…, shuffle=True)`` for training, or ``torch.randperm`` in each epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Fetched, LossCalled, Settled, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import given, with_argument
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ways import Run, common_loop

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.seen import LoaderSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

SAMPLES = 30
RARE = 0.2  # of the changes that a random order would have
BATCHES = 4  # an epoch: with fewer the order hardly matters
KEPT = 20_000
LABELS = ("label", "labels", "target", "targets", "y")


@dataclass
class _Labels:
    """The labels of one epoch in their order."""

    batches: list[list[float]] = field(default_factory=list)
    names: list[int] = field(default_factory=list)  # fingerprints of the batches, where there is no loader
    count: int = 0
    place: Place | None = None
    repeats: int = 0
    broken: bool = False


class TrainingDataNotShuffled(Rule):
    """Reads labels in a loader's first iteration; without a loader, those that losses are given."""

    name = "training-data-not-shuffled"
    code = 503
    level = "warning"
    certainty = "measured"
    seen_by = ("run", "source")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._loaders: dict[int, _Labels] = {}
        self._models: dict[int, _Labels] = {}
        self._targets: dict[int, list[float]] = {}  # pass -> what its loss was given
        self._told = False
        self._right = 0

    def fetched(self, fact: Fetched) -> None:
        loader = fact.loader
        if loader.iterations > 1 or not in_order(loader):
            return
        labels = self._loaders.setdefault(loader.number, _Labels())
        found = labels_in(fact.batch)
        if found is None or labels.count > KEPT:
            return
        labels.batches.append(found)
        labels.count += len(found)
        labels.place = fact.place

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        """When the second iteration is trained on: the first one is whole."""
        if self._told or not self._loaders:
            return
        for one in fact.passes:
            loader = one.loader
            if loader is not None and loader.iterations == 2 and loader.number in self._loaders:
                yield from self._judge(self._loaders.pop(loader.number), loader)

    def loss_called(self, fact: LossCalled) -> None:
        of = fact.of
        if of is None or of.loader is not None or not of.samples or fact.target.numel() != len(of.samples):
            return
        if of.model.number in self._models and self._models[of.model.number].broken:
            return
        found = _values(fact.target)
        if found is not None and len(self._targets) < 64:
            self._targets[of.number] = found

    def settled(self, fact: Settled) -> None:
        of = fact.of
        target = self._targets.pop(of.number, None)
        if target is None or of.phase != "training":
            return
        labels = self._models.setdefault(of.model.number, _Labels(place=of.place))
        name = hash(of.samples)
        if labels.repeats or (labels.names and name == labels.names[0]):
            at = labels.repeats % len(labels.names)
            labels.broken = labels.broken or labels.names[at] != name
            labels.repeats += 1
            labels.broken = labels.broken or (labels.repeats == 1 and not in_long_runs(labels))
        elif labels.count < KEPT:
            labels.names.append(name)
            labels.batches.append(target)
            labels.count += len(target)
        else:
            labels.broken = True  # too long to wait for the same order again

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for loader in self.trace.loaders:
            if loader.trains and loader.number in self._loaders and not self._told:
                yield from self._judge(self._loaders.pop(loader.number), loader)
        for labels in self._models.values():
            if not self._told and not labels.broken and labels.repeats >= len(labels.names) > 0:
                yield from self._judge(labels, None)

    def _judge(self, labels: _Labels, loader: LoaderSeen | None) -> Iterator[Finding]:
        runs = in_long_runs(labels)
        if runs is None:
            self._right += 1
            return
        changes, by_chance, kinds = runs
        total, batch = labels.count, labels.count / len(labels.batches)
        self._told = True
        classes = sum(len(set(labels)) for labels in labels.batches) / len(labels.batches)
        yield self.finding(
            f"the training data come sorted by label and are not shuffled: a batch of {batch:.0f} holds "
            f"{classes:.1f} of {kinds} classes",
            f"in the first epoch the label changes {changes} times over {total:,} samples; in a random order it would "
            f"about {by_chance:.0f} times",
            place=labels.place if loader is None or loader.place is None else loader.place,
            related=[(labels.place, "the batches come in this order")],
        )

    def passed(self) -> str | None:
        return f"labels of {self._right} unshuffled training sets come mixed" if self._right else None


def in_long_runs(labels: _Labels) -> tuple[int, float, int] | None:
    """How often the label changes, how often it would in a random order, and how many labels there are.

    Returns:
        None where labels are not in runs longer than half a batch, or there are too few of them to tell.
    """
    in_a_row = [label for batch in labels.batches for label in batch]
    changes = sum(a != b for a, b in pairwise(in_a_row))
    return runs_of(changes, tuple(Counter(in_a_row).values()), len(labels.batches))


def runs_of(changes: int, counts: Sequence[int], batches: int) -> tuple[int, float, int] | None:
    """The same, of labels that are counted already.

    Args:
        changes: how often the label changes from one sample to the next.
        counts: how many samples each label has.
        batches: in how many batches they come.

    Example:
        >>> runs_of(1, [200, 200], 10), runs_of(190, [200, 200], 10)
        ((1, 199.5, 2), None)
    """
    total = sum(counts)
    if total < SAMPLES or batches < BATCHES or not 2 <= len(counts) <= total / 5:
        return None
    by_chance = (1 - sum((count / total) ** 2 for count in counts)) * (total - 1)
    long = total / (changes + 1) >= 0.5 * total / batches
    return (changes, by_chance, len(counts)) if by_chance >= 10 and changes <= RARE * by_chance and long else None


def in_order(seen: LoaderSeen) -> bool:
    """Whether the loader reads a map-style dataset from its first sample to its last."""
    from torch.utils.data import IterableDataset, SequentialSampler

    loader = seen.loader
    return (
        loader is not None
        and not isinstance(loader.dataset, IterableDataset)
        and (type(getattr(loader, "sampler", None)) is SequentialSampler)
    )


def labels_in(batch: Any) -> list[float] | None:
    """The labels of a batch: what is called so, or the last tensor with one number a sample."""
    import torch

    if isinstance(batch, dict):
        named = next((batch[key] for key in batch if isinstance(key, str) and key.lower() in LABELS), None)
        return _values(named) if isinstance(named, torch.Tensor) else None
    if not isinstance(batch, (list, tuple)) or len(batch) < 2:
        return None
    return _values(batch[-1]) if isinstance(batch[-1], torch.Tensor) else None


def _values(target: Tensor) -> list[float] | None:
    if target.device.type != "cpu" or target.dim() not in (1, 2) or target.numel() != len(target):
        return None
    return [float(value) for value in target.detach().reshape(-1).tolist()]


def in_source(program: Program) -> Iterator[Checked]:
    """A loader without shuffling or sampler feeds the training. The order of the samples is not known: a note."""
    told: set[int] = set()
    for run in program.runs:
        steps = list(run.of(read.Stepped))
        held = _held_out(run)
        for backward in run.of(read.Backward):
            if not any(common_loop(step.at, backward.at) is not None for step in steps) or len(backward.at.loops) < 2:
                continue
            for one in ancestors(backward.loss):
                loader = one.inputs[0] if isinstance(one, values.Tensor) and one.op == "fetched" else None
                if not isinstance(loader, values.Object) or loader.kind != "torch.utils.data.DataLoader":
                    continue
                if id(loader.node) in told or id(loader) in held or not _in_order(loader):
                    continue
                told.add(id(loader.node))
                finding = program.finding(
                    TrainingDataNotShuffled,
                    "the training loader gives the same order in every epoch",
                    "`shuffle` is False, and no sampler is given",
                    at=loader,
                    level="note",
                    certainty="likely",
                    related=[(backward, "trained on here")],
                    help="pass `shuffle=True`, if the order of the samples does not matter",
                )
                yield Checked(finding, _mended(program, loader))


def _held_out(run: Run) -> set[int]:
    """The loaders that a model reads in eval mode or without gradients: that they are trained on is another mistake."""
    found: set[int] = set()
    for call in run.of(read.Called):
        if call.training is False or call.grad is False:
            fetched = (one for value in call.args for one in ancestors(value) if isinstance(one, values.Tensor))
            found |= {id(one.inputs[0]) for one in fetched if one.op == "fetched"}
    return found


def _in_order(loader: values.Object) -> bool:
    shuffle = loader.option("shuffle", 2)
    if shuffle is not None and not (isinstance(shuffle, values.Constant) and shuffle.value in (False, None)):
        return False
    if kind(given(loader.node, "shuffle", 2)) == "Comparison":  # `shuffle=name == "train"`: for some of several loaders
        return False
    if any(name in loader.kwargs for name in ("sampler", "batch_sampler", "**")) or len(loader.args) > 3:
        return False
    data = loader.option("dataset", 0)
    # what is known to have a length and an order: not a stream, not a window over a series
    return isinstance(data, values.Object) and data.name in (
        "TensorDataset",
        "Subset",
        "ImageFolder",
        "MNIST",
        "CIFAR10",
        "ConcatDataset",
        "FashionMNIST",
        "CIFAR100",
    )


def _mended(program: Program, loader: values.Object) -> Fix | None:
    said = given(loader.node, "shuffle", 2)
    if said is not None and program.unit.text(said) not in ("False", "None"):
        return None  # a name for it, which other loaders may share
    return together("shuffle the training data", with_argument(program, loader.node, "shuffle", "True", 2))


FIRES = {
    "class by class": """
        y = torch.arange(4).repeat_interleave(30)
        x = torch.randn(120, 5) + y[:, None]
        loader = DataLoader(TensorDataset(x, y), batch_size=12)
        model = nn.Linear(5, 4)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
    """,
    "two classes, without a loader": """
        y = torch.cat([torch.zeros(60), torch.ones(60)])
        x = torch.randn(120, 5) + y[:, None]
        model = nn.Linear(5, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for i in range(0, 120, 15):
                opt.zero_grad()
                F.binary_cross_entropy_with_logits(model(x[i:i + 15]).squeeze(1), y[i:i + 15]).backward()
                opt.step()
    """,
}

SILENT = {
    "not shuffled, but mixed": """
        y = torch.arange(4).repeat(30)
        x = torch.randn(120, 5) + y[:, None]
        loader = DataLoader(TensorDataset(x, y), batch_size=12)
        model = nn.Linear(5, 4)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
    """,
    "a sorted validation": """
        y = torch.arange(4).repeat_interleave(30)
        x = torch.randn(120, 5) + y[:, None]
        held = torch.arange(120) % 4 == 0
        loader = DataLoader(TensorDataset(x[~held], y[~held]), batch_size=10, shuffle=True)
        val_loader = DataLoader(TensorDataset(x[held], y[held]), batch_size=5)
        model = nn.Linear(5, 4)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                for a, b in val_loader:
                    F.cross_entropy(model(a), b)
    """,
}

READ_FIRES = {
    "one class after the other": """
        import torch
        from torch import nn
        from torch.utils.data import ConcatDataset, DataLoader
        net = nn.Linear(4, 2)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(ConcatDataset([cats, dogs]), batch_size=32, shuffle=False)
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "shuffle=False": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=False)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
    """,
}

READ_SILENT = {
    "for validation": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
        val = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=False)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
            with torch.no_grad():
                for a, b in val:
                    print(nn.functional.cross_entropy(net(a), b))
    """,
}
