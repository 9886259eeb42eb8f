"""A learning-rate schedule counts steps and is stepped once an epoch, or counts epochs and is stepped every batch.

Sees: at the end, a schedule whose length (``total_steps``, ``T_max``, ``total_iters``, a number that its function
reads) is the number of optimizer steps of the run (within 2 %, or one call), and that was called at most a quarter as
often; a schedule called at every step whose rate fell below 2 % of its peak within half the run and ended below 0.05 %;
``StepLR`` and ``MultiStepLR`` whose numbers fit the epochs of the run, called every batch; ``CosineAnnealingLR`` called
far beyond ``T_max``, so that the rate goes up and down within epochs; ``ReduceLROnPlateau`` given the number of the
epoch, or nothing. The numbers are guesses that leave the usual schedules alone.

Why it matters: stepped too rarely, OneCycle or a cosine never leaves its first part (the warm-up); stepped too often,
the rate is gone after a few batches and the rest of the run changes nothing.

Usual causes: ``scheduler.step()`` stands in the wrong loop; ``T_max``, ``step_size`` or ``milestones`` are in the other
unit.

Fix: call ``scheduler.step()`` in the batch loop for schedules that count steps (OneCycleLR, warm-up), and in the epoch
loop for those that count epochs; or give the length in the unit in which it is stepped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from trueloop.doctor.calls import arguments_at
from trueloop.doctor.facts import Ended, Scheduled, SchedulerMade, Settled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import raised_at
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.edits import after, together, without
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import is_alone
from trueloop.doctor.source.naming import is_seen
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 20
SMALL = 0.02  # of the peak: the rate is as good as gone
GONE = 5e-4
FALLS = ("StepLR", "MultiStepLR", "ExponentialLR", "MultiplicativeLR", "LambdaLR", "PolynomialLR", "ReduceLROnPlateau")
LENGTHS = {
    "OneCycleLR": "total_steps",
    "CosineAnnealingLR": "T_max",
    "PolynomialLR": "total_iters",
    "LinearLR": "total_iters",
}


@dataclass(eq=False)
class Schedule:
    """One scheduler and how it was called."""

    kind: str
    of: OptimizerSeen
    steps: int
    """The optimizer's when it was built."""
    made: Place | None
    numbers: dict[str, Any]
    calls: int = 0
    place: Place | None = None
    peak: float = 0.0
    rate: float = 0.0
    small_at: int | None = None
    """The optimizer's steps (since) at which the rate fell below a small share of its peak, for good."""
    counted: int = 0
    """Calls in a row whose argument was a whole number, one more than the last."""
    last_argument: Any = None
    given: bool = False
    """It is told where it stands (``step(epoch)``): the number of calls says nothing."""
    told: list[str] = field(default_factory=list)


