"""Losses or outputs are kept with their graphs, so memory grows with every step.

Sees: graphs that a backward went through are still alive when later steps have been taken, from 6 different steps or
more at once (a guess: variables of the last iteration, and short windows of truncated backpropagation, keep fewer).
Seen by a mark in the graph itself, so a sum that keeps it is known as well as a list. Also, as a warning,
``retain_graph=True`` on 20 backwards none of whose graphs was used a second time.

Why it matters: each kept tensor keeps the operations that made it, and what they saved for backward where the graph
was retained or no backward came. Memory grows until the process is killed.

Usual causes: ``total += loss`` instead of ``total += loss.item()``; ``history.append(loss)``; keeping predictions for
a metric; ``retain_graph=True`` to silence an error of a hidden state that is not detached.

Fix: keep numbers: ``loss.item()``, or ``loss.detach()`` to save a wait on an accelerator. Leave out ``retain_graph``
unless a second backward goes through the same graph.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, BackwardEnded, Called, GradientsTaken, Paused, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import graph_of
from trueloop.doctor.keepers import keepers
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.seen import Pass
from trueloop.doctor.source import blocks, results, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import atom, given
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import LOSSES, RESHAPES
from trueloop.doctor.source.mending import removed, replaced
from trueloop.doctor.source.provenance import ancestors, ending, feeds
from trueloop.doctor.source.ways import Run
from trueloop.doctor.written import kept

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 6  # different steps of which graphs are alive at once
AGE = 2  # steps that must have gone by since
NEEDLESS = 20  # backwards with retain_graph=True
COLLECTS = 3  # times that Python's collector is run before a finding: cycles keep graphs for a while
KEY = "trueloop.kept"
USED = "trueloop.used"


class _Mark:
    """Lives as long as the graph in whose metadata it is put."""

    __slots__ = ("__weakref__", "of", "step")

    def __init__(self, step: int, of: Pass | None) -> None:
        self.step, self.of = step, of

    @property
    def used(self) -> bool:
        """Whether a backward went through it: what waits for one may live."""
        return self.of is None or self.of.phase == "training"


class RetainedGraph(Rule):
    """Knows it by marks that die with their graphs."""

    name = "retained-graph"
    code = 111
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._marks: list[Any] = []  # weak references
        self._collects = 0
        self._told = False
        self._backward: Place | None = None
        self._retained: dict[Place | None, int] = {}  # line of a backward -> graphs retained and not used again
        self._needed: set[Place | None] = set()
        self._graphs = 0

    def called(self, fact: Called) -> None:
        if not self._told and fact.of.needs_grad:
            self._mark(tuple(tensors_in(fact.output, 4)), fact.of)

    def backward_begun(self, fact: BackwardBegun) -> None:
        if self._told:
            return
        self._graphs += 1
        self._backward = fact.place
        self._mark(fact.losses, None)
        if self._retained:
            self._second_use(fact.graph.nodes)
        if fact.retain_graph and not fact.create_graph and self._retained.get(fact.place, 0) <= NEEDLESS:
            self._retained[fact.place] = self._retained.get(fact.place, 0) + 1
            for node in fact.graph.nodes:
                if not node.op.endswith("AccumulateGrad"):
                    node.raw.metadata[USED] = fact.place

    def backward_ended(self, fact: BackwardEnded) -> Iterator[Finding]:
        place = fact.begun.place
        if self._retained.get(place) == NEEDLESS + 1 and place not in self._needed and not self._told:
            self._retained[place] = NEEDLESS + 2  # told once
            yield self.finding(
                "every backward on this line keeps its graph (retain_graph=True), and none is used a second time",
                f"{NEEDLESS} graphs were retained here; no later backward went through one of them",
                place=place,
                level="warning",
            )

    def gradients_taken(self, fact: GradientsTaken) -> None:
        if self._retained:
            self._second_use(graph_of(*fact.outputs).nodes)

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self._told or self.trace.heard % 2:
            return
        alive = self._alive()
        if len({mark.step for mark in alive}) < STEPS or self._collects == COLLECTS:
            return
        self._collects += 1
        del alive
        gc.collect()
        steps = sorted({mark.step for mark in self._alive()})
        if len(steps) < STEPS:
            return
        self._told = True
        held = [one for one in keepers() if one.graphs > 1] or keepers()
        names = [one.name for one in held]
        line = kept(self._backward, names) or self._backward
        if held and held[0].graphs > 1:
            who = f"'{held[0].name}' keeps {held[0].graphs} tensors with their graphs"
        else:
            who = "losses or outputs are kept with their graphs"
        yield self.finding(
            f"{who}: memory grows with every step",
            f"graphs of {len(steps)} earlier steps ({steps[0] + 1} to {steps[-1] + 1}) are alive at step "
            f"{self.trace.step}, though backward has gone through them",
            *([f"variables that hold tensors with a graph: {', '.join(names[:5])}"] if names else []),
            place=line or fact.place,
            related=[(self._backward, "the backward after which they are not needed")],
        )

    def paused(self, fact: Paused) -> None:
        self._marks.clear()

    def _mark(self, tensors: tuple[Tensor, ...], of: Pass | None) -> None:
        nodes = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        if nodes:
            mark = _Mark(self.trace.step, of)
            for node in nodes:
                metadata: Any = node.metadata
                metadata.setdefault(KEY, mark)
            self._marks.append(weakref.ref(mark))

    def _alive(self) -> list[_Mark]:
        alive = [mark for ref in self._marks if (mark := ref()) is not None]
        if len(alive) < len(self._marks):
            self._marks = [weakref.ref(mark) for mark in alive]
        return [mark for mark in alive if mark.used and self.trace.step - mark.step > AGE]

    def _second_use(self, nodes: tuple[Any, ...]) -> None:
        for node in nodes:
            if not node.op.endswith("AccumulateGrad"):
                place = node.raw.metadata.get(USED, self)
                if place is not self:
                    self._needed.add(place)
                    self._retained.pop(place, None)

    def passed(self) -> str | None:
        return f"the graphs of {self._graphs} backwards were freed" if self._graphs and not self._told else None


def in_source(program: Program) -> Iterator[Checked]:
    """A value with its graph is put into what outlives the loop's turn, and no backward goes through it later."""
    for run in program.runs:
        told: set[int] = set()
        for added in run.of(read.Kept):
            if id(added.node) in told or not added.at.loops or not _with_graph(run, added) or not _outlives(added):
                continue
            if not _over_batches(run, added):
                continue
            if any(
                event.at.loops != added.at.loops and feeds(added.value, event.loss) for event in run.of(read.Backward)
            ):
                continue  # the kept values are what is backpropagated
            if any(feeds(added.value, event.target) for event in run.of(read.GradientsUsed)):
                continue
            if added.how == "=+" and not _is_of_a_loss(run, added):
                continue  # layers that are added up
            told.add(id(added.node))
            where = "a sum" if added.after is not None else "a list or dict"
            finding = program.finding(
                RetainedGraph,
                f"{where} that outlives the turn keeps each turn's graph",
                "what is kept carries its graph, and nothing backpropagates through it later",
                at=added,
                help="keep the number: `.item()`, or `.detach()` for a tensor",
            )
            yield Checked(finding, _mended(program, run, added))
        yield from _retained_every_turn(program, run)


