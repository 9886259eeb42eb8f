"""Gradients are never cleared: each step uses the sum of all gradients so far.

Sees: an optimizer steps, and every backward since its last step added to gradients that were there already; or, in
LBFGS, which calls its closure several times a step, the closure does not clear them. Where no optimizer was ever made:
the values changed between two backwards, and the gradients stayed, three times in a row (a guess).

Why it matters: the update follows the sum over all past batches, not this one. The step grows from batch to batch, as
if the rate rose and the momentum were 1, and the loss swings or diverges.

Usual causes: no ``zero_grad`` in the loop; it is called on another model or optimizer; it stands outside the loop, or
outside the closure.

Fix: call ``optimizer.zero_grad()`` once for each ``optimizer.step()``, before ``backward``; in a closure, as its first
line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.by_hand import ByHand
from trueloop.doctor.facts import BackwardBegun, BackwardEnded, Paused, Stepped, Stepping
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import after, at_head, before, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import is_plain, said
from trueloop.doctor.source.ritual import across_turns, gives, is_step, may_clear, optimizers
from trueloop.doctor.source.ways import Run, paths

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 2  # in a row: a first window may begin on gradients that were left by a test pass
BY_HAND = 3  # updates in a row
ENOUGH = 20  # updates by hand that are followed, if their gradients are cleared


class MissingZeroGrad(Rule):
    """Knows it by the gradients' state around each backward, so any way of clearing counts."""

    name = "missing-zero-grad"
    code = 101
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._dirty: dict[int, int] = {}  # optimizer -> steps in a row without a clean backward
        self._partly: dict[int, int] = {}  # optimizer -> steps in a row whose closure cleared nothing
        self._closures: set[int] = set()
        self._calls: dict[int, int] = {}  # optimizer -> calls of its closure before the running step
        self._steps = 0
        self._by_hand = ByHand()

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if not self._is_by_hand():
            return
        leaves = fact.graph.parameters.values()
        self._by_hand.begun(leaves)
        if self._by_hand.uncleared == BY_HAND:
            self._by_hand.updates = ENOUGH  # it is told
            yield self.finding(
                "the gradients are never cleared: each update by hand uses the sum of all so far",
                f"before each of the last {BY_HAND} backwards the values had been changed, and the gradients that "
                "changed them were there still",
                place=fact.place,
            )

    def backward_ended(self, fact: BackwardEnded) -> None:
        if self._is_by_hand() and fact.error is None:
            self._by_hand.ended()

    def _is_by_hand(self) -> bool:
        return not self.trace.optimizers and self._by_hand.updates < ENOUGH

    def stepping(self, fact: Stepping) -> None:
        if fact.has_closure:
            self._closures.add(fact.optimizer.number)
            self._calls[fact.optimizer.number] = _closure_calls(fact.optimizer)

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        seen, number = fact.optimizer, fact.optimizer.number
        if not fact.accumulated:
            return
        if number in self._closures and self._clears_outside(fact):
            self._partly[number] = self._partly.get(number, 0) + 1
            if self._partly[number] == STEPS:
                yield self.finding(
                    f"the closure of {seen.kind} does not clear the gradients: its later calls return the sum of all",
                    f"in one step the closure was called {len(fact.accumulated)} times, and all calls but the first "
                    "added to the gradients of those before",
                    place=fact.accumulated[-1].place,
                    related=[(fact.place, "the step that calls the closure"), (seen.zeroed_place, "cleared here only")],
                )
        if seen.steps == 1:  # its first: there was nothing to clear
            return
        self._steps += 1
        dirty = not any(one.clean for one in fact.accumulated)
        self._dirty[number] = self._dirty.get(number, 0) + 1 if dirty else 0
        if self._dirty[number] == STEPS:
            yield self.finding(
                f"the gradients of {seen.kind} are never cleared: each step uses the sum of all so far",
                f"at step {seen.steps} of this optimizer, backward added to gradients that the last "
                f"{STEPS} steps had used already",
                place=fact.accumulated[-1].place,
                related=[(fact.place, "the step that uses the sum")],
            )

    def paused(self, fact: Paused) -> None:
        self._by_hand = ByHand()
        self._dirty.clear()
        self._partly.clear()

    def passed(self) -> str | None:
        return f"gradients were clean before the backward of {self._steps} steps" if self._steps else None

    def _clears_outside(self, fact: Stepped) -> bool:
        """Several calls of the closure, one backward each, of which only the first found clean gradients."""
        calls = _closure_calls(fact.optimizer) - self._calls.get(fact.optimizer.number, 0)
        first, *rest = fact.accumulated
        return len(rest) > 0 and calls == len(rest) + 1 and first.clean and not any(o.clean for o in rest)


