"""A GradScaler is there and part of its ritual is missing.

Sees: an optimizer steps by itself on gradients of a scaled loss; it steps by itself beside ``scaler.step``, on the same
gradients once more; ``scaler.step`` on gradients of a loss that was not scaled. Each in two steps in a row (a guess:
one may be a test). Or torch itself raised: ``unscale_`` or ``step`` twice without ``update``, ``step`` before any
``scale``, ``update`` without ``step``.

Why it matters: past the scaler, the step uses gradients multiplied by its scale (65536 at first), and infinite ones are
not left out; beside it, each batch is stepped on twice; of an unscaled loss, the scaler divides gradients that were
never multiplied, and the step is next to nothing.

Usual causes: ``optimizer.step()`` was left in when the scaler came in; ``loss.backward()`` in place of
``scaler.scale(loss).backward()``; no ``scaler.update()``.

Fix: ``scaler.scale(loss).backward()``, then ``scaler.unscale_(optimizer)`` if you clip, then ``scaler.step(optimizer)``
(no ``optimizer.step()``), then ``scaler.update()``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import (
    BackwardBegun,
    BackwardEnded,
    Clipped,
    Ended,
    Paused,
    Scaled,
    ScalerUpdated,
    Stepping,
    Unscaled,
)
from trueloop.doctor.findings import Finding
from trueloop.doctor.places import raised_at
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.edits import after, before, put, together, without
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.library import is_scaler
from trueloop.doctor.source.mending import is_plain, line_after, replaced, said, scaler_of
from trueloop.doctor.source.naming import is_seen
from trueloop.doctor.source.provenance import touches
from trueloop.doctor.source.ritual import gives
from trueloop.doctor.source.ways import Run, common_loop, paths
from trueloop.doctor.untouched import Untouched, is_zero

if TYPE_CHECKING:
    from trueloop.doctor.seen import Accumulation
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 2
DEEP = 16  # nodes next to the loss among which the scaler's factor is looked for
REMEMBERED = 1024
RAISED = {
    "has already been called since the last update": "scaler.update() is missing, or a call stands twice",
    "has already been called on this optimizer since": "unscale_ is called twice for one step, or update() is missing",
    "is being called after step()": "unscale_ is called after the scaler's step",
    "_scale is None": "no loss was ever scaled: scaler.scale(loss) is missing",
    "No inf checks were recorded prior to update": "update() has no step of the scaler before it: optimizer.step() "
    "stands in place of scaler.step(optimizer)",
}


class ScalerMisused(Rule):
    """Follows scale, backward, unscale, step; a disabled scaler is not heard at all."""

    name = "scaler-misused"
    code = 114
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._scaler: weakref.ref[Any] | None = None
        self._scaled: dict[int, bool] = {}  # backward -> its loss carries the scaler's factor
        self._untouched = Untouched()
        self._unscaled: set[int] = set()  # optimizers whose gradients unscale_ has divided since their last step
        self._by_scaler: set[int] = set()  # optimizers whose last step was the scaler's
        self._counts: dict[tuple[int, str], int] = {}
        self._right = 0

    def scaled(self, fact: Scaled) -> None:
        if self._scaler is None or self._scaler() is not fact.scaler:
            self._scaler = weakref.ref(fact.scaler)

    def backward_begun(self, fact: BackwardBegun) -> None:
        if self._scaler is None:
            return
        if len(self._scaled) > REMEMBERED:
            self._scaled.clear()
        self._scaled[fact.number] = fact.scaled or self._carries_scale(fact)

    def backward_ended(self, fact: BackwardEnded) -> None:
        if self._scaler is not None:
            for seen in self.trace.optimizers:
                if seen.accumulated and seen.accumulated[-1].backward == fact.begun.number:
                    self._untouched.mark(seen)

    def clipped(self, fact: Clipped) -> None:
        if self._scaler is not None:
            for seen in self.trace.optimizers:
                if seen.accumulated:
                    self._untouched.mark(seen)

    def unscaled(self, fact: Unscaled) -> None:
        self._unscaled.add(self.trace.optimizer_of(fact.optimizer).number)

    def scaler_updated(self, fact: ScalerUpdated) -> None:
        self._unscaled.clear()

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        number = fact.optimizer.number
        unscaled = number in self._unscaled
        self._unscaled.discard(number)
        before = number in self._by_scaler
        (self._by_scaler.add if fact.by_scaler else self._by_scaler.discard)(number)
        if self._scaler is None or fact.has_closure:
            return
        kinds = [self._scaled.get(one.backward) for one in _since_cleared(fact.accumulated)]
        what = ""
        if fact.by_scaler:
            if kinds and not any(kinds) and None not in kinds:
                what = "not scaled"
            elif False in kinds:
                what = "partly scaled"
        elif kinds and all(kinds):
            by_hand = not unscaled and not self._untouched.holds(fact.optimizer)
            what = "" if by_hand else "past it, unscaled" if unscaled else "past it"
        elif not fact.accumulated and before and not all(is_zero(p.grad) for p in fact.optimizer.watched):
            what = "beside it"
        self._right += bool(fact.by_scaler and not what)
        for key in ("not scaled", "partly scaled", "past it", "past it, unscaled", "beside it"):
            count = self._counts.get((number, key), 0)
            if key == what:
                self._counts[number, key] = count + 1
                if count + 1 == STEPS:
                    yield self._finding(fact, what)
            elif what and count < STEPS and key != "beside it":
                self._counts[number, key] = 0

    def paused(self, fact: Paused) -> None:
        self._counts.clear()
        self._by_scaler.clear()

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if not isinstance(fact.error, (RuntimeError, AssertionError)):
            return
        text = str(fact.error)
        for part, why in RAISED.items():
            if part in text:
                yield self.finding(
                    f"the GradScaler stops the script: {why}",
                    f"it raised {type(fact.error).__name__}: {text.splitlines()[0]}",
                    place=raised_at(fact.error),
                )
                return

    def passed(self) -> str | None:
        return f"{self._right} steps went through the GradScaler on scaled losses" if self._right else None

    def _finding(self, fact: Stepping, what: str) -> Finding:
        kind = fact.optimizer.kind
        scale = f"the scale is {self._scale():g}"
        last = fact.accumulated[-1].place if fact.accumulated else None
        if what == "beside it":
            return self.finding(
                f"{kind} steps by itself beside scaler.step: each batch is stepped on twice",
                f"in {STEPS} iterations it stepped right after the scaler's step, with no backward in between",
                place=fact.place,
            )
        if what.startswith("past it"):
            done = (
                "was multiplied by the scale and divided again" if what != "past it" else "is multiplied by the scale"
            )
            return self.finding(
                f"{kind}.step() goes past the GradScaler: its gradient {done}, and infinite ones are not left out",
                f"in {STEPS} steps in a row the loss was scaled and the step was not the scaler's; {scale}",
                place=fact.place,
                related=[(last, "the backward of the scaled loss")],
                level="warning" if what != "past it" else None,
            )
        part = "some of the losses" if what == "partly scaled" else "the loss"
        return self.finding(
            f"backward runs on {part} without scaler.scale, and the scaler divides the gradients by its scale",
            f"in {STEPS} steps in a row scaler.step used gradients of a loss that was not scaled; {scale}",
            place=last,
            related=[(fact.place, "the scaler's step")],
        )

    def _scale(self) -> float:
        scaler = None if self._scaler is None else self._scaler()
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _carries_scale(self, fact: BackwardBegun) -> bool:
        """Whether a factor equal to the scale stands near the loss: ``scale(a) + scale(b)``, ``scale(loss) / k``."""
        from trueloop.doctor.graph import Node

        scale = self._scale()
        rest: list[Node | None] = [Node(root) for root in fact.graph.roots if root is not None]
        for _ in range(DEEP):
            if not rest:
                return False
            node = rest.pop(0)
            if node is None:
                continue
            if node.op == "Mul":
                for factor in (node.saved("other"), node.saved("self")):
                    if factor is not None and getattr(factor, "numel", lambda: 1)() == 1 and float(factor) == scale:
                        return True
            rest.extend(node.inputs)
        return False


def _since_cleared(accumulated: Sequence[Accumulation]) -> Sequence[Accumulation]:
    """Those whose gradients are still in the sum."""
    first = max((index for index, one in enumerate(accumulated) if one.clean), default=0)
    return accumulated[first:]


def in_source(program: Program) -> Iterator[Checked]:
    """A scaler's part is left out, on every way that comes there: the scaling, its step, its update."""
    for run in program.runs:
        if not run.complete:
            continue
        ways = list(paths(run, read.Backward, read.Stepped, read.Updated))
        yield from _past_it(program, run, ways)
        yield from _never_updated(program, run)


