"""A new optimizer for the same parameters is made again and again: its memory starts from nothing each time.

Sees: optimizers that keep moments are made on the same line for the same parameters, and replaced after some steps: 3
lives or more over data that earlier lives saw already, or 5 lives of one or two steps. Silent where the weights were
replaced in between (a new fold, a client of a federation), where plain SGD has nothing to lose, and where a name or a
comment nearby speaks of restarts, folds, rounds, phases or tasks. The counts are guesses. In the text: the line stands
in a loop over epochs, or makes an optimizer for a single step, and the model is one and the same in each turn.

Why it matters: Adam's averages and momentum begin at zero each time, the bias correction makes the first steps large
again, and a schedule tied to the optimizer starts over. Training is slower and noisier than it looks.

Usual causes: ``optimizer = Adam(model.parameters())`` stands inside the loop over epochs or batches, or inside a
``train_epoch`` function.

Fix: make the optimizer once, before the loop. To change its rate, use a scheduler or set
``optimizer.param_groups[0]["lr"]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import OptimizerMade, StateLoaded, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import is_optimizer
from trueloop.doctor.source.modules import is_module
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ritual import across_turns
from trueloop.doctor.source.ways import Run
from trueloop.doctor.untended import figure
from trueloop.doctor.written import says_around

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LIVES = 3
SHORT_LIVES = 5
SHORT = 2  # steps
SEEN_BEFORE = 0.5  # share of a life's samples that an earlier life saw
MEANT = (
    *("restart", "warm", "cycle", "snapshot", "fold", "round", "client", "federat", "phase", "stage", "freez", "thaw"),
    *("task", "adapt", "inner", "prun", "rewind", "ensemble", "reset", "population", "curriculum"),
)


@dataclass
class _Line:
    """The optimizers that were made on one line for the same parameters, one after the other."""

    parameters: tuple[int, ...]
    refs: list[Any]
    number: int
    """The living one."""
    lives: list[int] = field(default_factory=list)
    """Steps of those before it."""
    steps: int = 0
    began: int = 0
    """The trace's step when the living one was made."""
    old: int = 0
    new: int = 0
    """Samples of this life that had been trained on before it, and that had not."""
    again: float = 0.0
    """The share of the former, in the last life."""
    mark: float | None = None
    """A figure of a small parameter after the last step."""
    keeps: bool = False
    """The optimizers keep moments."""