def _mended(program: Program, run: Run, kept: read.Kept) -> Fix | None:
    value = _written(program, kept)
    if value is None or blocks.kind(value) in ("List", "Tuple", "Dict", "ListComp", "GeneratorExp"):
        return None
    if blocks.kind(value) in ("Name", "BinaryOperation") and kept.at.calls:
        inner: Any = blocks.function(program.unit, value)
        handed = [one.name.value for one in getattr(getattr(inner, "params", None), "params", ())]
        if blocks.dotted(program.unit, value) & set(handed):
            value = _argument(program, run, kept)  # other calls may hand over numbers
    if value is None:
        return None
    return together("keep it without its graph", put(program, value, f"{atom(program, value)}.detach()"))


def _argument(program: Program, run: Run, kept: read.Kept) -> Any:
    """The loss itself, where it is handed to the function that keeps it: ``meter.update(loss)``."""
    unit, call = program.unit, kept.at.calls[-1]
    losses = {unit.text(thing) for e in run.of(read.Backward) if (thing := _backed(e)) is not None}
    given = [one.value for one in getattr(call, "args", ()) if not one.star and unit.text(one.value) in losses]
    return given[0] if len(given) == 1 else None


def _backed(backward: read.Backward) -> Any:
    return getattr(getattr(backward.node, "func", None), "value", None)


