"""Batch normalisation in train mode sees a batch of one sample.

Sees: torch's error for it; or, where there are more values a channel (images), a batch of one sample among larger ones,
or a loader that trains and was given no batch size, which is 1 then.

Why it matters: the statistics of one sample are no estimate: without other values torch refuses them and the script
dies; with them the layer normalises the sample by itself, and the running statistics jump.

Usual causes: the number of samples is one more than a multiple of the batch size, and the last batch is kept.

Fix: ``DataLoader(..., drop_last=True)`` for training, or another batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import ForwardFailed, ModuleCalled
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import with_argument
from trueloop.doctor.source.data import length, rank
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import used_for_training

if TYPE_CHECKING:
    from trueloop.doctor.findings import Place
    from trueloop.doctor.seen import Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.ways import Run
    from trueloop.doctor.trace import Trace

MESSAGE = "more than 1 value per channel"


class BatchOfOneWithBatchnorm(Rule):
    """Knows it by the shapes that batch normalisation is given in train mode, in passes with gradients."""

    name = "batch-of-one-with-batchnorm"
    code = 510
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        from torch.nn.modules.batchnorm import _BatchNorm

        super().__init__(trace)
        self._kind = _BatchNorm
        self._more: dict[int, int] = {}  # model -> its largest batch
        self._told: set[int] = set()

    def forward_failed(self, fact: ForwardFailed) -> Iterator[Finding]:
        of = fact.of
        if MESSAGE not in str(fact.error) or of is None or not of.grad or of.model.number in self._told:
            return
        self._told.add(of.model.number)
        place, batch = self._loader(of)
        yield self.finding(
            f"{fact.name or of.model.kind} of {of.model.kind} is given one sample in train mode, and fails",
            f"it raised: {fact.error}",
            *batch,
            place=of.place,
            related=[(place, "the loader that gives it")],
            level="error",
        )

    def module_called(self, fact: ModuleCalled) -> Iterator[Finding]:
        module = fact.module
        if not isinstance(module, self._kind) or not module.training or not fact.of.grad or not fact.inputs:
            return
        number = fact.of.model.number
        shape = tuple(getattr(fact.inputs[0], "shape", ()))
        if len(shape) < 2 or number in self._told:
            return
        if shape[0] > 1:
            self._more[number] = max(self._more.get(number, 0), int(shape[0]))
        elif number in self._more and fact.of.model.first_step is not None:
            self._told.add(number)
            place, batch = self._loader(fact.of)
            yield self.finding(
                f"{fact.name or type(module).__name__} of {fact.of.model.kind} normalises one sample by itself",
                f"its input has the shape {shape}; other batches have up to {self._more[number]} samples",
                *batch,
                place=fact.of.place,
                related=[(place, "the loader that gives it")],
                level="note",  # there are other values a channel to estimate from
            )

    def _loader(self, of: Pass) -> tuple[Place | None, tuple[str, ...]]:
        batch = self.trace.last_batch
        seen = of.loader or (None if batch is None else batch.loader)
        loader = None if seen is None else seen.loader
        size = getattr(loader, "batch_size", None)
        if seen is None or loader is None or not size:
            return None, ()
        try:
            samples = len(loader.dataset)  # type: ignore[arg-type]
        except TypeError:
            return seen.place, ()
        if samples % size != 1:
            return None, ()
        return seen.place, (f"{samples} samples in batches of {size} leave one for the last",)

    def passed(self) -> str | None:
        return "batch normalisation had more than one sample in each batch" if self._more and not self._told else None


SIZED = frozenset(("randn", "rand", "zeros", "ones"))
SAME_LENGTH = frozenset(("add", "sub", "mul", "div", "float", "long", "double", "to", "clone"))


def in_source(program: Program) -> Iterator[Checked]:
    """The number of samples and the batch size are written there, and leave one sample for the last batch."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Called):
            if event.training is not True or event.grad is not True or event.at.branches or not event.args:
                continue
            if ("BatchNorm1d", True) not in (event.layers or ()):
                yield from _of_default_size(program, run, event, told)
                continue
            for one in ancestors(event.args[0]):
                loader = one.inputs[0] if isinstance(one, values.Tensor) and one.op == "fetched" else None
                if not isinstance(loader, values.Object) or id(loader.node) in told:
                    continue
                batch, count = values.constant(loader.option("batch_size", 1)), _count(loader)
                if batch == 1 and type(batch) is int and _norm_of_rows(event.result) and not _collated(loader):
                    told.add(id(loader.node))
                    finding = program.finding(
                        BatchOfOneWithBatchnorm,
                        "each batch holds one sample, which batch normalisation cannot be trained on",
                        "the loader has batch_size=1, and BatchNorm1d is given one row",
                        at=loader,
                        related=[(event, "the model is called here, in train mode")],
                        help="take larger batches, or a layer that does without them: `LayerNorm`, `GroupNorm`",
                    )
                    yield Checked(finding)
                    continue
                if count is None or type(batch) is not int or batch < 2 or count < batch or count % batch != 1:
                    continue
                if not _norm_of_rows(event.result):
                    continue
                told.add(id(loader.node))
                finding = program.finding(
                    BatchOfOneWithBatchnorm,
                    "the last batch of each epoch holds one sample, which batch normalisation cannot be trained on",
                    f"{count:,} samples in batches of {batch} leave one, and `drop_last` is not set",
                    at=loader,
                    related=[(event, "the model is called here, in train mode")],
                )
                yield Checked(finding, _dropping(program, loader))


