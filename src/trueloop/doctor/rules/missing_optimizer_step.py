"""Backward runs batch after batch, and no optimizer steps.

Sees: an optimizer was built, backwards reach its parameters again and again (8 times or more: a guess), it never steps,
no other one steps them, and their values are at the end what they were at the first backward.

Why it matters: gradients are computed and thrown away; the model at the end is the one at the start.

Usual causes: ``optimizer.step()`` was forgotten, stands without its parentheses, or in a branch that is never taken.

Fix: call ``optimizer.step()`` after ``backward``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardBegun, Ended, ScalerStepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.parts import own_part
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import after, before, called, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import is_optimizer
from trueloop.doctor.source.mending import is_plain, said, scaler_of
from trueloop.doctor.source.provenance import touches, trains
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

MANY = 8
MANY_OF_BROKEN = 32  # of a script that died: it may have been on its way to a step
LOOKED = 3  # first backwards whose leaves are looked at: gradients of inputs are taken for their own sake


class MissingOptimizerStep(Rule):
    """Waits for the end: a step may come late."""

    name = "missing-optimizer-step"
    code = 104
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._before: dict[int, list[float]] = {}  # optimizer -> sums of its watched weights before it could step
        self._skipped: set[int] = set()  # ids of optimizers whose step a scaler left out
        self._inputs = False  # gradients of inputs are taken, too
        self._looked = 0

    def backward_begun(self, fact: BackwardBegun) -> None:
        waiting = [seen for seen in self.trace.optimizers if not seen.steps]
        if not waiting:
            return
        for seen in waiting:
            if seen.number not in self._before:
                self._before[seen.number] = _sums(seen)
        if self._looked < LOOKED:
            self._looked += 1
            leaves = fact.graph.parameters.values()
            self._inputs = self._inputs or any(
                type(leaf).__name__ == "Tensor" and leaf not in self.trace.names and not self._holds(leaf.data_ptr())
                for leaf in leaves
            )

    def scaler_stepped(self, fact: ScalerStepped) -> None:
        if not fact.stepped:
            self._skipped.add(id(fact.optimizer))

    def ended(self, fact: Ended) -> Iterator[Finding]:
        many = MANY if fact.error is None else MANY_OF_BROKEN
        for seen in self.trace.optimizers:
            if seen.steps or len(seen.accumulated) < many or self._inputs or id(seen.optimizer) in self._skipped:
                continue
            if self._stepped_elsewhere(seen) or _sums(seen) != self._before.get(seen.number):
                continue
            yield self.finding(
                f"{len(seen.accumulated)} backwards made gradients for {seen.kind}, which never stepped",
                f"{len(seen.accumulated)} backwards reached its parameters, its step() was called 0 times",
                "the parameters' values are those of the first backward",
                place=seen.accumulated[-1].place or seen.place,
                related=[(seen.place, "the optimizer, which is never asked to step")],
            )

    def passed(self) -> str | None:
        stepped = sum(seen.steps > 0 for seen in self.trace.optimizers)
        return f"{stepped} of {len(self.trace.optimizers)} optimizer(s) stepped" if stepped else None

    def _holds(self, address: int) -> bool:
        return any(p.data_ptr() == address for seen in self.trace.optimizers for p in seen.parameters())

    def _stepped_elsewhere(self, seen: OptimizerSeen) -> bool:
        held = {id(p) for other in self.trace.optimizers if other.steps for p in (*other.watched, *other.parameters())}
        return any(id(p) in held for p in seen.watched)


def _sums(seen: OptimizerSeen) -> list[float]:
    return [float(own_part(p).double().sum()) for p in seen.watched]


def in_source(program: Program) -> Iterator[Checked]:
    """An optimizer is made and cleared in the loop of backwards that reach its parameters, and nothing steps it."""
    for run in program.runs:
        if not run.complete or any(run.of(read.GradientsUsed)):
            continue
        for made in run.of(read.Made):
            optimizer = made.made
            if not is_optimizer(optimizer.kind) or _may_step(run, optimizer):
                continue
            zero = next((event for event in run.of(read.Zeroed) if event.target is optimizer and event.at.loops), None)
            backward = next((event for event in run.of(read.Backward) if trains(optimizer, event.loss)), None)
            if zero is None or backward is None or not backward.at.loops:
                continue
            name = said(zero)
            finding = program.finding(
                MissingOptimizerStep,
                f"nothing steps {optimizer.name}: its parameters never change",
                "backward fills its parameters' gradients in the loop, and `zero_grad` clears them unused",
                at=backward,
                related=[(made, "the optimizer that never steps"), (zero, "its gradients are cleared")],
                help=f"call `{name}.step()` after backward",
            )
            yield Checked(finding, _mended(program, run, backward, zero))


def _mended(program: Program, run: Run, backward: read.Backward, zero: read.Zeroed) -> Fix | None:
    """A step after backward and what is done to the gradients then; or before they are cleared, if that comes later."""
    name, last = said(zero), backward.node
    turn = [event for event in run.events if event.at.loops == backward.at.loops]
    later: cst.CSTNode | None = None
    for event in turn[turn.index(backward) + 1 :]:
        if isinstance(event, read.Zeroed) and event.node is zero.node:
            later = zero.node
            break
        if isinstance(event, (read.Backward, read.Clipped, read.Unscaled)):
            last = event.node
    place = later or last
    seen = blocks.function(program.unit, place) is blocks.function(program.unit, zero.node)
    if not is_plain(name) or not seen or not hasattr(zero.node, "func"):
        return None
    scaler = scaler_of(backward)
    if backward.scaled and not scaler:
        return None
    text = f"{scaler}.step({name})" if scaler else f"{name}.step()"
    if scaler and not any(run.of(read.Updated)):
        text += f"\n{scaler}.update()"
    edit = before(program, place, text) if later else called(program, place, text) or after(program, place, text)
    return together(f"step {name} after backward", edit)


def _may_step(run: Run, optimizer: object) -> bool:
    for event in run.events:
        if isinstance(event, read.Stepped) and (event.target is optimizer or not hasattr(event.target, "cls")):
            return True
        if isinstance(event, read.Escaped) and touches(event.values, optimizer):  # type: ignore[arg-type]
            return True
    return False


FIRES = {
    "no step": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in DataLoader(TensorDataset(torch.randn(96, 4), torch.randint(3, (96,))), batch_size=8, shuffle=True):
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
    """,
    "without parentheses": """
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        x = torch.randn(64, 4)
        for i in range(20):
            loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
            loss.backward()
            adam.step
            adam.zero_grad()
    """,
}

