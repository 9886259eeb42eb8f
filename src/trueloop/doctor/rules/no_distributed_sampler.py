"""Several processes train on the same batches.

Sees: a process group of two or more. Where the other processes are listened to as well, the first batches are compared
(through the group's own store): the same ones are an error, whatever the sampler or the stream that gave them; the
samples of the others among one's own are a warning, where the sampler shares nothing out. Where they cannot be
compared, a training loader of a model in DistributedDataParallel with such a sampler is a note: a dataset may be a
process's own part.
In the text: an error where the order is the same in all processes (one seed, or no shuffling), else a warning; silent
where the process's number is used for anything that is read.

Why it matters: the processes compute the same gradients. The run costs as many times as much as one process, and is
not faster or better; an epoch has every sample several times.

Usual causes: ``DataLoader(…, shuffle=True)`` was kept from the script for one process; a sampler or a stream of one's
own does not ask for the process's number; ``DistributedSampler(rank=0)`` in every process.

Fix: ``DataLoader(dataset, sampler=DistributedSampler(dataset))`` for training, and ``sampler.set_epoch(epoch)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, LoaderBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.others import group, leave, left
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.ritual import fed
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.seen import LoaderSeen, Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

BATCHES = 3  # that are compared
SAMPLES = 64  # of each
PATIENCE = 200  # steps for which the others' are awaited
COMMON = 0.05  # of their samples are more than duplicates in the data


class NoDistributedSampler(Rule):
    """Asks each step at first; once it is known that there is one process, nothing any more."""

    name = "no-distributed-sampler"
    code = 509
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._batches: list[list[int]] = []
        self._one: Pass | None = None
        self._loader: LoaderSeen | None = None
        self._group: tuple[int, int] | None = None
        self._shared_out: dict[int, bool] = {}  # loader -> whether its sampler shares the samples out
        self._others: dict[int, list[list[int]]] = {}
        self._over = False
        self._right = False

    def loader_begun(self, fact: LoaderBegun) -> None:
        """Asked while it lives: a loader that is made in the head of its loop is gone when the first step comes."""
        if not self._over and fact.loader.number not in self._shared_out:
            self._shared_out[fact.loader.number] = may_share_out(fact.loader.loader)

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
            self._right = one.loader is not None and self._shared_out.get(one.loader.number, True)
            if self._right and not _is_ddp(one):  # the others may need the same batches, for other parts of the model
                self._over = True
                return
        if len(self._batches) < BATCHES:
            self._batches.append(list(one.samples[:SAMPLES]))
            if len(self._batches) == BATCHES:
                leave("batches", json.dumps(self._batches))
            return
        if len(self._others) < self._group[1] - 1 and self.trace.step <= PATIENCE:
            self._others = {rank: json.loads(batches) for rank, batches in left("batches").items()}
            same = next((rank for rank, batches in self._others.items() if batches == self._batches), None)
            if same is not None:
                self._over = True
                if self._batches[0] != self._batches[1]:  # one batch over and over is meant so, or told elsewhere
                    self._right = False
                    yield self._finding(same)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        one = self._one
        if self._over or self._right or self._loader is None or one is None or not _is_ddp(one):
            return
        theirs = {sample for batches in self._others.values() for batch in batches for sample in batch}
        common = sum(sample in one.model.trained_samples for sample in theirs)
        if not theirs or common > max(2, COMMON * len(theirs)):
            yield self._finding(None, common, len(theirs))

    def _finding(self, same: int | None, common: int = 0, theirs: int = 0) -> Finding:
        assert self._group is not None
        rank, size = self._group
        if same is not None:
            message = f"{size} processes train on the same batches: nothing shares the samples out among them"
            seen = f"the first {BATCHES} batches of process {rank} are those of process {same}"
        elif theirs:
            message = f"each of {size} processes goes through the whole data set, and not through a part of its own"
            seen = f"process {rank} trains on {common} of the {theirs} samples that the others began with"
        else:
            message = f"nothing shares the samples out among {size} processes, unless each has a dataset of its own"
            seen = "the training loader has no DistributedSampler; the batches of the other processes are not known"
        return self.finding(
            message,
            seen,
            place=self._place,
            level=None if same is not None else "warning" if theirs else "note",
            certainty=None if same is not None else "measured" if theirs else "likely",
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


def may_share_out(loader: Any) -> bool:
    """Whether a loader's sampler is not one of those that give all samples (or it cannot be told)."""
    from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler, Subset

    if loader is None or isinstance(loader.dataset, (IterableDataset, Subset)):
        return True
    if type(getattr(loader, "batch_sampler", None)) is not BatchSampler:
        return True
    return type(loader.sampler) not in (RandomSampler, SequentialSampler)