def _of_default_size(program: Program, run: Run, event: read.Called, told: set[int]) -> Iterator[Checked]:
    """Images of a loader to which no batch size was given go into BatchNorm2d or 3d as they are."""
    norm = next((name for name, trains in event.layers or () if name in ("BatchNorm2d", "BatchNorm3d") and trains), "")
    given = event.args[0]
    while isinstance(given, values.Tensor) and given.op in ("to", "float", "cuda"):
        given = given.inputs[0]
    if isinstance(given, values.Tensor) and given.op == "getitem":  # `for image, label in loader`
        given = given.inputs[0]
    loader = given.inputs[0] if isinstance(given, values.Tensor) and given.op == "fetched" else None
    if not norm or not isinstance(loader, values.Object) or id(loader.node) in told or _collated(loader):
        return
    others = ("sampler", "batch_sampler")
    if loader.option("batch_size", 1) is not None or any(one in loader.kwargs for one in others):
        return
    if not used_for_training(run, event.result):
        return
    told.add(id(loader.node))
    finding = program.finding(
        BatchOfOneWithBatchnorm,
        f"each batch holds one sample, which {norm} normalises by itself",
        "the loader was given no batch_size, which is 1 then",
        at=loader,
        related=[(event, "the model is called here, in train mode")],
        level="note",  # there are other values a channel to estimate from
        help="give the loader a batch_size, or take a layer that does without batches: `GroupNorm`",
    )
    yield Checked(finding)


def _norm_of_rows(value: values.Value) -> bool:
    """Whether a BatchNorm1d on the way is given rows: behind a linear layer, or what has two dimensions."""
    for one in ancestors(value):
        if isinstance(one, values.Tensor) and one.layer is not None and one.layer.kind == "torch.nn.BatchNorm1d":
            given = one.inputs[0] if one.inputs else None
            layer = given.layer if isinstance(given, values.Tensor) else None
            if layer is not None and layer.kind == "torch.nn.Linear":
                return True
            if given is not None and rank(given) == 2:
                return True
    return False


def _collated(loader: values.Object) -> bool:
    return loader.kind != "torch.utils.data.DataLoader" or any(one in loader.kwargs for one in ("collate_fn", "**"))


def _count(loader: values.Object) -> int | None:
    """The samples of a loader that gives all of them; None if they are not known."""
    others = ("sampler", "batch_sampler", "collate_fn", "**")
    if loader.kind != "torch.utils.data.DataLoader" or len(loader.args) > 3 or any(o in loader.kwargs for o in others):
        return None
    if values.constant(loader.option("drop_last"), None if loader.option("drop_last") else False) is not False:
        return None
    data = loader.option("dataset", 0)
    plain = isinstance(data, values.Object) and data.cls == "torch.utils.data.TensorDataset" and data.args
    return _length(data.args[0]) or length(data) if isinstance(data, values.Object) and plain else None


