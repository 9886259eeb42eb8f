"""Training goes on from a file that holds the weights alone.

Sees: a script loads weights from a file, trains them on with an optimizer that keeps moments or with a schedule, and
saves the weights alone, or beside them no more than where it stands (``{"epoch": …, "model": …}``), to the same file.

Why it matters: the optimizer's moments, the schedule and the number of the epoch begin anew with each start: training
that was interrupted takes another way than training that was not.

Usual causes: the file was made for the finished model, and is used for resuming as well.

Fix: save one dict with the ``state_dict`` of the model, the optimizer and the scheduler, and the epoch; load them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.edits import after, before, put, together
from trueloop.doctor.source.events import Backward, Made, Operated, Stepped
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import is_scheduler
from trueloop.doctor.source.modules import is_module
from trueloop.doctor.source.naming import is_seen, name_of
from trueloop.doctor.source.provenance import ancestors, trains
from trueloop.doctor.source.values import Constant, Items, Object, Tensor, Unknown, Value
from trueloop.doctor.source.ways import Run, common_loop

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class IncompleteCheckpoint(Rule):
    """Is read only."""

    name = "incomplete-checkpoint"
    code = 802
    level = "note"
    certainty = "likely"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """Weights are loaded before training and saved in its loop, from and to one path; no other state is."""
    told: set[int] = set()
    for run in program.runs:
        if not run.complete:
            continue
        events = run.events
        loads = [event for event in run.of(Operated) if event.name.endswith(".load_state_dict")]
        if any(not event.name.startswith("Module.") for event in loads):
            continue
        for load in loads:
            path = _read_from(load)
            if path is None:
                continue
            after = events[events.index(load) :]
            later = Run(run.entry, after, run.complete)
            backwards = [one for one in later.of(Backward) if one.at.loops and common_loop(load.at, one.at) is None]
            save = next((one for one in later.of(Operated) if _saves(one, path, backwards)), None)
            if save is None or id(save.node) in told or not _has_state(run, backwards):
                continue
            told.add(id(save.node))
            alone = not isinstance(save.args[0], Items)
            what = "the weights alone" if alone else "no optimizer state"
            finding = program.finding(
                IncompleteCheckpoint,
                f"training goes on from this file, and it holds {what}",
                "the optimizer's and the schedule's state are neither saved nor loaded",
                at=save,
                related=[(load, "loaded here, before more training")],
            )
            yield Checked(finding, _mended(program, run, load, save) if alone else None)


def _mended(program: Program, run: Run, load: Operated, save: Operated) -> Fix | None:
    """The optimizers' and schedules' state beside the weights, in one dict."""
    unit, path = program.unit, _read_from(load)
    if path is None:
        return None
    loads = [event for event in run.of(Operated) if event.name == "torch.load"]
    reads = {id(event.node) for event in loads if any(_same(one, path) for one in event.args)}
    loaded: Any = getattr(load.node, "args", ())
    saved: Any = getattr(save.node, "args", ())
    steps = {id(event.target.node): event.target for event in run.of(Stepped) if isinstance(event.target, Object)}
    schedules = {id(event.made.node): event.made for event in run.of(Made) if is_scheduler(event.made.kind)}
    kept = [*(("optimizer", one) for one in steps.values()), *(("schedule", one) for one in schedules.values())]
    names = [name_of(unit, one.node) for _, one in kept]
    words = [word for word, _ in kept]
    seen = all(
        is_seen(unit, name, one.node, place) and unit.span(one.node).start.line < unit.span(load.node).start.line
        for name, (_, one) in zip(names, kept, strict=True)
        for place in (load.node, save.node)
    )
    single = len(reads) == 1 and len(set(words)) == len(words)
    if not single or not seen or "state" in blocks.names(unit.tree):
        return None
    rest = "".join(f', "{word}": {name}.state_dict()' for word, name in zip(words, names, strict=True))
    back = [f'{name}.load_state_dict(state["{word}"])' for word, name in zip(words, names, strict=True)]
    return together(
        "keep the state of the optimizer and the schedule as well",
        put(program, saved[0].value, f'{{"model": {unit.text(saved[0].value)}{rest}}}'),
        before(program, load.node, f"state = {unit.text(loaded[0].value)}"),
        put(program, loaded[0].value, 'state["model"]'),
        after(program, load.node, "\n".join(back)),
    )


def _read_from(load: Operated) -> Value | None:
    """The path of ``model.load_state_dict(torch.load(path))``, or of a part of what was loaded."""
    state = load.args[1] if len(load.args) > 1 else None
    if isinstance(state, Unknown) and state.via == "[]":
        state = state.of
    if isinstance(state, Unknown) and state.name == "load" and state.via == "call" and state.inputs:
        return state.inputs[0]
    return None


def _saves(event: Operated, path: Value, backwards: list[Backward]) -> bool:
    """Whether it saves modules' weights there and no other state, in the loop that trains."""
    if event.name != "torch.save" or len(event.args) < 2 or not _same(event.args[1], path):
        return False
    what = event.args[0]
    if isinstance(what, Items) and what.pairs:
        keys = [str(key).lower() for key in what.pairs]
        told = any(word in key for key in keys for word in ("opt", "sched"))  # whatever stands there
        own = [one for one in what.all() if not _is_plain(one)]
        weights = not told and bool(own) and all(_is_weights(one) for one in own)
    else:
        weights = _is_weights(what)
    return weights and any(common_loop(event.at, one.at) is not None for one in backwards)


