"""Gradients are cleared between backward and the step that should use them.

Sees: backward has reached the optimizer's parameters, and at the step their gradients are None or zero; or several
backwards of one line come before each step, every one of them on gradients that were cleared again, so that the step
uses the last one only. Both in two steps in a row (a guess: one may be a guard against a bad batch).

Why it matters: a step without gradients does nothing (or only weight decay and momentum). In accumulation, a zero_grad
inside the microbatch loop throws away all microbatches but the last: the computing is paid for, the batch is small.

Usual causes: ``zero_grad`` stands after ``backward``; in accumulation it stands inside the loop over microbatches; the
step stands after the loop over batches instead of in it.

Fix: call ``optimizer.zero_grad()`` right after ``optimizer.step()``, or before the first ``backward`` of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.facts import (
    BackwardBegun,
    BackwardEnded,
    Clipped,
    Ended,
    Paused,
    Stepped,
    Stepping,
    Unscaled,
    Zeroed,
)
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.edits import after, together, without
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import moved_after, said
from trueloop.doctor.source.provenance import ancestors, clears, touches
from trueloop.doctor.source.ritual import gives, is_step, optimizers
from trueloop.doctor.source.ways import Run, common_loop, paths
from trueloop.doctor.source.windows import cleared_each_turn, count_of
from trueloop.doctor.untouched import Untouched, is_zero

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 2
MANY = 8  # backwards before a run's only step, to say it of one window: a guess
REMEMBERED = 4096  # backwards that were used, by number


class Window(NamedTuple):
    """What came before one step of an optimizer, all but the last thrown away."""

    thrown: tuple[int, ...]
    """Numbers of the backwards whose gradients were cleared."""
    backward: Place | None
    step: Place | None


class GradientsZeroedBeforeStep(Rule):
    """Knows it by the gradients' state at the step, so any way of clearing counts."""

    name = "gradients-zeroed-before-step"
    code = 102
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._untouched = Untouched()
        self._early: dict[int, Place | None] = {}  # optimizer -> its first step, before any backward: another rule's
        self._empty: dict[int, int] = {}  # optimizer -> steps in a row whose gradients were cleared
        self._windows: dict[int, Window] = {}
        self._used: set[int] = set()  # backwards that some step used
        self._watched_lines: set[Place | None] = set()  # backwards' lines whose graphs are looked at for other leaves
        self._attacks: set[Place | None] = set()  # those with an input among the leaves: gradients of inputs are taken
        self._zeroed: dict[int, Place | None] = {}  # id of the optimizer, or 0 for any module -> where it was cleared
        self._steps = 0

    def zeroed(self, fact: Zeroed) -> None:
        self._zeroed[id(fact.by) if hasattr(fact.by, "param_groups") else 0] = fact.place

    def backward_begun(self, fact: BackwardBegun) -> None:
        if fact.place in self._watched_lines and fact.place not in self._attacks:
            held = {id(p) for seen in self.trace.optimizers for p in seen.parameters()}
            leaves = fact.graph.parameters
            if any(key not in held and type(leaf).__name__ == "Tensor" for key, leaf in leaves.items()):
                self._attacks.add(fact.place)

    def backward_ended(self, fact: BackwardEnded) -> None:
        for seen in self.trace.optimizers:
            if seen.accumulated and seen.accumulated[-1].backward == fact.begun.number:
                self._untouched.mark(seen)

    def clipped(self, fact: Clipped) -> None:
        for seen in self.trace.optimizers:
            if seen.accumulated and self._untouched_but_clipped(seen, fact):
                self._untouched.mark(seen)

    def unscaled(self, fact: Unscaled) -> None:
        self._untouched.allow(self.trace.optimizer_of(fact.optimizer))

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        seen, number = fact.optimizer, fact.optimizer.number
        if fact.has_closure:
            return
        if not fact.accumulated:
            if seen.steps == 0:
                self._early[number] = fact.place
            return
        self._steps += 1
        if number in self._early and self._early[number] == fact.place:
            return
        held = self._untouched.holds(seen)
        cleared = not held and all(is_zero(p.grad) for p in seen.watched) and _all_clear(seen)
        self._empty[number] = self._empty.get(number, 0) + 1 if cleared else 0
        if self._empty[number] == STEPS:
            yield self._of_cleared(fact)
        window = self._window(fact) if held else None
        before = self._windows.pop(number, None)
        if window is not None:
            self._windows[number] = window
            self._watched_lines.add(window.backward)
            if before is not None and not self._used.intersection(before.thrown):
                yield self._of_thrown(seen, window, f"in {STEPS} steps in a row")

    def stepped(self, fact: Stepped) -> None:
        if len(self.trace.optimizers) > 1:
            self._used.update(one.backward for one in fact.accumulated)
            if len(self._used) > REMEMBERED:
                self._used = set(sorted(self._used)[-REMEMBERED // 2 :])

    def paused(self, fact: Paused) -> None:
        self._empty.clear()
        self._windows.clear()

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for seen in self.trace.optimizers:
            window = self._windows.get(seen.number)
            if window and seen.steps == 1 and len(window.thrown) >= MANY and not self._used.intersection(window.thrown):
                yield self._of_thrown(seen, window, "before the only step of the run")
        if isinstance(fact.error, AssertionError) and "No inf checks were recorded" in str(fact.error):
            for seen in self.trace.optimizers:  # the scaler finds no gradients and stops the script
                if seen.accumulated and seen.number not in self._early and _all_clear(seen):
                    yield self.finding(
                        f"the gradients of {seen.kind} are cleared before the scaler's step, which raises",
                        f"{len(seen.accumulated)} backward(s) reached its parameters, and none has a gradient left",
                        place=self._cleared_at(seen) or seen.accumulated[-1].place,
                        related=[(seen.accumulated[-1].place, "the backward whose gradients are lost")],
                    )

    def passed(self) -> str | None:
        return f"the gradients of backward were still there at {self._steps} steps" if self._steps else None

    def _untouched_but_clipped(self, seen: OptimizerSeen, fact: Clipped) -> bool:
        """Whether clipping alone changed them: marked again, they count as backward's."""
        clipped = {id(p) for p in fact.parameters}
        return any(id(p) in clipped for p in seen.watched) and not all(p.grad is None for p in seen.watched)

    def _window(self, fact: Stepping) -> Window | None:
        """Several backwards of one line, each on cleared gradients."""
        places = {one.place for one in fact.accumulated}
        if len(fact.accumulated) < 2 or len(places) > 1 or not all(one.clean for one in fact.accumulated):
            return None
        thrown = tuple(one.backward for one in fact.accumulated[:-1])
        if self._attacks.intersection(places) or self._used.intersection(thrown):
            return None
        return Window(thrown, fact.accumulated[-1].place, fact.place)

    def _cleared_at(self, seen: OptimizerSeen) -> Place | None:
        optimizer = seen.optimizer
        return self._zeroed.get(id(optimizer)) or self._zeroed.get(0)

    def _of_cleared(self, fact: Stepping) -> Finding:
        seen = fact.optimizer
        where = self._cleared_at(seen)
        return self.finding(
            f"the gradients of {seen.kind} are cleared between backward and step: the step finds none",
            f"in {STEPS} steps in a row, backward had reached its parameters and every gradient was None or zero "
            "when the step began",
            place=where or fact.place,
            related=[
                (fact.accumulated[-1].place, "the backward whose gradients are lost"),
                (fact.place, "the step that finds none"),
            ],
        )

    def _of_thrown(self, seen: OptimizerSeen, window: Window, when: str) -> Finding:
        count = len(window.thrown) + 1
        return self.finding(
            f"gradients are cleared before each backward: of {count} backwards only the last one's reach the step",
            f"{when}, {count} backwards came before the step of {seen.kind}, and each began on cleared gradients: "
            f"{count - 1} of {count} were never used",
            place=self._cleared_at(seen) or window.backward,
            related=[(window.backward, "the backward"), (window.step, "the step that uses the last one only")],
        )


def _all_clear(seen: OptimizerSeen) -> bool:
    return all(is_zero(p.grad) for p in seen.parameters())


def in_source(program: Program) -> Iterator[Checked]:
    """On every way to the step, the gradients that backward made are cleared before it."""
    for run in program.runs:
        for optimizer in optimizers(run):
            ways = list(paths(run, read.Backward, read.Stepped, read.Zeroed, read.Escaped))
            found = [_lost(run, way, optimizer) for way in ways]
            steps = [one for one, way in zip(found, ways, strict=True) if any(is_step(e, optimizer) for e in way)]
            if not steps or steps[0] is None or None in steps:
                continue
            backward, zero, step = steps[0]
            name = said(step)
            finding = program.finding(
                GradientsZeroedBeforeStep,
                f"the gradients are cleared between backward and `{name}.step()`: the step sees none",
                "in every turn, `zero_grad` comes after `backward` and before `step`",
                at=zero,
                related=[(backward, "the backward whose gradients are lost"), (step, "the step without gradients")],
            )
            yield Checked(finding, moved_after(program, zero, step, "clear the gradients after the step"))
        yield from _all_but_the_last(program, run)


def _all_but_the_last(program: Program, run: Run) -> Iterator[Checked]:
    """A step once in k turns, whose loss is divided by k, and gradients that are cleared in every turn."""
    told: set[int] = set()
    for step in run.of(read.Stepped):
        zeros = [zero for zero in cleared_each_turn(step, run) if clears(zero.target, step.target) is True]
        for backward in run.of(read.Backward):
            count = count_of(step, backward) if zeros and gives(run, backward, step.target) else ""
            if not count or id(step.node) in told or zeros[0].at.branches != backward.at.branches:
                continue
            if not _divided(backward.loss, count) and "accum" not in count.lower():
                continue
            told.add(id(step.node))
            finding = program.finding(
                GradientsZeroedBeforeStep,
                f"the gradients are cleared in every turn, and `{said(step)}.step()` comes once in {count}: "
                "it sees only the last of them",
                "`zero_grad` stands in the loop of the microbatches, and not under the condition of the step",
                at=zeros[0],
                related=[(backward, "a microbatch's backward"), (step, "the step")],
                help="call `zero_grad` after the step, under the same condition",
            )
            yield Checked(finding, _mended(program, zeros, step))


def _divided(loss: values.Value, count: str) -> bool:
    divisions = (one for one in ancestors(loss, graph=True) if isinstance(one, values.Tensor) and one.op == "div")
    return any(count in one.at.unit.text(one.node) for one in divisions)


def _mended(program: Program, zeros: list[read.Zeroed], step: read.Stepped) -> Fix | None:
    if len({id(zero.node) for zero in zeros}) > 1 or zeros[0].at.calls != step.at.calls:
        return None
    text = program.unit.text(zeros[0].node)
    taken, put = without(program, zeros[0].node), after(program, step.node, text)
    return together("clear the gradients after the step", taken, put)


def _lost(
    run: Run, way: list[object], optimizer: values.Value
) -> tuple[read.Backward, read.Zeroed, read.Stepped] | None:
    """The first step all of whose gradients were cleared, if no step on the way is without that."""
    backward: read.Backward | None = None
    zero: read.Zeroed | None = None
    found = None
    for event in way:
        if isinstance(event, read.Backward):
            if gives(run, event, optimizer):
                backward, zero = event, None
        elif isinstance(event, read.Zeroed):
            if clears(event.target, optimizer) is True and backward is not None:
                zero = event
        elif isinstance(event, read.Escaped):
            if touches(event.values, optimizer):
                backward = zero = None  # it may run a backward of its own
        elif is_step(event, optimizer):
            if backward is None or zero is None or not isinstance(event, read.Stepped) or event.closure:
                return None
            if backward.at.loops and event.at.loops and common_loop(backward.at, event.at) is None:
                return None  # that backward was of a training before this one
            found = found or (backward, zero, event)
    return found


FIRES = {
    "zero_grad after backward": """
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        x, y = torch.randn(64, 4), torch.randint(3, (64,))
        for i in range(12):
            loss = F.cross_entropy(model(x[i::4]), y[i::4])
            loss.backward()
            opt.zero_grad()
            opt.step()
    """,
    "model.zero_grad, gradients kept as zeros": """
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        step = 0
        while step < 12:
            x = torch.randn(16, 4)
            ((net(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
            net.zero_grad(set_to_none=False)
            opt.step()
            step += 1
    """,
    "inside the microbatch loop": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(128, 4), torch.randint(3, (128,))), batch_size=8, shuffle=True)
        for epoch in range(3):
            for i, (x, y) in enumerate(data):
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y) / 4
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                if (i + 1) % 4 == 0:
                    opt.step()
    """,
    "the step stands after the loop": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(128, 4), torch.randint(3, (128,))), batch_size=16, shuffle=True)
        for epoch in range(4):
            for x, y in data:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
            opt.step()
    """,
}