def _past_it(program: Program, run: Run, ways: list[list[Any]]) -> Iterator[Checked]:
    """Steps whose gradients are scaled, and that do not go through the scaler; and the other way round."""
    verdicts: dict[int, set[str]] = {}
    events: dict[int, tuple[read.Stepped, read.Backward]] = {}
    for way in ways:
        last: read.Backward | None = None
        for event in way:
            if isinstance(event, read.Backward):
                last = event
            elif isinstance(event, read.Stepped):
                fresh = last is not None and common_loop(last.at, event.at) is not None
                if last is None or not fresh or not gives(run, last, event.target):
                    verdicts.setdefault(id(event.node), set()).add("")
                    continue
                past = last.scaled and event.scaler is None and not _unscaled(run, event)
                word = "past" if past else ""
                word = "unscaled" if event.scaler is not None and not last.scaled and _at_work(event.scaler) else word
                verdicts.setdefault(id(event.node), set()).add(word)
                events.setdefault(id(event.node), (event, last))
    for key, words in verdicts.items():
        if len(words) != 1 or "" in words or key not in events:
            continue
        step, backward = events[key]
        if words == {"past"}:
            name = said(step)
            finding = program.finding(
                ScalerMisused,
                f"`{name}.step()` steps past the scaler, with gradients that are scaled",
                "backward ran on the scaled loss, and the step does not go through `scaler.step`",
                at=step,
                related=[(backward, "backward on the scaled loss")],
                help="call `scaler.step(optimizer)` and `scaler.update()` in its place",
            )
            yield Checked(finding, _through_it(program, run, step, backward))
        else:
            finding = program.finding(
                ScalerMisused,
                "backward runs on the unscaled loss, and the scaler steps: it divides by a factor that is not there",
                "`scaler.step` unscales the gradients, and `scaler.scale(loss)` did not scale them",
                at=backward,
                related=[(step, "the step through the scaler")],
                help="call `scaler.scale(loss).backward()`",
            )
            yield Checked(finding, _scaled(program, step, backward))


