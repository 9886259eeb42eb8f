"""Each iteration steps before its backward.

Sees: the optimizer's first step comes before any backward has reached its parameters, the same line goes on stepping,
and it stands before the backward in the code (or the run ends with a backward that no step uses). Seen in three steps
in a row (a guess). Or torch itself raised in a backward: the optimizer stepped between it and its forward, so that the
weights that it needs are gone.

Why it matters: each step uses the gradients of the batch before, at weights that have moved since, and the last batch
is never used. If the gradients are cleared in between, no step uses any: nothing is learnt. A backward through two
layers or more fails after a step.

Usual causes: ``optimizer.step()`` and ``loss.backward()`` are exchanged; of two losses with a forward in common, one
steps before the other's backward.

Fix: keep the order ``zero_grad``, forward, ``backward``, ``step``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardEnded, Ended, Paused, Stepping
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import moved_after, said
from trueloop.doctor.source.provenance import touches
from trueloop.doctor.source.ritual import gives, is_step, optimizers
from trueloop.doctor.source.ways import Run, paths
from trueloop.doctor.untouched import is_zero

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 3
RAISED = re.compile(r"modified by an inplace operation: \[[\w.]+ \[([\d, ]*)\]\].* is at version (\d+)", re.DOTALL)


class StepBeforeBackward(Rule):
    """Knows it by the first step: a right loop has had a backward before it, and a guard for the first step as well."""

    name = "step-before-backward"
    code = 103
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._first: dict[int, Place] = {}  # optimizer -> the line of its first step, which came before any backward
        self._late: dict[int, list[Place]] = {}  # optimizer -> the backwards' lines of its later steps on that line
        self._cleared: dict[int, bool] = {}  # optimizer -> no such step had a gradient
        self._right = 0
        self._told: set[int] = set()

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        seen, number = fact.optimizer, fact.optimizer.number
        if seen.steps == 0 and not fact.has_closure:
            if fact.accumulated:
                self._right += 1
            elif fact.place is not None and all(is_zero(p.grad) for p in seen.parameters()):
                self._first[number] = fact.place
            return
        if number not in self._first or number in self._told or not fact.accumulated:
            return
        if fact.place != self._first[number]:
            del self._first[number]
            return
        last = fact.accumulated[-1].place
        if last is None:
            return
        late = self._late.setdefault(number, [])
        late.append(last)
        empty = all(is_zero(p.grad) for p in seen.watched)
        self._cleared[number] = self._cleared.get(number, True) and empty
        if len(late) == STEPS and all(one.file == fact.place.file and one.line > fact.place.line for one in late):
            yield self._finding(seen)

    def backward_ended(self, fact: BackwardEnded) -> Iterator[Finding]:
        """The weights that it needs were stepped on since its forward."""
        lost = RAISED.search(str(fact.error)) if isinstance(fact.error, RuntimeError) else None
        if lost is None:
            return
        shape, version = sorted(map(int, re.findall(r"\d+", lost[1]))), int(lost[2])
        for seen in self.trace.optimizers:
            its = any(p._version == version and sorted(p.shape) == shape for p in seen.parameters())
            if its and seen.steps and seen.number not in self._told:
                self._told.add(seen.number)
                yield self.finding(
                    f"{seen.kind} steps between a forward and its backward, which needs the weights as they were",
                    f"torch raised: {str(fact.error).partition(':')[0]}",
                    place=seen.last_step_place,
                    related=[(fact.begun.place, "the backward that fails")],
                )
                return

    def paused(self, fact: Paused) -> None:
        self._first.clear()

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if fact.error is not None:
            return
        for seen in self.trace.optimizers:
            late = self._late.get(seen.number, [])
            if seen.number in self._told or seen.number not in self._first or len(late) < STEPS:
                continue
            if len(seen.accumulated) == 1 and seen.accumulated[0].place in late:  # the last one is never used
                yield self._finding(seen)

    def passed(self) -> str | None:
        return f"the first step of {self._right} optimizer(s) came after a backward" if self._right else None

    def _finding(self, seen: OptimizerSeen) -> Finding:
        self._told.add(seen.number)
        late = self._late[seen.number]
        cleared = self._cleared[seen.number]
        told = "they are cleared before it, so it finds none" if cleared else "it uses those of the batch before"
        return self.finding(
            f"each iteration steps before its backward has made the gradients: {told}",
            f"the first step of {seen.kind} came before any backward, and the next {len(late)} steps on that line "
            + ("found every gradient cleared" if cleared else "used gradients of the iteration before"),
            place=self._first[seen.number],
            related=[(late[-1], "the backward, which comes after it")],
        )


def in_source(program: Program) -> Iterator[Checked]:
    """In each turn of a loop, under the same conditions, the only step comes before the only backward."""
    for run in program.runs:
        for optimizer in optimizers(run):
            ways = list(paths(run, read.Backward, read.Stepped, read.Escaped))
            found = [_late(run, way, optimizer) for way in ways]
            both = [one for one, way in zip(found, ways, strict=True) if any(is_step(e, optimizer) for e in way)]
            if not both or both[0] is None or None in both:
                continue
            step, backward = both[0]
            name = said(step)
            finding = program.finding(
                StepBeforeBackward,
                f"`{name}.step()` comes before the backward of the same turn",
                "in every turn of the loop the step uses the gradients of the turn before, or none",
                at=step,
                related=[(backward, "the backward that should come first")],
            )
            yield Checked(finding, _mended(program, run, step, backward))


def _mended(program: Program, run: Run, step: read.Stepped, backward: read.Backward) -> Fix | None:
    """Moves the step behind the backward and what is done to the gradients after it."""
    turn = [event for event in run.events if event.at.loops == backward.at.loops]
    first, second = turn.index(step), turn.index(backward)
    if any(isinstance(event, (read.Scheduled, read.Updated)) for event in turn[first:second]):
        return None  # more than the step would have to move
    last: read.Event = backward
    for event in turn[second + 1 :]:
        if isinstance(event, (read.Stepped, read.Zeroed)):
            break
        if isinstance(event, (read.Backward, read.Clipped, read.Unscaled)):
            last = event
    return moved_after(program, step, last, "step after backward")


def _late(run: Run, way: list[object], optimizer: values.Value) -> tuple[read.Stepped, read.Backward] | None:
    """The first step that has its backward behind it in the same turn; None if a step on the way has one before it."""
    found = None
    events = [e for e in way if is_step(e, optimizer) or (isinstance(e, read.Backward) and gives(run, e, optimizer))]
    if any(isinstance(event, read.Escaped) and touches(event.values, optimizer) for event in way):
        return None
    for number, step in enumerate(events):
        if not isinstance(step, read.Stepped):
            continue
        turn = step.at.loops
        if not turn or step.closure:
            return None
        before = [e for e in events[:number] if e.at.loops[: len(turn)] == turn]  # type: ignore[attr-defined]
        after = [e for e in events[number + 1 :] if e.at.loops == turn]  # type: ignore[attr-defined]
        if before or not after or not isinstance(after[0], read.Backward) or after[0].at.branches != step.at.branches:
            return None
        found = found or (step, after[0])
    return found


FIRES = {
    "between forward and backward": """
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            x = torch.randn(8, 4)
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
            opt.step()
            opt.zero_grad()
            loss.backward()
    """,
    "the judge steps before the other player's backward": """
        G, D = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
        for i in range(12):
            fake = G(torch.randn(16, 2))
            judged = D(fake)
            od.zero_grad()
            (F.softplus(judged).mean() + F.softplus(-D(torch.randn(16, 2))).mean()).backward(retain_graph=True)
            od.step()
            og.zero_grad()
            F.softplus(-judged).mean().backward()
            og.step()
    """,
    "gradients cleared unused": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            x = torch.randn(8, 4)
            opt.zero_grad()
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
            opt.step()
            loss.backward()
    """,
    "one batch late": """
        class Fit:
            def __init__(self):
                self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
                self.opt = torch.optim.Adam(self.net.parameters(), lr=0.01)

            def batch(self, x, y):
                self.opt.step()
                self.opt.zero_grad()
                F.cross_entropy(self.net(x), y).backward()

        fit = Fit()
        for x, y in DataLoader(TensorDataset(torch.randn(96, 4), torch.randint(3, (96,))), batch_size=8):
            fit.batch(x, y)
    """,
    "the backward's function stands above": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)

        def gradients(x):
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()

        for i in range(12):
            opt.step()
            opt.zero_grad()
            gradients(torch.randn(8, 4))
    """,
}

SILENT = {
    "weights changed by hand": """
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(6):
            x = torch.randn(8, 4)
            opt.zero_grad()
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
            if i == 3:
                hidden = model[1](model[0](x))
                broken = (hidden * hidden.exp()).sum()
                with torch.no_grad():
                    hidden.zero_()
                try:
                    broken.backward()
                except RuntimeError:
                    opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a first step to quiet a warning": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        opt.zero_grad()
        opt.step()
        for i in range(12):
            opt.zero_grad()
            x = torch.randn(8, 4)
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
            opt.step()
    """,
    "not in the first iteration": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            if i > 0:
                opt.step()
                opt.zero_grad()
            x = torch.randn(8, 4)
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
        opt.step()
    """,
    "tasks that come later": """
        heads = [nn.Linear(4, 1) for _ in range(3)]
        opts = [torch.optim.SGD(h.parameters(), lr=0.1) for h in heads]
        for i in range(24):
            x = torch.randn(8, 4)
            F.mse_loss(heads[i % 3](x), x.sum(1, keepdim=True)).backward()
            for opt in opts:
                opt.step()
                opt.zero_grad()
    """,
    "LBFGS": """
        model = nn.Linear(4, 1)
        opt = torch.optim.LBFGS(model.parameters(), lr=0.5)
        x = torch.randn(32, 4)

        def closure():
            opt.zero_grad()
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
            loss.backward()
            return loss

        for i in range(5):
            opt.step(closure)
    """,
}

READ_FIRES = {
    "exchanged": """
        import torch
        def train(model, loader, criterion, optimizer):
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                optimizer.step()
                loss.backward()
    """,
    "at the head of the loop": """
        import torch
        def train(model, loader, criterion, optimizer):
            for x, y in loader:
                optimizer.step()
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
    """,
    "with a clip behind backward": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        for x, y in loader:
            opt.step()  # update
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            print(norm)
    """,
}

READ_SILENT = {
    "the first turn is left out": """
        import torch
        def train(model, loader, criterion, optimizer):
            for i, (x, y) in enumerate(loader):
                if i > 0:
                    optimizer.step()
                    optimizer.zero_grad()
                criterion(model(x), y).backward()
    """,
    "microbatches in an inner loop": """
        import torch
        def train(model, loader, criterion, optimizer):
            for batches in loader:
                for x, y in batches:
                    criterion(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
    """,
}
