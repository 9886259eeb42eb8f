"""Gradients are clipped at a moment when it has no effect on the step, or the wrong one.

Sees: ``clip_grad_norm_`` or ``clip_grad_value_`` is called when no backward has reached the parameters since the last
step (before backward, or after the step), and the step then uses gradients that were not clipped after their last
backward, three times in a row (a guess). Or the loss was scaled by a GradScaler and the gradients are clipped before
``scaler.unscale_``, twice in a row. A limit above 1e6 only measures the norm and does not count.

Why it matters: the step goes unclipped while the code says otherwise; clipped before ``unscale_``, gradients that are
larger by the scale (65536 at first) are cut down to almost nothing.

Usual causes: the clip stands before ``backward`` or after ``step``; ``scaler.unscale_(optimizer)`` is missing.

Fix: clip between ``backward`` and ``step``; with a GradScaler, after ``scaler.unscale_(optimizer)``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import (
    BackwardBegun,
    Clipped,
    Ended,
    OptimizerMade,
    Paused,
    Scaled,
    ScalerStepped,
    Stepping,
    Unscaled,
)
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import raised_at
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.mending import line_before, moved_after, moved_before
from trueloop.doctor.source.naming import is_seen
from trueloop.doctor.source.provenance import feeds, held, weights
from trueloop.doctor.source.ways import Run, paths
from trueloop.doctor.untouched import is_zero

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 3
SCALED_STEPS = 2
LOOSE = 1e6  # a limit that clips nothing: the call only measures
OF_SCALE = 0.01  # a limit above this share of the scale was multiplied by it, and is meant for scaled gradients


@dataclass
class Order:
    """What was clipped since the last step of one optimizer, and how often it was out of order."""

    idle: Clipped | None = None
    """A clip before any backward of this step."""
    idle_found: str = ""
    last: int = -1
    """The backward after which it was last clipped."""
    last_place: Place | None = None
    idle_steps: int = 0
    unscaled: bool = False
    scaled: tuple[Place | None, float, float] | None = None
    """A clip of scaled gradients: where, the limit, the norm it saw."""
    scaled_steps: int = 0


class ClipOutOfOrder(Rule):
    """Follows backward, clip and step of each optimizer."""

    name = "clip-out-of-order"
    code = 108
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._orders: dict[int, Order] = {}
        self._owners: dict[int, list[OptimizerSeen]] = {}  # id of a parameter -> the optimizers that hold it
        self._right: set[Place | None] = set()  # lines that clip in order, for some optimizer
        self._scaler: weakref.ref[Any] | None = None
        self._scaled_backward = -1
        self._in_order = 0

    def optimizer_made(self, fact: OptimizerMade) -> None:
        self._owners.clear()

    def scaled(self, fact: Scaled) -> None:
        if self._scaler is None or self._scaler() is not fact.scaler:
            self._scaler = weakref.ref(fact.scaler)

    def backward_begun(self, fact: BackwardBegun) -> None:
        if fact.scaled:
            self._scaled_backward = fact.number

    def unscaled(self, fact: Unscaled) -> None:
        order = self._orders.get(self.trace.optimizer_of(fact.optimizer).number)
        if order is not None:
            order.unscaled = True

    def clipped(self, fact: Clipped) -> None:
        if not fact.parameters or fact.limit > LOOSE:
            return
        for seen in self._holders(fact.parameters[0]):
            order = self._orders.setdefault(seen.number, Order())
            if not seen.accumulated:
                if order.idle is None:
                    order.idle, order.idle_found = fact._replace(parameters=(), norm=None), _found(fact)
                continue
            order.last, order.last_place = seen.accumulated[-1].backward, fact.place
            if order.last == self._scaled_backward and not order.unscaled:
                scale = self._scale()
                if scale > 1 and fact.limit < OF_SCALE * scale:
                    order.scaled = fact.place, fact.limit, float("nan") if fact.norm is None else float(fact.norm)

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        order = self._orders.get(fact.optimizer.number)
        if order is None or fact.has_closure or not fact.accumulated:
            return
        idle, last, scaled = order.idle, order.last, order.scaled
        order.idle, order.last, order.scaled, order.unscaled = None, -1, None, False
        if last == fact.accumulated[-1].backward:
            self._right.add(order.last_place)
            self._in_order += 1
            order.idle_steps = 0
        elif idle is not None:
            order.idle_steps += 1
            if order.idle_steps >= STEPS and idle.place not in self._right and order.idle_steps < 2 * STEPS:
                yield self._of_idle(fact, idle, order.idle_found)
        order.scaled_steps = order.scaled_steps + 1 if scaled and fact.by_scaler else 0
        if scaled and order.scaled_steps == SCALED_STEPS:
            yield self._of_scaled(fact, scaled)

    def scaler_stepped(self, fact: ScalerStepped) -> None:
        order = self._orders.get(self.trace.optimizer_of(fact.optimizer).number)
        if order is not None:
            order.scaled, order.unscaled = None, False

    def ended(self, fact: Ended) -> Iterator[Finding]:
        raised = isinstance(fact.error, RuntimeError) and "empty" in str(fact.error)
        none_yet = not any(seen.accumulated for seen in self.trace.optimizers)
        if fact.error is not None and raised and none_yet and _raised_in(fact.error, "clip_grad_value_"):
            yield self.finding(
                "gradients are clipped before backward has made any: torch stops the script",
                f"clip_grad_value_ found no gradients and raised: {str(fact.error).splitlines()[0]}",
                place=raised_at(fact.error),
            )

    def paused(self, fact: Paused) -> None:
        self._orders.clear()

    def passed(self) -> str | None:
        return f"{self._in_order} steps were clipped between backward and step" if self._in_order else None

    def _holders(self, parameter: Tensor) -> list[OptimizerSeen]:
        known = self._owners.get(id(parameter))
        if known is None:
            known = [seen for seen in self.trace.optimizers if any(p is parameter for p in seen.parameters())]
            self._owners[id(parameter)] = known
        return known

    def _scale(self) -> float:
        scaler = None if self._scaler is None else self._scaler()
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _of_idle(self, fact: Stepping, idle: Clipped, found: str) -> Finding:
        last = fact.accumulated[-1].place
        after = found.startswith("gradients that")
        return self.finding(
            f"gradients are clipped {'after the step' if after else 'before backward'}: "
            f"{fact.optimizer.kind} steps on unclipped ones",
            f"in {STEPS} steps in a row, clip_grad_{idle.kind}_(…, {idle.limit:g}) found {found}, "
            "and nothing was clipped between the last backward and the step",
            place=idle.place,
            related=[(last, "the backward that makes the gradients"), (fact.place, "the step that uses them")],
        )

    def _of_scaled(self, fact: Stepping, scaled: tuple[Place | None, float, float]) -> Finding:
        place, limit, norm = scaled
        return self.finding(
            f"gradients are clipped to {limit:g} while they are still multiplied by the GradScaler's scale",
            f"the loss was scaled by {self._scale():g} and unscale_ had not been called: the norm seen was {norm:.4g}",
            place=place,
            related=[(fact.accumulated[-1].place, "the scaled backward"), (fact.place, "the step")],
            help="Call scaler.unscale_(optimizer) before clipping.",
        )


def _raised_in(error: BaseException, function: str) -> bool:
    trail = error.__traceback__
    while trail is not None:
        if trail.tb_frame.f_code.co_name == function:
            return True
        trail = trail.tb_next
    return False


def _found(fact: Clipped) -> str:
    if all(p.grad is None for p in fact.parameters):
        return "no gradients"
    if all(is_zero(p.grad) for p in fact.parameters):
        return "only zeros"
    return "gradients that a step had used already"


def in_source(program: Program) -> Iterator[Checked]:
    """On every way and in every turn, a clip finds no fresh gradients, or scaled ones that a scaler is to step with."""
    for run in program.runs:
        verdicts: dict[int, list[tuple[str, read.Clipped, read.Event | None]]] = {}
        for way in paths(run, read.Backward, read.Unscaled, read.Clipped, read.Stepped, read.Zeroed, read.Escaped):
            for word, clip, other in _judged(way):
                verdicts.setdefault(id(clip.node), []).append((word, clip, other))
        for those in verdicts.values():
            words = {word for word, _, _ in those}
            word, clip, other = those[0]
            if "right" in words or len(words) > 1 or not _has_backward(run, clip):
                continue
            if not clip.at.loops and (run.entry is None or not any(run.of(read.Stepped))):
                continue  # of a function that nothing here calls, the loop may stand elsewhere
            message, evidence, help = _TOLD[word]
            fix = None
            if word == "after" and isinstance(other, read.Stepped):
                fix = moved_before(program, clip, other, "clip before the step")
            elif word == "before" and isinstance(other, read.Backward):
                fix = moved_after(program, clip, other, "clip after backward")
            elif word == "scaled" and isinstance(other, read.Stepped):
                scaler, name = _names(other)
                seen = all(is_seen(program.unit, one, other.node, clip.node) for one in (scaler, name))
                text = f"{scaler}.unscale_({name})"
                fix = line_before(program, clip, text, "unscale before clipping") if seen else None
            related = [(other, _OTHER[word])] if other is not None else []
            finding = program.finding(ClipOutOfOrder, message, evidence, at=clip, related=related, help=help)
            yield Checked(finding, fix)


_TOLD = {
    "before": (
        "gradients are clipped before backward makes them",
        "in every turn the clip comes before backward, with nothing of this step to clip",
        "clip between backward and the step",
    ),
    "after": (
        "gradients are clipped after the step that uses them",
        "in every turn the clip comes after the step, which has used the gradients as they were",
        "clip between backward and the step",
    ),
    "scaled": (
        "scaled gradients are clipped: they are large by the scaler's factor",
        "backward ran on the scaled loss, and `unscale_` does not come before the clip",
        "call `scaler.unscale_(optimizer)` before clipping",
    ),
}
_OTHER = {"before": "the backward", "after": "the step", "scaled": "the step, through the scaler"}


def _names(step: read.Stepped) -> tuple[str, str]:
    call: Any = step.node
    unit = step.at.unit
    return unit.text(call.func.value), unit.text(call.args[0].value)


def _judged(way: list[read.Event]) -> Iterator[tuple[str, read.Clipped, read.Event | None]]:
    trained = [event.loss for event in way if isinstance(event, read.Backward)]
    for number, clip in enumerate(way):
        if not isinstance(clip, read.Clipped):
            continue
        before, after = way[:number], way[number + 1 :]
        last = next((one for one in reversed(before) if not _aside(one, trained)), None)
        if isinstance(last, read.Escaped):
            yield "right", clip, None  # it may have run a backward
        elif isinstance(last, read.Backward):
            scaled = last.scaled and not any(isinstance(one, read.Unscaled) for one in before[before.index(last) :])
            step = next((one for one in after if isinstance(one, (read.Stepped, read.Zeroed))), None)
            scaled = scaled and isinstance(clip.limit, values.Constant)  # else it may be in scaled units
            if scaled and isinstance(step, read.Stepped) and step.scaler is not None and not _disabled(step.scaler):
                yield "scaled", clip, step
            else:
                yield "right", clip, None
        elif isinstance(last, read.Stepped) and last.at.loops == clip.at.loops:
            yield "after", clip, last
        else:
            following = next(
                (one for one in after if isinstance(one, read.Backward) and one.at.loops == clip.at.loops), None
            )
            yield ("before", clip, following) if following is not None else ("right", clip, None)


def _aside(event: read.Event, losses: list[values.Value]) -> bool:
    """What is neither a backward nor the end of its use. An unknown function may be one, unless it makes a loss."""
    if isinstance(event, read.Escaped):
        return any(feeds(event.result, loss) for loss in losses)
    return isinstance(event, (read.Clipped, read.Unscaled))


def _disabled(scaler: values.Value) -> bool:
    enabled = scaler.option("enabled") if isinstance(scaler, values.Object) else None
    return enabled is not None and values.constant(enabled) is not True


def _has_backward(run: Run, clip: read.Clipped) -> bool:
    """Whether some backward of the run fills what is clipped, as far as that is known."""
    own, more = held(clip.target)
    for event in run.of(read.Backward):
        reached, others = weights(event.loss)
        if own & reached or more or others:
            return True
    return False


FIRES = {
    "before backward": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            opt.zero_grad()
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
            torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)
            loss.backward()
            opt.step()
    """,
    "before backward, the gradients are zeros": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            opt.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            loss.backward()
            opt.step()
    """,
    "after the step, zeroed at the end": """
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)

        def update(loss):
            loss.backward()
            opt.step()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            opt.zero_grad()

        for i in range(12):
            x = torch.randn(8, 4)
            update(F.smooth_l1_loss(model(x), x.sum(1, keepdim=True)))
    """,
    "before each backward of a window": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(24):
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))) / 2
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            loss.backward()
            if i % 2:
                opt.step()
                opt.zero_grad()
    """,
    "scaled": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for i in range(12):
            opt.zero_grad()
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
            scaler.scale(loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
    """,
}

SILENT = {
    "in order": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            (F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))) / 3).backward()
            if i % 3 == 2:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                opt.step()
                opt.zero_grad()
    """,
    "a norm is only measured after the step": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(12):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            opt.step()
            norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    """,
    "two players, one helper": """
        actor, critic = nn.Linear(4, 2), nn.Linear(4, 1)
        oa, oc = torch.optim.Adam(actor.parameters(), 1e-3), torch.optim.Adam(critic.parameters(), 1e-3)

        def apply(net, opt, loss):
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            opt.step()

        for i in range(20):
            s = torch.randn(16, 4)
            r = s.sum(1, keepdim=True)
            value = critic(s)
            apply(critic, oc, F.mse_loss(value, r))
            d = torch.distributions.Categorical(logits=actor(s))
            a = d.sample()
            apply(actor, oa, -(d.log_prob(a) * (r - value.detach())[:, 0]).mean())
    """,
    "unscaled first, or limited in scaled units": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for i in range(12):
            opt.zero_grad()
            loss = F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,)))
            scaler.scale(loss).backward()
            if i % 2:
                scaler.unscale_(opt)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            else:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0 * scaler.get_scale())
            scaler.step(opt)
            scaler.update()
    """,
}