class OptimizerRecreated(Rule):
    """Knows it by the line on which optimizers are made and by the parameters that they are given."""

    name = "optimizer-recreated"
    code = 119
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._lines: dict[Place, _Line] = {}
        self._by_number: dict[int, _Line] = {}
        self._told: set[Place] = set()
        self._made = 0

    def optimizer_made(self, fact: OptimizerMade) -> Iterator[Finding]:
        import weakref

        self._made += 1
        parameters = fact.optimizer.parameters()
        if fact.place is None or fact.place in self._told or not parameters or fact.optimizer.kind == "LBFGS":
            return
        ids = tuple(id(parameter) for parameter in parameters)
        line = self._lines.get(fact.place)
        same = (
            line is not None
            and line.parameters == ids
            and all(ref() is parameter for ref, parameter in zip(line.refs, parameters, strict=True))
        )
        smallest = min(parameters, key=lambda parameter: parameter.numel())
        if line is None or not same or line.steps == 0 or (line.mark is not None and figure(smallest) != line.mark):
            line = _Line(ids, [weakref.ref(parameter) for parameter in parameters], fact.optimizer.number)
            line.began = self.trace.step
            self._lines[fact.place] = self._by_number[fact.optimizer.number] = line
            return
        self._by_number.pop(line.number, None)
        line.lives.append(line.steps)
        line.again = line.old / max(1, line.old + line.new)
        line.number, line.steps, line.began, line.old, line.new = fact.optimizer.number, 0, self.trace.step, 0, 0
        self._by_number[line.number] = line
        short = len(line.lives) >= SHORT_LIVES and max(line.lives) <= SHORT
        long = len(line.lives) >= LIVES and line.again >= SEEN_BEFORE
        if line.keeps and (short or long) and not says_around(fact.place, MEANT):
            self._told.add(fact.place)
            yield self.finding(
                f"a new {fact.optimizer.kind} is made for the same {len(ids)} parameters, for the "
                f"{len(line.lives) + 1}th time: its moments start again from zero each time",
                f"the earlier ones were thrown away after {', '.join(map(str, line.lives[:6]))} steps",
                place=fact.place,
            )

    def stepped(self, fact: Stepped) -> None:
        line = self._by_number.get(fact.optimizer.number)
        if line is None:
            return
        line.steps += 1
        optimizer = fact.optimizer.optimizer
        if optimizer is not None and line.steps == 1:
            line.keeps = any(
                getattr(value, "numel", lambda: 0)() > 1 or key == "exp_avg"
                for state in list(optimizer.state.values())[:4]
                for key, value in state.items()
            )
        if line.keeps:
            parameters = [parameter for ref in line.refs if (parameter := ref()) is not None]
            line.mark = figure(min(parameters, key=lambda parameter: parameter.numel())) if parameters else None
            for one in fact.passes:
                for sample in one.samples:
                    first = self.trace.training_samples.get(sample)
                    if first is not None and first < line.began:
                        line.old += 1
                    else:
                        line.new += 1

    def state_loaded(self, fact: StateLoaded) -> None:
        own = {id(parameter) for parameter in fact.module.parameters()}
        for place, line in list(self._lines.items()):
            if own.intersection(line.parameters):
                self._by_number.pop(line.number, None)
                del self._lines[place]

    def passed(self) -> str | None:
        return f"{self._made} optimizers were made, none again and again" if self._made and not self._told else None


RESETS = ("load_state_dict", "deepcopy", "apply(", "copy_(", "requires_grad", "reset", "init")
"""The weights are others afterwards, or fewer of them train."""


def in_source(program: Program) -> Iterator[Checked]:
    """In two turns of a loop the same line makes an optimizer with a memory for the same model, and steps with it."""
    for run in program.runs:
        lives: dict[int, list[read.Made]] = {}
        for event in run.of(read.Made):
            if is_optimizer(event.made.kind) and _remembers(event.made):
                lives.setdefault(id(event.made.node), []).append(event)
        for those in lives.values():
            again = next((pair for pair in pairwise(those) if _is_again(run, *pair)), None)
            if again is None:
                continue
            first = again[0]
            step = next(event for event in run.of(read.Stepped) if event.target is first.made)
            each = "batch" if _in_one_turn(first, step) else "epoch"
            finding = program.finding(
                OptimizerRecreated,
                f"a new {first.made.name} is made in every {each}: its memory begins from nothing each time",
                "the line stands in the loop, and the model is the same in each of its turns",
                at=first,
                related=[(step, "the step")],
            )
            yield Checked(finding)


def _remembers(made: values.Object) -> bool:
    if made.name in ("SGD", "LBFGS"):
        return bool(values.constant(made.option("momentum", 2), 0)) and made.name == "SGD"
    return True


def _is_again(run: Run, one: read.Made, other: read.Made) -> bool:
    """Whether the second replaces the first, in the next turn of a loop, for no reason that the text gives."""
    if not across_turns(one.at, other.at) or not _models(one.made) or _models(one.made) != _models(other.made):
        return False
    turn = next(a for a, b in zip(one.at.loops, other.at.loops, strict=False) if a.number != b.number)
    steps = [event for event in run.of(read.Stepped) if event.target in (one.made, other.made)]
    if {id(event.target) for event in steps} != {id(one.made), id(other.made)}:
        return False
    if any(branch not in steps[0].at.branches for branch in one.at.branches):
        return False
    text = _around(one, turn)
    if any(word in text for word in (*MEANT, *RESETS)):
        return False
    return _in_one_turn(one, steps[0]) or (_counts_epochs(one, turn) and _same_options(one.made, other.made))


