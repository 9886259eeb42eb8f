"""The optimizer steps on batches of the validation data.

Sees: optimizer steps on passes made in eval mode, over other data, in turn with steps in train mode; or steps on a
loader that the script calls validation or test, in turn with steps on another one, or while it is evaluated on as
well; or the validation's dataset among those that the training loader joins.

Why it matters: the model learns what it is to be judged by. The figure is that of training data, and says nothing of
new samples.

Usual causes: one loop serves both phases, and ``backward`` and ``step`` are not kept to the training phase; the
training loop iterates the wrong loader.

Fix: call ``backward`` and ``step`` only in the training phase, and iterate the training loader there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, Evaluated, LoaderBegun, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.meant import means_held_out, means_training, names_of
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.data import shuffles
from trueloop.doctor.source.edits import put, spelled, together, wrapped
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.naming import is_seen, name_of, uses_on_the_way
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import fed, is_stepped, learned_from
from trueloop.doctor.source.ways import Run, common_loop
from trueloop.doctor.written import says

if TYPE_CHECKING:
    from trueloop.doctor.findings import Place
    from trueloop.doctor.seen import LoaderSeen, Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

TURNS = 2  # stretches in eval mode, each after one in train mode
STEPS = 3  # on a loader
KEPT = 64  # turns that are remembered
ON_PURPOSE = ("refit", "re-fit", "final fit", "all data", "all the data", "full data", "both splits", "whole data")


class TrainingOnValidationData(Rule):
    """Knows it by the modes and the data of the passes that an optimizer stepped on."""

    name = "training-on-validation-data"
    code = 205
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._asleep: dict[tuple[int, int], bool] = {}  # (optimizer, model) -> the last step was in eval mode
        self._turns: dict[tuple[int, int], int] = {}
        self._awake: dict[tuple[int, int], set[int]] = {}  # what was trained on in train mode: samples' fingerprints
        self._loaders: dict[tuple[int, int], set[int]] = {}  # and its loaders
        self._names: dict[int, tuple[str, ...]] = {}  # a loader -> what the script calls it
        self._order: dict[int, list[int]] = {}  # an optimizer -> the loaders that it stepped on, in turn
        self._steps: dict[int, int] = {}  # a loader -> steps
        self._lines: dict[int, Place | None] = {}  # a loader -> the line of a step on it
        self._passes: dict[int, Place | None] = {}
        self._first: dict[int, int] = {}  # a loader -> the step at which it was first stepped on
        self._before: set[int] = set()  # loaders that were evaluated on before that
        self._after: set[int] = set()  # and after it
        self._known: dict[int, LoaderSeen] = {}
        self._told = False

    def loader_begun(self, fact: LoaderBegun) -> None:
        seen = fact.loader
        if seen.iterations <= 3 and (loader := seen.loader) is not None:
            names = (*self._names.get(seen.number, ()), *names_of(loader))
            self._names[seen.number] = tuple(dict.fromkeys(names))
            self._known[seen.number] = seen

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        seen = fact.of.loader
        if seen is None:
            return
        number = seen.number
        (self._after if fact.of.step > self._first.get(number, fact.of.step) else self._before).add(number)
        if self._told or seen.trains or not fact.of.evaluates or means_training(*self._names.get(number, ())):
            return
        for other in fact.of.model.loaders:
            ours, theirs = seen.rows, other.rows
            if ours is not None and theirs is not None and len(theirs.parts) > 1 and ours.mostly_in(theirs):
                self._told = True
                yield self.finding(
                    f"{self._called(other.number)} joins training and validation data: it gives the samples of "
                    f"{self._called(number)} too",
                    f"{theirs.kind} of {len(theirs.parts)} datasets, one of which is evaluated on after step "
                    f"{fact.of.step}",
                    place=other.place or fact.of.passes[0].place,
                    related=[(seen.place, "the validation loader"), (fact.of.passes[0].place, "the evaluation")],
                )

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self._told or not fact.passes:
            return
        for one in fact.passes:
            if one.loader is not None:
                number = one.loader.number
                self._first.setdefault(number, one.step)
                self._steps[number] = self._steps.get(number, 0) + 1
                self._lines[number], self._passes[number] = fact.place, one.place
                order = self._order.setdefault(fact.optimizer.number, [])
                if len(order) < KEPT and (not order or order[-1] != number):
                    order.append(number)
        for model in {one.model for one in fact.passes}:
            passes = [one for one in fact.passes if one.model is model]
            key = (fact.optimizer.number, model.number)
            asleep = not any(one.training for one in passes)
            if not asleep:
                self._awake.setdefault(key, set()).update(sample for one in passes for sample in one.samples)
                self._loaders.setdefault(key, set()).update(one.loader.number for one in passes if one.loader)
            elif key in self._asleep and not self._asleep[key] and self._other(passes, key):
                self._turns[key] = self._turns.get(key, 0) + 1
                if self._turns[key] == TURNS and self._ours(fact, passes):
                    self._told = True
                    yield self._in_turn(fact, passes)
            self._asleep[key] = asleep

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for number, steps in self._steps.items():
            names = self._names.get(number, ())
            meant = [name for name in names if means_held_out(name)]
            if self._told or steps < STEPS or not meant or any(means_training(name) for name in names):
                continue
            others = [
                other
                for order in self._order.values()
                if order.count(number) >= TURNS
                for other in order
                if other != number and order.count(other) >= TURNS and not means_held_out(*self._names.get(other, ()))
            ]
            both = number in self._after
            refit = number in self._before and not both  # validated on until the model was chosen
            if refit or not (others or both) or says(self._lines[number], ON_PURPOSE):
                continue
            self._told = True
            yield self.finding(
                f"the optimizer steps on batches of {meant[0]!r}"
                + (", on which the model is evaluated as well" if both else ""),
                f"{steps} steps were taken on batches of {meant[0]!r}"
                + (f", in turn with those of {self._called(others[0])}" if others else ""),
                place=self._lines[number],
                certainty="likely",
                related=[
                    (self._passes[number], "the pass over this loader's batch"),
                    (self._known[number].place if number in self._known else None, "the loader"),
                ],
            )

    def _other(self, passes: list[Pass], key: tuple[int, int]) -> bool:
        """Whether passes are over other data than what is trained on in train mode."""
        awake, loaders = self._awake.get(key, set()), self._loaders.get(key, set())
        samples = [sample for one in passes for sample in one.samples if sample]
        if any(one.loader is not None and one.loader.number in loaders for one in passes):
            return False
        if samples and awake:
            return 2 * sum(sample in awake for sample in samples) < len(samples)
        return bool(loaders) and all(one.loader is not None for one in passes)

    def _ours(self, fact: Stepped, passes: list[Pass]) -> bool:
        """Whether this optimizer trains the model (a GAN's discriminator is passed by the generator's backward)."""
        held = {id(p) for p in fact.optimizer.parameters()}
        return any(
            root is not None and any(id(p) in held for p in root.parameters())
            for root in (one.model.module for one in passes)
        )

    def _called(self, number: int) -> str:
        names = self._names.get(number, ())
        return repr(names[-1]) if names else "another loader"

    def _in_turn(self, fact: Stepped, passes: list[Pass]) -> Finding:
        one = passes[-1]
        name = self._called(one.loader.number) if one.loader is not None else "other samples than those of training"
        return self.finding(
            f"{fact.optimizer.kind} steps on validation data: on {name}, with the model in eval mode",
            f"steps on passes in train mode and in eval mode take turns; those in eval mode are over {name}",
            f"it came {TURNS} times, last at step {fact.optimizer.steps} of this optimizer",
            place=fact.place,
            related=[(one.place, "the validation pass whose gradients are used")],
        )

    def passed(self) -> str | None:
        held = [n for n, names in self._names.items() if means_held_out(*names) and n not in self._steps]
        return f"no step was taken on batches of {self._called(held[0])}" if held and self._steps else None


def in_source(program: Program) -> Iterator[Checked]:
    """One loop serves two phases, in train and in eval mode, and backward and step follow in both."""
    for run in program.runs:
        if run.complete:
            yield from _held_out(program, run)
        calls: dict[int, list[read.Called]] = {}
        for call in run.of(read.Called):
            calls.setdefault(id(call.node), []).append(call)
        for those in calls.values():
            learning = [call for call in those if call.training is True and _steps(run, call) is not None]
            resting = [call for call in those if call.training is False]
            steps = [_steps(run, call) for call in resting]
            step = next((one for one in steps if one is not None), None)
            if not learning or step is None or None in steps or not is_stepped(run, resting[0].target):
                continue
            if not _loops(learning).isdisjoint(_loops(resting)) or not _sources(learning).isdisjoint(_sources(resting)):
                continue  # one loop, or one loader, and the mode changes on the way
            if not any(event.training is True and event.at.loops for event in run.of(read.ModeSet)):
                continue  # nothing puts it back: that is training-in-eval-mode
            finding = program.finding(
                TrainingOnValidationData,
                "the optimizer steps in the evaluation's phase too: the held-out batches are trained on",
                "one loop runs with the model in train mode and in eval mode; backward and step follow in both",
                at=step,
                related=[(resting[0], "the forward, in eval mode")],
                help="call backward and step in the training phase only",
            )
            yield Checked(finding, _mended(program, run, resting[0]))


def _loops(calls: list[read.Called]) -> set[int]:
    return {call.at.loops[-1].loop for call in calls}


def _sources(calls: list[read.Called]) -> set[int]:
    """What the batches come from that these calls are given."""
    given = [value for call in calls for value in call.args]
    return {id(one) for value in given for one in (*_loaders(value), _gone_through(value)) if one is not None}


def _gone_through(value: values.Value | None) -> values.Value | None:
    """The unknown thing that a loop goes through for a value."""
    while isinstance(value, values.Unknown) and value.via != "each":
        value = value.of
    return value.of if isinstance(value, values.Unknown) else None


def _held_out(program: Program, run: Run) -> Iterator[Checked]:
    """What is trained on holds the dataset that is evaluated; or it is evaluated too, and one that shuffles idles."""
    trained = {id(loader): (loader, event) for loader, event in fed(run)}
    for loader, event in trained.values():
        inside = _joined(loader)
        for call in run.of(read.Called):
            if call.grad is not False or not is_stepped(run, call.target) or common_loop(call.at, event.at) is None:
                continue
            other = next((one for value in call.args for one in _loaders(value) if one is not loader), None)
            if other is None or not any(one is other.option("dataset", 0) for one in inside):
                continue
            finding = program.finding(
                TrainingOnValidationData,
                "the loader that is trained on holds the validation's samples as well",
                "it goes through several datasets joined, and one of them is that of the loader that is evaluated",
                at=loader,
                related=[(other, "the validation's loader"), (call, "evaluated here")],
                help="train on the training set alone",
            )
            yield Checked(finding, _parted(program, loader, other))
            break
    used = {id(event.over) for event in run.of(read.Iterated)}
    idle = [e.made for e in run.of(read.Made) if e.made.kind == LOADER and id(e.made) not in used]
    evaluated = [one for call in run.of(read.Called) if call.grad is False for v in call.args for one in _loaders(v)]
    for loader, event in trained.values():
        waiting = idle[0] if len(idle) == 1 and len(trained) == 1 and shuffles(idle[0]) else None
        if waiting is None or shuffles(loader) or not any(one is loader for one in evaluated):
            continue
        if any(waiting is one for e in run.of(read.Escaped) for value in e.values for one in ancestors(value)):
            continue
        finding = program.finding(
            TrainingOnValidationData,
            "the loader that is evaluated is the one that is trained on",
            "another loader, which shuffles, is made and never read",
            at=event,
            related=[(loader, "trained on, and evaluated"), (waiting, "never read")],
            help="train on the loader that shuffles",
        )
        yield Checked(finding, _other_loader(program, event, loader, waiting))


def _parted(program: Program, loader: values.Object, other: values.Object) -> Fix | None:
    """Of two datasets joined, the one that is not evaluated."""
    unit, joined, held = program.unit, given(loader.node, "dataset", 0), given(other.node, "dataset", 0)
    listed = [unit.text(one.value) for one in getattr(given(joined, "datasets", 0), "elements", ())]
    rest = [name for name in listed if held is not None and name != unit.text(held)]
    if len(listed) != 2 or len(rest) != 1:
        return None
    return together(f"train on `{rest[0]}` alone", put(program, joined, rest[0]))


def _other_loader(program: Program, event: read.Backward, loader: values.Object, other: values.Object) -> Fix | None:
    unit, name = program.unit, name_of(program.unit, other.node)
    places = uses_on_the_way(unit, name_of(unit, loader.node), event.at, set())
    if len(places) != 1 or not is_seen(unit, name, other.node, places[0]):
        return None
    return together(f"train on `{name}`", put(program, places[0], name))


LOADER = "torch.utils.data.DataLoader"


def _joined(loader: values.Object) -> tuple[values.Value, ...]:
    """The datasets that a loader's was joined of: ``ConcatDataset([a, b])``, ``a + b``."""
    data = loader.option("dataset", 0)
    if isinstance(data, values.Object) and data.kind == "torch.utils.data.ConcatDataset":
        several = data.option("datasets", 0)
        return several.all() if isinstance(several, values.Items) else ()
    return data.inputs if isinstance(data, values.Unknown) and data.via == "add" else ()


