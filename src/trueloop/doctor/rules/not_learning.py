"""It does not learn: after many steps over the same data the loss is still that of a model that ignores its input.

Sees: over the second half of at least 60 steps the training loss is that of the best constant answer (for classes:
the entropy of their shares; for numbers: their variance), within 3 % below and 10 % above, and does not fall any
more, though the weights move and the samples come back again. Losses with weights or smoothing, several losses in
one, and data that is new at each step (noise, augmentation, a benchmark on random numbers) are not judged; nor are
GANs and the like.

Why it matters: what is trained does not depend on the input; more steps will not help.

Usual causes: inputs and targets that do not belong together; gradients that vanish; dead units; a rate far too low or
too high; features that hold nothing of the target.

Fix: look at what else was found first. Then try to overfit one batch: a model that cannot is broken; one that can has
data it cannot learn from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trueloop.doctor.course import is_plain, middle, noise
from trueloop.doctor.facts import BackwardBegun, Ended, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.seen import ModelSeen
    from trueloop.doctor.trace import Trace

STEPS = 60
LOOKS = 12  # calls of a loss whose way to backward is followed
DEEPEST = 20  # operations between the two
KEPT = 2000
BELOW, ABOVE = 0.97, 1.1
BELOW_NUMBERS = 0.985  # a regression may rightly explain little
KNOWN = 0.5  # the share of a batch's samples that were trained on before
PLAIN: dict[str, dict[str, object]] = {
    "cross_entropy": {"weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0},
    "binary_cross_entropy": {"weight": None, "reduction": "mean"},
    "binary_cross_entropy_with_logits": {"weight": None, "reduction": "mean", "pos_weight": None},
    "mse_loss": {"reduction": "mean", "weight": None},
}
"""The losses whose uninformed value is known, with the options they must have."""


@dataclass(eq=False)
class _Targets:
    """One loss of one model: its values, and what the targets were like."""

    kind: str
    model: ModelSeen
    place: Place | None
    values: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    """Of classes; or 0: how many, 1: their sum, 2: the sum of their squares."""
    sums: Tensor | None = None
    squares: Tensor | None = None
    many: int = 0
    sole: bool = True
    """It is all that is backpropagated, not one term of a sum."""

    def uninformed(self) -> float:
        """The loss of the best constant answer."""
        if self.kind == "cross_entropy":
            total = sum(self.counts)
            return -sum(n / total * math.log(n / total) for n in self.counts if n)
        assert self.sums is not None
        assert self.squares is not None
        mean = self.sums / self.many
        if self.kind == "mse_loss":
            return float((self.squares / self.many - mean.square()).mean())
        mean = mean.clamp(1e-6, 1 - 1e-6)
        return float(-(mean * mean.log() + (1 - mean) * (1 - mean).log()).mean())


class NotLearning(Rule):
    """Compares the training losses with what the targets alone would give."""

    name = "not-learning"
    code = 407
    level = "error"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._losses: dict[tuple[Place | None, int], _Targets] = {}
        self._called: dict[
            int, _Targets
        ] = {}  # the operation's number in its graph -> the loss that it made, until the next backward
        self._below = 0

    def loss_called(self, fact: LossCalled) -> None:
        if fact.output is None or fact.of is None or not fact.output.requires_grad:
            return
        options = PLAIN.get(fact.kind)
        if options is None or fact.output.dim() or fact.target.requires_grad:
            return
        if not all(map(readable, (fact.output, fact.input, fact.target))):
            return
        for name, value in options.items():
            given = fact.options.get(name, value)
            if given is not value and given != value:
                return
        key = fact.place, fact.of.model.number
        known = self._losses.get(key)
        if known is None:
            known = self._losses[key] = _Targets(fact.kind, fact.of.model, fact.place)
        if len(known.values) < KEPT and _add(known, fact.input, fact.target):
            known.values.append(float(fact.output))
            if len(known.values) <= LOOKS and fact.output.grad_fn is not None:
                self._called[fact.output.grad_fn._sequence_nr()] = known

    def backward_begun(self, fact: BackwardBegun) -> None:
        called, self._called = self._called, {}
        for root in fact.graph.roots if called else ():
            found = _sole(root, called)
            for known in called.values():
                known.sole = known.sole and known is found

    def ended(self, fact: Ended) -> Iterator[Finding]:
        trained = [seen for seen in self.trace.optimizers if seen.steps >= STEPS]
        if not trained or not all(is_plain(self.trace, seen) for seen in trained):
            return
        if not any(middle([row.update for row in seen.course.rows]) > 0 for seen in trained):
            return
        many: dict[int, int] = {}
        for known in self._losses.values():
            many[known.model.number] = many.get(known.model.number, 0) + (len(known.values) >= STEPS // 2)
        for known in self._losses.values():
            if (
                many[known.model.number] == 1
                and known.sole
                and len(known.values) >= STEPS
                and known.model.novelty < KNOWN
            ):
                yield from self._judge(known)

    def _judge(self, known: _Targets) -> Iterator[Finding]:
        values = known.values[len(known.values) // 2 :]
        level, uninformed = sum(values) / len(values), known.uninformed()
        if not all(map(math.isfinite, values)) or not uninformed > 1e-6:
            return
        below = BELOW_NUMBERS if known.kind == "mse_loss" else BELOW
        quarter = len(values) // 4
        fell = sum(values[:quarter]) / quarter - sum(values[-quarter:]) / quarter
        still = max(0.003 * level, 2 * noise(values) * math.sqrt(2 / quarter))
        if not below * uninformed <= level <= ABOVE * uninformed or fell > still:
            self._below += 1
            return
        causes = sorted({finding.name for finding in self.trace.findings if finding.level != "note"} - {self.name})
        what = {"cross_entropy": "the entropy of the classes' shares", "mse_loss": "the variance of the targets"}.get(
            known.kind, "the entropy of the labels' shares"
        )
        yield self.finding(
            f"it does not learn: after {len(known.values)} steps the loss is {level:.4g}, and a model that ignores its "
            f"input has {uninformed:.4g}",
            f"{uninformed:.4g} is {what}",
            f"in the second half the loss went from {sum(values[:quarter]) / quarter:.4g} to "
            f"{sum(values[-quarter:]) / quarter:.4g}",
            f"what else was found and may be the cause: {', '.join(causes)}"
            if causes
            else "nothing else was found that explains it",
            place=known.place,
        )

    def passed(self) -> str | None:
        return "the training loss is better than that of a model that ignores its input" if self._below else None

    def unseen(self) -> str | None:
        return None if self._losses else "no loss of torch's whose uninformed value is known was called in training"


def _sole(root: Any, called: dict[int, _Targets]) -> _Targets | None:
    """The loss that a backward begins at, through whatever it is divided by; None where it is a sum of several."""
    for _ in range(DEEPEST):
        if root is None or root._sequence_nr() in called:
            return None if root is None else called[root._sequence_nr()]
        below = [node for node, _ in root.next_functions if node is not None]
        root = below[0] if len(below) == 1 else None
    return None


def _add(known: _Targets, given: Tensor, target: Tensor) -> bool:
    """Counts the targets; False where they are not of the kind that the loss is known for."""
    import torch

    if known.kind == "cross_entropy":
        if target.is_floating_point() or target.dim() < 1 or given.dim() < 2 or given.shape[1] < 2:
            return False
        classes = given.shape[1]
        counts = torch.bincount(target.flatten().clamp(min=0), minlength=classes).tolist()
        known.counts = [a + b for a, b in zip(known.counts or [0.0] * len(counts), counts, strict=False)]
        return True
    if not target.is_floating_point() or given.shape != target.shape:
        return False
    values = target.double()
    values = values[:, None] if values.dim() == 1 else values
    sums, squares = values.sum(0), values.square().sum(0)
    if known.sums is not None and known.squares is not None:
        if known.sums.shape != sums.shape:
            return False
        sums, squares = known.sums + sums, known.squares + squares
    known.sums, known.squares, known.many = sums, squares, known.many + len(values)
    return True


FIRES = {
    "targets shuffled apart from their inputs": """
        x = torch.randn(256, 4)
        y = (x[:, 0] > 0).long()[torch.randperm(256)]
        model = nn.Linear(4, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
        for _ in range(15):
            for a, b in loader:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
    """,
    "the gradient does not come through": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.ModuleList(nn.Linear(16, 16) for _ in range(14))
                self.out = nn.Linear(16, 1)
            def forward(self, x):
                for layer in self.inner:
                    x = torch.sigmoid(layer(x))
                return self.out(x).squeeze(1)
        x = torch.randn(240, 16)
        y = (x[:, 0] > 0).float()
        net = Net()
        criterion = nn.BCEWithLogitsLoss()
        opt = torch.optim.SGD(net.parameters(), lr=0.05)
        for epoch in range(15):
            for index in torch.randperm(240).split(40):
                loss = criterion(net(x[index]), y[index])
                opt.zero_grad()
                loss.backward()
                opt.step()
    """,
}

SILENT = {
    "a critic's loss beside the actor's": """
        net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 5))
        opt = torch.optim.Adam(net.parameters(), lr=1e-2)
        states = torch.randn(64, 6)
        best = (states[:, :4] * torch.randn(6, 4)[:4].diagonal()).argmax(1)
        for it in range(120):
            out = net(states)
            policy = torch.distributions.Categorical(logits=out[:, :4])
            action = policy.sample()
            reward = (action == best).float() + torch.randn(64)
            advantage = reward - out[:, 4].detach()
            loss = -(policy.log_prob(action) * advantage).mean() + 0.5 * F.mse_loss(out[:, 4], reward)
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "it learns": """
        x = torch.randn(256, 8)
        y = (x[:, 0] + x[:, 1] > 0).long()
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(12):
            for index in torch.randperm(256).split(32):
                opt.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                opt.step()
        with torch.no_grad():
            print(F.cross_entropy(model(torch.randn(64, 8)), torch.zeros(64, dtype=torch.long)))
    """,
    "a benchmark on random numbers": """
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 10))
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(100):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(64, 8)), torch.randint(0, 10, (64,))).backward()
            opt.step()
    """,
}