def _closure_calls(seen: OptimizerSeen) -> int:
    """How often LBFGS has called its closure; 0 for others, which call it once a step."""
    optimizer = seen.optimizer
    if optimizer is None or seen.kind != "LBFGS":
        return 0
    return sum(int(state.get("func_evals", 0)) for state in optimizer.state.values())


def in_source(program: Program) -> Iterator[Checked]:
    """An optimizer steps, and the backward of the next turn adds to what it stepped with, on every way to the step."""
    for run in program.runs:
        if not run.complete:
            continue
        for optimizer in optimizers(run):
            ways = list(paths(run, read.Backward, read.Stepped, read.Zeroed, read.Escaped, read.GradientsUsed))
            with_steps = [way for way in ways if any(is_step(event, optimizer) for event in way)]
            found = [_never_cleared(run, way, optimizer) for way in with_steps]
            if not found or found[0] is None or None in found:
                continue
            backward, step = found[0]
            name = said(step)
            finding = program.finding(
                MissingZeroGrad,
                "the gradients are never cleared: each step uses the sum of all so far",
                f"between `{name}.step()` and the backward of the loop's next turn nothing clears the gradients",
                at=backward,
                related=[(step, "the step that uses the sum")],
                help=f"call `{name}.zero_grad()` after the step, or before backward",
            )
            yield Checked(finding, _mended(program, run, optimizer, {id(one[0].node): one[0] for one in found if one}))


def _mended(program: Program, run: Run, optimizer: values.Value, first: dict[int, read.Backward]) -> Fix | None:
    """Clears them after every step; of several optimizers, whose backwards leave gradients in others, before backward.

    Args:
        program: the file.
        run: what happens.
        optimizer: whose gradients are never cleared.
        first: on each way, the first backward that adds to what a step has used.
    """
    steps = list({id(event.node): event for event in run.of(read.Stepped) if event.target is optimizer}.values())
    backward = next(iter(first.values()))
    name, lines = said(steps[0]), {f"{said(step)}.zero_grad()" for step in steps}
    if not is_plain(name) or len(lines) != 1:
        return None
    text, unit = lines.pop(), program.unit
    if any(step.closure for step in steps):
        closure = blocks.function(unit, backward.node)
        home = None if closure is None else blocks.function(unit, closure)
        if closure is None or home is not blocks.function(unit, steps[0].node) or len(first) != 1:
            return None
        return together(f"clear {name}'s gradients in the closure", at_head(program, closure, text))
    same_turn = len(steps) == len(first) == 1 and backward.at.branches == steps[0].at.branches
    same_loop = blocks.loops(unit, backward.node) == blocks.loops(unit, steps[0].node)
    if len(optimizers(run)) > 1 and same_turn and same_loop:
        same_function = blocks.function(unit, backward.node) is blocks.function(unit, steps[0].node)
        if same_function:
            return together(f"clear {name}'s gradients before backward", before(program, backward.node, text))
    title = f"clear the gradients after `{name}.step()`"
    return together(title, *(after(program, step.node, text) for step in steps))


def _never_cleared(run: Run, way: list[object], optimizer: values.Value) -> tuple[read.Backward, read.Stepped] | None:
    """The first backward that adds to gradients which a step has used already, for another step to use again."""
    used: read.Stepped | None = None
    added: tuple[read.Backward, read.Stepped] | None = None
    there = False
    for event in way:
        if isinstance(event, read.Stepped):
            if event.target is optimizer and there:
                if added is not None:
                    return added
                used = event
        elif isinstance(event, read.Backward):
            if gives(run, event, optimizer):
                if used is not None and across_turns(used.at, event.at):
                    added = added or (event, used)
                there = True
        elif may_clear(event, optimizer):
            used, added, there = None, None, False
    return None


