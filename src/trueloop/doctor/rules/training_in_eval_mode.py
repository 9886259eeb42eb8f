"""Training goes on in eval mode: dropout is off and batch statistics stand still.

Sees: optimizer steps on passes whose root is in eval mode, and all of whose dropout and batch statistics rest, though
they belong to parts that this optimizer trains.

Why it matters: dropout does not regularise. Batch normalisation uses the statistics of before, which do not follow
the weights any more, and the two drift apart.

Usual causes: ``model.train()`` is called once before the loop, and validation ends with the model in eval mode; the
model was put in eval mode where it was built or loaded.

Fix: call ``model.train()`` at the head of each epoch, and again after each validation within it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import ModeSet, Paused, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import TWO_MODES
from trueloop.doctor.source.modes import woken
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.ritual import is_stepped, learned_from
from trueloop.doctor.source.ways import Run, common_loop

if TYPE_CHECKING:
    from torch import nn

    from trueloop.doctor.seen import ModelSeen, OptimizerSeen, Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 5  # in a row; a guess: a step or two in eval mode are a probe of the script's own
LONG = 25  # in a row, over data that was not trained on in train mode: fewer may be a validation that is trained on
KEPT = 100_000  # fingerprints of samples
MOST = 0.5  # of the parameters are trained: otherwise the rest is frozen, and rests on purpose


class TrainingInEvalMode(Rule):
    """Knows it by the modes of the layers at the time of the passes that an optimizer stepped on."""

    name = "training-in-eval-mode"
    code = 202
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        from torch.utils.weak import WeakIdKeyDictionary

        super().__init__(trace)
        self._rests: Any = WeakIdKeyDictionary()  # a module -> the line that put it in eval mode
        self._row: dict[tuple[int, int], int] = {}  # (optimizer, model) -> steps in eval mode, in a row
        self._awake: dict[tuple[int, int], set[int]] = {}  # the loaders of its steps in train mode
        self._samples: dict[tuple[int, int], set[int]] = {}  # and their samples
        self._told: set[int] = set()
        self._right = 0

    def mode_set(self, fact: ModeSet) -> None:
        if not fact.mode and fact.place is not None:
            self._rests[fact.module] = fact.place

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        for model in {one.model for one in fact.passes}:
            if not model.layers or model.number in self._told:
                continue
            passes = [one for one in fact.passes if one.model is model]
            key = (fact.optimizer.number, model.number)
            if any(one.training or one.moving or not one.resting for one in passes):
                self._row[key] = 0
                self._right += 1
                self._awake.setdefault(key, set()).update(one.loader.number for one in passes if one.loader)
                samples = self._samples.setdefault(key, set())
                if len(samples) < KEPT:
                    samples.update(sample for one in passes for sample in one.samples)
                continue
            self._row[key] = self._row.get(key, 0) + 1
            if self._row[key] < STEPS or (self._row[key] < LONG and not self._known(passes, key)):
                continue
            resting = _resting(model, fact.optimizer, from_start=key not in self._awake)
            if not resting:
                continue
            self._told.add(model.number)
            where = passes[-1].place
            put = self._put(model)
            before = key in self._awake
            named = ", ".join(f"{name or 'itself'} ({kind})" for name, kind in resting[:4])
            rest = "rests" if len(resting) == 1 else "rest"
            yield self.finding(
                f"{model.kind} goes on training in eval mode: {named} {rest}"
                if before
                else f"{model.kind} is trained in eval mode from the start: {named} {rest}",
                f"{self._row[key]} steps of {fact.optimizer.kind} in a row, up to its step {fact.optimizer.steps}, "
                "were on passes made in eval mode" + (", though it was in train mode before" if before else ""),
                place=where if before or put is None else put,
                related=[
                    (put, "it was put in eval mode here") if before else (where, "it is trained here"),
                    (fact.place, "the step"),
                ],
            )

    def paused(self, fact: Paused) -> None:
        self._row.clear()

    def passed(self) -> str | None:
        return f"{self._right} steps were taken on passes made in train mode" if self._right else None

    def _known(self, passes: list[Pass], key: tuple[int, int]) -> bool:
        """Whether passes are over data that was trained on in train mode as well, as far as can be told."""
        if key not in self._awake:
            return True
        loaders = [one.loader.number for one in passes if one.loader is not None]
        if loaders and self._awake[key]:
            return any(number in self._awake[key] for number in loaders)
        samples = [sample for one in passes for sample in one.samples]
        return not samples or 2 * sum(sample in self._samples[key] for sample in samples) >= len(samples)

    def _put(self, model: ModelSeen) -> Place | None:
        root = model.module
        place: Place | None = None if root is None else self._rests.get(root)
        if place is None and root is not None:  # a module that holds the root, or one that the root holds
            inner = {id(module) for module in root.modules()}
            for module, line in list(self._rests.items()):
                if id(module) in inner or any(one is root for one in module.modules()):
                    place = line
        return place


def _resting(model: ModelSeen, optimizer: OptimizerSeen, from_start: bool) -> list[tuple[str, str]]:
    """The layers that rest though what they belong to is trained by this optimizer, with their classes."""
    from torch.nn.modules.batchnorm import _BatchNorm

    root = model.module
    if root is None:
        return []
    trained = {id(p) for p in optimizer.parameters() if p.requires_grad}
    sizes = [(p.numel(), id(p) in trained) for p in root.parameters()]
    if from_start and sum(size for size, ours in sizes if ours) < MOST * sum(size for size, _ in sizes):
        return []
    modules = dict(root.named_modules())
    found: list[tuple[str, str]] = []
    for name, layer in model.layers:
        owner: nn.Module = layer
        if not any(True for _ in layer.parameters()):  # a dropout belongs to what it stands in
            owner = modules.get(name.rpartition(".")[0], root)
        if any(id(p) in trained for p in owner.parameters()):
            found.append((name, type(layer).__name__))
    only_statistics = all(isinstance(layer, _BatchNorm) for _, layer in model.layers)
    return [] if from_start and only_statistics and len(found) < len(model.layers) else found


def in_source(program: Program) -> Iterator[Checked]:
    """A forward is backpropagated for the model's own optimizer, with all layers of two modes in eval mode."""
    for run in program.runs:
        told: set[int] = set()
        back = {id(event.target) for event in run.of(read.ModeSet) if event.training is not False and event.at.loops}
        for call in run.of(read.Called):
            if call.training is not False or call.grad is False or id(call.node) in told:
                continue
            if id(call.target) in back:  # a loop puts it into train mode, in some of its turns
                continue
            if call.layers is not None and (
                not call.layers or any(training is not False for _, training in call.layers)
            ):
                continue
            resting = [one for one in parts(call.target) if one.kind in TWO_MODES]
            if resting and all(one.attrs.get("frozen") is True for one in resting):
                continue  # a frozen part, at rest on purpose
            backward = next((event for event in learned_from(run, call) if _is_used(run, event)), None)
            if backward is None or not is_stepped(run, call.target):
                continue
            told.add(id(call.node))
            put = [event for event in run.of(read.ModeSet) if event.target is call.target and event.training is False]
            named = call.layers[0][0] if call.layers else "a layer that has two modes"
            finding = program.finding(
                TrainingInEvalMode,
                f"the model is trained in eval mode: {named} rests",
                "on the way to this forward the model is put into eval mode, and not back before it is trained",
                at=call,
                related=[(put[0], "eval mode begins here")] if put else [],
                certainty="likely" if call.layers is None else "certain",
                help="call `model.train()` at the head of every training epoch",
            )
            rests = [e for e in run.of(read.ModeSet) if e.target is call.target and e.training is not True]
            same = [event for event in run.of(read.Called) if event.node is call.node]
            is_shared = not all(any(learned_from(run, event)) for event in same)  # one line trains and evaluates
            edit = None if is_shared else woken(program, call, rests)
            yield Checked(finding, together("put the model into train mode", edit))
        for call, rest in _left_resting(run):
            if id(call.node) in told:
                continue
            told.add(id(call.node))
            named = call.layers[0][0] if call.layers else "a layer that has two modes"
            finding = program.finding(
                TrainingInEvalMode,
                f"after an evaluation between the batches the model is trained in eval mode: {named} rests",
                "in some turns of the batches' loop the model is put into eval mode, and nothing there puts it back",
                at=call,
                related=[(rest, "eval mode begins here")],
                certainty="likely" if call.layers is None else "certain",
                help="call `model.train()` after the evaluation",
            )
            yield Checked(finding, together("put the model into train mode", woken(program, call, [rest])))