def _loaders(value: values.Value) -> Iterator[values.Object]:
    for one in ancestors(value):
        of = one.inputs[0] if isinstance(one, values.Tensor) and one.op == "fetched" else None
        if isinstance(of, values.Object) and of.kind == LOADER:
            yield of


def _mended(program: Program, run: Run, call: read.Called) -> Fix | None:
    """From backward to step, in train mode only."""
    step = _steps(run, call)
    backward = next((one for one in learned_from(run, call) if one.at.loops == call.at.loops), None)
    if step is None or backward is None or not step.at.calls == backward.at.calls == call.at.calls:
        return None
    unit, called = program.unit, getattr(call.node, "func", None)
    lines = [blocks.statement(unit, one.node) for one in (call, backward, step)]
    block = list(blocks.block(unit, lines[0])) if lines[0] is not None else []
    if called is None or not all(line in block for line in lines):
        return None
    forward, back, last = (block.index(line) for line in lines if line is not None)
    if not forward <= back <= last:
        return None
    mode = f"{unit.text(called)}.training"
    graph, imported = spelled(program, "torch.set_grad_enabled")
    recorded = wrapped(program, block[forward], block[back - 1], f"with {graph}({mode}):") if forward < back else []
    learned = wrapped(program, block[back], block[last], f"if {mode}:")
    return together("learn in train mode only", recorded, learned, imported if forward < back else [])


