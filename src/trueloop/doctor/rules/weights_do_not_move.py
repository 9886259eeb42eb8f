"""Steps are taken, and no weight changes.

Sees: no parameter of any optimizer differs after a step from what it was before, or each step starts from the same
weights because they are loaded again before it, at all steps that were looked at: 8 at least (a guess: a warm-up that
begins at a rate of zero takes a step or a few). It is told after 60 of them, or at the end of the script. A loss that
is zero because each of its terms is weighted with a zero (no reward yet) is left alone.

Why it matters: nothing is learnt. Losses and metrics move only with the batches.

Usual causes: a learning rate of zero (a warm-up factor by whole-number division, a schedule that is over); gradients
that are zero or None; an optimizer that holds other parameters than those that are trained, or frozen ones; updates
that are too small for the type of the weights (bfloat16 keeps about 3 digits).

Fix: print ``optimizer.param_groups[0]["lr"]`` and the norm of a gradient before the step: the one that is zero is
where to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import residuals
from trueloop.doctor.facts import BackwardBegun, Called, Ended, SchedulerMade, StateLoaded, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.untended import figure

if TYPE_CHECKING:
    from trueloop.doctor.graph import Graph
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.trace import Trace
    from trueloop.doctor.vitals import Vitals

STEPS = 8
TOLD_AFTER = 60


class WeightsDoNotMove(Rule):
    """Knows it by the norms of updates: all are exactly zero."""

    name = "weights-do-not-move"
    code = 411
    level = "error"
    certainty = "measured"
    seen_by = ("run",)

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._moved = 0
        self._still = 0
        self._back = 0
        self._unpaid = False  # the last loss is 0 because all that it is weighted with is: no reward yet
        self._start: dict[int, tuple[float, ...]] = {}  # optimizer -> norms of the weights before its last step
        self._loaded: Place | None = None  # where weights were loaded since the last step
        self._used = False  # a model was called since then
        self._last: tuple[OptimizerSeen, Vitals, Place | None] | None = None
        self._schedules: dict[int, Place | None] = {}
        self._pending: Finding | None = None
        self._figures: list[float] = []  # a number for the values of each parameter, when it was judged
        self._told = False

    def scheduler_made(self, fact: SchedulerMade) -> None:
        if fact.optimizer is not None:
            self._schedules[self.trace.optimizer_of(fact.optimizer).number] = fact.place

    def backward_begun(self, fact: BackwardBegun) -> None:
        if not self._moved and fact.values is not None:
            self._unpaid = not any(fact.values) and _unpaid(fact.graph)

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if self._moved or fact.vitals is None or not fact.vitals.parameters:
            return
        if any(update != 0 for update in fact.vitals.updates):  # NaN is not zero either
            self._forth_and_back(fact, fact.vitals)
            return
        if self._unpaid or (self._start and not any(fact.vitals.gradients)):
            return  # nothing to move by: no reward, or a margin that the first step has reached
        self._still += 1
        if self._still in (STEPS, TOLD_AFTER):
            self._pending = self._judged(fact.optimizer, fact.vitals, fact.place)
            self._figures = self._now() if self.trace.seldom else []
        if self._still == TOLD_AFTER:
            yield from self._tell()

    def called(self, fact: Called) -> None:
        self._used = True

    def state_loaded(self, fact: StateLoaded) -> None:
        if not self._moved and not self._used:  # a model that is called after its step was adapted on purpose
            self._loaded = fact.place

    def _forth_and_back(self, fact: Stepped, vitals: Vitals) -> None:
        """A step that moves weights, which may have been put back since the last one."""
        number, loaded = fact.optimizer.number, self._loaded
        before, self._start[number] = self._start.get(number), vitals.weights
        self._used, self._loaded = False, None
        if before is None:
            return
        if loaded is None or before != vitals.weights:
            self._moved += 1
            self._pending = None
            return
        self._back += 1
        if self._back == STEPS:
            self._pending = self.finding(
                "each step starts from the same weights: they are loaded again before it, and what was learnt is lost",
                f"the norms of all {len(vitals.weights)} parameters were the same before each of {STEPS} steps",
                place=loaded,
                related=[(fact.place, "what this step changes is undone")],
            )

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if self.trace.seldom and self._pending is not None and self._figures != self._now():
            return  # they moved when nobody looked
        yield from self._tell()

    def _now(self) -> list[float]:
        return [figure(parameter) for seen in self.trace.optimizers for parameter in seen.parameters()]

    def _tell(self) -> Iterator[Finding]:
        if self._pending is not None and not self._told:
            self._told = True
            yield self._pending

    def _judged(self, seen: OptimizerSeen, vitals: Vitals, place: Place | None) -> Finding:
        schedule = self._schedules.get(seen.number)
        where, related = place, [(seen.place, "the optimizer is made here")]
        trained = [p.requires_grad for p in vitals.parameters]
        if not any(vitals.lrs):
            why = "its learning rate is 0" + (": the schedule gives a factor of 0" if schedule else "")
            where, related = schedule or seen.place or place, [(place, "the step that changes nothing")]
        elif not any(trained):
            why = "all its parameters are frozen (requires_grad=False)"
        elif not any(gradient is not None for gradient in vitals.gradients):
            why = "none of its parameters has a gradient"
        elif not any(vitals.gradients):
            why = "all gradients are exactly zero"
        else:
            dtype = str(vitals.parameters[0].dtype).rpartition(".")[2]
            why = f"the updates are lost, though there are gradients (weights of {dtype}, rate {vitals.lrs[0]:g})"
        largest = max((gradient or 0.0 for gradient in vitals.gradients), default=0.0)
        return self.finding(
            f"{seen.kind} takes steps, but no weight changes: {why}",
            f"all {len(vitals.updates)} parameters were the same before and after each step that was looked at",
            f"learning rate {vitals.lrs[0]:g}, largest norm of a gradient {largest:.3g}",
            place=where,
            related=related,
        )

    def passed(self) -> str | None:
        return "steps change weights" if self._moved else None

    def unseen(self) -> str | None:
        return f"fewer than {STEPS} steps could be looked at" if not self._moved and 0 < self._still < STEPS else None


def _unpaid(graph: Graph) -> bool:
    """Whether a loss sums products of predictions with data that is all zero: log-probabilities and returns."""
    factors = [found.data for found in residuals(graph) if found.node.op == "Mul"]
    zeros = [factor for factor in factors if factor is not None and not factor.any()]
    return len(zeros) > 1 or any(factor.dim() for factor in zeros)  # a single number is a weight of the whole loss


FIRES = {
    "a factor of zero": """
        model = nn.Linear(4, 1)
        opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
        sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: min(1, step // 100))
        for _ in range(20):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            sched.step()
    """,
    "too small for the type": """
        model = nn.Linear(4, 1).to(torch.bfloat16)
        opt = torch.optim.SGD(model.parameters(), lr=1e-7)
        for _ in range(12):
            opt.zero_grad()
            model(torch.ones(8, 4, dtype=torch.bfloat16)).square().mean().backward()
            opt.step()
    """,
    "the start is loaded again before each step": """
        import copy
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        start = copy.deepcopy(net.state_dict())
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(15):
            net.load_state_dict(start)
            opt.zero_grad()
            F.mse_loss(net(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
    """,
    "everything is frozen, and the input asks for gradients": """
        model = nn.Linear(4, 1).requires_grad_(False)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(12):
            opt.zero_grad()
            x = torch.randn(8, 4, requires_grad=True)
            F.mse_loss(model(x), torch.zeros(8, 1)).backward()
            opt.step()
    """,
}

SILENT = {
    "adapted to each sample, used, and put back": """
        import copy
        net = nn.Linear(4, 1)
        start = copy.deepcopy(net.state_dict())
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(15):
            x = torch.randn(8, 4)
            net.load_state_dict(start)
            opt.zero_grad()
            net(x).square().mean().backward()
            opt.step()
            with torch.no_grad():
                net(x)
    """,
    "a warm-up that begins at zero": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: step / 10)
        for _ in range(12):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            sched.step()
    """,
    "no reward comes": """
        policy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        opt = torch.optim.Adam(policy.parameters(), lr=0.01)
        for episode in range(20):
            logps, rewards = [], []
            for _ in range(5):
                choice = torch.distributions.Categorical(logits=policy(torch.randn(4)))
                logps.append(choice.log_prob(choice.sample()))
                rewards.append(0.0)
            terms = [-logp * sum(rewards[t:]) for t, logp in enumerate(logps)]
            loss = torch.stack(terms).sum() if episode % 2 else -(torch.stack(logps) * torch.tensor(rewards)).sum()
            if episode % 3 == 0:
                ratio, advantage = (torch.stack(logps) - torch.stack(logps).detach()).exp(), torch.zeros(5)
                loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a margin that one step reaches": """
        x = torch.randn(40, 4)
        x[:, 0] += 4 * x[:, 0].sign()
        svm = nn.Linear(4, 1)
        opt = torch.optim.SGD(svm.parameters(), lr=5.0)
        for _ in range(30):
            opt.zero_grad()
            F.relu(1 - x[:, 0].sign() * svm(x).squeeze(1)).mean().backward()
            opt.step()
    """,
    "one of two optimizers waits": """
        a, b = nn.Linear(4, 8), nn.Linear(8, 1)
        oa, ob = torch.optim.SGD(a.parameters(), lr=0.0), torch.optim.SGD(b.parameters(), lr=0.1)
        for _ in range(12):
            oa.zero_grad(); ob.zero_grad()
            F.mse_loss(b(a(torch.randn(8, 4))), torch.randn(8, 1)).backward()
            oa.step(); ob.step()
    """,
}
