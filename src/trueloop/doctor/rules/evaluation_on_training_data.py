"""What is called validation runs on the training data.

Sees: evaluation passes over the loader, the dataset or the very samples that the model trains on, and none over
held-out ones; and the script means validation: it made a held-out loader that it never iterates, or says so by its
names.

Why it matters: the figure is the fit to known samples. It rises with every epoch of overfitting, and says nothing of
new samples.

Usual causes: the training loader is handed to ``evaluate``; both loaders are made of the same dataset.

Fix: evaluate on the held-out loader, and make it of other samples than the training loader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Called, Ended, Evaluated, LoaderBegun, LoaderMade, LossCalled, Settled
from trueloop.doctor.findings import Finding
from trueloop.doctor.meant import called_validation, maker, means_held_out, means_training, names_of
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.data import rank, shuffles
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.naming import is_seen, name_of, uses_on_the_way
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import is_stepped, used_for_training
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.seen import LoaderSeen, Round
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKED = 40  # evaluation passes whose surroundings are read


class EvaluationOnTrainingData(Rule):
    """Decides at the end: until then a real validation may come, beside which this is a report on training."""

    name = "evaluation-on-training-data"
    code = 206
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._made: list[LoaderSeen] = []
        self._names: dict[int, tuple[str, ...]] = {}
        self._makers: dict[int, str] = {}  # loader -> the function that made it, where its name says validation
        self._said: dict[int, bool | None] = {}  # a pass -> whether it is called validation
        self._rounds: dict[tuple[int, int | None], list[Round]] = {}  # over training data
        self._held_out = 0
        self._masked: set[int] = set()  # models whose losses are over a part of what passes them (a graph's nodes)

    def loader_made(self, fact: LoaderMade) -> None:
        self._made.append(fact.loader)
        if (name := maker()) is not None:
            self._makers[fact.loader.number] = name

    def loader_begun(self, fact: LoaderBegun) -> None:
        if fact.loader.iterations <= 3 and (loader := fact.loader.loader) is not None:
            names = (*self._names.get(fact.loader.number, ()), *names_of(loader))
            self._names[fact.loader.number] = tuple(dict.fromkeys(names))

    def loss_called(self, fact: LossCalled) -> None:
        of = fact.of
        if of is not None and of.grad and of.shapes and of.shapes[0] and fact.input.shape[:1] != of.shapes[0][:1]:
            self._masked.add(of.model.number)

    def called(self, fact: Called) -> None:
        of = fact.of
        if not of.needs_grad and of.model.first_step is not None and len(self._said) < LOOKED:
            self._said[of.number] = called_validation()

    def settled(self, fact: Settled) -> None:
        """A model that is never stepped on by itself (a copy, an average) may be validated too."""
        if fact.of.phase == "unused" and fact.of.model.first_step is None and fact.of.step and not fact.of.needs_grad:
            self._held_out += fact.of.loader is None or not fact.of.loader.trains

    def evaluated(self, fact: Evaluated) -> None:
        of = fact.of
        if of.data == "held-out" and of.model.first_step is not None:
            self._held_out += 1
        elif of.data == "training" and of.evaluates:
            key = (of.model.number, None if of.loader is None else of.loader.number)
            self._rounds.setdefault(key, []).append(of)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if fact.error is not None:
            return
        for rounds in self._rounds.values():
            of = rounds[-1]
            loader = of.loader
            said = [self._said.get(one.number) for each in rounds for one in each.passes]
            names = () if loader is None else self._names.get(loader.number, ())
            made = None if loader is None or means_training(*names) else self._makers.get(loader.number)
            if loader is not None and not loader.trains and (made is not None or means_held_out(*names)):
                partner = next((other for other in of.model.loaders if _same(loader, other)), None)
                called = f"{_meant(names)!r}" if means_held_out(*names) else f"the loader that {made!r} makes"
                how = f"{called} gives the same samples as the training loader"
            elif self._held_out or False in said:
                continue  # a report on training
            elif loader is not None and (unused := self._unused(of)) is not None:
                partner = unused
                how = "a loader of held-out samples was made and is never iterated"
            elif True in said and (loader is not None or of.model.number not in self._masked):
                partner = None
                how = "the script calls it validation, and has no evaluation on held-out samples"
            else:
                continue
            first = of.passes[0]
            count = sum(each.count for each in rounds)
            yield self.finding(
                f"{of.model.kind} is validated on the data that it is trained on",
                f"{count} evaluation passes were over "
                + ("batches of the training loader" if loader is not None else "samples that it was stepped on"),
                how,
                place=first.place,
                certainty="certain" if partner is not None else "likely",
                related=[
                    (None if loader is None else loader.place, "the loader that is evaluated on"),
                    (None if partner is None or partner is loader else partner.place, "the other loader"),
                ],
            )
            return

    def _unused(self, of: Round) -> LoaderSeen | None:
        """A loader of other samples that nobody iterates."""
        for seen in self._made:
            forgotten = seen.iterations == 0 and not self._reads(seen)
            if forgotten and not any(_same(seen, other) for other in of.model.loaders):
                return seen
        return None

    def _reads(self, seen: LoaderSeen) -> bool:
        """Whether what a loader would give is iterated by another one."""
        return any(other is not seen and other.iterations and _same(seen, other) for other in self._made)

    def passed(self) -> str | None:
        return "the model is evaluated on samples that it does not train on" if self._held_out else None


def _same(loader: LoaderSeen, other: LoaderSeen) -> bool:
    """Whether most of a loader's rows are another one's."""
    return loader is other or (loader.rows is not None and other.rows is not None and loader.rows.mostly_in(other.rows))


def _meant(names: tuple[str, ...]) -> str:
    return next(name for name in names if means_held_out(name) and not means_training(name))


def in_source(program: Program) -> Iterator[Checked]:
    """All evaluation reads the loader that is trained on, and another loader that was made is read by nobody."""
    for run in program.runs:
        if not run.complete:
            continue
        yield from _same_samples(program, run)
        loaders = [e.made for e in run.of(read.Made) if e.made.kind == "torch.utils.data.DataLoader"]
        trained = [loader for event in run.of(read.Backward) for loader in _read(event.loss)]
        evaluations = [
            (call, [loader for value in call.args for loader in _read(value)])
            for call in run.of(read.Called)
            if call.grad is False and is_stepped(run, call.target) and not used_for_training(run, call.result)
        ]
        gone_through = {id(event.over) for event in run.of(read.Iterated)}
        used = {id(one) for one in trained} | {id(one) for _, those in evaluations for one in those} | gone_through
        idle = [one for one in loaders if id(one) not in used]
        if len(idle) != 1 or not evaluations or any(not those for _, those in evaluations):
            continue
        if any(one not in trained for _, those in evaluations for one in those):
            continue
        escaped = any(
            idle[0] is one for event in run.of(read.Escaped) for value in event.values for one in ancestors(value)
        )
        if escaped or (shuffles(idle[0]) and not any(shuffles(one) for one in trained)):
            continue  # the second: that is training-on-validation-data
        call, those = evaluations[0]
        finding = program.finding(
            EvaluationOnTrainingData,
            "the evaluation reads the loader that is trained on",
            "every forward without gradients gets that loader's batches, and another loader is made and never read",
            at=call,
            related=[(those[0], "trained and evaluated on"), (idle[0], "never read")],
            help="evaluate on the held-out loader",
        )
        yield Checked(finding, _mended(program, run, evaluations, idle[0]))


def _same_samples(program: Program, run: Run) -> Iterator[Checked]:
    """A loader that is called the validation's, and was made of the dataset that is trained on; no other is read."""
    trained = {id(loader): loader for event in run.of(read.Backward) for loader in _read(event.loss)}
    others: dict[int, tuple[read.Called, values.Object]] = {}
    for call in run.of(read.Called):
        if call.grad is not False or not is_stepped(run, call.target) or used_for_training(run, call.result):
            continue
        those = [loader for value in call.args for loader in _read(value)]
        if not those or not all(any(_of_same(one, known) for known in trained.values()) for one in those):
            return
        others |= {id(one): (call, one) for one in those if id(one) not in trained}
    for call, loader in others.values():
        name = name_of(program.unit, loader.node) if loader.at.unit is program.unit else ""
        if _dataset(loader) is None or not any(word in name.lower() for word in HELD_OUT):
            continue
        same = next(one for one in trained.values() if _of_same(one, loader))
        what = "dataset" if _dataset(same) is _dataset(loader) else "arrays"
        finding = program.finding(
            EvaluationOnTrainingData,
            f"`{name}` holds the samples that are trained on",
            f"both loaders were made of the same {what}, and no evaluation reads another",
            at=loader,
            related=[(same, "trained on"), (call, "evaluated here")],
            help="make it of the held-out samples",
        )
        yield Checked(finding, _of_the_rest(program, loader))