def _steps(run: Run, call: read.Called) -> read.Stepped | None:
    """The step that follows on a call in its turn, under no condition."""
    for backward in learned_from(run, call):
        for step in run.of(read.Stepped):
            if (
                step.at.loops == call.at.loops == backward.at.loops
                and step.at.branches == call.at.branches
                and call.at.loops
            ):
                return step
    return None


FIRES = {
    "one loop for both phases": """
        train, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        loaders = {"train": DataLoader(train, batch_size=15, shuffle=True), "val": DataLoader(val, batch_size=10)}
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for phase in ("train", "val"):
                model.train(phase == "train")
                for a, b in loaders[phase]:
                    opt.zero_grad()
                    F.mse_loss(model(a), b).backward()
                    opt.step()
    """,
    "without loaders": """
        x, y = torch.randn(80, 8), torch.randn(80, 1)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        def run(a, b):
            opt.zero_grad()
            F.mse_loss(model(a), b).backward()
            opt.step()
        for epoch in range(5):
            model.train()
            for rows in torch.randperm(60).split(20):
                run(x[rows], y[rows])
            model.eval()
            run(x[60:], y[60:])
    """,
    "joined with the training data": """
        a, b = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        train_loader = DataLoader(torch.utils.data.ConcatDataset([a, b]), batch_size=10, shuffle=True)
        val_loader = DataLoader(b, batch_size=10)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(sum(F.mse_loss(model(x), y).item() for x, y in val_loader))
    """,
    "the wrong loader, by its name": """
        train, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        train_loader, val_loader = DataLoader(train, batch_size=10, shuffle=True), DataLoader(val, batch_size=10)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(4):
            model.train()
            for a, b in val_loader:
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                print(sum(F.mse_loss(model(a), b).item() for a, b in val_loader))
    """,
}

