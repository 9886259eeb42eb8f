"""The first loss is far above that of a model that knows nothing.

Sees: before the first step, a cross-entropy above twice ln(classes), a binary one above twice ln 2, or a squared
error above four times the variance of the batch's targets.

Why it matters: a fresh classifier should start at chance. A loss far above it means that the first scores are
large, and confidently wrong: the first steps only undo that, and an odd scale of inputs, weights or targets is
likely behind it.

Usual causes: inputs or targets that were never scaled; a wide initialisation of the last layer; a loss given the
wrong thing; labels that do not fit the outputs.

Fix: scale inputs and targets (for a regression: subtract the targets' mean, or start the last bias at it), and
initialise the last layer small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import class_dimension
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

TIMES = 2.0  # chance level; torchtest2 takes the same (notes/diagnosis.md)
VARIANCES = 4.0  # of the targets; a guess: an output of 0 stands there when their mean is 1.7 spreads away
FEWEST = 8  # samples; fewer say little


class InitialLossOff(Rule):
    """Compares the first loss on each line with that of guessing."""

    name = "initial-loss-off"
    code = 307
    level = "note"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._seen: set[Place | None] = set()
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if self.trace.step or fact.place in self._seen or fact.output is None or not fact.output.requires_grad:
            return
        self._seen.add(fact.place)
        plain = fact.options.get("reduction", "mean") == "mean" and fact.options.get("weight") is None
        if not plain or fact.output.dim() or not readable(fact.input) or not readable(fact.target):
            return
        if not len(fact.target.shape) or len(fact.target) < FEWEST:
            return
        loss = float(fact.output)
        if fact.kind == "cross_entropy":
            classes = fact.input.shape[class_dimension(fact.input)]
            chance, limit = math.log(max(classes, 2)), TIMES * math.log(max(classes, 2))
            against = f"chance over {classes} classes is {chance:.3g}"
        elif fact.kind in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
            if fact.options.get("pos_weight") is not None:
                return
            limit, against = TIMES * math.log(2), "chance is 0.693"
        elif fact.kind == "mse_loss" and fact.target.is_floating_point() and fact.target.numel() >= FEWEST:
            variance = float(fact.target.detach().float().var())
            if variance == 0:
                return
            limit, against = VARIANCES * variance, f"always guessing the mean of the targets gives {variance:.4g}"
        else:
            return
        if not math.isfinite(loss) or loss <= limit:
            self._right += 1
            return
        yield self.finding(
            f"the first {fact.kind} is {loss:.4g}, far above that of a model that knows nothing",
            against,
            place=fact.place,
        )

    def passed(self) -> str | None:
        return "the first losses were about those of a model that knows nothing" if self._right else None


FIRES = {
    "a wide last layer": """
        model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
        nn.init.normal_(model[2].weight, std=4.0)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            x = torch.randn(32, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "targets far from zero": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            x = torch.randn(32, 4)
            opt.zero_grad()
            F.mse_loss(model(x), 150 + x[:, :1]).backward()
            opt.step()
    """,
}

SILENT = {
    "a fresh classifier": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            x = torch.randn(32, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "weights that know already": """
        model = nn.Linear(4, 4)
        model.load_state_dict({"weight": 8 * torch.eye(4), "bias": torch.zeros(4)})
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            x = torch.randn(32, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), x.argmax(1)).backward()
            opt.step()
    """,
}
