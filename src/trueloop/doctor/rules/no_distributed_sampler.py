"""Several processes train on the same batches.

Sees: a process group of two or more. Where the other processes are listened to as well, the first batches are
compared (through the group's own store): the same ones are an error. Where they cannot be, a training loader of a
model in DistributedDataParallel whose sampler does not share the samples out is a note: a dataset may be a process's
own part.

Why it matters: the processes compute the same gradients. The run costs as many times as much as one process, and is
not faster or better; an epoch has every sample several times.

Usual causes: ``DataLoader(…, shuffle=True)`` was kept from the script for one process.

Fix: ``DataLoader(dataset, sampler=DistributedSampler(dataset))`` for training, and ``sampler.set_epoch(epoch)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, LoaderBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.seen import LoaderSeen, Pass
    from trueloop.doctor.trace import Trace

BATCHES = 3  # that are compared
PATIENCE = 200  # steps for which the others' are awaited
KEY = "trueloop/doctor/batches"


class NoDistributedSampler(Rule):
    """Asks each step at first; once it is known that there is one process, nothing any more."""

    name = "no-distributed-sampler"
    code = 509
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._batches: list[int] = []
        self._one: Pass | None = None
        self._loader: LoaderSeen | None = None
        self._group: tuple[int, int] | None = None
        self._shared_out: dict[int, bool] = {}  # loader -> whether its sampler shares the samples out
        self._compared = False
        self._over = False
        self._right = False

    def loader_begun(self, fact: LoaderBegun) -> None:
        """Asked while it lives: a loader that is made in the head of its loop is gone when the first step comes."""
        if not self._over and fact.loader.number not in self._shared_out:
            self._shared_out[fact.loader.number] = shares_out(fact.loader.loader)

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self._over or not fact.passes:
            return
        if self._group is None:
            self._group = group()
            if self._group is None:
                self._over = self.trace.step > 20
                return
        one = next((one for one in fact.passes if one.samples), None)
        if one is None:
            return
        if self._one is None:
            self._one, self._loader = one, one.loader
            if one.loader is not None and self._shared_out.get(one.loader.number, True):
                self._over = self._right = True
                return
        if len(self._batches) < BATCHES:
            self._batches.append(hash(one.samples))
            return
        others = same_as_others(self._group, self._batches)
        same = next((rank for rank, alike in others.items() if alike), None)
        self._compared = len(others) == self._group[1] - 1
        if same is not None or self.trace.step > PATIENCE:
            self._over = True
            if same is not None:
                yield self._finding(same)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        one = self._one
        if not self._over and self._loader is not None and one is not None and "DistributedData" in one.model.kind:
            yield self._finding(None)

    def _finding(self, other: int | None) -> Finding:
        assert self._group is not None
        rank, size = self._group
        known = other is not None
        return self.finding(
            f"{size} processes train on the same batches: nothing shares the samples out among them"
            if known
            else f"nothing shares the samples out among {size} processes, unless each has a dataset of its own",
            f"the first {BATCHES} batches of process {rank} are those of process {other}"
            if known
            else "the training loader has no DistributedSampler; the first batches of the other processes "
            + ("are in another order" if self._compared else "could not be compared"),
            place=self._place,
            level=None if known else "note",
            certainty=None if known else "likely",
            related=[(self._one.place if self._one is not None else None, "its batches are trained on here")],
        )

    @property
    def _place(self) -> Place | None:
        """The loader's line; without a loader, the model's."""
        if self._loader is not None and self._loader.place is not None:
            return self._loader.place
        return None if self._one is None else self._one.place

    def passed(self) -> str | None:
        return "the samples are shared out among the processes" if self._right else None


def group() -> tuple[int, int] | None:
    """This process's number and how many there are; None for one alone."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
        return None
    return dist.get_rank(), dist.get_world_size()


def shares_out(loader: Any) -> bool:
    """Whether a loader's sampler is not one of those that give all samples (or it cannot be told)."""
    from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler, Subset

    if loader is None or isinstance(loader.dataset, (IterableDataset, Subset)):
        return True
    if type(getattr(loader, "batch_sampler", None)) is not BatchSampler:
        return True
    return type(loader.sampler) not in (RandomSampler, SequentialSampler)


def same_as_others(of: tuple[int, int], batches: list[int]) -> dict[int, bool]:
    """Of each process whose batches are known by now, whether they are the same as this one's."""
    from torch.distributed import distributed_c10d

    rank, size = of
    found: dict[int, bool] = {}
    try:
        store: Any = distributed_c10d._get_default_store()
        store.set(f"{KEY}/{rank}", repr(batches))
        for other in range(size):
            key = f"{KEY}/{other}"
            if other != rank and store.check([key]):
                found[other] = store.get(key).decode() == repr(batches)
    except Exception:  # a store that is closed, or cannot be asked
        return found
    return found


_GROUP = """
        import torch.distributed as dist
        from torch.testing._internal.distributed.fake_pg import FakeStore
        dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
        try:
            data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
            {loader}
            model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1))
            def alone(state, bucket):  # a group that only says that there are two
                done = torch.futures.Future()
                done.set_result(bucket.buffer())
                return done
            model.register_comm_hook(None, alone)
            opt = torch.optim.SGD(model.parameters(), lr=0.01)
            for epoch in range(3):
                {epoch}
                for x, y in loader:
                    opt.zero_grad()
                    F.mse_loss(model(x), y).backward()
                    opt.step()
        finally:
            dist.destroy_process_group()
"""

FIRES = {
    "shuffled, as for one process": _GROUP.format(
        loader="loader = DataLoader(data, batch_size=10, shuffle=True)", epoch="pass"
    ),
    "in order": _GROUP.format(loader="loader = DataLoader(data, batch_size=8)", epoch="pass"),
    "made in the head of the loop": _GROUP.format(loader="pass", epoch="pass").replace(
        "in loader:", "in DataLoader(data, batch_size=10, shuffle=True):"
    ),
}

SILENT = {
    "shared out": _GROUP.format(
        loader="""
            from torch.utils.data.distributed import DistributedSampler
            sampler = DistributedSampler(data)
            loader = DataLoader(data, batch_size=10, sampler=sampler)""".strip(),
        epoch="sampler.set_epoch(epoch)",
    ),
    "one process": """
        data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
        loader = DataLoader(data, batch_size=10, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
}
