"""The targets say nothing: one class only, one number only.

Sees: over the whole run every target of a classification loss is the same class (the loss's input being the model's
own output, or the target a loader's), or every target of a regression loss that a loader gives is the same number;
a fifth of the model's classes, and two at least, never come (of up to 50). As notes: fewer classes that never come,
and nine in ten targets of one class without weights.

Why it matters: the loss falls to 0 by the bias alone, accuracy is 1, and the model has learnt nothing from its
inputs.

Usual causes: a filter or a comparison that leaves one class (a wrong number or name, a changed encoding); labels
that were cut off with a sorted file; a column taken for the target that is constant.

Fix: count the labels of each split before training, and mend the line that makes them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trueloop.doctor.endings import class_dimension
from trueloop.doctor.facts import Called, Ended, Fetched, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends, readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in
from trueloop.doctor.seen import ModelSeen

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.trace import Trace

CLASSIFYING = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")
REGRESSING = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
CALLS, TARGETS = 4, 60  # so many calls, and targets in them, are seen before anything is said; a guess
MOST = 50  # classes up to which one that never comes is worth a note; a vocabulary always has some
OFTEN = 20  # targets a class on average, before one that never came is missed
COUNTED = 100  # calls in which targets are counted by class
MISSED = (
    0.2  # of the classes, and two at least, never come: then it is a warning; special tokens and rare ones are fewer
)
HEAVY = 0.9  # of the targets in one class


@dataclass
class _Targets:
    """All targets of one kind of loss."""

    place: Place | None
    calls: int = 0
    count: int = 0
    given: int = 0
    """Calls whose target came from a loader, or whose input was the model's own output."""
    low: float = float("inf")
    high: float = float("-inf")
    classes: int = 0
    weighted: bool = False
    single: bool = True
    """One target a sample, not one a token or pixel."""
    shares: dict[int, int] = field(default_factory=dict)
    model: ModelSeen | None = None


class DegenerateTargets(Rule):
    """Gathers what targets there are, and judges at the end."""

    name = "degenerate-targets"
    code = 310
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._kinds: dict[str, _Targets] = {}
        self._batch: set[int] = set()
        self._output: weakref.ref[Tensor] | None = None

    def fetched(self, fact: Fetched) -> None:
        self._batch = {id(tensor) for tensor in tensors_in(fact.batch)}

    def called(self, fact: Called) -> None:
        import torch

        self._output = weakref.ref(fact.output) if isinstance(fact.output, torch.Tensor) else None

    def loss_called(self, fact: LossCalled) -> None:
        classifying = fact.kind in CLASSIFYING
        if fact.error is not None or not fact.input.requires_grad or fact.target.requires_grad:
            return
        if not (classifying or fact.kind in REGRESSING) or not readable(fact.target):
            return
        if classifying and fact.target.is_floating_point() and fact.kind == "cross_entropy":
            return  # probabilities as targets
        # A GAN's loss has ones on one line and zeros on another: what counts is all that a kind of loss is given.
        seen = self._kinds.setdefault(fact.kind, _Targets(fact.place))
        between = ends(fact.target)
        if between is None:
            return
        seen.calls += 1
        seen.count += fact.target.numel()
        seen.given += id(fact.target) in self._batch or (classifying and self._is_output(fact.input))
        seen.low, seen.high = min(seen.low, between[0]), max(seen.high, between[1])
        seen.model = fact.of.model if fact.of is not None else seen.model
        if classifying:
            self._count(fact, seen)

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for kind, seen in self._kinds.items():
            if seen.calls < CALLS or seen.count < TARGETS or seen.given < seen.calls or not self._trained(seen):
                continue
            of = f"{seen.count} targets in {seen.calls} calls of {kind}"
            if seen.low == seen.high:
                what = "class" if kind in CLASSIFYING else "number"
                yield self.finding(
                    f"every target of {kind} is the same {what}, {seen.low:g}",
                    f"{of}, all of them {seen.low:g}" + (f", for {seen.classes} outputs" if seen.classes > 1 else ""),
                    place=seen.place,
                )
            elif seen.shares and kind in CLASSIFYING:
                yield from self._uneven(kind, seen, of)

    def passed(self) -> str | None:
        judged = [seen for seen in self._kinds.values() if seen.calls >= CALLS and seen.low != seen.high]
        return "targets took several values" if judged else None

    def unseen(self) -> str | None:
        few = [kind for kind, seen in self._kinds.items() if seen.calls < CALLS or seen.count < TARGETS]
        return f"too few targets of {', '.join(few)} were seen to judge them" if few else None

    def _uneven(self, kind: str, seen: _Targets, of: str) -> Iterator[Finding]:
        absent = [number for number in range(seen.classes) if not seen.shares.get(number)]
        common, most = max(seen.shares.items(), key=lambda pair: pair[1])
        total = sum(seen.shares.values())
        if absent and total >= OFTEN * seen.classes:
            shown = ", ".join(map(str, absent[:5])) + (" …" if len(absent) > 5 else "")
            yield self.finding(
                f"the model has {seen.classes} outputs, and class {shown} never came as a target of {kind}",
                of,
                place=seen.place,
                level=None if seen.single and len(absent) >= max(2, MISSED * seen.classes) else "note",
            )
        elif most >= HEAVY * total and not seen.weighted:
            yield self.finding(
                f"{100 * most / total:.0f} % of the targets of {kind} are class {common}, and no weights are given",
                of,
                place=seen.place,
                level="note",
            )

    def _count(self, fact: LossCalled, seen: _Targets) -> None:
        seen.weighted |= fact.options.get("weight") is not None or fact.options.get("pos_weight") is not None
        target = fact.target.detach().flatten()
        if fact.kind.startswith("binary"):
            seen.classes = 2
            ones = int((target > 0.5).sum())
            counts = {0: target.numel() - ones, 1: ones}
        else:
            seen.classes = fact.input.shape[class_dimension(fact.input)]
            seen.single &= fact.target.dim() == 1
            if seen.classes > MOST:
                seen.shares.clear()
                return
            if seen.calls > COUNTED:
                return
            valid = target[(target >= 0) & (target < seen.classes)]
            counts = dict(enumerate(valid.bincount(minlength=seen.classes).tolist()))
        for number, count in counts.items():
            seen.shares[number] = seen.shares.get(number, 0) + count

    def _is_output(self, tensor: Tensor) -> bool:
        """Whether it is what the model returned, or a view of it."""
        output = self._output() if self._output is not None else None
        return output is not None and (
            tensor is output or tensor._base is output or tensor._base is output._base is not None
        )

    def _trained(self, seen: _Targets) -> bool:
        """Whether an optimizer holds what the loss trains: not so where a fixed judge looks at a generator's work."""
        module = None if seen.model is None else seen.model.module
        if module is None:
            return True
        held = {id(parameter) for optimizer in self.trace.optimizers for parameter in optimizer.parameters()}
        return any(id(parameter) in held for parameter in module.parameters())


