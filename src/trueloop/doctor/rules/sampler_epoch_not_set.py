"""A DistributedSampler is never told the epoch: every epoch has the same order.

Sees: two trained iterations of one loader whose ``DistributedSampler`` shuffles, with the same ``sampler.epoch``.

Why it matters: the order of the samples, and which process gets which, is a function of the sampler's seed and its
epoch. Without ``set_epoch`` the batches are the same ones in every epoch, and much of what shuffling is for is lost.

Usual causes: ``sampler.set_epoch(epoch)`` is not called at the head of the epoch; it is called on another sampler.

Fix: ``sampler.set_epoch(epoch)`` before each ``for batch in loader``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import LoaderBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import at_head, before, put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.naming import is_seen, name_of
from trueloop.doctor.source.provenance import ancestors, touches
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace


class SamplerEpochNotSet(Rule):
    """Reads the sampler's epoch when an iteration begins, and waits for a step in it."""

    name = "sampler-epoch-not-set"
    code = 508
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._begun: dict[int, tuple[int, Place | None]] = {}  # loader -> the sampler's epoch, the line
        self._trained: dict[int, tuple[int, int]] = {}  # loader -> the iteration that last trained, its sampler's epoch
        self._told: set[int] = set()
        self._right = 0

    def loader_begun(self, fact: LoaderBegun) -> None:
        epoch = epoch_of(fact.loader.loader)
        if epoch is not None:
            self._begun[fact.loader.number] = epoch, fact.place

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if not self._begun:
            return
        for one in fact.passes:
            loader = one.loader
            if loader is None or loader.number not in self._begun or loader.number in self._told:
                continue
            iteration = loader.iterations - 1
            epoch, place = self._begun[loader.number]
            before = self._trained.get(loader.number)
            if before is None or before[0] != iteration:
                self._trained[loader.number] = iteration, epoch
                if before is not None and before[1] == epoch:
                    self._told.add(loader.number)
                    yield self.finding(
                        "DistributedSampler is not told the epoch: this epoch has the order of the one before",
                        f"sampler.epoch is {epoch} in iterations {before[0] + 1} and {iteration + 1} of the loader, "
                        "and both are trained on",
                        place=place,
                        related=[(loader.place, "the loader with the sampler is made here")],
                    )
                elif before is not None:
                    self._right += 1

    def passed(self) -> str | None:
        return f"the distributed sampler was told a new epoch {self._right} times" if self._right else None


def epoch_of(loader: Any) -> int | None:
    """The epoch of a loader's DistributedSampler; None if it has none that shuffles."""
    from torch.utils.data.distributed import DistributedSampler

    for sampler in (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None)):
        if isinstance(sampler, DistributedSampler) and sampler.shuffle:
            return int(sampler.epoch)
    return None


def in_source(program: Program) -> Iterator[Checked]:
    """A loader with a DistributedSampler is gone through in several epochs of training, and nothing sets the epoch."""
    told: set[int] = set()
    for run in program.runs:
        if not run.complete:
            continue
        for backward in run.of(read.Backward):
            for one in ancestors(backward.loss):
                loader = one.inputs[0] if isinstance(one, values.Tensor) and one.op == "fetched" else None
                sampler = loader.option("sampler") if isinstance(loader, values.Object) else None
                if (
                    not isinstance(sampler, values.Object)
                    or sampler.name != "DistributedSampler"
                    or id(sampler.node) in told
                ):
                    continue
                shuffle = sampler.option("shuffle", 3)
                in_order = isinstance(shuffle, values.Constant) and not shuffle.value
                if in_order or len(backward.at.loops) < 2 or _is_another(sampler) or _may_be_set(run, sampler):
                    continue
                told.add(id(sampler.node))
                finding = program.finding(
                    SamplerEpochNotSet,
                    "the DistributedSampler gives the same order in every epoch",
                    "its loader is gone through once an epoch, and nothing calls `set_epoch`",
                    at=sampler,
                    related=[(backward, "trained on here")],
                    help="call `sampler.set_epoch(epoch)` at the head of every epoch",
                )
                yield Checked(finding, _mended(program, sampler, one, backward.at))