SILENT = {
    "cleared after the step": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            x, y = torch.randn(16, 4), torch.randint(3, (16,))
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    """,
    "a GAN whose losses go through one helper": """
        G, D = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)

        def update(loss, opt):
            opt.zero_grad()
            loss.backward()
            opt.step()

        for i in range(20):
            fake = G(torch.randn(16, 2))
            d_loss = F.softplus(-D(torch.randn(16, 2))).mean() + F.softplus(D(fake.detach())).mean()
            update(d_loss, od)
            update(F.softplus(-D(fake)).mean(), og)
    """,
    "gradients of each sample, clipped and averaged by hand": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(12):
            x = torch.randn(6, 4)
            y = x.sum(1, keepdim=True)
            kept = [torch.zeros_like(p) for p in model.parameters()]
            for j in range(6):
                opt.zero_grad()
                F.mse_loss(model(x[j : j + 1]), y[j : j + 1]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for k, p in zip(kept, model.parameters()):
                    k += p.grad
            for k, p in zip(kept, model.parameters()):
                p.grad = k / 6
            opt.step()
    """,
    "adversarial training": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)

        def gradients(x, y):
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()

        for i in range(16):
            x, y = torch.randn(16, 4), torch.randint(3, (16,))
            x.requires_grad_(True)
            gradients(x, y)
            gradients((x + 0.1 * x.grad.sign()).detach(), y)
            opt.step()
    """,
}

READ_FIRES = {
    "in every microbatch": """
        import torch
        def train(model, loader, criterion, accum):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step, (x, y) in enumerate(loader, start=1):
                optimizer.zero_grad()
                loss = criterion(model(x), y) / accum
                loss.backward()
                due = step % accum == 0
                if due or step == len(loader):
                    optimizer.step()
    """,
    "between the two": """
        import torch
        def train(model, loader, criterion):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.zero_grad()
                optimizer.step()
    """,
    "by the model": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            nn.functional.mse_loss(net(x), y).backward()
            net.zero_grad()
            opt.step()
    """,
}

READ_SILENT = {
    "a player that moves once in five": """
        import torch
        def train(critic, player, loader):
            optimizer = torch.optim.SGD(player.parameters(), lr=0.1)
            for step, x in enumerate(loader):
                optimizer.zero_grad()
                critic(player(x)).mean().backward()
                if step % 5 == 0:
                    optimizer.step()
    """,
    "after the step": """
        import torch
        def train(model, loader, criterion):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                criterion(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
    """,
    "a GAN's other player": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for real in loader:
            fake = G(torch.randn(8, 2))
            og.zero_grad()
            (-D(fake).mean()).backward()
            od.zero_grad()
            og.step()
            (D(fake.detach()).mean() - D(real).mean()).backward()
            od.step()
    """,
}
