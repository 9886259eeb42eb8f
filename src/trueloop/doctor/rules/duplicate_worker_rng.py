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
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import put, spelled, together, without
from trueloop.doctor.source.fixes import Checked, Fix
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
            found = self.look(fact.loader.loader, fact.loader.place)
            if found is not None:
                self._waiting[number] = found

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self._waiting:
            for one in fact.passes:
                if one.loader is not None and one.loader.number in self._waiting:
                    yield self._waiting.pop(one.loader.number)

    def look(self, loader: Any, place: Place | None) -> Finding | None:
        """What is wrong with the random numbers of this loader, made on that line."""
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


def in_source(program: Program) -> Iterator[Checked]:
    """``worker_init_fn`` sets a number that is written there, and the dataset draws from that generator."""
    told: set[int] = set()
    for run in program.runs:
        for loader, backward in fed(run):
            begin = loader.option("worker_init_fn", 10)
            workers = values.constant(loader.option("num_workers", 5))
            data = loader.option("dataset", 0)
            if id(loader.node) in told:
                continue
            if fixed := _seeded_in_each(data):
                told.add(id(loader.node))
                gives, how, seed = fixed
                finding = program.finding(
                    DuplicateWorkerRng,
                    f"every sample is drawn with the same seed, {seed}: their random numbers repeat",
                    f"`{how}({seed})` in `{gives.name}`, which draws from that generator",
                    at=loader,
                    related=[(program.line(gives.node, gives.unit), "the seed is set here"), (backward, "trained on")],
                    help="set the seed once, at the head of the script",
                )
                yield Checked(finding, _unseeded(program, gives, f"{how}({seed})"))
                continue
            if type(workers) is not int or workers < 2:
                continue
            if begin is None and (own := _own_generator(data)):
                told.add(id(loader.node))
                finding = program.finding(
                    DuplicateWorkerRng,
                    f"each worker gets a copy of `self.{own}`, in the same state: their random numbers repeat",
                    f"the dataset keeps it and draws from it in `__getitem__`, and there are {workers} workers",
                    at=loader,
                    related=[(backward, "trained on")],
                    help=f"make `self.{own}` in the worker, from `torch.initial_seed()`, or draw from torch's own",
                )
                yield Checked(finding)
                continue
            if not isinstance(begin, values.Function):
                continue
            drawn = _drawn(data)
            for how, number in _seeds(begin):
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
                yield Checked(finding, _mended(program, begin, how, str(number)))
                break


def _seeds(function: values.Function, bound: dict[str, values.Value] | None = None) -> Iterator[tuple[str, int]]:
    """The generators that a function surely sets to a number, and those that what it calls does."""
    text = function.unit.text(function.node)
    if re.search(r"\b(if|else|for|while|try|with)\b", text):
        return  # it may not be reached
    found: dict[str, set[int | None]] = {}
    for one in blocks.walk(function.node):
        call: Any = one
        if kind(one) != "Call":
            continue
        how = function.unit.text(call.func)
        given = [_number(arg.value, function, bound or {}) for arg in call.args if arg.keyword is None]
        if how in DRAWN:
            found.setdefault(how, set()).add(given[0] if given else None)
        elif kind(call.func) == "Name" and bound is None:
            called = _looked_up(how, function.scope)
            if isinstance(called, values.Function) and kind(called.node) == "FunctionDef":
                names = [param.name.value for param in called.node.params.params]
                passed = {name: values.Constant(number) for name, number in zip(names, given, strict=False)}
                for name, seed in _seeds(called, called.defaults | passed):
                    found.setdefault(name, set()).add(seed)
    for how, numbers in found.items():
        number = next(iter(numbers))
        if len(numbers) == 1 and number is not None:
            yield how, number


def _number(node: Any, function: values.Function, bound: dict[str, values.Value]) -> int | None:
    """The number that is written there, or that a name stands for; None if it is not known."""
    name = getattr(node, "value", "")
    if kind(node) == "Integer":
        return int(name)
    params = [param.name.value for param in function.node.params.params]
    value = bound.get(name) if name in params else _looked_up(name, function.scope) if kind(node) == "Name" else None
    found = values.constant(value)
    return found if type(found) is int else None


def _looked_up(name: str, scope: values.Scope | None) -> values.Value | None:
    while scope is not None:
        if name in scope.names:
            return scope.names[name]
        scope = scope.parent
    return None