def _through_it(program: Program, run: Run, step: read.Stepped, backward: read.Backward) -> Fix | None:
    """Steps through the scaler, and unscales before a clip; takes a second step out that follows the scaler's."""
    scaler, name, unit = scaler_of(backward), said(step), program.unit
    turn = [event for event in run.events if event.at.loops == step.at.loops]
    through = [e for e in turn if isinstance(e, read.Stepped) and e.target is step.target and e.scaler is not None]
    if through:
        return together("leave the step past the scaler out", without(program, step.node))
    if not is_plain(name) or not is_seen(unit, scaler, backward.node, step.node):
        return None
    edits = [put(program, step.node, f"{scaler}.step({name})")]
    if not any(run.of(read.Updated)):
        edits.append(after(program, step.node, f"{scaler}.update()"))
    clip = next((event for event in turn if isinstance(event, read.Clipped)), None)
    if clip is not None and turn.index(backward) < turn.index(clip) < turn.index(step):
        seen = is_seen(unit, scaler, backward.node, clip.node) and is_seen(unit, name, step.node, clip.node)
        edits.append(before(program, clip.node, f"{scaler}.unscale_({name})") if seen else None)
    return together("step through the scaler", *edits)


def _scaled(program: Program, step: read.Stepped, backward: read.Backward) -> Fix | None:
    """``loss.backward()`` on the scaled loss."""
    loss: Any = getattr(getattr(backward.node, "func", None), "value", None)
    call: Any = step.node
    scaler = step.at.unit.text(call.func.value)
    named = getattr(getattr(getattr(backward.node, "func", None), "attr", None), "value", "")
    if loss is None or named != "backward" or getattr(backward.node, "args", ()):
        return None
    if backward.at.unit is not program.unit or not is_seen(program.unit, scaler, call, backward.node):
        return None
    return replaced(program, loss, f"{scaler}.scale({program.unit.text(loss)})", "scale the loss")


def _unscaled(run: Run, step: read.Stepped) -> bool:
    by_hand = any(True for _ in run.of(read.GradientsUsed))
    return by_hand or any(event.at.loops == step.at.loops for event in run.of(read.Unscaled))


def _at_work(scaler: values.Value) -> bool:
    """Whether it is a scaler for sure, and not switched off by an option."""
    if not isinstance(scaler, values.Object) or not is_scaler(scaler.kind):
        return False
    enabled = scaler.option("enabled")
    return enabled is None or values.constant(enabled) is True