def _models(optimizer: values.Object) -> set[int]:
    """The models whose parameters it was given, if each is surely one and the same thing wherever it is named."""
    params = optimizer.option("params", 0)
    found = [one for one in ancestors(params) if getattr(one, "via", "") == "parameters"] if params is not None else []
    models = [one.of for one in found if isinstance(one, values.Unknown)]
    sure = all(is_module(of) or (isinstance(of, values.Unknown) and of.via in ("", ".")) for of in models)
    return {id(of) for of in models} if sure else set()


def _around(made: read.Made, turn: values.Turn) -> str:
    """The text of the loop, of what stands above it, and of the function that makes the optimizer."""
    unit = made.at.unit
    lines = unit.lines
    texts = [] if made.function is None else [unit.text(made.function.node)]
    line = unit.span(made.made.node).start.line
    texts.append("\n".join(lines[max(0, line - 6) : line + 2]))
    texts.append(_loop_text(turn, made))
    return "\n".join(texts).lower().replace("round(", "").replace("__init__", "")


def _loop_text(turn: values.Turn, made: read.Made) -> str:
    return made.at.unit.tree.code_for_node(turn.node)


def _in_one_turn(made: read.Made, step: read.Stepped) -> bool:
    """Made and used for one step."""
    return made.at.loops == step.at.loops


def _counts_epochs(made: read.Made, turn: values.Turn) -> bool:
    node: Any = turn.node
    head = [
        made.at.unit.tree.code_for_node(part)
        for part in (getattr(node, "target", None), getattr(node, "iter", None))
        if part
    ]
    return any("epoch" in part.lower() or part.strip() in ("ep", "e") for part in head)


def _same_options(one: values.Object, other: values.Object) -> bool:
    """Whether no rate follows the turn: that is a plan of its own."""
    values_of = [
        (*made.args[1:], *(value for name, value in made.kwargs.items() if name != "params")) for made in (one, other)
    ]
    return all(_is_same(a, b) for a, b in zip(*values_of, strict=False))


def _is_same(one: values.Value, other: values.Value) -> bool:
    if isinstance(one, values.Items) and isinstance(other, values.Items):
        return all(_is_same(a, b) for a, b in zip(one.all(), other.all(), strict=False))
    alike = isinstance(one, values.Constant) and isinstance(other, values.Constant) and one.value == other.value
    return one is other or alike


FIRES = {
    "a word that stands in another block": """
        class Options:
            rounds = 5

        def configure(model):
            return torch.optim.Adam(model.parameters(), lr=1e-3)

        model, x = nn.Linear(4, 1), torch.randn(48, 4)
        for epoch in range(Options.rounds):
            opt = configure(model)
            for rows in torch.randperm(48).split(12):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows].sum(1, keepdim=True)).backward()
                opt.step()
    """,
    "inside the loop over epochs": """
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        x = torch.randn(48, 4)
        y = x.sum(1, keepdim=True)
        for epoch in range(5):
            opt = torch.optim.Adam(model.parameters(), lr=1e-3)
            for rows in torch.randperm(48).split(12):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), y[rows]).backward()
                opt.step()
    """,
    "inside the function that trains an epoch": """
        loader = DataLoader(TensorDataset(torch.randn(48, 4), torch.randint(3, (48,))), batch_size=12, shuffle=True)

        def train_epoch(model):
            opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            for x, y in loader:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()

        model = nn.Linear(4, 3)
        for epoch in range(5):
            train_epoch(model)
    """,
    "for every batch": """
        model = nn.Linear(4, 1)
        for _ in range(12):
            x = torch.randn(8, 4)
            opt = torch.optim.Adam(model.parameters(), lr=1e-3)
            opt.zero_grad()
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
            opt.step()
    """,
}