def _seeded_in_each(data: values.Value | None) -> tuple[values.Function, str, int] | None:
    """What gives a sample, the generator that it sets to a number, and the number; None if it does not."""
    if not isinstance(data, values.Object) or not isinstance(data.cls, values.Class):
        return None
    gives = data.cls.find("__getitem__")
    if not isinstance(gives, values.Function) or kind(gives.node) != "FunctionDef":
        return None
    text = gives.unit.text(gives.node)
    return next(((gives, how, seed) for how, seed in _seeds(gives) if DRAWN[how].search(text)), None)


def _own_generator(data: values.Value | None) -> str:
    """The name under which a dataset keeps a generator that its samples are drawn with; empty if there is none."""
    if not isinstance(data, values.Object) or not isinstance(data.cls, values.Class):
        return ""
    whole = data.cls.unit.text(data.cls.node)
    gives = data.cls.find("__getitem__")
    if not isinstance(gives, values.Function) or re.search(r"worker|seed\(|__setstate__", whole):
        return ""
    if data.kind != "torch.utils.data.Dataset":
        return ""
    text = gives.unit.text(gives.node)
    for name in set(re.findall(r"self\.(\w+)\(", text)):  # what it calls of its own
        helper = data.cls.find(name)
        text += helper.unit.text(helper.node) if isinstance(helper, values.Function) else ""
    for name, value in data.attrs.items():
        if isinstance(name, str) and _is_generator(value) and re.search(rf"self\.{name}\.\w+\(", text):
            return "" if re.search(rf"self\.{name}\s*=", text) else name
    return ""


def _is_generator(value: object) -> bool:
    if isinstance(value, values.Object):
        return value.kind in ("random.Random", "numpy.random.RandomState", "numpy.random.Generator")
    return isinstance(value, values.Unknown) and value.via == "call" and value.name == "default_rng"


def _unseeded(program: Program, gives: values.Function, call: str) -> Fix | None:
    """The line that sets the seed for each sample taken out."""
    said = [one for one in blocks.walk(gives.node) if kind(one) == "Expr" and gives.unit.text(one) == call]
    return together("set no seed for each sample", without(program, said[0])) if len(said) == 1 else None


def _mended(program: Program, begin: values.Function, how: str, number: str) -> Fix | None:
    """The seed that torch gave the worker."""
    wanted, imported = spelled(program, "torch.initial_seed")
    said = [
        one
        for one in blocks.walk(begin.node)
        if kind(one) == "Call" and begin.unit.text(one).endswith(f"({number})") and how in begin.unit.text(one)
    ]
    if len(said) != 1:
        return None
    call: Any = said[0]
    return together("seed each worker by its own", put(program, call.args[0], f"{wanted}() % 2**32"), imported)


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
    "a seed in each sample": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        class Noisy(Dataset):
            def __len__(self):
                return 100
            def __getitem__(self, i):
                torch.manual_seed(3)
                return x[i] + torch.randn(4), i % 3
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for a, b in DataLoader(Noisy(), batch_size=8):
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
    "a function that seeds all, by a lambda": """
        import random
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        SEED = 42
        class Crops(Dataset):
            def __len__(self):
                return 100
            def __getitem__(self, i):
                left = random.randint(0, 8)
                return frames[i, left : left + 4], i % 3
        def seed_all(seed=0):
            random.seed(seed)
            np.random.seed(seed)
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for a, b in DataLoader(Crops(), batch_size=8, num_workers=2, worker_init_fn=lambda _: seed_all(SEED)):
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
    "a generator that the dataset keeps": """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        class Noisy(Dataset):
            def __init__(self, x):
                self.x, self.rng = x, np.random.default_rng(7)
            def __len__(self):
                return len(self.x)
            def noise(self):
                return torch.tensor(self.rng.normal(size=4), dtype=torch.float32)
            def __getitem__(self, i):
                return self.x[i] + self.noise(), i % 3
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for a, b in DataLoader(Noisy(torch.randn(90, 4)), batch_size=8, num_workers=2):
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
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
    "a generator for the order that is fixed once, or made in the worker": """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset, get_worker_info
        class Fixed(Dataset):
            def __init__(self, x):
                self.rng = np.random.default_rng(7)
                self.x = x[self.rng.permutation(len(x))]
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return self.x[i], i % 3
        class Late(Fixed):
            def __getitem__(self, i):
                self.rng = np.random.default_rng(torch.initial_seed())
                return self.x[i] + self.rng.normal(), i % 3
        def begin(worker_id):
            np.random.seed(SEED + worker_id)
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for data in (Fixed(torch.randn(90, 4)), Late(torch.randn(90, 4))):
            for a, b in DataLoader(data, batch_size=8, num_workers=2):
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
        for a, b in DataLoader(data, batch_size=8, num_workers=2, worker_init_fn=begin):
            opt.zero_grad()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
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