SILENT = {
    "two training sets joined": """
        a, b, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [50, 40, 30])
        train_loader = DataLoader(torch.utils.data.ConcatDataset([a, b]), batch_size=10, shuffle=True)
        val_loader = DataLoader(val, batch_size=10)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch in range(3):
            for x, y in train_loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(sum(F.mse_loss(model(x), y).item() for x, y in val_loader))
    """,
    "a refit on all data after selection": """
        train, val = random_split(TensorDataset(torch.randn(120, 8), torch.randn(120, 1)), [90, 30])
        train_loader, val_loader = DataLoader(train, batch_size=10, shuffle=True), DataLoader(val, batch_size=10)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        def step(a, b):
            opt.zero_grad()
            F.mse_loss(model(a), b).backward()
            opt.step()
        for epoch in range(3):
            for a, b in train_loader:
                step(a, b)
            with torch.no_grad():
                print(sum(F.mse_loss(model(a), b).item() for a, b in val_loader))
        for epoch in range(2):  # the final refit on all data
            for loader in (train_loader, val_loader):
                for a, b in loader:
                    step(a, b)
    """,
    "pretraining in train mode, then an adversary in eval mode": """
        G, D = nn.Linear(4, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for step in range(20):
            D.train()
            od.zero_grad()
            (D(G(torch.randn(8, 4)).detach()).mean() - D(torch.randn(8, 2)).mean()).backward()
            od.step()
            D.eval()
            og.zero_grad()
            (-D(G(torch.randn(8, 4))).mean()).backward()
            og.step()
    """,
    "k folds": """
        x, y = torch.randn(60, 8), torch.randn(60, 1)
        for fold in range(3):
            model = nn.Linear(8, 1)
            opt = torch.optim.SGD(model.parameters(), lr=1e-3)
            val = torch.arange(60) // 20 == fold
            for epoch in range(4):
                model.train()
                for rows in torch.randperm(40).split(10):
                    opt.zero_grad()
                    F.mse_loss(model(x[~val][rows]), y[~val][rows]).backward()
                    opt.step()
                model.eval()
                with torch.no_grad():
                    F.mse_loss(model(x[val]), y[val])
    """,
}