def _written(program: Program, kept: read.Kept) -> Any:
    """The expression whose value is kept; None if it is not one by itself."""
    node: Any = kept.node
    if kept.how == "+=":
        listed = node.value.elements if blocks.kind(node.value) in ("List", "Tuple") else None
        return node.value if listed is None else listed[0].value if len(listed) == 1 else None
    if kept.how == "=+":
        return node.value.right if node.targets[0].target.deep_equals(node.value.left) else node.value.left
    if kept.how in ("append", "add", "appendleft"):
        return node.args[0].value
    above: list[Any] = list(blocks.around(program.unit, node))[:2]
    if kept.how == "[]" and [blocks.kind(one) for one in above] == ["AssignTarget", "Assign"]:
        return above[1].value if len(above[1].targets) == 1 else None
    return None


def _over_batches(run: Run, kept: read.Kept) -> bool:
    """Whether the loop goes through batches, and not through the parts of one pass: heads, layers, time."""
    loop = kept.at.loops[-1].loop
    if any(turn.loop == loop for event in run.of(read.Backward) for turn in event.at.loops):
        return True
    return any(isinstance(one, values.Tensor) and one.op == "fetched" and one.at.loops for one in ancestors(kept.value))


def _with_graph(run: Run, kept: read.Kept) -> bool:
    """Whether what is kept surely carries a graph: it is known, or backward went through it in the same turn."""
    if results.graph_of(kept.value) is True and isinstance(kept.value, values.Tensor) and kept.value.op != "parameter":
        return True
    backward = [event.loss for event in run.of(read.Backward) if event.at.loops == kept.at.loops]
    return any(loss is kept.value or _input(loss) is ending(kept.value) for loss in backward)


def _input(loss: values.Value) -> values.Value | None:
    """What one of torch's loss functions was given, through which alone its gradient goes."""
    if not isinstance(loss, values.Tensor) or loss.op not in LOSSES.values() or not loss.inputs:
        return None
    found = ending(loss.inputs[0])
    while isinstance(found, values.Unknown) and found.via == "call" and found.name in RESHAPES and found.of is not None:
        found = found.of  # `logits.flatten(0, 1)`, of logits that are not known
    return found


def _is_of_a_loss(run: Run, kept: read.Kept) -> bool:
    """Whether a loss that is backpropagated in the same turn is what is added, or a part of it."""
    losses = [event.loss for event in run.of(read.Backward) if event.at.loops == kept.at.loops]
    return any(feeds(loss, kept.value) for loss in losses)


def _outlives(kept: read.Kept) -> bool:
    """Whether it is put into what was there before this turn."""
    if isinstance(kept.into, values.Items):
        return not _inside(kept.into.at, kept.at)
    if kept.after is None:
        return False  # of a thing that is not known
    if isinstance(kept.into, values.Tensor) and kept.into.graph is not False:
        return not _inside(kept.into.at, kept.at)
    return isinstance(kept.into, values.Unknown) and bool(kept.into.inputs) and kept.how == "+=" and _is_old(kept)