FIRES = {
    "an empty class": """
        x, kind = torch.randn(200, 4), torch.randint(0, 3, (200,))
        loader = DataLoader(TensorDataset(x, (kind == 3).float()), batch_size=20, shuffle=True)
        model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(2):
            for xb, yb in loader:
                opt.zero_grad()
                F.binary_cross_entropy_with_logits(model(xb), yb).backward()
                opt.step()
    """,
    "the first file of a sorted set": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        labels = torch.arange(300) // 100
        x, y = torch.randn(300, 4)[:100], labels[:100]
        for _ in range(8):
            picked = torch.randint(0, 100, (20,))
            loss = nn.CrossEntropyLoss()(model(x[picked]), y[picked])
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a constant column": """
        loader = DataLoader(TensorDataset(torch.randn(160, 4), torch.full((160, 1), 7.0)), batch_size=16)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
}

SILENT = {
    "positives first, as in momentum contrast": """
        enc = nn.Linear(4, 8)
        bank = torch.randn(32, 8)
        opt = torch.optim.SGD(enc.parameters(), lr=0.1)
        for _ in range(10):
            x = torch.randn(16, 4)
            q, k = enc(x), enc(x + 0.1).detach()
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ bank.t()], 1)
            opt.zero_grad()
            F.cross_entropy(logits, torch.zeros(16, dtype=torch.long)).backward()
            opt.step()
    """,
    "a GAN": """
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for _ in range(10):
            fake = G(torch.randn(16, 2))
            od.zero_grad()
            F.binary_cross_entropy_with_logits(D(torch.randn(16, 2)), torch.ones(16, 1)).backward()
            F.binary_cross_entropy_with_logits(D(fake.detach()), torch.zeros(16, 1)).backward()
            od.step()
            og.zero_grad()
            F.binary_cross_entropy_with_logits(D(fake), torch.ones(16, 1)).backward()
            og.step()
    """,
    "a residual that is to vanish": """
        net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(10):
            t = torch.rand(32, 1, requires_grad=True)
            u = net(t)
            du, = torch.autograd.grad(u.sum(), t, create_graph=True)
            opt.zero_grad()
            (F.mse_loss(du + u, torch.zeros_like(u)) + F.mse_loss(net(torch.zeros(4, 1)), torch.ones(4, 1))).backward()
            opt.step()
    """,
    "a word's neighbours and noise": """
        emb, out = nn.Embedding(20, 8), nn.Embedding(20, 8)
        opt = torch.optim.Adam([*emb.parameters(), *out.parameters()], lr=0.01)
        for _ in range(10):
            a, b, c = torch.randint(0, 20, (3, 16))
            real, noise = (emb(a) * out(b)).sum(1), (emb(a) * out(c)).sum(1)
            loss = F.binary_cross_entropy_with_logits(real, torch.ones(16))
            loss = loss + F.binary_cross_entropy_with_logits(noise, torch.zeros(16))
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}