def _is_weights(value: Value) -> bool:
    state = isinstance(value, Unknown) and value.name == "state_dict" and value.via == "call"
    return state and isinstance(value, Unknown) and is_module(value.of)


def _is_plain(value: Value) -> bool:
    """Whether it is a number, a text or the like."""
    number = isinstance(value, Unknown) and (value.kind == "int" or value.via in ("add", "sub", "mul", "div", "item"))
    return isinstance(value, (Constant, Tensor)) or number


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, Constant) and isinstance(other, Constant):
        return bool(one.value == other.value)
    return one is other


def _has_state(run: Run, backwards: list[Backward]) -> bool:
    """Whether what is lost matters: moments, or a schedule."""
    for event in run.of(Stepped):
        optimizer = event.target
        if isinstance(optimizer, Object) and any(trains(optimizer, one.loss) for one in backwards):
            moments = optimizer.name != "SGD" or optimizer.option("momentum", 2) is not None
            schedules = [one.made for one in run.of(Made) if is_scheduler(one.made.kind)]
            return moments or any(optimizer in ancestors(value) for one in schedules for value in one.args)
    return False


READ_FIRES = {
    "the epoch as well": """
        import os
        import torch
        from torch import nn
        class Run:
            def __init__(self, path):
                self.path, self.start = path, 0
                self.model = nn.Linear(4, 3)
                self.opt = torch.optim.Adam(self.model.parameters())
                self.schedule = torch.optim.lr_scheduler.StepLR(self.opt, 2)
            def save(self, epoch):
                torch.save({"epoch": epoch + 1, "model": self.model.state_dict()}, self.path)
            def fit(self, loader, epochs):
                if os.path.exists(self.path):
                    state = torch.load(self.path)
                    self.model.load_state_dict(state["model"])
                    self.start = state["epoch"]
                for epoch in range(self.start, epochs):
                    for x, y in loader:
                        self.opt.zero_grad()
                        nn.functional.cross_entropy(self.model(x), y).backward()
                        self.opt.step()
                    self.schedule.step()
                    self.save(epoch)
        Run("last.pt").fit(loader, 9)
    """,
    "one file for both": """
        import os
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        if os.path.exists("last.pt"):
            model.load_state_dict(torch.load("last.pt"))
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            torch.save(model.state_dict(), "last.pt")
    """,
}

READ_SILENT = {
    "the best of a dict is loaded at the end, what else is in it is not known, and no state to keep": """
        import os
        import torch
        from torch import nn
        def fit(model, opt, more, path, resumes):
            if resumes:
                model.load_state_dict(torch.load(path)["model"])
            for epoch in range(10):
                for x, y in loader:
                    opt.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    opt.step()
                torch.save({"epoch": epoch, "model": model.state_dict(), **more}, path)
            model.load_state_dict(torch.load(path)["model"])
        def states(model, opt):
            return {"net": model.state_dict(), "adam": opt.state_dict()}
        one, two, three = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)
        adam, sgd = torch.optim.Adam(one.parameters()), torch.optim.SGD(two.parameters(), 0.1)
        fit(one, adam, states(one, adam), "one.pt", True)
        fit(two, sgd, {}, "two.pt", True)
        fit(three, torch.optim.Adam(three.parameters()), {}, "three.pt", False)
    """,
    "the best one is loaded at the end": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            torch.save(model.state_dict(), "best.pt")
        model.load_state_dict(torch.load("best.pt"))
    """,
    "trained on from another file": """
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        model.load_state_dict(torch.load("pretrained.pt"))
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            torch.save(model.state_dict(), "tuned.pt")
    """,
    "all of it": """
        import os
        import torch
        from torch import nn
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters())
        if os.path.exists("last.pt"):
            state = torch.load("last.pt")
            model.load_state_dict(state["model"])
            opt.load_state_dict(state["opt"])
        for epoch in range(10):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
            torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, "last.pt")
    """,
}