class SchedulerWrongCadence(Rule):
    """Compares how often a schedule was stepped with how often its optimizer was, and both with its numbers."""

    name = "scheduler-wrong-cadence"
    code = 110
    level = "error"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._schedules: WeakKeyDictionary[Any, Schedule] = WeakKeyDictionary()
        self._all: list[Schedule] = []
        self._breaks = 0  # groups of unused passes between training steps: evaluations, as a rule one an epoch
        self._break_at = -1

    def scheduler_made(self, fact: SchedulerMade) -> None:
        if hasattr(fact.optimizer, "param_groups"):
            self._meet(fact.scheduler, fact.optimizer, fact.place)

    def settled(self, fact: Settled) -> None:
        if fact.of.phase == "unused" and fact.of.step not in (0, self._break_at):
            self._breaks += 1
            self._break_at = fact.of.step

    def scheduled(self, fact: Scheduled) -> Iterator[Finding]:
        one = self._schedules.get(fact.scheduler)
        if one is None:
            if fact.optimizer is None or not hasattr(fact.optimizer, "param_groups"):
                return
            one = self._meet(fact.scheduler, fact.optimizer, None)
        one.calls += 1
        one.place = fact.place
        rate = _rate(fact.optimizer)
        if rate is not None:
            one.rate, one.peak = rate, max(one.peak, rate)
            if rate >= SMALL * one.peak:
                one.small_at = None
            elif one.small_at is None:
                one.small_at = one.of.steps - one.steps
        argument = fact.arguments[0] if fact.arguments else None
        if argument is None:
            return
        one.given = True
        if one.kind == "ReduceLROnPlateau":
            whole = type(argument) is int
            one.counted = one.counted + 1 if whole and one.last_argument == argument - 1 else int(whole)
            one.last_argument = argument if whole else None
            if one.counted == 3:
                yield self.finding(
                    f"ReduceLROnPlateau is given the number of the epoch ({argument}) in place of a metric",
                    f"its last three arguments were {argument - 2}, {argument - 1} and {argument}: "
                    "a number that always rises looks like a loss that never improves",
                    place=fact.place,
                    related=[(one.made, "the schedule")],
                    certainty="likely",
                )

    def ended(self, fact: Ended) -> Iterator[Finding]:
        yield from self._of_error(fact.error)
        for one in self._all:
            steps = one.of.steps - one.steps
            if not one.calls or steps < STEPS or (one.given and one.kind != "ReduceLROnPlateau"):
                continue
            often, rarely = one.calls >= 0.9 * steps, one.calls <= steps / 4
            why = self._too_often(one, steps) if often else self._too_rarely(one, steps, fact) if rarely else None
            if why is not None:
                yield self.finding(
                    why[0],
                    f"{one.of.kind} took {steps} steps, the schedule {one.calls}",
                    *why[1:],
                    place=one.place or one.made,
                    related=[(one.made, "the schedule"), (one.of.last_step_place, "the optimizer's step")],
                )

    def passed(self) -> str | None:
        called = sum(one.calls > 0 for one in self._all)
        return f"{called} schedule(s) were stepped as often as their numbers say" if called else None

    def unseen(self) -> str | None:
        short = any(one.calls and one.of.steps - one.steps < STEPS for one in self._all)
        return f"whether schedules fit the run: there were fewer than {STEPS} steps" if short else None

    def _meet(self, scheduler: Any, optimizer: Any, place: Place | None) -> Schedule:
        seen = self.trace.optimizer_of(optimizer)
        kind = type(scheduler).__name__
        rate = _rate(optimizer) or 0.0
        one = Schedule(kind, seen, seen.steps, place, _numbers(scheduler, kind), peak=rate, rate=rate)
        self._schedules[scheduler] = one
        self._all.append(one)
        return one

    def _epochs(self, steps: int) -> tuple[int, float] | None:
        """Epochs so far and steps in each, from the training loader, or else from evaluations between steps."""
        loaders = [seen.iterations for seen in self.trace.loaders if seen.trains]
        epochs = max(loaders, default=0) or self._breaks
        return (epochs, steps / epochs) if epochs >= 2 else None

    def _too_often(self, one: Schedule, steps: int) -> tuple[str, ...] | None:
        """An epoch's schedule, stepped every batch."""
        fell = f"the rate went from {one.peak:.3g} to {one.rate:.3g}"
        epochs = self._epochs(steps)
        per_epoch = epochs[1] if epochs else 0.0
        known = f"there were {epochs[0]} epochs of about {per_epoch:.0f} steps" if epochs else ""
        if one.kind in FALLS and one.small_at is not None:
            if one.small_at <= 0.5 * steps and one.rate < GONE * one.peak:
                return (
                    f"{one.kind} is stepped every batch: the rate is gone after {one.small_at} of {steps} steps",
                    fell,
                )
            fades = one.kind == "ExponentialLR" and one.numbers.get("gamma", 1.0) ** per_epoch < 0.35
            if epochs and per_epoch >= 3 and fades and one.rate < 1e-3 * one.peak:
                return (
                    f"{one.kind} is stepped every batch: the rate falls to a third or less in each epoch",
                    fell,
                    known,
                )
        if epochs is None or per_epoch < 3:
            return self._cosine_by_name(one)
        size, milestones = one.numbers.get("step_size"), one.numbers.get("milestones")
        if size and size <= epochs[0] and steps >= 6 * size and one.small_at is not None:
            return f"StepLR counts epochs (step_size={size}) and is stepped every batch", fell, known
        if milestones and max(milestones) <= epochs[0] and steps >= 3 * max(milestones):
            return (
                f"MultiStepLR counts epochs (milestones {milestones}) and is stepped every batch",
                f"all milestones are past after {max(milestones)} of {steps} steps",
                fell,
                known,
            )
        length = one.numbers.get("length") if one.kind == "CosineAnnealingLR" else None
        fits = length and (length == epochs[0] or (length <= per_epoch / 2 and steps >= 6 * length))
        if length and fits and one.calls > 2 * length:
            return (
                f"CosineAnnealingLR counts epochs (T_max={length}) and is stepped every batch",
                f"the rate goes down and up again {one.calls / length / 2:.0f} times",
                known,
            )
        return self._cosine_by_name(one)

    def _cosine_by_name(self, one: Schedule) -> tuple[str, ...] | None:
        length = one.numbers.get("length")
        if one.kind != "CosineAnnealingLR" or not length or one.calls < 2.5 * length:
            return None
        given = arguments_at(one.made, one.kind)
        text = given.get("T_max", given.get("1", ""))
        if re.fullmatch(r"[\w.\[\]'\"]*epochs?[\]'\"]*", text, re.IGNORECASE):
            return (
                f"CosineAnnealingLR counts epochs (T_max={text}) and is stepped every batch",
                f"the rate goes down and up again {one.calls / length / 2:.0f} times",
            )
        return None

    def _too_rarely(self, one: Schedule, steps: int, fact: Ended) -> tuple[str, ...] | None:
        """A schedule of steps, stepped once an epoch."""
        each = steps / one.calls
        slack = max(0.02 * steps, each)
        part = f"it has come {one.calls} of {{}} steps of its way"
        length = one.numbers.get("length")
        if length and length >= STEPS and one.calls <= length / 4:
            given = arguments_at(one.made, one.kind)
            in_steps = "steps_per_epoch" in given or any("len(" in text for text in given.values())
            whole = fact.error is None and abs(length - steps) <= slack
            if whole or (one.kind == "OneCycleLR" and in_steps and length >= 0.9 * steps):
                return (
                    f"{one.kind} counts {length} optimizer steps and is stepped once every {each:.0f} of them",
                    part.format(length),
                )
        up = one.numbers.get("up")
        epochs = self._epochs(steps)
        if up and epochs and epochs[1] >= 3 and one.calls < up and up % round(epochs[1]) == 0:
            return (
                f"CyclicLR counts batches (step_size_up={up:g}) and is stepped once every {each:.0f}",
                part.format(int(up)),
            )
        if fact.error is None:
            for number in one.numbers.get("reads", ()):
                if number >= STEPS and one.calls <= number / 4 and abs(number - steps) <= max(0.02 * steps, 1):
                    return (
                        f"LambdaLR's function counts to {number}, and is stepped once every {each:.0f} optimizer steps",
                        part.format(number),
                    )
        return None

    def _of_error(self, error: BaseException | None) -> Iterator[Finding]:
        text = str(error)
        if isinstance(error, TypeError) and "step() missing 1 required positional argument: 'metrics'" in text:
            yield self.finding(
                "ReduceLROnPlateau is stepped without the metric that it follows",
                f"it raised TypeError: {text}",
                place=raised_at(error),
                certainty="certain",
                help="Give it the metric of the validation: scheduler.step(val_loss).",
            )
        if isinstance(error, ValueError) and "The specified number of total steps is" in text:
            yield self.finding(
                "OneCycleLR is stepped more often than its total_steps says: that number is not the number of steps",
                f"it raised ValueError: {text}",
                place=raised_at(error),
                certainty="certain",
            )