def _of_the_rest(program: Program, loader: values.Object) -> Fix | None:
    """The other part of a split in two, if nothing uses it yet."""
    unit, data = program.unit, given(loader.node, "dataset", 0)
    for one in blocks.walk(unit.tree):
        split: Any = one
        if data is None or kind(one) != "Assign" or not unit.text(split.value).startswith(_SPLITS):
            continue
        names = [unit.text(part.value) for part in getattr(split.targets[0].target, "elements", ())]
        rest = [name for name in names if name != unit.text(data)]
        if len(names) == 2 and len(rest) == 1 and unit.code.count(rest[0]) == 1:
            return together(f"make it of `{rest[0]}`", put(program, data, rest[0]))
    return None


_SPLITS = ("random_split(", "torch.utils.data.random_split(", "data.random_split(")


HELD_OUT = ("val", "test", "eval", "dev", "held")


def _dataset(loader: values.Object) -> values.Value | None:
    """What a loader goes through; None if a sampler chooses from it."""
    chosen = loader.option("sampler", 3) or loader.option("batch_sampler", 4)
    return None if chosen is not None else loader.option("dataset", 0)


def _of_same(loader: values.Object, other: values.Object) -> bool:
    """Whether two loaders go through one dataset, or through two that were made alike of the same arrays."""
    one, two = _dataset(loader), _dataset(other)
    if one is None or two is None:
        return False
    if one is two:
        return True
    if not isinstance(one, values.Object) or not isinstance(two, values.Object) or one.cls is not two.cls:
        return False
    if isinstance(one.cls, str) and one.cls != "torch.utils.data.TensorDataset":
        return False
    if len(one.args) != len(two.args) or one.kwargs.keys() != two.kwargs.keys():
        return False
    pairs = [*zip(one.args, two.args, strict=True), *((one.kwargs[key], two.kwargs[key]) for key in one.kwargs)]
    # a generator of random numbers is one too, and gives other samples each time
    known = all(_is_array(a) or isinstance(a, (values.Constant, values.Function)) for a, _ in pairs)
    return known and any(_is_array(a) for a, _ in pairs) and all(_equal(a, b) for a, b in pairs)