def _is_ddp(one: Pass) -> bool:
    return "DistributedData" in one.model.kind


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

WRAPS = "torch.nn.parallel.DistributedDataParallel"
HARMLESS = (
    *("init_process_group", "print(", "log", "save", "device", "cuda", "DistributedDataParallel", "DDP(", "def "),
    *("== 0", "!= 0", "not rank", "environ", "spawn", "start_processes", "add_argument", "barrier", "import "),
    *("setup(", "init_distributed", ".to("),
)
"""What a process's number is also used for, that gives it no data of its own."""


def in_source(program: Program) -> Iterator[Checked]:
    """Processes that average their gradients read one data set in one order, and nothing gives each its own part."""
    if _has_parts(program.lines):
        return
    told: set[int] = set()
    for run in program.runs:
        if not _has_group(run):
            continue
        seeded = any(event.name == "torch.manual_seed" and _is_fixed(event) for event in run.of(read.Operated))
        if any(event.name == WRAPS for event in run.of(read.Operated)):
            for loader, backward in fed(run):
                if id(loader.node) not in told and _is_whole(loader):
                    told.add(id(loader.node))
                    yield Checked(_of_loader(program, loader, backward, seeded))
        elif seeded and not list(fed(run)):
            reduced = next((event for event in run.of(read.Operated) if _averages(event)), None)
            drawn = next((event for event in run.of(read.Operated) if event.name == "torch.randperm"), None)
            if reduced is not None and drawn is not None and reduced.at.loops and id(drawn.node) not in told:
                told.add(id(drawn.node))
                yield Checked(
                    program.finding(
                        NoDistributedSampler,
                        "every process draws the same rows: they all start from the same seed",
                        "gradients are averaged over the processes, and no process's number goes into what it reads",
                        at=drawn,
                        related=[(reduced, "averaged over equal batches")],
                        help="give each process its own part of the rows: `rows[rank::world_size]`",
                    )
                )


def _of_loader(program: Program, loader: values.Object, backward: read.Backward, seeded: bool) -> Finding:
    shuffles = values.constant(loader.option("shuffle", 2), False) is True
    same = seeded or not shuffles
    return program.finding(
        NoDistributedSampler,
        "every process trains on the same batches" if same else "every process goes through the whole data set",
        "the model is in DistributedDataParallel, and its loader has no sampler that shares the samples out",
        at=loader,
        related=[(backward, "trained on here")],
        level="error" if same else "warning",
    )


def _has_parts(lines: list[str]) -> bool:
    """Whether a process's number may be used to read something of its own."""
    for line in lines:
        said = line.partition("#")[0]
        if any(word in said for word in ("Accelerator(", "Fabric(", "deepspeed", "shard", "split_dataset_by_node")):
            return True
        is_name = said.rpartition("=")[2].strip().isidentifier()  # `self.rank = rank`
        if _STRIDE.search(said):
            return True
        harmless = is_name or any(word in said for word in HARMLESS) or said.rstrip().endswith("get_rank()")
        if "rank" in said.lower() and ("seed" in said or "::" in said or "ampler" in said or not harmless):
            return True
    return False


_STRIDE = re.compile(r"\[\s*[A-Za-z_]\w*\s*::")
"""``rows[r::w]``, whatever the number is called."""


def _has_group(run: Run) -> bool:
    for event in run.of(read.Operated):
        if event.name == "torch.distributed.init_process_group":
            return bool(values.constant(event.kwargs.get("world_size"), 2) != 1)
    return False


def _is_fixed(event: read.Operated) -> bool:
    return bool(event.args) and isinstance(event.args[0], values.Constant)


def _is_whole(loader: values.Object) -> bool:
    """Whether a loader gives what torch's own samplers give, of a data set that is the same in every process."""
    if any(name in loader.kwargs for name in ("sampler", "batch_sampler", "**")) or len(loader.args) > 3:
        return False
    data = loader.option("dataset", 0)
    return isinstance(data, values.Object) and "Iterable" not in data.kind


def _averages(event: read.Operated) -> bool:
    grad = event.args[0] if event.args else None
    of = grad.op if isinstance(grad, values.Tensor) else grad.via if isinstance(grad, values.Unknown) else ""
    return event.name == "torch.distributed.all_reduce" and of == "grad"


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