def _rate(optimizer: Any) -> float | None:
    groups = getattr(optimizer, "param_groups", None)
    rate = groups[0].get("lr") if groups else None
    return float(rate) if isinstance(rate, (int, float)) else None


def _numbers(scheduler: Any, kind: str) -> dict[str, Any]:
    """What the schedule counts to, in whatever unit."""
    found: dict[str, Any] = {}
    length = getattr(scheduler, LENGTHS.get(kind, ""), None)
    if kind == "SequentialLR":
        last = scheduler._schedulers[-1]
        of_last = _numbers(last, type(last).__name__).get("length")
        length = scheduler._milestones[-1] + of_last if of_last and scheduler._milestones else None
    if isinstance(length, (int, float)) and length == int(length):
        found["length"] = int(length)
    if kind == "StepLR":
        found["step_size"] = scheduler.step_size
    if kind == "MultiStepLR":
        found["milestones"] = sorted(scheduler.milestones)
    if kind == "ExponentialLR":
        found["gamma"] = float(scheduler.gamma)
    if kind == "CyclicLR":
        found["up"] = float(scheduler.total_size) * float(scheduler.step_ratio)
    if kind == "LambdaLR":
        found["reads"] = [number for function in scheduler.lr_lambdas for number in _read_by(function)]
    return found