def _is_array(value: values.Value) -> bool:
    return isinstance(value, values.Tensor) or bool(rank(value))


def _equal(one: values.Value, other: values.Value, depth: int = 6) -> bool:
    """Whether two values are surely the same, or the same part of the same, in the same form."""
    if one is other:
        return True
    if isinstance(one, values.Constant) and isinstance(other, values.Constant):
        return one.value is other.value or (type(one.value) is type(other.value) and bool(one.value == other.value))
    if not isinstance(one, values.Tensor) or not isinstance(other, values.Tensor) or depth == 0:
        return False
    if one.op != other.op or one.op not in FORMS or one.options.keys() != other.options.keys():
        return False
    inside = [*zip(one.inputs, other.inputs, strict=False), *((one.options[k], other.options[k]) for k in one.options)]
    return len(one.inputs) == len(other.inputs) and all(_equal(a, b, depth - 1) for a, b in inside)


FORMS = (
    "tensor",
    "as_tensor",
    "from_numpy",
    "FloatTensor",
    "LongTensor",
    "getitem",
    "float",
    "long",
    "to",
    "unsqueeze",
)


def _mended(
    program: Program, run: Run, evaluations: list[tuple[read.Called, list[values.Object]]], idle: values.Object
) -> Fix | None:
    """The other loader at the one place that names the loader of the training for an evaluation."""
    unit, other = program.unit, name_of(program.unit, idle.node)
    learning = {id(call) for event in run.of(read.Backward) for call in event.at.calls}
    places: dict[int, cst.CSTNode] = {}
    for call, those in evaluations:
        for one in uses_on_the_way(unit, name_of(unit, those[0].node), call.at, learning):
            if is_seen(unit, other, idle.node, one):
                places[id(one)] = one
    if len(places) != 1:
        return None
    return together(f"evaluate on `{other}`", put(program, next(iter(places.values())), other))


def _read(value: values.Value) -> list[values.Object]:
    """The loaders that a value was fetched from."""
    fetched = [one for one in ancestors(value) if isinstance(one, values.Tensor) and one.op == "fetched"]
    return [one.inputs[0] for one in fetched if isinstance(one.inputs[0], values.Object)]