def _never_updated(program: Program, run: Run) -> Iterator[Checked]:
    for scaler in {id(e.scaler): e.scaler for e in run.of(read.Stepped) if e.scaler is not None}.values():
        step = next((e for e in run.of(read.Stepped) if e.scaler is scaler and e.at.loops), None)
        if step is None or not _at_work(scaler) or any(event.scaler is scaler for event in run.of(read.Updated)):
            continue
        if any(touches(event.values, scaler) for event in run.of(read.Escaped)):
            continue
        node: Any = step.node
        name = step.at.unit.text(node.func.value)
        finding = program.finding(
            ScalerMisused,
            "the scaler is never updated: its factor stays where it began",
            "`scaler.step` is called in the loop, and nothing calls `scaler.update()`",
            at=step,
            help=f"call `{name}.update()` after `{name}.step(…)`",
        )
        steps = [e for e in run.of(read.Stepped) if e.scaler is scaler and e.at.loops == step.at.loops]
        yield Checked(finding, line_after(program, steps[-1], f"{name}.update()", "update the scaler after the step"))


FIRES = {
    "past it": """
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu")
        for i in range(10):
            opt.zero_grad()
            scaler.scale(F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))).backward()
            opt.step()
            scaler.update
    """,
    "beside it": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu")
        for i in range(10):
            opt.zero_grad()
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
            opt.step()
    """,
    "backward without scale": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu")
        for i in range(10):
            opt.zero_grad()
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
            scaled = scaler.scale(loss)
            loss.backward()
            scaler.step(opt)
            scaler.update()
    """,
    "past it, and update without a step": """
        model = nn.Linear(4, 3)
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu")
        for i in range(10):
            opt.zero_grad()
            scaler.scale(F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))).backward()
            opt.step()
            scaler.update()
    """,
    "no update": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu")
        for i in range(10):
            opt.zero_grad()
            scaler.scale(F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))).backward()
            scaler.step(opt)
    """,
}

SILENT = {
    "the whole ritual, two losses and a division": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for i in range(10):
            opt.zero_grad()
            for _ in range(2):
                out = model(torch.randn(8, 4))
                a, b = F.cross_entropy(out, torch.randint(3, (8,))), out.square().mean()
                ((scaler.scale(a) + scaler.scale(0.1 * b)) / 2).backward()
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
    """,
    "disabled": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        for i in range(10):
            opt.zero_grad()
            scaler.scale(F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))).backward()
            opt.step()
    """,
    "unscaled by hand": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for i in range(10):
            opt.zero_grad()
            scaler.scale(F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))).backward()
            for p in model.parameters():
                p.grad /= scaler.get_scale()
            opt.step()
    """,
    "one player scaled, the other not": """
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for i in range(12):
            od.zero_grad()
            fake = G(torch.randn(16, 2))
            (D(fake.detach()).mean() - D(torch.randn(16, 2)).mean()).backward()
            od.step()
            og.zero_grad()
            scaler.scale(-D(fake).mean()).backward()
            scaler.step(og)
            scaler.update()
    """,
}

READ_FIRES = {
    "past it": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler()
            for x, y in loader:
                opt.zero_grad()
                scaler.scale(criterion(model(x), y)).backward()
                opt.step()
    """,
    "never scaled": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler()
            for x, y in loader:
                opt.zero_grad()
                criterion(model(x), y).backward()
                scaler.step(opt)
                scaler.update()
    """,
    "never updated": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler()
            for x, y in loader:
                opt.zero_grad()
                scaler.scale(criterion(model(x), y)).backward()
                scaler.step(opt)
    """,
    "past it, and clipped": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        scaler = torch.amp.GradScaler()
        for x, y in loader:
            opt.zero_grad()
            scaler.scale(nn.functional.cross_entropy(net(x), y)).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            scaler.update()
    """,
    "beside it": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        scaler = torch.amp.GradScaler()
        for x, y in loader:
            opt.zero_grad()
            scaler.scale(nn.functional.cross_entropy(net(x), y)).backward()
            scaler.step(opt)
            scaler.update()
            opt.step()
    """,
}

READ_SILENT = {
    "in order, or without": """
        import torch
        def train(model, loader, criterion, scaler=None, use_amp=False):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                loss = criterion(model(x), y)
                if use_amp:
                    scaler.scale(loss).backward()
                    scaler.step(opt)
                    scaler.update()
                else:
                    loss.backward()
                    opt.step()
    """,
    "asked in two ways": """
        import torch
        def train(model, loader, criterion, scaler, args):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                loss = criterion(model(x), y)
                if scaler is not None:
                    scaler.scale(loss).backward()
                else:
                    loss.backward()
                if args.amp:
                    scaler.step(opt)
                    scaler.update()
                else:
                    opt.step()
    """,
}