SILENT = {
    "a new model each time": """
        x = torch.randn(24, 4)
        for fold in range(5):
            model = nn.Linear(4, 1)
            opt = torch.optim.Adam(model.parameters(), lr=1e-3)
            for rows in torch.arange(24).split(8):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows].sum(1, keepdim=True)).backward()
                opt.step()
    """,
    "the same model begins anew": """
        model, x = nn.Linear(4, 1), torch.randn(24, 4)
        for k in range(5):
            model.reset_parameters()
            opt = torch.optim.Adam(model.parameters(), lr=1e-3)
            for rows in torch.arange(24).split(8):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows].sum(1, keepdim=True)).backward()
                opt.step()
    """,
    "weights come from elsewhere": """
        import copy
        model, x = nn.Linear(4, 1), torch.randn(24, 4)
        shared = copy.deepcopy(model.state_dict())
        for k in range(5):
            model.load_state_dict(shared)
            opt = torch.optim.Adam(model.parameters(), lr=1e-3)
            for rows in torch.arange(24).split(8):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows].sum(1, keepdim=True)).backward()
                opt.step()
            shared = {name: value.clone() for name, value in model.state_dict().items()}
    """,
    "warm restarts that say so": """
        model, x = nn.Linear(4, 1), torch.randn(24, 4)
        for cycle in range(5):
            opt = torch.optim.Adam(model.parameters(), lr=1e-3)
            for rows in torch.arange(24).split(8):
                opt.zero_grad()
                F.mse_loss(model(x[rows]), x[rows].sum(1, keepdim=True)).backward()
                opt.step()
    """,
}

READ_FIRES = {
    "in the loop over epochs": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        for epoch in range(10):
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
    """,
    "in a function of one epoch": """
        import torch
        from torch import nn, optim
        def train_one_epoch(model, loader, lr):
            opt = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
            for x, y in loader:
                opt.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
            return round(loss.item(), 3)
        def main(model, loader):
            for e in range(20):
                print(train_one_epoch(model, loader, 0.1))
    """,
    "in every update of a learner": """
        import torch
        from torch import nn
        class Learner:
            def __init__(self):
                self.net = nn.Linear(4, 1)
            def update(self, x, y):
                opt = torch.optim.AdamW(self.net.parameters(), lr=1e-3)
                loss = nn.functional.mse_loss(self.net(x), y)
                opt.zero_grad()
                loss.backward()
                opt.step()
        learner = Learner()
        for x, y in loader:
            learner.update(x, y)
    """,
}

READ_SILENT = {
    "a new model for each fold": """
        import torch
        from torch import nn
        for part in range(5):
            model = nn.Linear(4, 1)
            opt = torch.optim.Adam(model.parameters())
            for epoch in range(3):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    opt.step()
    """,
    "made once; made when it thaws; warm restarts": """
        import torch
        from torch import nn
        def train(model, loader, epochs):
            opt = torch.optim.Adam(model.head.parameters())
            for epoch in range(epochs):
                if epoch == 5:
                    opt = torch.optim.Adam(model.parameters(), lr=1e-4)
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    opt.step()
        def snapshots(model, loader):
            for epoch in range(5):
                opt = torch.optim.Adam(model.parameters())  # a warm restart
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    opt.step()
    """,
    "nothing to remember, or a plan of rates": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        for epoch in range(10):
            plain = torch.optim.SGD(net.parameters(), lr=0.1)
            for x, y in loader:
                plain.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                plain.step()
        for epoch in range(10):
            adam = torch.optim.Adam(net.parameters(), lr=0.1 * 0.9 ** epoch)
            for x, y in loader:
                adam.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                adam.step()
    """,
    "one run for each setting": """
        import torch
        from torch import nn
        def bench(model, x, y, amp):
            opt = torch.optim.Adam(model.parameters())
            for step in range(20):
                opt.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                opt.step()
        model = nn.Linear(4, 1)
        for amp in (False, True):
            bench(model, x, y, amp)
        for size in [16, 32]:
            bench(model, x[:size], y[:size], False)
    """,
}
