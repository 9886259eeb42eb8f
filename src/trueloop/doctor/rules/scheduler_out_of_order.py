"""A learning-rate schedule moves before the first optimizer step, or never.

Sees: ``scheduler.step()`` is called before its optimizer has stepped, and goes on being called at that line while the
optimizer steps; or a scheduler was built and its ``step`` is never called, though its optimizer steps 10 times or more
(a guess).

Why it matters: the first value of the schedule is skipped, and each epoch trains at the rate that was meant for the
next one. A schedule that is never called leaves the rate as it is.

Usual causes: ``scheduler.step()`` at the head of the loop (right before torch 1.1); a call that was forgotten.

Fix: call ``scheduler.step()`` after ``optimizer.step()``: at the end of each epoch, or of each batch if it counts
steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from trueloop.doctor.facts import Ended, ScalerStepped, Scheduled, SchedulerMade
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.rules.scheduler_wrong_cadence import counts_epochs, counts_steps
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import after, moved, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import is_scheduler
from trueloop.doctor.source.mending import is_alone
from trueloop.doctor.source.naming import is_seen, name_of
from trueloop.doctor.source.provenance import touches
from trueloop.doctor.source.ways import Run, common_loop, paths

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 10
METRIC = "ReduceLROnPlateau"  # follows a metric, which may be known before the first step
LATE = ("SWALR",)  # begins late in a run, or not at all


@dataclass(eq=False)
class Schedule:
    """One scheduler that was built."""

    kind: str
    of: OptimizerSeen
    steps: int
    """The optimizer's when it was built."""
    place: Place | None
    own_step: bool
    """Its ``step`` is not torch's and may not be heard."""
    calls: int = 0
    inside: bool = False
    """Another schedule calls it."""
    early: list[Place | None] | None = None
    """The lines that called it before the first step."""
    told: bool = False


class SchedulerOutOfOrder(Rule):
    """Waits for the second call on the same line: a resumed run may wind its schedule forward first."""

    name = "scheduler-out-of-order"
    code = 109
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._schedules: WeakKeyDictionary[Any, Schedule] = WeakKeyDictionary()
        self._all: list[Schedule] = []
        self._skipped: set[int] = set()  # ids of optimizers whose first step a scaler left out
        self._right = 0

    def scheduler_made(self, fact: SchedulerMade) -> None:
        for part in getattr(fact.scheduler, "_schedulers", ()):
            if part in self._schedules:
                self._schedules[part].inside = True
        if not hasattr(fact.optimizer, "param_groups"):
            return
        seen = self.trace.optimizer_of(fact.optimizer)
        kind = type(fact.scheduler)
        own = any("step" in vars(base) and not base.__module__.startswith("torch.") for base in kind.__mro__)
        self._schedules[fact.scheduler] = schedule = Schedule(kind.__name__, seen, seen.steps, fact.place, own)
        self._all.append(schedule)

    def scaler_stepped(self, fact: ScalerStepped) -> None:
        if not fact.stepped:
            self._skipped.add(id(fact.optimizer))

    def scheduled(self, fact: Scheduled) -> Iterator[Finding]:
        schedule = self._schedules.get(fact.scheduler)
        if schedule is None:
            return
        schedule.calls += 1
        if schedule.kind == METRIC or schedule.told:
            return
        steps = schedule.of.steps
        if steps == 0:
            if schedule.early is None:
                schedule.early = []
            if len(schedule.early) < 3 and not any(argument is not None for argument in fact.arguments):
                schedule.early.append(fact.place)
        elif schedule.early == [fact.place] and fact.place is not None and id(fact.optimizer) not in self._skipped:
            schedule.told = True
            yield self.finding(
                f"{schedule.kind} steps before {schedule.of.kind} has taken its first step: the schedule runs ahead",
                f"its first step came after 0 steps of {schedule.of.kind}, its call {schedule.calls} on the same line "
                f"after {steps}",
                place=fact.place,
                related=[(schedule.of.last_step_place, "the optimizer's step"), (schedule.place, "the schedule")],
            )
        elif schedule.calls == 1:
            self._right += 1

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if fact.error is not None:
            return
        for one in self._all:
            steps = one.of.steps - one.steps
            if one.calls or one.inside or one.own_step or one.kind in LATE or steps < STEPS:
                continue
            yield self.finding(
                f"{one.kind} is built and never asked to step: the learning rate does not change",
                f"{one.of.kind} took {steps} steps, the schedule 0",
                place=one.place,
                related=[(one.of.last_step_place, "the optimizer's step")],
            )

    def passed(self) -> str | None:
        return f"{self._right} schedule(s) began after the first step of their optimizer" if self._right else None


