"""Anomaly detection, or a profiler, is on for the whole training.

Sees: anomaly mode is on at all steps of a run, or over many steps in a row; or a profiler records that many.

Why it matters: anomaly mode keeps a stack trace of every operation and checks every gradient: steps took 1.4 to 2.4
times as long when it was measured (torch 2.13, CPU). A profiler that is never stopped fills the memory.

Usual causes: it was switched on to find a NaN, and forgotten.

Fix: take it out, or switch it on for the few steps in question: ``with torch.autograd.detect_anomaly():``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended, Evaluated, Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.edits import put, together, unwrapped
from trueloop.doctor.source.fixes import Checked, Fix

if TYPE_CHECKING:
    from trueloop.doctor.findings import Place
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 100  # in a row; a guess: a window of debugging is shorter
FEWEST = 20  # where all steps of a run are under it; a guess
PROFILED = 200  # a profiled window may well have a hundred steps; a guess
EPOCHS = 2  # over a loader: a script that trains, and does not only measure


class AnomalyModeLeftOn(Rule):
    """Asks torch at each step whether it is on."""

    name = "anomaly-mode-left-on"
    code = 705
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        import torch

        super().__init__(trace)
        profiling = getattr(torch.autograd, "_profiler_enabled", None)
        self._profiling = profiling if callable(profiling) else lambda: False
        self._steps = self._on = self._row = self._profiled = 0
        self._evaluated = False
        self._place: Place | None = None
        self._line: Place | None = None
        self._told = False

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        self._steps += 1
        if self.trace.lines.user_wants_anomaly:
            self._on += 1
            self._row += 1
            self._place = self.trace.lines.user_place or fact.place
            if self._row == STEPS and not self._told:
                yield self._anomaly(f"{STEPS} steps in a row were taken with it")
        else:
            self._row = 0
        self._profiled = self._profiled + 1 if self._profiling() else 0
        if self._profiled:
            self._line = fact.place
        if self._profiled == PROFILED and not self._told:
            yield self._recorded(f"{PROFILED} steps in a row were recorded")

    def evaluated(self, fact: Evaluated) -> None:
        self._evaluated = self._evaluated or fact.of.evaluates

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if not self._told and self._on == self._steps >= FEWEST:
            yield self._anomaly(f"all {self._steps} steps were taken with it")
        trains = self._evaluated or any(seen.trains and seen.iterations >= EPOCHS for seen in self.trace.loaders)
        if not self._told and trains and self._profiled == self._steps >= FEWEST:
            yield self._recorded(f"all {self._steps} steps were recorded")

    def _recorded(self, evidence: str) -> Finding:
        self._told = True
        return self.finding(
            "a profiler records the whole training",
            evidence,
            place=self._line,
            help="Record a few steps: give the profiler a schedule (wait, warmup, active), or leave its block.",
        )

    def _anomaly(self, evidence: str) -> Finding:
        self._told = True
        return self.finding("anomaly detection is on for the whole training", evidence, place=self._place)

    def passed(self) -> str | None:
        return "anomaly mode was off" if self._steps and not self._on else None


def in_source(program: Program) -> Iterator[Checked]:
    """Anomaly mode is switched on, under no condition, and not off again before an optimizer steps in a loop."""
    told: set[int] = set()
    for run in program.runs:
        on: read.Operated | None = None
        for event in run.events:
            if isinstance(event, read.Operated) and event.name.startswith("torch.autograd.") and not _searches(event):
                mode = event.kwargs.get("mode") or (event.args[0] if event.args else values.Constant(True))
                if event.name.endswith(".set_detect_anomaly"):
                    on = event if values.constant(mode) is True and not event.at.branches else None
                elif event.name.endswith(".detect_anomaly") and not event.at.branches:
                    on = event
            elif isinstance(event, read.Operated) and event.name.endswith("detect_anomaly.__exit__"):
                on = None
            elif isinstance(event, read.Stepped) and on is not None and event.at.loops and id(on.node) not in told:
                told.add(id(on.node))
                finding = program.finding(
                    AnomalyModeLeftOn,
                    "anomaly mode is on for all of the training: each step is far slower",
                    "it is switched on under no condition, and is on when the optimizer steps",
                    at=on,
                    related=[(event, "steps with anomaly mode on")],
                    certainty="certain" if on.name.endswith("set_detect_anomaly") else "likely",
                    help="switch it on only while an error is looked for",
                )
                yield Checked(finding, _mended(program, on))


def _searches(event: read.Operated) -> bool:
    """Whether the function around it looks for errors, by its name: there the mode is what is wanted."""
    name = event.function.name.lower() if event.function is not None else ""
    return any(word in name for word in ("check", "debug", "verify", "test", "compare", "diagnos"))


def _mended(program: Program, on: read.Operated) -> Fix | None:
    """``set_detect_anomaly(False)``; a ``with`` that does nothing else is taken off."""
    call: Any = on.node
    if on.name.endswith(".set_detect_anomaly"):
        mode = given(call, "mode", 0)
        return None if mode is None else together("switch anomaly mode off", put(program, mode, "False"))
    above: list[Any] = list(blocks.around(program.unit, call))[:2]
    if [blocks.kind(one) for one in above] != ["WithItem", "With"] or len(above[1].items) != 1:
        return None
    return together("leave anomaly mode out", unwrapped(program, above[1]))


FIRES = {
    "switched on at the head": """
        torch.autograd.set_detect_anomaly(True)
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(25):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        torch.autograd.set_detect_anomaly(False)
    """,
    "a block around each step": """
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(25):
            with torch.autograd.detect_anomaly(check_nan=False):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
                opt.step()
    """,
}

SILENT = {
    "a few steps": """
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in range(40):
            with torch.autograd.set_detect_anomaly(step < 3):
                opt.zero_grad()
                F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
                opt.step()
    """,
    "a profiled window": """
        model = nn.Linear(8, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        def step():
            opt.zero_grad()
            F.mse_loss(model(torch.randn(16, 8)), torch.zeros(16, 1)).backward()
            opt.step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
            for _ in range(5):
                step()
        for _ in range(30):
            step()
    """,
}

READ_FIRES = {
    "set at the head": """
        import torch
        torch.autograd.set_detect_anomaly(True)
        def train(model, optimizer, loader, criterion):
            for x, y in loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
        train(a, b, c, d)
    """,
    "around it all": """
        import torch
        def train(model, optimizer, loader, criterion):
            with torch.autograd.detect_anomaly():
                for x, y in loader:
                    optimizer.zero_grad()
                    criterion(model(x), y).backward()
                    optimizer.step()
    """,
    "set for a block around it all": """
        import torch
        def train(model, optimizer, loader, criterion):
            with torch.autograd.set_detect_anomaly(True):
                for x, y in loader:
                    optimizer.zero_grad()
                    criterion(model(x), y).backward()
                    optimizer.step()
    """,
}

READ_SILENT = {
    "set for the first batch": """
        import torch
        def train(model, optimizer, loader, criterion, batch):
            with torch.autograd.set_detect_anomaly(True):
                criterion(model(batch), batch).backward()
            for x, y in loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
    """,
    "a function that looks for errors": """
        import torch

        def check_numerics(model, loader, optimizer):
            with torch.autograd.set_detect_anomaly(True):
                for x, y in loader:
                    optimizer.zero_grad()
                    torch.nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()
    """,
    "asked for": """
        import torch
        def train(model, optimizer, loader, criterion, debug):
            torch.autograd.set_detect_anomaly(debug)
            if debug:
                torch.autograd.set_detect_anomaly(True)
            for x, y in loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
    """,
}
