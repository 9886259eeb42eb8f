"""Targets that the loss cannot mean: class indices beyond the classes, binary targets beyond 0 and 1.

Sees: class indices below 0 or not below the number of classes, other than ``ignore_index``, also where the loss
raises; binary cross-entropy with targets outside 0 to 1, but for those that are left out by a weight of 0 or a mask;
one-hot rows where indices are meant; margin losses, which want -1 and +1, with 0 and 1; negative counts in a Poisson
loss.

Why it matters: on the CPU torch raises an error for a wrong index; on an accelerator the process dies later, on
another line. Binary cross-entropy raises nothing: with a target of -1 or 2 the loss has no lower end and falls
below zero.

Usual causes: labels that count from 1; a class that the last layer was not made for; labels in {-1, +1} as for an
SVM; targets that were standardised along with the inputs.

Fix: number the classes from 0 and give the last layer as many outputs; bring binary targets to 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import class_dimension
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends, readable
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

INDICES = ("cross_entropy", "nll_loss")
BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
SIGNS = ("soft_margin_loss", "hinge_embedding_loss")
LOOKS = 60  # calls of the loss that are looked at on each line, and every one that raises
NOISY = 0.35  # so far beyond 0 and 1 a GAN's smoothed labels go on purpose (0.7 to 1.2 is usual): a note


class TargetsOutOfRange(Rule):
    """Knows it by the targets' smallest and largest value."""

    name = "targets-out-of-range"
    code = 306
    level = "error"
    certainty = "certain"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._noted: set[Place | None] = set()
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if fact.kind not in (*INDICES, *BINARY, *SIGNS, "poisson_nll_loss"):
            return
        if fact.error is None and self._looks[fact.place] >= LOOKS:
            return
        self._looks[fact.place] += 1
        if fact.target.requires_grad and not fact.input.requires_grad:
            return  # exchanged: another rule's
        if fact.error is not None and fact.target.device.type != "cpu":
            return  # after an assertion on the device nothing can be read there
        between = ends(fact.target)
        if between is None:
            return
        if fact.kind in INDICES:
            yield from self._indices(fact, *between)
        elif fact.kind in BINARY:
            yield from self._binary(fact, *between)
        elif fact.kind in SIGNS:
            if between == (0.0, 1.0):
                yield self._found(fact, f"{fact.kind} wants targets of -1 and +1, and gets 0 and 1", between)
        elif between[0] < 0:
            yield self._found(fact, "poisson_nll_loss wants counts, and gets negative targets", between)
        self._right += 1

    def passed(self) -> str | None:
        return "targets were within what the losses can mean" if self._right else None

    def _indices(self, fact: LossCalled, low: float, high: float) -> Iterator[Finding]:
        target, scores = fact.target, fact.input
        if target.is_floating_point() or not scores.is_floating_point() or scores.dim() == 0:
            return
        classes = scores.shape[class_dimension(scores)]
        if target.shape == scores.shape:
            if fact.error is not None and (low, high) == (0.0, 1.0) and scores.dim() > 1:
                yield self._found(
                    fact, f"{fact.kind} wants class indices, and gets one-hot rows {tuple(target.shape)}", (low, high)
                )
            return
        ignored = fact.options.get("ignore_index", -100)
        if (low >= 0 or low == ignored) and high < classes:
            return
        if not readable(target):
            return
        wrong = target[((target < 0) | (target >= classes)) & (target != ignored)]
        if not wrong.numel():
            return
        values = sorted({int(value) for value in wrong.flatten()[:1000]})
        shown = ", ".join(map(str, values[:4])) + (" …" if len(values) > 4 else "")
        one_based = high == classes and low >= 1
        yield self._found(
            fact,
            f"{fact.kind} gets class {shown} where the model has {classes} outputs, for the classes 0 to {classes - 1}"
            + ("; the labels seem to count from 1" if one_based else ""),
            (low, high),
            f"{wrong.numel()} of {target.numel()} targets are out of range"
            + (f"; torch raised {type(fact.error).__name__}" if fact.error is not None else ""),
        )

    def _binary(self, fact: LossCalled, low: float, high: float) -> Iterator[Finding]:
        if high <= 1.0001 and (low >= -1e-4 or _left_out(fact)):
            return
        noisy = low >= -NOISY and high <= 1 + NOISY
        if noisy and fact.place in self._noted:
            return
        signs = (low, high) == (-1.0, 1.0)
        found = self._found(
            fact,
            f"the targets of {fact.kind} reach from {low:.3g} to {high:.3g}, and it wants 0 to 1"
            + ("; -1 and +1 belong to margin losses" if signs else ""),
            (low, high),
            *([f"the loss is {float(fact.output):.4g}"] if fact.output is not None and fact.output.dim() == 0 else []),
            note=noisy,
        )
        self._noted.add(fact.place)
        yield found

    def _found(
        self, fact: LossCalled, message: str, between: tuple[float, float], *evidence: str, note: bool = False
    ) -> Finding:
        if not note:
            self._looks[fact.place] = LOOKS
        return self.finding(
            message,
            f"targets {tuple(fact.target.shape)} from {between[0]:.4g} to {between[1]:.4g}",
            *evidence,
            place=fact.place,
            level="note" if note else None,
        )