def _mended(program: Program, sampler: values.Object, batch: values.Value, at: values.At) -> Fix | None:
    """The epoch is set in the loop around that over the batches, whose number is the epoch."""
    if not isinstance(batch, values.Tensor) or not batch.at.loops or len(at.loops) <= len(batch.at.loops):
        return None
    epochs: Any = batch.at.loops[-1].node
    batches: Any = at.loops[len(batch.at.loops)].node
    target = epochs.target if kind(epochs) == "For" and kind(epochs.target) == "Name" else None
    if target is None or kind(batches) != "For":
        return None
    unit, number, renamed = program.unit, target.value, []
    if number.startswith("_"):
        if number in blocks.names(epochs.body) or "epoch" in blocks.names(unit.tree):
            return None
        number, renamed = "epoch", [put(program, target, "epoch")]
    title = "set the sampler's epoch"
    is_near = blocks.function(unit, batches) is blocks.function(unit, epochs)
    loader = batch.inputs[0]
    for made, front in ((sampler, ""), (loader, ".sampler")):
        if not isinstance(made, values.Object):
            continue
        name = name_of(unit, made.node)
        if name and is_seen(unit, name, made.node, epochs) and _is_local(program, name, epochs, made):
            line = f"{name}{front}.set_epoch({number})"
            place = before(program, batches, line) if is_near else at_head(program, epochs, line)
            return together(title, place, *renamed)
    said = _gone_through(program, batches)
    if said and (is_near or (said.startswith("self.") and is_seen(unit, said, batches, epochs))):
        line = f"{said}.sampler.set_epoch({number})"
        return together(title, before(program, batches, line) if is_near else at_head(program, epochs, line), *renamed)
    return None


def _is_local(program: Program, name: str, epochs: Any, made: values.Object) -> bool:
    """Whether it is a name of the object, of the function or, at the top level, of the file that the loop is in."""
    unit = program.unit
    return "." in name or blocks.function(unit, made.node) is blocks.function(unit, epochs)


def _gone_through(program: Program, batches: Any) -> str:
    """The loader's name in ``for … in enumerate(self.loader)``; empty if it may be something around the loader."""
    over, unit = batches.iter, program.unit
    while kind(over) == "Call" and unit.text(over.func).rpartition(".")[2] in ("enumerate", "tqdm", "track"):
        over = over.args[0].value
    said = unit.text(over)
    calls = [one for one in blocks.walk(unit.tree) if kind(one) == "Call"]
    around = any(name_of(unit, one) == said and "DataLoader" not in unit.text(one) for one in calls)
    return "" if around or not all(word.isidentifier() for word in said.split(".")) else said


def _is_another(sampler: values.Object) -> bool:
    """Whether it is made anew in a loop, by a seed of that time."""
    seed = sampler.option("seed", 4)
    return bool(sampler.at.loops) and seed is not None and not isinstance(seed, values.Constant)


def _may_be_set(run: Run, sampler: values.Object) -> bool:
    for event in run.events:
        if isinstance(event, read.Operated) and event.name.endswith(".set_epoch"):
            return True
        if isinstance(event, read.Escaped) and (event.name == "set_epoch" or touches(event.values, sampler)):
            return True
    return False


FIRES = {
    "one process of one": """
        from torch.utils.data.distributed import DistributedSampler
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        sampler = DistributedSampler(data, num_replicas=1, rank=0)
        loader = DataLoader(data, batch_size=10, sampler=sampler)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "one shard of two, in a batch sampler": """
        from torch.utils.data import BatchSampler
        from torch.utils.data.distributed import DistributedSampler
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        sampler = DistributedSampler(data, num_replicas=2, rank=1, shuffle=True)
        loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 10, drop_last=False))
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(2):
            for batch in loader:
                opt.zero_grad()
                F.mse_loss(model(batch[0]), batch[1]).backward()
                opt.step()
    """,
}

SILENT = {
    "made anew each epoch, by another seed": """
        from torch.utils.data.distributed import DistributedSampler
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=epoch)
            for x, y in DataLoader(data, batch_size=10, sampler=sampler):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "told": """
        from torch.utils.data.distributed import DistributedSampler
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        sampler = DistributedSampler(data, num_replicas=1, rank=0)
        loader = DataLoader(data, batch_size=10, sampler=sampler)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "only the validation's sampler stays": """
        from torch.utils.data.distributed import DistributedSampler
        data, held = (TensorDataset(torch.randn(40, 4), torch.randn(40, 1)) for _ in range(2))
        val_loader = DataLoader(held, batch_size=20, sampler=DistributedSampler(held, num_replicas=1, rank=0))
        loader = DataLoader(data, batch_size=10, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
            with torch.no_grad():
                for x, y in val_loader:
                    F.mse_loss(model(x), y)
    """,
}

READ_FIRES = {
    "never set": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        from torch.utils.data.distributed import DistributedSampler
        def main(model, dataset):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            sampler = DistributedSampler(dataset)
            loader = DataLoader(dataset, batch_size=32, sampler=sampler)
            for epoch in range(3):
                for a, b in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(a), b).backward()
                    opt.step()
    """,
}

READ_SILENT = {
    "set, through the loader": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        from torch.utils.data.distributed import DistributedSampler
        def main(model, dataset):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            loader = DataLoader(dataset, batch_size=32, sampler=DistributedSampler(dataset))
            for epoch in range(3):
                loader.sampler.set_epoch(epoch)
                for a, b in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(a), b).backward()
                    opt.step()
    """,
}
