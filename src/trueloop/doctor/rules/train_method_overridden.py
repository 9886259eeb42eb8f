"""A module's own ``train`` hides the one that switches modes.

Sees: the training runs in a method ``train`` of a module, or a model's class has a ``train`` that never comes to
``nn.Module.train``. In the text: backward comes in the method, or in what it calls, and neither it nor an ``eval`` of
the class switches a mode.

Why it matters: ``eval()`` calls ``train(False)``. It starts the training again, fails for want of arguments, or does
nothing: dropout and batch statistics stay at work.

Usual causes: a class that is model and trainer in one, with its loop in ``def train(self, …)``.

Fix: give the loop another name (``fit``), or call ``super().train(mode)`` in a ``train(self, mode=True)``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, Called, Ended, Evaluated
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import is_users
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import TWO_MODES, is_module
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

BACKWARDS = 3  # whose stacks are looked at
SWITCHES = {"train", "eval", "training", "apply", "modules", "children"}  # by which a switch of one's own hands on
MODES = ("mode", "training", "flag", "on", "enable", "is_train", "is_training", "train")  # names of the argument


class TrainMethodOverridden(Rule):
    """Knows it by the class of the model, and by whose method is running when ``backward`` is called."""

    name = "train-method-overridden"
    code = 210
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._told: set[CodeType] = set()

    def called(self, fact: Called) -> Iterator[Finding]:
        if fact.of.model.passes == 1 and (root := fact.of.model.module) is not None:
            yield from self._look(root, two_modes=bool(fact.of.model.layers))

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if fact.number >= BACKWARDS:
            return
        from torch import nn

        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_name == "train" and is_users(frame.f_code.co_filename):
                owner = frame.f_locals.get("self")
                if isinstance(owner, nn.Module):
                    from trueloop.doctor.trace import two_modes

                    yield from self._look(owner, two_modes=bool(two_modes(owner)))
            frame = frame.f_back

    def evaluated(self, fact: Evaluated) -> Iterator[Finding]:
        """A switch of the user's own is there, and the layers did not follow it."""
        of = fact.of
        if (
            (root := of.model.module) is not None
            and of.evaluates
            and any(one.training and one.moving for one in of.passes)
        ):
            yield from self._look(root, two_modes=True, unmoved=True)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        """``eval()`` failed within it."""
        if not isinstance(fact.error, TypeError):
            return
        from torch import nn

        traceback: TracebackType | None = fact.error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            owner = frame.f_locals.get("self")
            if frame.f_code.co_name == "eval" and isinstance(owner, nn.Module):
                yield from self._look(owner, two_modes=True, error=str(fact.error))
            traceback = traceback.tb_next

    def _look(self, owner: Any, two_modes: bool, error: str = "", unmoved: bool = False) -> Iterator[Finding]:
        code = _hiding(owner, unmoved)
        if code is None or code in self._told:
            return
        self._told.add(code)
        kind = type(owner).__name__
        yield self.finding(
            f"{kind}.train hides the `train` that switches modes: `eval()` of {kind} calls it, and switches nothing",
            f"the script ended in it: {error}" if error else f"{kind}.train does not call super().train(mode)",
            place=Place(code.co_filename, code.co_firstlineno),
            level="error" if two_modes else "note",
        )


def _hiding(owner: Any, unmoved: bool) -> CodeType | None:
    """The code of a user's ``train`` that does not come to the switch; None where all is well.

    Args:
        owner: the model.
        unmoved: its layers were seen in train mode in an evaluation.
    """
    method = getattr(type(owner), "train", None)
    code: CodeType | None = getattr(method, "__code__", None)
    if code is None or not is_users(code.co_filename):
        return None
    names = set(code.co_names)
    if ("super" in names and "train" in names) or {"Module", "train"} <= names or "training" in names:
        return None
    arguments = code.co_varnames[1 : code.co_argcount]
    if len(arguments) == 1 and arguments[0] in MODES:  # a switch of its own kind, that hands the mode on, or does not
        return code if unmoved and not names & SWITCHES else None
    return code