def _length(value: values.Value, depth: int = 12) -> int | None:
    """The rows of a tensor, as far as they are written there."""
    if not isinstance(value, values.Tensor) or depth == 0 or not value.inputs:
        return None
    first = value.inputs[0]
    if value.op in SIZED:
        length = values.constant(first)
        return length if type(length) is int else None
    if value.op in SAME_LENGTH:
        return _length(first, depth - 1)
    key = value.options.get("key")
    if value.op != "getitem" or key is None:
        return None
    if isinstance(key, values.Tensor) and key.op == "randperm":
        length = values.constant(key.inputs[0]) if key.inputs else None
        return length if type(length) is int else None
    if isinstance(key, values.Unknown) and key.via == "slice":
        whole, bounds = _length(first, depth - 1), [values.constant(one, "?") for one in key.attrs["bounds"]]
        if whole is not None and all(one is None or type(one) is int for one in bounds):
            return len(range(whole)[slice(*bounds)])
    return None


def _dropping(program: Program, loader: values.Object) -> Fix | None:
    return together("leave out the last, smaller batch", with_argument(program, loader.node, "drop_last", "True", 8))


FIRES = {
    "the last batch": """
        loader = DataLoader(TensorDataset(torch.randn(33, 8), torch.randn(33, 1)), batch_size=8, shuffle=True)
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for a, b in loader:
            opt.zero_grad()
            F.mse_loss(model(a), b).backward()
            opt.step()
    """,
    "images": """
        x, y = torch.randn(17, 1, 6, 6), torch.randn(17, 1)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            for rows in torch.randperm(17).split(4):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
    """,
}

SILENT = {
    "images one by one": """
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(10):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(1, 1, 6, 6)), torch.zeros(1, 1)).backward()
            opt.step()
    """,
    "the last batch is dropped, one sample is predicted": """
        data = TensorDataset(torch.randn(33, 8), torch.randn(33, 1))
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for a, b in DataLoader(data, batch_size=8, shuffle=True, drop_last=True):
            opt.zero_grad()
            F.mse_loss(model(a), b).backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            model(torch.randn(1, 8))
    """,
}

READ_FIRES = {
    "no batch size": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for image, label in DataLoader(data, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(image), label).backward()
                opt.step()
    """,
    "one sample a step": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for a, b in DataLoader(data, batch_size=1, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
    """,
    "129 in batches of 32": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        x, y = torch.randn(178, 4), torch.zeros(178).long()
        n = 129
        x = (x - x[:n].mean(0)) / x[:n].std(0)
        loader = DataLoader(TensorDataset(x[:n], y[:n]), batch_size=32, shuffle=True)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            net.train()
            for a, b in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
            net.eval()
    """,
}

READ_SILENT = {
    "one image a step as it was asked for, and batches that the data set makes": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for image, label in DataLoader(data, batch_size=1, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(image), label).backward()
                opt.step()
            for images, labels in DataLoader(batches, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(images[0]), labels[0]).backward()
                opt.step()
    """,
    "a norm over time, and over pixels": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        signals = TensorDataset(torch.randn(129, 3, 50), torch.zeros(129).long())
        net = nn.Sequential(nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(368, 2))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for size in (1, 32):
            for a, b in DataLoader(signals, batch_size=1, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
            for a, b in DataLoader(signals, batch_size=32, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
    """,
    "dropped, skipped, or not of one": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        x, y = torch.randn(129, 4), torch.zeros(129).long()
        data = TensorDataset(x, y)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        def train(loader):
            for epoch in range(3):
                for a, b in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(net(a), b).backward()
                    opt.step()
        train(DataLoader(data, batch_size=32, shuffle=True, drop_last=True))
        train(DataLoader(data, batch_size=33, shuffle=True))
        for a, b in DataLoader(data, batch_size=32, shuffle=True):
            if len(a) < 2:
                continue
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
}
