"""Loader workers draw the same random numbers: their augmentation repeats.

Sees: a training loader with workers whose ``worker_init_fn`` sets a seed that does not depend on the worker, and
whose dataset draws from that generator; or whose dataset keeps a generator of its own, which every worker gets a copy
of; or a seed that is written as a number inside what ``__getitem__`` calls.

Why it matters: samples of different workers get the same noise, crops and flips, and so do those of the next epoch.
The data are less varied than they look.

Usual causes: a fixed seed "for reproducibility"; ``self.rng = np.random.default_rng(0)`` in the dataset's
``__init__``.

Fix: leave ``worker_init_fn`` out (torch gives each worker its own seeds for torch, random and numpy), or seed with
``torch.initial_seed() % 2**32``. A generator of the dataset's own is to be made in the worker:
``np.random.default_rng(torch.initial_seed())``, once ``get_worker_info()`` says that there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import LoaderBegun, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.ritual import fed

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace


class DuplicateWorkerRng(Rule):
    """Reads what the loader will run; it says so once the loader's batches are trained on."""

    name = "duplicate-worker-rng"
    code = 507
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looked: set[int] = set()
        self._waiting: dict[int, Finding] = {}
        self._right = 0

    def loader_begun(self, fact: LoaderBegun) -> None:
        number = fact.loader.number
        if number not in self._looked:
            self._looked.add(number)
            found = self._look(fact.loader.loader, fact.loader.place)
            if found is not None:
                self._waiting[number] = found

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self._waiting:
            for one in fact.passes:
                if one.loader is not None and one.loader.number in self._waiting:
                    yield self._waiting.pop(one.loader.number)

    def _look(self, loader: Any, place: Place | None) -> Finding | None:
        from torch.utils.data import IterableDataset

        workers = getattr(loader, "num_workers", 0)
        if loader is None or isinstance(loader.dataset, IterableDataset):
            return None
        from trueloop.doctor.randomness import drawn_by, fixed_seeds, functions_of, generators_of, source_of

        functions = functions_of(loader.dataset, (loader.collate_fn,))
        texts = "\n".join(source_of(function) for function in functions)
        drawn = drawn_by(functions)
        related = [(place, "the loader is made here")]
        for function in functions:
            for seed in fixed_seeds(function, constant=True):
                if seed.kind in drawn or seed.kind == "own" or (seed.kind == "all" and drawn):
                    return self.finding(
                        f"{seed.text} is called for each sample: all samples get the same random numbers",
                        f"{function.__qualname__} is called by the dataset, and sets a seed that is always the same",
                        place=seed.place,
                        related=related,
                    )
        if workers < 2:
            return None
        init = loader.worker_init_fn
        for seed in fixed_seeds(init, constant=False) if init is not None else ():
            if seed.kind in drawn or (seed.kind == "all" and drawn):
                return self.finding(
                    f"{seed.text} gives all {workers} workers the same seed: they draw the same random numbers",
                    "worker_init_fn does not use the worker's number, and the dataset draws from "
                    + ", ".join(sorted(drawn)),
                    place=seed.place,
                    related=related,
                )
        if "get_worker_info" in texts or init is not None:
            return None
        for name, generator in generators_of(loader.dataset, functions):
            first = functions[0].__code__
            return self.finding(
                f"each of {workers} workers has a copy of the generator {name!r}: they draw the same random numbers",
                f"{type(generator).__name__} {name!r} is made once, and the dataset draws from it in its workers",
                place=Place(first.co_filename, first.co_firstlineno),
                related=related,
            )
        self._right += bool(drawn)
        return None

    def passed(self) -> str | None:
        return f"the workers of {self._right} loaders have random numbers of their own" if self._right else None


DRAWN = {
    "np.random.seed": re.compile(r"\bnp\.random\.(?!default_rng|RandomState|Generator|seed)\w+\("),
    "numpy.random.seed": re.compile(r"\bnumpy\.random\.(?!default_rng|RandomState|Generator|seed)\w+\("),
    "random.seed": re.compile(r"(?<![\w.])random\.(?!Random|seed)\w+\("),
    "torch.manual_seed": re.compile(r"\btorch\.(rand|randn|randint|randperm|bernoulli|normal|multinomial)\("),
}
"""What sets a generator's seed, and what draws from it."""
SETS = re.compile(r"^ +([\w.]+)\((\d+)\)[ \t]*(?:#.*)?$", re.MULTILINE)