def in_source(program: Program) -> Iterator[Checked]:
    """Backward runs in a module's own ``train``, which never comes to the switch, and ``eval`` is torch's."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Entered):
            function = event.function
            owner = function.owner
            if function.name != "train" or owner is None or id(function.node) in told or not _is_torchs(owner):
                continue
            if not any(_within(one, event) for one in run.of(read.Backward)) or not _hides(run, event, owner):
                continue
            told.add(id(function.node))
            finding = program.finding(
                TrainMethodOverridden,
                f"{owner.name}.train hides the `train` that switches modes: `eval()` of {owner.name} calls it",
                f"backward runs in {owner.name}.train, and it does not call `super().train(mode)`",
                at=program.line(function.node, function.unit),
                level="error" if _has_two_modes(program, owner) else "note",
            )
            yield Checked(finding)


def _is_torchs(owner: values.Class) -> bool:
    line = [one for one in owner.line() if isinstance(one, str)]
    return (
        "" not in line and any(is_module(one) for one in line) and not isinstance(owner.find("eval"), values.Function)
    )


def _within(event: read.Event, entered: read.Entered) -> bool:
    return event.at.calls[: len(entered.at.calls)] == entered.at.calls


def _hides(run: Run, entered: read.Entered, owner: values.Class) -> bool:
    """Whether nothing in it switches a mode; where parts are switched by hand, whether ``eval()`` is called as well."""
    switched = [event.target for event in run.of(read.ModeSet) if _within(event, entered)]
    if any(isinstance(one, values.Object) and _is_one(one, owner) for one in switched):
        return False
    by_eval = (one for one in run.of(read.Entered) if one.function is entered.function)
    return not switched or any(_says(one.node) == "eval" for one in by_eval)


def _is_one(thing: values.Object, owner: values.Class) -> bool:
    return isinstance(thing.cls, values.Class) and owner in thing.cls.line()


def _says(call: Any) -> str:
    name: str = getattr(getattr(getattr(call, "func", None), "attr", None), "value", "")
    return name


def _has_two_modes(program: Program, owner: values.Class) -> bool:
    """Whether one of its layers has two modes, as far as it is known."""
    for run in program.runs:
        for event in run.of(read.Made):
            if event.made.kind in TWO_MODES and event.function is not None and event.function.owner is owner:
                return True
        for call in run.of(read.Called):
            if call.layers and isinstance(call.target, values.Object) and _is_one(call.target, owner):
                return True
    return False


FIRES = {
    "model and trainer in one": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
            def forward(self, x):
                return self.net(x)
            def train(self, epochs=5):
                opt = torch.optim.SGD(self.parameters(), lr=1e-3)
                for _ in range(epochs):
                    opt.zero_grad()
                    F.mse_loss(self(torch.ones(16, 8)), torch.zeros(16, 1)).backward()
                    opt.step()
        model = Net()
        model.train()
        model.eval()
        with torch.no_grad():
            model(torch.randn(16, 8))
    """,
    "a switch that sets its own flag alone": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
                self.noisy = True
            def train(self, mode=True):
                self.noisy = mode
                return self
            def forward(self, x):
                return self.net(x + torch.randn_like(x) if self.noisy else x)
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        held_out = torch.randn(16, 8)
        for _ in range(4):
            model.train()
            for _ in range(3):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                F.mse_loss(model(held_out), torch.zeros(16, 1))
    """,
    "a trainer that is a module": """
        class Trainer(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net
            def train(self, x, y):
                opt = torch.optim.SGD(self.net.parameters(), lr=1e-3)
                for _ in range(5):
                    opt.zero_grad()
                    F.mse_loss(self.net(x), y).backward()
                    opt.step()
        trainer = Trainer(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1)))
        trainer.train(torch.randn(16, 8), torch.randn(16, 1))
        trainer.eval()
    """,
}

SILENT = {
    "a part kept at rest": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.drop, self.head = nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1)
            def train(self, mode=True):
                super().train(mode)
                self.body.eval()
                return self
            def forward(self, x):
                return self.head(self.drop(self.body(x)))
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(5):
            model.train()
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
    """,
    "a switch that hands the mode on": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))
            def train(self, mode=True):
                self.net.train(mode)
                return self
            def forward(self, x):
                return self.net(x)
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        held_out = torch.randn(16, 8)
        for _ in range(4):
            model.train()
            for _ in range(3):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
                opt.step()
            model.eval()
            with torch.no_grad():
                F.mse_loss(model(held_out), torch.zeros(16, 1))
    """,
    "a trainer that is no module": """
        class Trainer:
            def __init__(self, net):
                self.net = net
            def train(self):
                opt = torch.optim.SGD(self.net.parameters(), lr=1e-3)
                for _ in range(5):
                    opt.zero_grad()
                    F.mse_loss(self.net(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
                    opt.step()
        Trainer(nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 1))).train()
    """,
}

READ_FIRES = {
    "model and trainer in one": """
        import torch
        from torch import nn
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
                self.opt = torch.optim.Adam(self.parameters())
            def forward(self, x):
                return self.net(x)
            def train(self, loader, epochs):
                for _ in range(epochs):
                    for x, y in loader:
                        self.opt.zero_grad()
                        nn.functional.mse_loss(self(x), y).backward()
                        self.opt.step()
        net = Network()
        net.train(loader, 3)
        net.eval()
    """,
    "never called here, by a helper": """
        import torch
        import torch.nn as nn
        import torch.nn.functional as F
        class Agent(nn.Module):
            def __init__(self):
                super(Agent, self).__init__()
                self.body, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
                self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            def forward(self, x):
                return self.norm(self.body(x))
            def update(self, x, y):
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self(x), y)
                loss.backward()
                self.optimizer.step()
            def train(self, x, y):
                for _ in range(10):
                    self.update(x, y)
    """,
}

READ_SILENT = {
    "it hands the mode on, or is a switch of its own": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.drop = nn.Linear(4, 8), nn.Dropout(0.2)
            def forward(self, x):
                return self.drop(self.body(x))
            def train(self, mode=True):
                super().train(mode)
                self.body.eval()
                return self
        class Teacher(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(4, 8)
            def forward(self, x):
                return self.body(x)
            def train(self, mode=True):
                return self
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            net.train()
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            opt.step()
    """,
    "a trainer that is no module": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self, net):
                self.net, self.opt = net, torch.optim.SGD(net.parameters(), lr=0.1)
            def train(self, loader):
                self.net.train()
                for x, y in loader:
                    self.opt.zero_grad()
                    nn.functional.mse_loss(self.net(x), y).backward()
                    self.opt.step()
        Trainer(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))).train(loader)
    """,
    "its parts are switched by hand, and eval is never asked of it": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))
                self.opt = torch.optim.SGD(self.body.parameters(), lr=0.1)
            def train(self, loader):
                self.body.train()
                for x, y in loader:
                    self.opt.zero_grad()
                    nn.functional.mse_loss(self.body(x), y).backward()
                    self.opt.step()
            def test(self, x):
                self.body.eval()
                with torch.no_grad():
                    return self.body(x)
        net = Net()
        net.train(loader)
        net.test(x)
    """,
}