SILENT = {
    "updated by hand": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            opt.zero_grad()
            x = torch.randn(8, 4)
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
            for p in model.parameters():
                p.data -= 0.1 * p.grad
    """,
    "saliency of a model that was trained elsewhere": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)  # only to load its state
        for i in range(12):
            x = torch.randn(1, 4, requires_grad=True)
            model(x)[0].max().backward()
            heat = x.grad.abs()
    """,
    "gradients of a trained model": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            opt.zero_grad()
            x = torch.randn(8, 4)
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
            opt.step()
        fisher = torch.zeros(4)
        for i in range(12):
            model.zero_grad()
            F.mse_loss(model(torch.randn(1, 4)), torch.zeros(1, 1)).backward()
            fisher += model.weight.grad[0] ** 2
    """,
    "one step after many backwards": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        opt.zero_grad()
        for i in range(12):
            x = torch.randn(8, 4)
            (F.mse_loss(model(x), x.sum(1, keepdim=True)) / 12).backward()
        opt.step()
    """,
}

READ_FIRES = {
    "of two lists of parameters": """
        import torch
        from torch import nn
        body, head = nn.Linear(4, 8), nn.Linear(8, 1)
        opt = torch.optim.Adam(list(body.parameters()) + list(head.parameters()), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(head(torch.relu(body(x))), y).backward()
            opt.step
    """,
    "forgotten": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
    """,
    "scaled and clipped": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        scaler = torch.amp.GradScaler()
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    """,
    "cleared every fourth time": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        for i, (x, y) in enumerate(loader):
            (nn.functional.cross_entropy(net(x), y) / 4).backward()
            if i % 4 == 3:
                opt.zero_grad()
    """,
}

READ_SILENT = {
    "a window that is counted by hand": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=0.1)
        count = 0
        for x, y in loader:
            (nn.functional.mse_loss(net(x), y) / 8).backward()
            count += 1
            if count == 8:
                opt.step()
                count = 0
                opt.zero_grad()
    """,
    "another steps it": """
        import torch
        from torch import nn
        from engine import update
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            update(opt)
    """,
    "gradients are used by hand": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            print([p.grad.norm() for p in net.parameters()])
    """,
}