def in_source(program: Program) -> Iterator[Checked]:
    """``worker_init_fn`` sets a number that is written there, and the dataset draws from that generator."""
    told: set[int] = set()
    for run in program.runs:
        for loader, backward in fed(run):
            begin = loader.option("worker_init_fn", 10)
            workers = values.constant(loader.option("num_workers", 5))
            drawn = _drawn(loader.option("dataset", 0))
            if id(loader.node) in told or not isinstance(begin, values.Function) or type(workers) is not int:
                continue
            text = begin.unit.text(begin.node)
            if re.search(r"\b(if|else|for|while|try|with)\b", text):
                continue  # it may not be reached
            for how, number in SETS.findall(text):
                if how not in DRAWN or text.count("seed(") != text.count(f"({number})") or workers < 2:
                    continue
                if not DRAWN[how].search(drawn):
                    continue
                told.add(id(loader.node))
                finding = program.finding(
                    DuplicateWorkerRng,
                    f"every worker begins with the same seed, {number}: their random numbers repeat",
                    f"`{how}({number})` in `{begin.name}`, and the dataset draws from that generator",
                    at=loader,
                    related=[(program.line(begin.node, begin.unit), "the seed is set here"), (backward, "trained on")],
                )
                yield Checked(finding)
                break


def _drawn(data: values.Value | None) -> str:
    """The text of what gives a sample, where it sets no seed of its own."""
    if not isinstance(data, values.Object) or not isinstance(data.cls, values.Class):
        return ""
    gives = data.cls.find("__getitem__")
    text = gives.unit.text(gives.node) if isinstance(gives, values.Function) else ""
    return "" if "seed" in text or "state" in text else text


FIRES = {
    "one seed for all workers": """
        class Noisy(Dataset):
            def __len__(self):
                return 16
            def __getitem__(self, i):
                return torch.from_numpy(np.random.normal(size=4).astype("float32")), torch.zeros(1)
        def init(worker_id):
            np.random.seed(0)
        loader = DataLoader(Noisy(), batch_size=4, num_workers=2, worker_init_fn=init)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "a generator kept on the dataset": """
        class Noisy(Dataset):
            def __init__(self):
                self.rng = np.random.default_rng(0)
            def __len__(self):
                return 16
            def augment(self, x):
                return x + float(self.rng.normal())
            def __getitem__(self, i):
                return self.augment(torch.zeros(4)), torch.zeros(1)
        loader = DataLoader(Noisy(), batch_size=4, num_workers=2)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "a seed in __getitem__": """
        class Noisy(Dataset):
            def __len__(self):
                return 16
            def __getitem__(self, i):
                torch.manual_seed(3)
                return torch.full((4,), float(i)) + torch.randn(4), torch.zeros(1)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.001)
        for x, y in DataLoader(Noisy(), batch_size=4):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}

SILENT = {
    "seeded by torch": """
        class Noisy(Dataset):
            def __len__(self):
                return 16
            def __getitem__(self, i):
                return torch.from_numpy(np.random.normal(size=4).astype("float32")), torch.zeros(1)
        def init(worker_id):
            np.random.seed(torch.initial_seed() % 2**32)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in DataLoader(Noisy(), batch_size=4, num_workers=2, worker_init_fn=init):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "a generator, and no workers": """
        class Noisy(Dataset):
            def __init__(self):
                self.rng = np.random.default_rng(0)
            def __len__(self):
                return 16
            def __getitem__(self, i):
                return torch.zeros(4) + float(self.rng.normal()), torch.zeros(1)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in DataLoader(Noisy(), batch_size=4):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "noise by the sample's number": """
        class Noisy(Dataset):
            def __len__(self):
                return 16
            def __getitem__(self, i):
                rng = np.random.default_rng(i)
                return torch.zeros(4) + float(rng.normal()), torch.zeros(1)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in DataLoader(Noisy(), batch_size=4, num_workers=2):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "one seed for all": """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        class Noisy(Dataset):
            def __len__(self):
                return 100
            def __getitem__(self, i):
                return torch.from_numpy(np.random.normal(0, 1, 4)).float(), i % 3
        def begin(worker):
            np.random.seed(42)
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for a, b in DataLoader(Noisy(), batch_size=8, num_workers=2, worker_init_fn=begin):
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "by worker": """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        class Noisy(Dataset):
            def __len__(self):
                return 100
            def __getitem__(self, i):
                return torch.from_numpy(np.random.normal(0, 1, 4)).float(), i % 3
        def begin(worker):
            np.random.seed(torch.initial_seed() % 2**32)
        def again(worker):
            np.random.seed(42)
            np.random.seed(42 + worker)
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for how in (begin, again):
            for a, b in DataLoader(Noisy(), batch_size=8, num_workers=2, worker_init_fn=how):
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
    """,
}