def _read_by(function: Any) -> Iterator[int]:
    """Whole numbers that a function reads: bound arguments, its closure's, globals that it names."""
    values = list(getattr(function, "keywords", {}).values()) + list(getattr(function, "args", ()))
    inner = getattr(function, "func", function)
    values.extend(getattr(inner, "__defaults__", None) or ())
    for cell in getattr(inner, "__closure__", None) or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    code = getattr(inner, "__code__", None)
    if code is not None:
        values.extend(inner.__globals__.get(name) for name in code.co_names)
        values.extend(code.co_consts)
    yield from (value for value in values if type(value) is int)


EPOCHS = 100  # a step_size or milestone up to here counts epochs; a guess


def in_source(program: Program) -> Iterator[Checked]:
    """Where the schedule steps, against where its optimizer does, and against what its own options count."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Scheduled):
            schedule = event.target
            if not isinstance(schedule, values.Object) or id(schedule) in told or event.at.branches:
                continue
            step = next((e for e in run.of(read.Stepped) if e.target is schedule.option("optimizer", 0)), None)
            if step is None:
                continue
            depth, deeper = len(event.at.loops), len(step.at.loops)
            inside = [turn.loop for turn in step.at.loops[:depth]] == [turn.loop for turn in event.at.loops]
            found: tuple[str, str] | None = None
            if schedule.name == "ReduceLROnPlateau" and not event.args:
                found = ("ReduceLROnPlateau is stepped without its metric", "`step()` has no argument")
            elif inside and depth and deeper > depth and (counts_steps(schedule) or _is_of_steps(run, schedule, event)):
                found = (
                    f"{schedule.name} counts steps, and is stepped once an epoch",
                    "its optimizer steps in the loop inside the one that the schedule steps in",
                )
            elif depth >= 2 and deeper == depth and inside and counts_epochs(schedule, event):
                found = (
                    f"{schedule.name} counts epochs, and is stepped with every batch",
                    "it steps in the batches' loop, with its optimizer, and its options are numbers of epochs",
                )
            if found is None:
                continue
            told.add(id(schedule))
            finding = program.finding(
                SchedulerWrongCadence,
                found[0],
                found[1],
                at=event,
                related=[(schedule, "the schedule"), (step, "the optimizer's step")],
            )
            metric = schedule.name == "ReduceLROnPlateau"  # what it is called is not known
            place = step.node if deeper > depth or metric else event.at.loops[-1].node
            yield Checked(finding, None if metric else _mended(program, event, place))


def _mended(program: Program, event: read.Scheduled, place: cst.CSTNode) -> Fix | None:
    """Moves the schedule's step behind another place: into the batches' loop, or out of it."""
    unit = program.unit
    line = blocks.statement(unit, event.node)
    thing: Any = getattr(getattr(event.node, "func", None), "value", None)
    if line is None or thing is None or not is_alone(line):
        return None
    if not is_seen(unit, unit.text(thing), event.node, place):
        return None
    title = f"step the schedule {'with each batch' if blocks.small(unit, place) else 'once an epoch'}"
    return together(title, without(program, event.node), after(program, place, unit.text(event.node)))


def counts_steps(schedule: values.Object) -> bool:
    """OneCycleLR that is told how many steps an epoch has, or whose total is a product or a loader's length."""
    if schedule.name != "OneCycleLR":
        return False
    per_epoch = schedule.option("steps_per_epoch", 4)
    if per_epoch is not None:
        return values.constant(per_epoch) not in (1, None) or not isinstance(per_epoch, values.Constant)
    total = given(schedule.node, "total_steps")
    value = schedule.option("total_steps", 2)
    counted = isinstance(value, values.Unknown) and value.name == "estimated_stepping_batches"  # Lightning's count
    return counted or (total is not None and "len(" in schedule.at.unit.text(total))