def _is_old(kept: read.Kept) -> bool:
    """Whether a sum of what is not known began before this turn: it has a number at its root, and is added to again."""
    return any(isinstance(one, values.Constant) and isinstance(one.value, (int, float)) for one in ancestors(kept.into))


def _inside(made: values.At, now: values.At) -> bool:
    return made.loops[: len(now.loops)] == now.loops


def _retained_every_turn(program: Program, run: Run) -> Iterator[Checked]:
    """``retain_graph=True`` where no other backward of the turn, and no later turn, goes through the graph again."""
    backwards = list(run.of(read.Backward))
    told: set[int] = set()
    for event in backwards:
        asked = event.kwargs.get("retain_graph")
        if (
            not isinstance(asked, values.Constant)
            or asked.value is not True
            or not event.at.loops
            or any(run.of(read.GradientsUsed))
        ):
            continue
        if id(event.node) in told or "create_graph" in event.kwargs:
            continue
        own = {id(one) for one in ancestors(event.loss, graph=True) if isinstance(one, values.Tensor) and one.graph}
        unknown = any(isinstance(one, values.Unknown) and one.via in ("call", "") for one in _sources(event.loss))
        others = [other for other in backwards if other.node is not event.node]
        again = [o for o in backwards if o is not event and o.node is event.node and _shares(o.loss, own)]
        if unknown or again or any(_shares(other.loss, own) for other in others):
            continue
        told.add(id(event.node))
        finding = program.finding(
            RetainedGraph,
            "backward keeps its graph in every turn, and nothing goes through it again",
            "`retain_graph=True`, and no other backward shares an operation with this loss",
            at=event,
            help="leave `retain_graph=True` out",
        )
        written = given(event.node, "retain_graph")
        fix = None if written is None else removed(program, event.node, "free the graph")
        if written is not None and fix is None:
            fix = replaced(program, written, "False", "free the graph")
        yield Checked(finding, fix)


def _sources(loss: values.Value) -> Iterator[values.Value]:
    return ancestors(loss, graph=True)


def _shares(loss: values.Value, own: set[int]) -> bool:
    """Whether a loss's graph has an operation of these: parameters, which every graph has, are none."""
    return any(id(one) in own and isinstance(one, values.Tensor) and one.inputs for one in ancestors(loss, graph=True))


FIRES = {
    "a running total": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(2):
            total = 0
            for _ in range(12):
                opt.zero_grad()
                loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
                loss.backward()
                opt.step()
                total += loss
    """,
    "a trainer's list of predictions": """
        class Trainer:
            def __init__(self):
                self.model, self.outputs = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), []
                self.opt = torch.optim.Adam(self.model.parameters())

            def step(self):
                out = self.model(torch.randn(8, 4))
                self.outputs.append(out)
                self.opt.zero_grad()
                F.cross_entropy(out, torch.randint(3, (8,))).backward()
                self.opt.step()

        trainer = Trainer()
        for _ in range(15):
            trainer.step()
    """,
    "every graph is retained for nothing": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(30):
            opt.zero_grad()
            loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
            loss.backward(retain_graph=True)
            opt.step()
    """,
}

