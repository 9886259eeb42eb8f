"""Batch normalisation in train mode sees a batch of one sample.

Sees: torch's error for it; or, where there are more values a channel (images), a batch of one sample among larger ones.

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

if TYPE_CHECKING:
    from trueloop.doctor.findings import Place
    from trueloop.doctor.seen import Pass
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