def in_source(program: Program) -> Iterator[Checked]:
    """On every way, a schedule of torch's steps before its optimizer ever does; or it is made and nothing steps it."""
    for run in program.runs:
        if not run.complete:
            continue
        ways = list(paths(run, read.Scheduled, read.Stepped, read.Escaped))
        for schedule in {id(e.target): e.target for e in run.of(read.Scheduled)}.values():
            if not isinstance(schedule, values.Object) or schedule.name == "ReduceLROnPlateau":
                continue
            found = [_early(way, schedule) for way in ways if any(_is(event, schedule) for event in way)]
            if not found or found[0] is None or None in found:
                continue
            early, step = found[0]
            finding = program.finding(
                SchedulerOutOfOrder,
                f"{schedule.name} steps before its optimizer does: the first value of the schedule is skipped",
                "in the loop's first turn `scheduler.step()` comes before any `optimizer.step()`",
                at=early,
                related=[(step, "the first step of the optimizer")],
                help="call `scheduler.step()` after the optimizer's steps: at the end of the turn",
            )
            yield Checked(finding, _mended(program, early, step))
        yield from _never(program, run)


def _mended(program: Program, early: read.Scheduled, step: read.Stepped) -> Fix | None:
    """Moves the schedule's step behind the statement of its block in which the optimizer steps."""
    depth = len(early.at.calls)
    inside = (*step.at.calls, step.node)[depth]
    line = blocks.statement(program.unit, early.node)
    if line is None or early.at.calls != step.at.calls[:depth] or not is_alone(line):
        return None
    around = blocks.block(program.unit, line)
    where = next((one for one in around if blocks.within(program.unit, inside, one)), None)
    if where is None or where is line:
        return None
    return together("step the schedule after the optimizer", moved(program, line, where, behind=True))


def _never(program: Program, run: Run) -> Iterator[Checked]:
    for made in run.of(read.Made):
        if (
            not is_scheduler(made.made.kind)
            or made.made.name == "LRScheduler"
            or (made.at.calls and run.entry is not None)
        ):
            continue
        schedule = made.made
        step = next(
            (e for e in run.of(read.Stepped) if e.target in (schedule.option("optimizer", 0),) and e.at.loops), None
        )
        if step is None or any(_is(event, schedule) for event in run.events):
            continue
        if any(isinstance(event, read.Escaped) and touches(event.values, schedule) for event in run.events):
            continue
        if any(isinstance(event, (read.Made, read.Operated)) and _given(event, schedule) for event in run.events):
            continue
        if any(not isinstance(event.target, values.Object) for event in run.of(read.Scheduled)):
            continue
        finding = program.finding(
            SchedulerOutOfOrder,
            f"{schedule.name} is made and never stepped: the rate stays where it is",
            "its optimizer steps in a loop, and nothing calls `scheduler.step()`",
            at=made,
            related=[(step, "the optimizer steps")],
            help="call `scheduler.step()` after each epoch, or after each step if the schedule counts steps",
        )
        yield Checked(finding, _stepped(program, schedule, step))


def _stepped(program: Program, schedule: values.Object, step: read.Stepped) -> Fix | None:
    """Steps a schedule as often as its options say that they count."""
    unit = program.unit
    name = name_of(unit, schedule.node) if schedule.at.unit is unit else ""
    place: cst.CSTNode | None = None
    if counts_steps(schedule):
        place = step.node
    elif len(step.at.loops) > 1 and counts_epochs(schedule, step):
        place = step.at.loops[1].node
    if place is None or not name or not is_seen(unit, name, schedule.node, place):
        return None
    return together(f"step {schedule.name}", after(program, place, f"{name}.step()"))


