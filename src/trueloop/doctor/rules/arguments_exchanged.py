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
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import ends
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.provenance import ending, weights

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
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


ORDERED = (
    *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
    *("poisson_nll_loss", "multilabel_soft_margin_loss"),
)
"""Losses whose arguments are not alike."""


def in_source(program: Program) -> Iterator[Checked]:
    """The model's output stands at the target's place, and what carries no graph at the input's."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            first, second = event.input, event.target
            formula = _in_the_order_of_the_formula(event)
            if (event.kind not in ORDERED and not formula) or id(event.node) in told:
                continue
            if not isinstance(first, values.Tensor) or not isinstance(second, values.Tensor):
                continue
            known = first.graph is False and second.graph is True and not weights(first)[0] and weights(second)[0]
            if not known and not formula:
                continue
            told.add(id(event.node))
            finding = program.finding(
                ArgumentsExchanged,
                f"{event.kind} is called with the target first and the model's output second",
                "the first are probabilities, and the second logarithms of such: kl_div wants the reverse"
                if formula
                else "the first argument carries no graph, and the second one comes from the model",
                at=event,
                help="call it as `loss(output, target)`",
            )
            yield Checked(finding, _mended(program, event))


def _in_the_order_of_the_formula(event: read.LossCalled) -> bool:
    """``kl_div(p, log q)``"""
    ends = [ending(one) for one in (event.input, event.target)]
    ops = [one.op if isinstance(one, values.Tensor) else "" for one in ends]
    return event.kind == "kl_div" and ops == ["softmax", "log_softmax"]


def _mended(program: Program, event: read.LossCalled) -> Fix | None:
    node: Any = event.node
    if event.at.unit is not program.unit or any(one.keyword is not None or one.star for one in node.args[:2]):
        return None
    spans = [program.unit.span(one.value) for one in node.args[:2]]
    texts = [program.unit.text(one.value) for one in node.args[:2]][::-1]
    edits = tuple(
        Edit((span.start.line, span.start.column), (span.end.line, span.end.column), text)
        for span, text in zip(spans, texts, strict=True)
    )
    return Fix("output first, target second", False, edits)


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

READ_FIRES = {
    "counts before the logarithms of their rates": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net, criterion = nn.Linear(6, 1), nn.PoissonNLLLoss(log_input=True)
        loader = DataLoader(TensorDataset(torch.randn(100, 6), torch.randint(0, 9, (100,)).float()), batch_size=10)
        for x, counts in loader:
            criterion(counts, net(x).squeeze(1)).backward()
    """,
    "the Kullback-Leibler divergence as it is written": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        def distil(student, teacher, x):
            p = F.softmax(teacher(x), dim=1)
            F.kl_div(p, F.log_softmax(student(x), dim=1), reduction="batchmean").backward()
    """,
    "target first": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net, criterion = nn.Linear(4, 1), nn.BCEWithLogitsLoss()
        for x, y in DataLoader(data):
            out = net(x).squeeze(1)
            criterion(y, out).backward()
    """,
}

READ_SILENT = {
    "rates first, and counts that are data": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Linear(6, 1)
        loader = DataLoader(TensorDataset(torch.randn(100, 6), torch.randint(0, 9, (100,)).float()), batch_size=10)
        for x, counts in loader:
            nn.functional.poisson_nll_loss(net(x).squeeze(1), counts).backward()
        with torch.no_grad():
            print(nn.functional.poisson_nll_loss(counts.log1p(), net(x).squeeze(1)))
    """,
    "in order, and where both are alike": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 1)
        for x, y in DataLoader(data):
            nn.functional.mse_loss(y, net(x)).backward()
            nn.functional.binary_cross_entropy_with_logits(net(x), y).backward()
    """,
    "an attack on the input": """
        import torch
        from torch import nn
        def attack(model, x, y):
            x = x.clone().requires_grad_()
            nn.functional.cross_entropy(model(x), y).backward()
            return x.grad
    """,
}