def _left_out(fact: LossCalled) -> bool:
    """Whether targets below 0 mark what is not known: their weight is 0, or what is made of each loss is open yet."""
    target, weight = fact.target.detach(), fact.options.get("weight")
    if weight is not None and bool(((target >= 0) | (weight == 0)).all()):
        return True
    return fact.options.get("reduction") == "none" and bool((target == 0).any())


FIRES = {
    "labels from one": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        criterion = nn.CrossEntropyLoss()
        for _ in range(3):
            x = torch.randn(16, 4)
            loss = criterion(model(x), x[:, :3].argmax(1) + 1)
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "signs in bce": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.binary_cross_entropy_with_logits(model(x).squeeze(1), torch.sign(x[:, 0])).backward()
            opt.step()
    """,
    "signs in a loss that is averaged by hand": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            each = F.binary_cross_entropy_with_logits(model(x), torch.sign(x[:, :1]), reduction="none")
            opt.zero_grad()
            each.mean().backward()
            opt.step()
    """,
    "one-hot rows as indices": """
        model = nn.Linear(4, 3)
        x = torch.randn(16, 4)
        loss = F.nll_loss(torch.log_softmax(model(x), 1), F.one_hot(x[:, :3].argmax(1), 3))
        loss.backward()
    """,
}

SILENT = {
    "padding is ignored": """
        model = nn.Embedding(5, 5)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            tokens = torch.randint(0, 5, (4, 7))
            y = tokens.roll(1, 1).clone()
            y[:, -2:] = -100
            z = tokens.roll(1, 1).clone()
            z[:, -1] = -1
            logits = model(tokens).transpose(1, 2)
            opt.zero_grad()
            (F.cross_entropy(logits, y) + F.cross_entropy(logits, z, ignore_index=-1, label_smoothing=0.1)).backward()
            opt.step()
    """,
    "soft binary targets": """
        D = nn.Linear(4, 1)
        opt = torch.optim.SGD(D.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.binary_cross_entropy_with_logits(D(x), torch.full((16, 1), 0.9)).backward()
            F.binary_cross_entropy_with_logits(D(x + 1), torch.full((16, 1), 0.1)).backward()
            F.binary_cross_entropy(torch.sigmoid(D(x)), torch.rand(16, 1)).backward()
            opt.step()
    """,
    "labels that are not known are left out": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        criterion = nn.BCEWithLogitsLoss(reduction="none")
        for _ in range(6):
            x = torch.randn(16, 4)
            y = (x[:, :3] > 0).float().masked_fill(torch.rand(16, 3) < 0.3, -1)
            known = (y != -1).float()
            loss = (criterion(model(x), y) * known).sum() / known.sum()
            loss = loss + F.binary_cross_entropy_with_logits(model(x), y, weight=known)
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}