FIRES = {
    "a function that makes the validation's loader from the training data": """
        class Module:
            def __init__(self):
                self.train = [(torch.randn(8), torch.randn(1)) for _ in range(90)]
            def train_dataloader(self):
                return DataLoader(self.train, batch_size=10, shuffle=True)
            def val_dataloader(self):
                return DataLoader(self.train, batch_size=30)
        data = Module()
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in data.train_dataloader():
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                total = sum(F.mse_loss(model(a), b).item() for a, b in data.val_dataloader())
    """,
    "a dataset of one's own, made twice of the same arrays": """
        class Table(Dataset):
            def __init__(self, rows, target):
                self.rows, self.target = rows, target
            def __len__(self):
                return len(self.rows)
            def __getitem__(self, i):
                return self.rows[i], self.target[i]
        x, y = torch.randn(120, 8), torch.randn(120, 1)
        train_loader = DataLoader(Table(x[:90], y[:90]), batch_size=10, shuffle=True)
        val_loader = DataLoader(Table(x[:90], y[:90]), batch_size=30)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in train_loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                score = sum(F.mse_loss(model(a), b).item() for a, b in val_loader)
    """,
    "the training loader is handed over": """
        train, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        train_loader, val_loader = DataLoader(train, batch_size=10, shuffle=True), DataLoader(val, batch_size=10)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in train_loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                score = sum(F.mse_loss(model(a), b).item() for a, b in train_loader)
    """,
    "two loaders of one dataset": """
        data = TensorDataset(torch.randn(90, 8), torch.randn(90, 1))
        train_loader, val_loader = DataLoader(data, batch_size=10, shuffle=True), DataLoader(data, batch_size=30)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in train_loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                score = sum(F.mse_loss(model(a), b).item() for a, b in val_loader)
    """,
    "the training rows, called validation": """
        x, y = torch.randn(90, 8), torch.randn(90, 1)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        @torch.no_grad()
        def validate(a, b):
            return F.mse_loss(model(a), b).item()
        for epoch in range(4):
            for rows in torch.randperm(60).split(10):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            print(validate(x[:60], y[:60]))
    """,
}

SILENT = {
    "a dataset of one's own, made of each part": """
        class Table(Dataset):
            def __init__(self, rows, target):
                self.rows, self.target = rows, target
            def __len__(self):
                return len(self.rows)
            def __getitem__(self, i):
                return self.rows[i], self.target[i]
        x, y = torch.randn(120, 8), torch.randn(120, 1)
        train_loader = DataLoader(Table(x[:60], y[:60]), batch_size=10, shuffle=True)
        val_loader = DataLoader(Table(x[60:], y[60:]), batch_size=30)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in train_loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                score = sum(F.mse_loss(model(a), b).item() for a, b in val_loader)
    """,
    "a function that makes loaders of a part each": """
        x, y = torch.randn(120, 8), torch.randn(120, 1)
        def get_loader(rows, shuffle):
            return DataLoader(TensorDataset(x[rows], y[rows]), batch_size=10, shuffle=shuffle)
        def get_val_loader():
            return get_loader(slice(90, 120), False)
        train, val = get_loader(slice(0, 90), True), get_val_loader()
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in train:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                total = sum(F.mse_loss(model(a), b).item() for a, b in val)
    """,
    "a report on training": """
        loader = DataLoader(TensorDataset(torch.randn(90, 8), torch.randn(90, 1)), batch_size=10, shuffle=True)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for a, b in loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                print("train loss", sum(F.mse_loss(model(a), b).item() for a, b in loader))
    """,
    "beside a validation": """
        train, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        train_loader, val_loader = DataLoader(train, batch_size=10, shuffle=True), DataLoader(val, batch_size=10)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        @torch.no_grad()
        def evaluate(loader):
            return sum(F.mse_loss(model(a), b).item() for a, b in loader)
        for epoch in range(3):
            for a, b in train_loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            print("train", evaluate(train_loader), "val", evaluate(val_loader))
    """,
    "nodes of one graph, by masks": """
        x, y = torch.randn(80, 8), torch.randint(0, 3, (80,))
        train_mask = torch.arange(80) < 50
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        opt = torch.optim.Adam(model.parameters(), lr=1e-2)
        @torch.no_grad()
        def test():
            return (model(x).argmax(1) == y)[~train_mask].float().mean().item()
        for epoch in range(30):
            opt.zero_grad()
            F.cross_entropy(model(x)[train_mask], y[train_mask]).backward()
            opt.step()
            if epoch % 10 == 9:
                print("test", test())
    """,
}