READ_FIRES = {
    "after the step, in a method that others call": """
        import torch
        class Learner:
            def __init__(self, net):
                self.net = net
                self.opt = torch.optim.Adam(net.parameters())
            def learn(self, x, y):
                loss = torch.nn.functional.mse_loss(self.net(x), y)
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
    """,
    "before backward": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                loss = criterion(model(x), y)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                loss.backward()
                opt.step()
    """,
    "after the step": """
        import torch
        from torch.nn.utils import clip_grad_value_ as clip
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                criterion(model(x), y).backward()
                opt.step()
                clip(model.parameters(), 1.0)
    """,
    "while scaled": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.cuda.amp.GradScaler()
            for x, y in loader:
                opt.zero_grad()
                scaler.scale(criterion(model(x), y)).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(opt)
                scaler.update()
    """,
    "after the step, if it is asked for": """
        import torch
        class Trainer:
            def __init__(self, model, args):
                self.model, self.args = model, args
                self.opt = torch.optim.SGD(model.parameters(), lr=0.1)
            def fit(self, loader, criterion):
                for x, y in loader:
                    self.opt.zero_grad()
                    criterion(self.model(x), y).backward()
                    self.opt.step()
                    if self.args.clip:
                        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
    """,
    "after a step that comes every fourth time": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for i, (x, y) in enumerate(loader):
                (criterion(model(x), y) / 4).backward()
                if i % 4 == 3:
                    opt.step()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    opt.zero_grad()
    """,
}

READ_SILENT = {
    "in order": """
        import torch
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.cuda.amp.GradScaler()
            for i, (x, y) in enumerate(loader):
                scaler.scale(criterion(model(x), y)).backward()
                if i % 4 == 3:
                    scaler.unscale_(opt)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    scaler.step(opt)
                    scaler.update()
                    opt.zero_grad()
    """,
    "a helper runs backward": """
        import torch
        from engine import backward
        def train(model, loader, criterion):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                backward(criterion(model(x), y))
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                opt.step()
    """,
}