_TOTALS = {"OneCycleLR": ("total_steps", 2), "CosineAnnealingLR": ("T_max", 1), "PolynomialLR": ("total_iters", 1)}


def _is_of_steps(run: Run, schedule: values.Object, event: read.Scheduled) -> bool:
    """Whether its total is a product with a loader's length; or is called steps, and is more than the loop's epochs."""
    if schedule.name == "SequentialLR":
        inner = schedule.option("schedulers", 1)
        those = inner.all() if isinstance(inner, values.Items) else ()
        return any(isinstance(one, values.Object) and _is_of_steps(run, one, event) for one in those)
    name, place = _TOTALS.get(schedule.name, ("", 0))
    total = schedule.option(name, place) if name else None
    if total is None:
        return False
    made_of = [one for one in ancestors(total) if isinstance(one, values.Unknown)]
    if any(one.via == "mul" for one in made_of) and any(one.name == "len" and one.inputs for one in made_of):
        return True
    written = given(schedule.node, name)
    number, epochs = values.constant(total), _epochs(run, event)
    said = written is not None and "step" in schedule.at.unit.text(written)
    return said and isinstance(number, int) and isinstance(epochs, int) and number > epochs


def _epochs(run: Run, event: read.Scheduled) -> Any:
    """How often the loop that a schedule steps in turns, if that is a number."""
    loop = event.at.loops[-1].loop
    over = next((one.over for one in run.of(read.Iterated) if one.loop == loop), None)
    return values.constant(over.attrs.get("stop")) if isinstance(over, values.Items) and over.kind == "range" else None


def counts_epochs(schedule: values.Object, event: read.Scheduled | read.Stepped) -> bool:
    """Whether its options are numbers of epochs, of the loop that the event is in."""
    if schedule.name == "StepLR":
        size = values.constant(schedule.option("step_size", 1))
        return isinstance(size, int) and size <= EPOCHS
    if schedule.name == "MultiStepLR":
        stones = schedule.option("milestones", 1)
        known = stones.items if isinstance(stones, values.Items) else None
        numbers = [values.constant(one) for one in known or ()]
        return bool(numbers) and all(isinstance(one, int) and one <= 2 * EPOCHS for one in numbers)
    if schedule.name == "CosineAnnealingLR":
        written = given(schedule.node, "T_max", 1)
        outer: Any = event.at.loops[0].node
        over: Any = getattr(getattr(outer, "iter", None), "args", ())
        text = schedule.at.unit.text(written) if written is not None else ""
        return len(over) == 1 and event.at.unit.text(over[0].value) == text
    return False


FIRES = {
    "OneCycle once an epoch": """
        model = nn.Linear(4, 3)
        data = DataLoader(TensorDataset(torch.randn(128, 4), torch.randint(3, (128,))), batch_size=8, shuffle=True)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        sched = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=5 * len(data))
        for epoch in range(5):
            for x, y in data:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
            sched.step()
    """,
    "a warm-up in steps, stepped once an epoch": """
        model = nn.Linear(4, 3)
        x, y = torch.randn(160, 4), torch.randint(3, (160,))
        opt = torch.optim.AdamW(model.parameters(), lr=0.01)
        epochs, per_epoch = 6, 10
        total = epochs * per_epoch
        sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1.0, s / 10) * max(0.0, 1 - s / total))
        for epoch in range(epochs):
            for idx in torch.randperm(160).split(16):
                opt.zero_grad()
                F.cross_entropy(model(x[idx]), y[idx]).backward()
                opt.step()
            sched.step()
    """,
    "an exponential of epochs, stepped every batch": """
        model = nn.Linear(4, 3)
        x, y = torch.randn(160, 4), torch.randint(3, (160,))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        decay = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)
        for epoch in range(10):
            for idx in torch.randperm(160).split(16):
                opt.zero_grad()
                F.cross_entropy(model(x[idx]), y[idx]).backward()
                opt.step()
                decay.step()
    """,
    "milestones of epochs, stepped every batch": """
        model = nn.Linear(4, 3)
        data = DataLoader(TensorDataset(torch.randn(128, 4), torch.randint(3, (128,))), batch_size=8, shuffle=True)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.MultiStepLR(opt, [3, 5])
        for epoch in range(6):
            for x, y in data:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
                sched.step()
    """,
    "a cosine over epochs, stepped every batch": """
        EPOCHS = 6
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=EPOCHS)
        for epoch in range(EPOCHS):
            for i in range(15):
                opt.zero_grad()
                F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
                opt.step()
                cosine.step()
    """,
    "a plateau without its metric": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt)
        for epoch in range(4):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            opt.step()
            sched.step()
    """,
    "a plateau of epoch numbers": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt)
        for epoch in range(6):
            for i in range(5):
                opt.zero_grad()
                F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
                opt.step()
            sched.step(epoch)
    """,
}