FIRES = {
    "no zero_grad": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
            opt.step()
    """,
    "another model is zeroed": """
        model, other = nn.Linear(4, 1), nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            other.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
            opt.step()
    """,
    "one of two optimizers": """
        body, head = nn.Linear(4, 8), nn.Linear(8, 3)
        ob, oh = torch.optim.SGD(body.parameters(), lr=1e-3), torch.optim.Adam(head.parameters(), lr=1e-3)
        for _ in range(8):
            oh.zero_grad()
            F.cross_entropy(head(torch.relu(body(torch.randn(8, 4)))), torch.randint(3, (8,))).backward()
            ob.step()
            oh.step()
    """,
    "a closure that does not clear": """
        model = nn.Linear(4, 1)
        opt = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
        x = torch.randn(32, 4)
        y = x.sum(1, keepdim=True).sin()

        def closure():
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        for _ in range(6):
            opt.zero_grad()
            opt.step(closure)
    """,
    "updates by hand": """
        w, b = torch.zeros(4, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
        for _ in range(6):
            x = torch.randn(8, 4)
            (x @ w + b - x.sum(1, keepdim=True)).square().mean().backward()
            with torch.no_grad():
                for p in (w, b):
                    p -= 0.01 * p.grad
    """,
    "no zero_grad around a closure": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)

        def closure():
            loss = F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1))
            loss.backward()
            return loss

        for _ in range(6):
            opt.step(closure)
    """,
}

SILENT = {
    "updates by hand, cleared": """
        w = torch.zeros(4, 1, requires_grad=True)
        for _ in range(6):
            for _ in range(2):
                x = torch.randn(8, 4)
                ((x @ w - x.sum(1, keepdim=True)).square().mean() / 2).backward()
            w.data -= 0.01 * w.grad
            w.grad.data.zero_()
    """,
    "momentum in the gradients": """
        net = nn.Linear(4, 1)
        for _ in range(6):
            x = torch.randn(8, 4)
            F.mse_loss(net(x), x.sum(1, keepdim=True)).backward()
            for p in net.parameters():
                p.data -= 0.01 * p.grad
                p.grad.data.mul_(0.9)
    """,
    "cleared by hand": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            for p in model.parameters():
                p.grad = None
            F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
            opt.step()
    """,
    "accumulation": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for i in range(12):
            (F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)) / 3).backward()
            if i % 3 == 2:
                opt.step()
                opt.zero_grad()
    """,
    "a GAN, cleared before each backward": """
        G, D = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
        for i in range(12):
            fake = G(torch.randn(16, 2))
            D.zero_grad()
            F.softplus(-D(torch.randn(16, 2))).mean().backward()
            F.softplus(D(fake.detach())).mean().backward()
            od.step()
            G.zero_grad()
            F.softplus(-D(fake)).mean().backward()
            og.step()
    """,
    "experts that only some batches reach": """
        experts = nn.ModuleList([nn.Linear(4, 1) for _ in range(4)])
        opt = torch.optim.SGD(experts.parameters(), lr=0.01)
        for i in range(16):
            opt.zero_grad(set_to_none=i % 2 == 0)
            x = torch.randn(8, 4)
            F.mse_loss(experts[random.randrange(4)](x), x.sum(1, keepdim=True)).backward()
            opt.step()
    """,
    "LBFGS, several microbatches in its closure": """
        model = nn.Linear(4, 1)
        opt = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
        x = torch.randn(32, 4)
        y = x.sum(1, keepdim=True)

        def closure():
            opt.zero_grad()
            total = 0.0
            for xs, ys in zip(x.chunk(4), y.chunk(4)):
                loss = F.mse_loss(model(xs), ys) / 4
                loss.backward()
                total += loss.item()
            return total

        for _ in range(4):
            opt.step(closure)
    """,
    "sparse gradients": """
        table, head = nn.Embedding(20, 4, sparse=True), nn.Linear(4, 2)
        os, od = torch.optim.SparseAdam(table.parameters(), 0.01), torch.optim.Adam(head.parameters(), 0.01)
        for i in range(10):
            os.zero_grad(set_to_none=False)
            od.zero_grad()
            F.cross_entropy(head(table(torch.randint(20, (16,)))), torch.randint(2, (16,))).backward()
            os.step()
            od.step()
    """,
}

READ_FIRES = {
    "at the top level": """
        import torch
        from torch import nn
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in data:
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            opt.step()
    """,
    "in a function that is handed all": """
        def train_epoch(model, loader, criterion, optimizer):
            for x, y in loader:
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
        import torch
    """,
    "in a trainer's step method": """
        import torch
        class Trainer:
            def __init__(self, model):
                self.model = model
                self.opt = torch.optim.Adam(self.model.parameters())
            def step(self, x, y):
                loss = torch.nn.functional.cross_entropy(self.model(x), y)
                loss.backward()
                self.opt.step()
            def fit(self, loader):
                for x, y in loader:
                    self.step(x, y)
    """,
    "another optimizer is cleared": """
        import torch
        from torch import nn
        a, b = nn.Linear(4, 1), nn.Linear(4, 1)
        opt_a, opt_b = torch.optim.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
        for x, y in data:
            opt_b.zero_grad()
            nn.functional.mse_loss(a(x), y).backward()
            opt_a.step()
            nn.functional.mse_loss(b(x), y).backward()
            opt_b.step()
    """,
    "the groups of another optimizer are cleared": """
        import torch
        from torch import nn
        a, b = nn.Linear(4, 8), nn.Linear(8, 1)
        opt_a, opt_b = torch.optim.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
        for x, y in data:
            nn.functional.mse_loss(b(a(x)), y).backward()
            opt_a.step()
            opt_b.step()
            for group in opt_b.param_groups:
                for p in group["params"]:
                    p.grad = None
    """,
    "with a scaler, under a condition": """
        import torch
        from torch import nn
        def train(model, loader, amp):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler()
            for x, y in loader:
                loss = nn.functional.cross_entropy(model(x), y)
                if amp:
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    loss.backward()
                    optimizer.step()
    """,
    "a GAN's judge": """
        import torch
        from torch import nn
        G, D = nn.Linear(8, 2), nn.Linear(2, 1)
        opt_g, opt_d = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for real in loader:
            fake = G(torch.randn(16, 8))
            D(real).mean().backward()
            (-D(fake.detach()).mean()).backward()
            opt_d.step()
            opt_g.zero_grad()
            D(fake).mean().backward()
            opt_g.step()
    """,
    "on one line": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        for x, y in loader: nn.functional.cross_entropy(net(x), y).backward(); opt.step()
    """,
}

READ_SILENT = {
    "accumulation": """
        import torch
        def train(model, loader, criterion, optimizer):
            for i, (x, y) in enumerate(loader):
                (criterion(model(x), y) / 4).backward()
                if (i + 1) % 4 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
    """,
    "cleared at a window's start": """
        import torch
        def train(model, loader, criterion, optimizer):
            for i, (x, y) in enumerate(loader):
                if i % 4 == 0:
                    optimizer.zero_grad()
                criterion(model(x), y).backward()
                if i % 4 == 3:
                    optimizer.step()
    """,
    "by a helper that is not known": """
        import torch
        from helpers import reset
        def train(model, loader, criterion, optimizer):
            for x, y in loader:
                reset(optimizer)
                criterion(model(x), y).backward()
                optimizer.step()
    """,
    "by the model, and by hand": """
        import torch
        from torch import nn
        def one(model, loader):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                model.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                opt.step()
        def two(model, loader):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                for p in model.parameters():
                    p.grad = None
                nn.functional.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "by hand, through the optimizers' groups": """
        import torch
        from torch import nn
        class Update:
            def __init__(self, body, head):
                self.opts = [torch.optim.Adam(body.parameters()), torch.optim.SGD(head.parameters(), lr=0.05)]
            def __call__(self, loss):
                loss.backward()
                for opt in self.opts:
                    opt.step()
                for opt in self.opts:
                    for group in opt.param_groups:
                        for p in group["params"]:
                            p.grad = None
        body, head = nn.Linear(4, 8), nn.Linear(8, 1)
        update = Update(body, head)
        for x, y in data:
            update(nn.functional.mse_loss(head(body(x)), y))
        net = nn.Linear(4, 1)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in data:
            nn.functional.mse_loss(net(x), y).backward()
            opt.step()
            for p in opt.param_groups[0]["params"]:
                p.grad = None
    """,
    "a step that its caller surrounds": """
        import torch
        def update(model, optimizer, loss):
            loss.backward()
            optimizer.step()
    """,
    "a closure": """
        import torch
        def train(model, x, y):
            opt = torch.optim.LBFGS(model.parameters())
            def closure():
                opt.zero_grad()
                loss = torch.nn.functional.mse_loss(model(x), y)
                loss.backward()
                return loss
            for _ in range(10):
                opt.step(closure)
    """,
}