SILENT = {
    "a list of losses is what is backpropagated": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(10):
            losses = [F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)) for _ in range(5)]
            opt.zero_grad()
            torch.stack(losses).mean().backward()
            opt.step()
    """,
    "two backwards through one graph": """
        body, a, b = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        opt = torch.optim.SGD([*body.parameters(), *a.parameters(), *b.parameters()], lr=0.01)
        for _ in range(30):
            z = body(torch.randn(8, 4)).relu()
            opt.zero_grad()
            a(z).square().mean().backward(retain_graph=True)
            b(z).square().mean().backward()
            opt.step()
    """,
    "numbers are kept": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        total, history, outputs = 0.0, [], []
        for _ in range(20):
            out = model(torch.randn(8, 4))
            loss = F.mse_loss(out, torch.randn(8, 1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
            history.append(loss.detach())
            outputs.append(out.detach())
    """,
    "an episode's log-probabilities": """
        policy = nn.Linear(4, 2)
        opt = torch.optim.SGD(policy.parameters(), lr=0.01)
        for _ in range(10):
            kept = [F.log_softmax(policy(torch.randn(1, 4)), 1)[0, 0] for _ in range(12)]
            opt.zero_grad()
            (-torch.stack(kept).sum()).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "a running total": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(3):
            total = 0
            for x, y in loader:
                opt.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                opt.step()
                total += loss
    """,
    "a meter that adds it up": """
        import torch
        from torch import nn
        class Meter:
            def __init__(self):
                self.sum = 0
            def update(self, value, n):
                self.sum = self.sum + value * n
        net, meter = nn.Linear(4, 3), Meter()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            meter.update(loss, len(x))
    """,
    "a history of lists that are made when they are asked for": """
        import torch
        from collections import defaultdict
        from torch import nn
        net, history = nn.Linear(4, 3), defaultdict(list)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            history["loss"].append(loss)
    """,
    "outputs of a model that was handed in": """
        import torch
        def train(model, loader, optimizer):
            outputs = []
            for x, y in loader:
                optimizer.zero_grad()
                logits = model(x)
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
                optimizer.step()
                outputs.append(logits)
            return outputs
    """,
    "a list, all handed in": """
        import torch
        def train(model, loader, criterion, optimizer):
            losses = []
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss)
            return losses
    """,
    "retain_graph": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in torch.utils.data.DataLoader(data):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward(retain_graph=True)
            opt.step()
    """,
    "under a key, with its size, in a list": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        from collections import defaultdict
        history, last, total = defaultdict(list), {}, 0
        for i, (x, y) in enumerate(loader):
            opt.zero_grad()
            out = net(x)
            loss = nn.functional.cross_entropy(out, y)
            loss.backward()
            opt.step()
            history["loss"].append(loss * len(x))
            history["out"] += [out]
            last[i] = loss
            total += loss * len(x)
    """,
}

READ_SILENT = {
    "layers that are added up without a loss": """
        import torch
        from torch import nn
        layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        opt = torch.optim.SGD(layers.parameters(), lr=0.1)
        for x in loader:
            h = x
            for layer in layers:
                h = h + layer(h)
            print(h.argmax(1))
    """,
    "lists of a dict that is new in every turn": """
        import torch
        from collections import defaultdict
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            parts = defaultdict(list)
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            parts["loss"].append(loss)
            loss.backward()
            opt.step()
    """,
    "parameters in a dict": """
        from torch import nn

        def shard(full, model):
            kept = {}
            for name, tensor in full.items():
                kept[name] = nn.Parameter(tensor)
            model.load_state_dict(kept)
    """,
    "the heads of one pass": """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.heads = [nn.Linear(8, 1) for _ in range(width)]

            def predict(self, x):
                scores = []
                for head in self.heads:
                    scores = scores + [head(x)]
                return torch.cat(scores, 1).argmax(1)

        print(Net(3).predict(torch.randn(2, 8)))
    """,
    "numbers are kept": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        total, all = 0.0, []
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            total += loss.item()
            all.append(loss.detach())
    """,
    "the list is backpropagated": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for batch in loader:
            losses = []
            total = 0
            for x, y in batch:
                losses.append(nn.functional.cross_entropy(net(x), y))
                total += nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            (torch.stack(losses).mean() + total).backward()
            opt.step()
    """,
    "two losses through one graph": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in torch.utils.data.DataLoader(data):
            opt.zero_grad()
            out = net(x)
            nn.functional.cross_entropy(out, y).backward(retain_graph=True)
            out.square().mean().backward()
            opt.step()
    """,
}