def _given(event: read.Made | read.Operated, schedule: values.Object) -> bool:
    if isinstance(event, read.Made):
        return event.made is not schedule and touches((*event.made.args, *event.made.kwargs.values()), schedule)
    return touches((*event.args, *event.kwargs.values()), schedule)


def _is(event: object, schedule: object) -> bool:
    return isinstance(event, read.Scheduled) and event.target is schedule


def _early(way: list[object], schedule: values.Object) -> tuple[read.Scheduled, read.Stepped] | None:
    """The schedule's first step, and its optimizer's, if that comes later in the same turn of a loop."""
    optimizer = schedule.option("optimizer", 0)
    first: read.Scheduled | None = None
    for event in way:
        if (
            isinstance(event, read.Escaped)
            and first is None
            and optimizer is not None
            and touches(event.values, optimizer)
        ):
            return None
        if isinstance(event, read.Stepped):
            if event.target is not optimizer:
                continue
            in_loop = first is not None and common_loop(first.at, event.at) is not None
            return (first, event) if first is not None and in_loop else None
        if isinstance(event, read.Scheduled) and event.target is schedule:
            first = first or event
    return None


FIRES = {
    "at the head of each epoch": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.StepLR(opt, step_size=2)
        for epoch in range(4):
            sched.step()
            for i in range(5):
                opt.zero_grad()
                F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
                opt.step()
    """,
    "before each step": """
        model = nn.Linear(4, 3)
        opt = torch.optim.AdamW(model.parameters(), lr=0.01)
        sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 - step / 100)
        for i in range(40):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            sched.step()
            opt.step()
    """,
    "never": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20)
        for i in range(20):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            opt.step()
    """,
}

SILENT = {
    "wound forward to where a run is resumed": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.StepLR(opt, step_size=2)
        for _ in range(3):
            sched.step()
        for epoch in range(3):
            for i in range(5):
                opt.zero_grad()
                F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
                opt.step()
            sched.step()
    """,
    "a schedule of schedules": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        warm = torch.optim.lr_scheduler.LinearLR(opt, 0.1, total_iters=5)
        cool = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=15)
        sched = torch.optim.lr_scheduler.SequentialLR(opt, [warm, cool], milestones=[5])
        for i in range(20):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            opt.step()
            sched.step()
    """,
    "drawn, not trained with": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.StepLR(opt, step_size=2)
        curve = []
        for epoch in range(10):
            curve.append(sched.get_last_lr()[0])
            sched.step()
    """,
}

READ_FIRES = {
    "at the epoch's head": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.StepLR(opt, 2)
        for epoch in range(6):
            sched.step()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "never": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "before a function that trains": """
        import torch
        from torch import nn
        def train_epoch(net, opt):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
        def main():
            net = nn.Linear(4, 3)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            sched = torch.optim.lr_scheduler.StepLR(opt, 2)
            for epoch in range(6):
                sched.step()
                train_epoch(net, opt)
                print(epoch)
        main()
    """,
    "never, and its options count epochs": """
        import torch
        from torch import nn
        def main(args):
            net = nn.Linear(4, 3)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=args.epochs)
            for epoch in range(args.epochs):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    opt.step()
                print(epoch)
        main(parsed())
    """,
}

READ_SILENT = {
    "a framework steps it": """
        import torch
        from ignite.handlers.param_scheduler import LRScheduler
        from torch import nn

        def main(loader):
            net = nn.Linear(4, 1)
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            handler = LRScheduler(torch.optim.lr_scheduler.StepLR(opt, step_size=3))
            for x, y in loader:
                opt.zero_grad()
                nn.functional.mse_loss(net(x), y).backward()
                opt.step()
                handler()

        main([])
    """,
    "at the epoch's end": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.StepLR(opt, 2)
        for epoch in range(6):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            sched.step()
    """,
    "one in another, and one handed on": """
        import torch
        from torch import nn
        from engine import run
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        a = torch.optim.lr_scheduler.LinearLR(opt)
        b = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
        both = torch.optim.lr_scheduler.SequentialLR(opt, [a, b], milestones=[3])
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            both.step()
        run(torch.optim.lr_scheduler.StepLR(opt, 3))
    """,
}
