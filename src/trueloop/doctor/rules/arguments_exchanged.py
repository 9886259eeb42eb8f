"""The loss is called as ``criterion(target, output)``.

Sees: the gradient goes through the second argument of a loss that is not symmetric, and the first is data without a
gradient; or torch refused the call, and exchanged it would fit (whole numbers first, the model's output second).

Why it matters: the labels are taken for predictions and the predictions for labels. The loss has no lower end where
the model's scores stand in the target's place, so it runs to minus infinity and nothing useful is learnt.

Usual causes: the order of another library (scikit-learn and Keras take the true values first).

Fix: write ``criterion(output, target)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

KINDS = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "poisson_nll_loss",
    "soft_margin_loss",
    "multilabel_soft_margin_loss",
    "kl_div",
)
"""Losses in which the order matters. Of ``kl_div`` both orders have a use: there the values decide."""
LOOKS = 5  # calls of the loss that are looked at on each line


class ArgumentsExchanged(Rule):
    """Knows it by which argument needs a gradient."""

    name = "arguments-exchanged"
    code = 309
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if fact.kind not in KINDS or self._looks[fact.place] >= LOOKS:
            return
        self._looks[fact.place] += 1
        if fact.input.requires_grad or not fact.target.requires_grad:
            self._right += fact.input.requires_grad
            return
        between = ends(fact.input)
        labels = (
            between is not None and between[0] >= 0 and (between[1] <= 1.0001 or not fact.input.is_floating_point())
        )
        if fact.kind == "kl_div":  # probabilities first, logarithms second
            second = ends(fact.target)
            logs = second is not None and second[0] < -1e-6 and not fact.options.get("log_target", False)
            labels = labels and logs and between is not None and between[1] <= 1.0001
        if not labels:
            return  # not what labels look like: some other game is played
        refused = fact.error is not None
        if refused and fact.input.is_floating_point() and fact.kind in ("cross_entropy", "nll_loss"):
            return
        self._looks[fact.place] = LOOKS
        yield self.finding(
            f"the arguments of {fact.kind} are exchanged: the targets come first and the model's output second",
            f"the second argument, {tuple(fact.target.shape)}, carries the gradient; the first, "
            f"{tuple(fact.input.shape)}, is data from {between[0] if between else 0:.3g} to "
            f"{between[1] if between else 0:.3g}" + ("; torch refused the call" if refused else ""),
            place=fact.place,
        )

    def passed(self) -> str | None:
        return "losses got the output first and the target second" if self._right else None


FIRES = {
    "bce with logits": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        criterion = nn.BCEWithLogitsLoss()
        for _ in range(6):
            x = torch.randn(16, 4)
            y = (x[:, :1] > 0).float()
            opt.zero_grad()
            criterion(y, model(x)).backward()
            opt.step()
    """,
    "one-hot targets first": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            y = F.one_hot(x[:, :3].argmax(1), 3).float()
            loss = F.cross_entropy(y, model(x))
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "kl_div in the order of the formula": """
        student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD(student.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            soft = torch.softmax(teacher(x), 1).detach()
            opt.zero_grad()
            F.kl_div(soft, torch.log_softmax(student(x), 1), reduction="batchmean").backward()
            opt.step()
    """,
    "refused by torch": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        criterion = nn.CrossEntropyLoss()
        x = torch.randn(16, 4)
        loss = criterion(x[:, :3].argmax(1), model(x))
        loss.backward()
    """,
}

SILENT = {
    "symmetric losses": """
        model, target_net = nn.Linear(4, 1), nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            with torch.no_grad():
                td_target = 0.9 * target_net(x) + 0.1
            opt.zero_grad()
            F.mse_loss(td_target, model(x)).backward()
            opt.step()
    """,
    "two students teach each other": """
        a, b = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.cross_entropy(a(x), torch.softmax(b(x), 1)).backward()
            opt.step()
    """,
}