READ_FIRES = {
    "a loader that shuffles by itself": """
        import torch
        import torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        from torch.utils.data import DataLoader, TensorDataset
        def main(rank, world_size):
            dist.init_process_group("gloo", rank=rank, world_size=world_size)
            torch.manual_seed(0)
            loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
            model = DDP(nn.Linear(64, 10).to(rank), device_ids=[rank])
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(2):
                for a, b in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(a), b).backward()
                    opt.step()
                if rank == 0:
                    print(epoch)
        torch.multiprocessing.spawn(main, args=(2,), nprocs=2)
    """,
    "in a trainer, by a function": """
        import os
        import torch
        from torch import nn
        from torch.distributed import init_process_group
        from torch.nn.parallel import DistributedDataParallel
        from torch.utils.data import DataLoader, Dataset
        class Rows(Dataset):
            def __len__(self):
                return 2048
            def __getitem__(self, i):
                return torch.randn(20), torch.randn(1)
        class Trainer:
            def __init__(self, model, data, optimizer):
                self.model, self.data, self.optimizer = DistributedDataParallel(model), data, optimizer
            def train(self, epochs):
                for epoch in range(epochs):
                    for x, y in self.data:
                        self.optimizer.zero_grad()
                        nn.functional.mse_loss(self.model(x), y).backward()
                        self.optimizer.step()
        def main():
            init_process_group(backend="nccl")
            model = nn.Linear(20, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            data = DataLoader(Rows(), batch_size=32, pin_memory=True)
            Trainer(model, data, optimizer).train(10)
        main()
    """,
    "averaged by hand, from one seed": """
        import torch
        import torch.distributed as dist
        from torch import nn
        def worker(rank, size):
            dist.init_process_group("gloo", rank=rank, world_size=size)
            torch.manual_seed(1)
            model = nn.Linear(13, 3)
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(4):
                for rows in torch.randperm(len(X)).split(16):
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(X[rows]), y[rows]).backward()
                    for p in model.parameters():
                        dist.all_reduce(p.grad)
                        p.grad /= size
                    opt.step()
    """,
}

READ_SILENT = {
    "its own rows, by a short name": """
        import torch
        import torch.distributed as dist
        from torch import nn
        def main(r, w):
            dist.init_process_group("gloo", rank=r, world_size=w)
            torch.manual_seed(0)
            x, y = torch.randn(400, 8), torch.randint(0, 2, (400,))
            model = nn.Linear(8, 2)
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(8):
                mine = torch.randperm(400)[r::w]
                for i in range(0, 200, 20):
                    k = mine[i:i + 20]
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x[k]), y[k]).backward()
                    for p in model.parameters():
                        dist.all_reduce(p.grad)
                        p.grad /= w
                    opt.step()
    """,
    "shared out, by a sampler that may be None for one process": """
        import torch
        import torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        from torch.utils.data import DataLoader, TensorDataset
        from torch.utils.data.distributed import DistributedSampler
        def main(args):
            data = TensorDataset(x, y)
            sampler = None
            if args.distributed:
                dist.init_process_group("nccl")
                sampler = DistributedSampler(data)
            loader = DataLoader(data, batch_size=64, shuffle=sampler is None, sampler=sampler)
            model = nn.Linear(64, 10)
            if args.distributed:
                model = DDP(model)
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(2):
                if sampler is not None:
                    sampler.set_epoch(epoch)
                for a, b in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(a), b).backward()
                    opt.step()
    """,
    "each process draws its own": """
        import torch
        import torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        from torch.utils.data import DataLoader, TensorDataset
        def main(rank, size):
            dist.init_process_group("gloo", rank=rank, world_size=size)
            torch.manual_seed(100 + rank)
            loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
            model = DDP(nn.Linear(64, 10))
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(2):
                for a, b in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(a), b).backward()
                    opt.step()
    """,
    "its own rows": """
        import torch
        import torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        from torch.utils.data import DataLoader, TensorDataset
        def main(rank, size):
            dist.init_process_group("gloo", rank=rank, world_size=size)
            mine = x[rank::size]
            loader = DataLoader(TensorDataset(mine, mine), batch_size=64, shuffle=True)
            model = DDP(nn.Linear(64, 10))
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for a, b in loader:
                opt.zero_grad()
                nn.functional.mse_loss(model(a), b).backward()
                opt.step()
    """,
    "one process": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        torch.manual_seed(0)
        model = nn.Linear(64, 10)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(2):
            for a, b in DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True):
                opt.zero_grad()
                nn.functional.cross_entropy(model(a), b).backward()
                opt.step()
    """,
}