_LOOP = """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        rows = torch.randn(160, 4)
        data = DataLoader(TensorDataset(rows, rows[:, :3].argmax(1)), batch_size=16, shuffle=True)
        sched = torch.optim.lr_scheduler.{}
        for epoch in range(8):
            for x, y in data:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
                {}
            {}
"""

SILENT = {
    "a cosine over all steps": _LOOP.format("CosineAnnealingLR(opt, T_max=80)", "sched.step()", "pass"),
    "a cosine over epochs": _LOOP.format("CosineAnnealingLR(opt, T_max=8)", "pass", "sched.step()"),
    "warm restarts told where they stand": _LOOP.format(
        "CosineAnnealingWarmRestarts(opt, T_0=4)", "sched.step(epoch + 0.1)", "pass"
    ),
    "a cycle of steps": _LOOP.format("CyclicLR(opt, 0.001, 0.1, step_size_up=10)", "sched.step()", "pass"),
    "a slow exponential of steps": _LOOP.format("ExponentialLR(opt, 0.98)", "sched.step()", "pass"),
    "milestones of epochs": _LOOP.format("MultiStepLR(opt, [4, 6])", "pass", "sched.step()"),
    "the whole set at once": """
        epochs = 90
        model = nn.Linear(4, 3)
        x = torch.randn(64, 4)
        y = x[:, :3].argmax(1)
        opt = torch.optim.SGD(model.parameters(), lr=0.5)
        sched = torch.optim.lr_scheduler.StepLR(opt, step_size=30, gamma=0.1)
        for epoch in range(epochs):
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
            sched.step()
    """,
}

READ_FIRES = {
    "a cosine over all steps, once an epoch": """
        import torch
        from torch import nn
        def build(net, epochs, per_epoch):
            opt = torch.optim.Adam(net.parameters())
            return opt, torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=epochs * per_epoch)
        net = nn.Linear(4, 3)
        opt, schedule = build(net, 10, len(loader))
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            schedule.step()
    """,
    "a warm-up of so many steps": """
        import torch
        from torch import nn
        from torch.optim.lr_scheduler import LinearLR, PolynomialLR, SequentialLR
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        warm, all_steps = 100, 1000
        decay = PolynomialLR(opt, total_iters=all_steps - warm)
        schedule = SequentialLR(opt, [LinearLR(opt, 0.1, total_iters=warm), decay], milestones=[warm])
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            schedule.step()
    """,
    "one cycle, once an epoch": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, epochs=10, steps_per_epoch=len(loader))
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            sched.step()
    """,
    "cosine over the epochs, with every batch": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=EPOCHS)
        for epoch in range(EPOCHS):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
                sched.step()
    """,
    "a plateau without its metric": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            sched.step()
    """,
    "a trainer that has two methods": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self):
                self.net = nn.Linear(4, 3)
                self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)
                self.sched = torch.optim.lr_scheduler.OneCycleLR(self.opt, 0.1, total_steps=10 * len(loader))
            def train_epoch(self):
                for x, y in loader:
                    self.opt.zero_grad()
                    nn.functional.cross_entropy(self.net(x), y).backward()
                    self.opt.step()
            def fit(self):
                for epoch in range(10):
                    self.train_epoch()
                    self.sched.step()
        Trainer().fit()
    """,
}

READ_SILENT = {
    "a cosine over the epochs, longer than the run": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.Adam(net.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=200)
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            schedule.step()
    """,
    "each as it counts": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        a = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=10 * len(loader))
        b = torch.optim.lr_scheduler.StepLR(opt, 3)
        c = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10 * len(loader))
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
                a.step()
                c.step()
            b.step()
    """,
}