def _left_resting(run: Run) -> Iterator[tuple[read.Called, read.ModeSet]]:
    """Trained forwards that come a turn after eval mode was set in their own loop, where nothing sets train mode."""
    modes = list(run.of(read.ModeSet))
    for call in run.of(read.Called):
        if not call.at.loops or call.training is True or call.grad is False or call.layers == ():
            continue  # known to be in train mode: the loop is left after the evaluation, or that puts it back
        inner = call.at.loops[-1]
        trained = inner.number and any(_is_used(run, event) for event in learned_from(run, call))
        if not trained or not is_stepped(run, call.target):
            continue
        own = [event for event in modes if event.target is call.target and _turn(event, inner.loop) is not None]
        rests = [event for event in own if event.training is False and _turn(event, inner.loop) == inner.number - 1]
        if not rests or any(event.training is not False for event in own):
            continue
        wakes = [one for one in modes if one.training is True and {id(part) for part in parts(one.target)} & _own(call)]
        if not any(_turn(event, inner.loop) is not None for event in wakes):
            yield call, rests[0]


def _own(call: read.Called) -> set[int]:
    return {id(one) for one in parts(call.target)} or {id(call.target)}


def _turn(event: read.ModeSet, loop: int) -> int | None:
    return next((turn.number for turn in event.at.loops if turn.loop == loop), None)