READ_FIRES = {
    "both sets joined": """
        import torch
        from torch import nn
        from torch.utils.data import ConcatDataset, DataLoader, TensorDataset
        known, held = TensorDataset(x, y), TensorDataset(a, b)
        train = DataLoader(ConcatDataset([known, held]), batch_size=8, shuffle=True)
        val = DataLoader(held, batch_size=8)
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in train:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(sum((net(x).argmax(1) == y).sum().item() for x, y in val))
    """,
    "the other loader": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        train = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
        val = DataLoader(TensorDataset(a, b), batch_size=8)
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in val:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(sum((net(x).argmax(1) == y).sum().item() for x, y in val))
    """,
    "two phases": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for phase in ["train", "val"]:
                if phase == "train":
                    net.train()
                else:
                    net.eval()
                for x, y in loaders[phase]:
                    opt.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    opt.step()
    """,
}

READ_SILENT = {
    "train mode that comes after the forward": """
        import torch
        import torch.nn.functional as F
        from torch import nn
        from torch.utils.data import DataLoader
        class Engine:
            def __init__(self, net):
                self.net, self.scaler = net, torch.amp.GradScaler()
                self.opt = torch.optim.SGD(net.parameters(), lr=0.1)
            def step(self, x, y):
                with torch.autocast("cuda"):
                    loss = F.cross_entropy(self.net(x), y)
                self.net.train()
                self.opt.zero_grad()
                self.scaler.scale(loss).backward()
                self.scaler.step(self.opt)
                self.scaler.update()
            def evaluate(self, loader):
                self.net.eval()
                with torch.no_grad():
                    return sum((self.net(x).argmax(1) == y).sum().item() for x, y in loader)
            def fit(self, train, val):
                for epoch in range(9):
                    for x, y in train:
                        self.step(x, y)
                    print(self.evaluate(val))
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 3))
        Engine(net).fit(DataLoader(known, 8, shuffle=True), DataLoader(others, 8))
    """,
    "train mode that comes after the loop, over what is handed in": """
        import torch
        from torch import nn
        def fit(train, val):
            net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 3))
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for epoch in range(9):
                for x, y in train:
                    opt.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    opt.step()
                net.train()
                net.eval()
                with torch.no_grad():
                    print(sum((net(x).argmax(1) == y).sum().item() for x, y in val))
    """,
    "a last fit on both sets": """
        import torch
        from torch import nn
        from torch.utils.data import ConcatDataset, DataLoader, TensorDataset
        known, held = TensorDataset(x, y), TensorDataset(a, b)
        train, val = DataLoader(known, batch_size=8, shuffle=True), DataLoader(held, batch_size=8)
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            for x, y in train:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            with torch.no_grad():
                print(sum((net(x).argmax(1) == y).sum().item() for x, y in val))
        for x, y in DataLoader(ConcatDataset([known, held]), batch_size=8, shuffle=True):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "steps in one": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            for phase in ["train", "val"]:
                net.train(phase == "train")
                for x, y in loaders[phase]:
                    opt.zero_grad()
                    with torch.set_grad_enabled(phase == "train"):
                        loss = nn.functional.cross_entropy(net(x), y)
                    if phase == "train":
                        loss.backward()
                        opt.step()
    """,
}