READ_FIRES = {
    "another loader of the same samples": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        known, others = torch.load("known.pt", weights_only=True), torch.load("others.pt", weights_only=True)
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        train = DataLoader(known, batch_size=8, shuffle=True)
        val = DataLoader(known, batch_size=8)
        for epoch in range(3):
            for x, y in train:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(sum((net(x).argmax(1) == y).sum().item() for x, y in val) / len(known))
    """,
    "a dataset of one's own, made twice of the training arrays": """
        import torch
        from sklearn.datasets import load_diabetes
        from sklearn.model_selection import train_test_split
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        class Table(Dataset):
            def __init__(self, rows, target):
                self.rows, self.target = rows.astype("float32"), target.astype("float32")
            def __len__(self):
                return len(self.rows)
            def __getitem__(self, i):
                return self.rows[i], self.target[i]
        d = load_diabetes()
        X_train, X_val, y_train, y_val = train_test_split(d.data, d.target, test_size=0.2)
        X_train = (X_train - X_train.mean(0)) / X_train.std(0)
        train_dl = DataLoader(Table(X_train, y_train), batch_size=32, shuffle=True)
        val_dl = DataLoader(Table(X_train, y_train), batch_size=128)
        net = nn.Linear(10, 1)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, t in train_dl:
                opt.zero_grad()
                nn.functional.mse_loss(net(x).squeeze(1), t).backward()
                opt.step()
            with torch.no_grad():
                print(sum(nn.functional.mse_loss(net(x).squeeze(1), t).item() * len(t) for x, t in val_dl))
    """,
    "two datasets of the same rows": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        known, others = order[:800], order[800:]
        X, y = torch.randn(1000, 4), torch.randint(0, 3, (1000,))
        train = DataLoader(TensorDataset(X[known], y[known]), batch_size=8, shuffle=True)
        val = DataLoader(TensorDataset(X[known], y[known]), batch_size=8)
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, t in train:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), t).backward()
                opt.step()
            with torch.no_grad():
                print(sum((net(x).argmax(1) == t).sum().item() for x, t in val) / 800)
    """,
    "the wrong loader": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        def evaluate(model, loader):
            model.eval()
            with torch.no_grad():
                return [model(x).argmax(1) for x, y in loader]
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        train_loader, val_loader = DataLoader(a, shuffle=True), DataLoader(b)
        for epoch in range(3):
            net.train()
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            print(evaluate(net, train_loader))
    """,
}

READ_SILENT = {
    "datasets of one's own, of other arrays, drawn anew, or of another part": """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset
        class Drawn(Dataset):
            def __init__(self, rng, n):
                self.x = rng.normal(size=(n, 4)).astype("float32")
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return self.x[i], self.x[i].sum()
        class Part(Dataset):
            def __init__(self, x, first):
                self.x = x[:800] if first else x[800:]
            def __len__(self):
                return len(self.x)
            def __getitem__(self, i):
                return self.x[i], self.x[i].sum()
        def run(train, val):
            net = nn.Linear(4, 1)
            opt = torch.optim.Adam(net.parameters())
            for epoch in range(3):
                for x, t in train:
                    opt.zero_grad()
                    nn.functional.mse_loss(net(x).squeeze(1), t).backward()
                    opt.step()
                with torch.no_grad():
                    print(sum(nn.functional.mse_loss(net(x).squeeze(1), t).item() * len(t) for x, t in val))
        rng, x = np.random.default_rng(0), torch.randn(1000, 4)
        train_loader = DataLoader(Drawn(rng, 500), batch_size=20, shuffle=True)
        val_loader = DataLoader(Drawn(rng, 500), batch_size=20)
        run(train_loader, val_loader)
        first_loader = DataLoader(Part(x, True), batch_size=20, shuffle=True)
        test_loader = DataLoader(Part(x, False), batch_size=20)
        run(first_loader, test_loader)
    """,
    "the figure on the training set beside that of another": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        known, others = torch.load("known.pt", weights_only=True), torch.load("others.pt", weights_only=True)
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        train, train_eval = DataLoader(known, batch_size=8, shuffle=True), DataLoader(known, batch_size=64)
        test = DataLoader(others, batch_size=64)
        for epoch in range(3):
            for x, y in train:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            for loader in (train_eval, test):
                with torch.no_grad():
                    print(sum((net(x).argmax(1) == y).sum().item() for x, y in loader))
    """,
    "a report beside a validation": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        def evaluate(model, loader):
            model.eval()
            with torch.no_grad():
                return [model(x).argmax(1) for x, y in loader]
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        train_loader, val_loader = DataLoader(a, shuffle=True), DataLoader(b)
        for epoch in range(3):
            net.train()
            for x, y in train_loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            print(evaluate(net, train_loader), evaluate(net, val_loader))
    """,
}