def _is_used(run: Run, backward: read.Backward) -> bool:
    """Whether a step follows a backward in its loop: else the gradients are wanted for something else."""
    return any(common_loop(step.at, backward.at) is not None for step in run.of(read.Stepped))


FIRES = {
    "never back after validation": """
        x, y = torch.randn(80, 8), torch.randn(80, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        model.train()
        for epoch in range(4):
            for rows in torch.randperm(60).split(10):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                F.mse_loss(model(x[60:]), y[60:])
    """,
    "from the start": """
        x, y = torch.randn(80, 8), torch.randn(80, 1)
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
        model.eval()
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(20):
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "validation inside the epoch": """
        loader = DataLoader(TensorDataset(torch.randn(200, 8), torch.randn(200, 1)), batch_size=10, shuffle=True)
        val = torch.randn(30, 8)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            model.train()
            for i, (a, b) in enumerate(loader):
                opt.zero_grad()
                F.mse_loss(model(a), b).backward()
                opt.step()
                if i == 9:
                    model.eval()
                    with torch.no_grad():
                        model(val)
    """,
}

SILENT = {
    "frozen backbone at rest": """
        backbone = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1))
        backbone.requires_grad_(False)
        model = nn.Sequential(backbone, nn.Linear(32, 2))
        model.eval()
        opt = torch.optim.SGD(model[1].parameters(), lr=0.1)
        for _ in range(20):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 2, (16,))).backward()
            opt.step()
    """,
    "an input is optimized through a trained model": """
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
        model.eval()
        patch = torch.zeros(16, 8, requires_grad=True)
        opt = torch.optim.Adam([patch], lr=0.1)
        for _ in range(20):
            opt.zero_grad()
            F.cross_entropy(model(patch), torch.arange(16) % 2).backward()
            opt.step()
    """,
    "adversarial examples made in eval mode": """
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
        for _ in range(20):
            model.eval()
            adv = x.clone().requires_grad_(True)
            F.cross_entropy(model(adv), y).backward()
            adv = (x + 0.1 * adv.grad.sign()).detach()
            model.train()
            opt.zero_grad()
            F.cross_entropy(model(adv), y).backward()
            opt.step()
    """,
    "batch statistics at rest, the rest in train mode": """
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(20):
            model.train()
            model[1].eval()
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 2, (16,))).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "evaluated between the batches": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        def evaluate(model):
            model.eval()
            with torch.no_grad():
                return model(held_out).argmax(1)
        for epoch in range(3):
            net.train()
            for step, (x, y) in enumerate(loader):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
                if step % 100 == 0:
                    print(evaluate(net))
    """,
    "never back": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        net.train()
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            net.eval()
            with torch.no_grad():
                print(nn.functional.cross_entropy(net(x), y).item())
    """,
    "in a trainer whose methods call each other": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self, model):
                self.model = model
                self.opt = torch.optim.Adam(model.parameters())
            def validate(self, loader):
                self.model.eval()
                with torch.no_grad():
                    return sum(nn.functional.mse_loss(self.model(x), y).item() for x, y in loader)
            def fit(self, train, val):
                for epoch in range(3):
                    for x, y in train:
                        self.opt.zero_grad()
                        nn.functional.mse_loss(self.model(x), y).backward()
                        self.opt.step()
                    print(self.validate(val))
    """,
    "evaluated now and then": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        def evaluate(model):
            model.eval()
            with torch.no_grad():
                return nn.functional.cross_entropy(model(a), b).item()
        for step in range(100):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            evaluate(net)
    """,
}

READ_SILENT = {
    "evaluated between the batches, and the loop is left": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for step, (x, y) in enumerate(loader):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
                if step == 100:
                    net.eval()
                    with torch.no_grad():
                        print(net(x).argmax(1))
                    break
    """,
    "evaluated between the batches, and put back by a function": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        def evaluate(model):
            was = model.training
            model.eval()
            try:
                with torch.no_grad():
                    return model(held_out).argmax(1)
            finally:
                model.train(was)
        for epoch in range(3):
            net.train()
            for step, (x, y) in enumerate(loader):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
                if step % 100 == 0:
                    print(evaluate(net))
    """,
    "back at each epoch's head": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        opt = torch.optim.Adam(net.parameters())
        for epoch in range(3):
            net.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            net.eval()
            with torch.no_grad():
                print(nn.functional.cross_entropy(net(x), y).item())
    """,
    "a frozen teacher": """
        import torch
        from torch import nn
        net, teacher = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1))
        teacher.eval()
        opt = torch.optim.Adam(net.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), teacher(x)).backward()
            opt.step()
    """,
    "saliency": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1))
        net.eval()
        for x in images:
            x.requires_grad_()
            net(x).max().backward()
            print(x.grad)
    """,
}
