"""A loss that needs probabilities, or their logarithms, is given something else.

Sees: ``nll_loss`` on probabilities or on raw scores (positive values, or a linear layer's output whose exponentials
do not sum to 1); ``binary_cross_entropy`` on values outside 0 to 1; ``kl_div`` whose input is not
log-probabilities, whose target is not what ``log_target`` says, or whose arguments are exchanged.

Why it matters: these losses take logarithms for granted. On raw scores the loss has no lower end: it falls to minus
infinity while the model learns to make one number large; on probabilities the gradients are those of another
problem.

Usual causes: ``NLLLoss`` in the place of ``CrossEntropyLoss``; ``softmax`` where ``log_softmax`` is meant;
``BCELoss`` without a sigmoid; ``kl_div(p, q)`` written in the order of the formula.

Fix: raw scores belong to ``cross_entropy`` and ``binary_cross_entropy_with_logits``; ``nll_loss`` and the input of
``kl_div`` take ``log_softmax``; the target of ``kl_div`` is probabilities (or logarithms with ``log_target=True``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import LINEAR, class_dimension, ending
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import Node
from trueloop.doctor.readings import ends, off_one, readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import endings
from trueloop.doctor.source.taking_off import exchanged, is_cut_at_a_half, is_read_otherwise, other_loss

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKS = 5  # calls of the loss that are looked at on each line
POSITIVE = 0.01  # a log-probability above this is none; log(p + eps) may pass 0 by less
OFF = 0.1  # how far exponentials of log-probabilities may be from summing to 1; smoothing and eps stay below 0.01


class LogitsInProbabilityLoss(Rule):
    """Knows it by the operation that made the input, and by values that no probability has."""

    name = "logits-in-probability-loss"
    code = 303
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._right: Counter[str] = Counter()

    def loss_called(self, fact: LossCalled) -> Iterable[Finding]:
        if fact.kind not in ("nll_loss", "binary_cross_entropy", "kl_div"):
            return ()
        if self._looks[fact.place] >= LOOKS:
            return ()
        learns = fact.input.requires_grad or fact.target.requires_grad
        if not learns or not readable(fact.input) or not readable(fact.target):
            return ()
        self._looks[fact.place] += 1
        self._right[fact.kind] += 1
        if fact.kind == "nll_loss":
            return self._nll(fact)
        return self._bce(fact) if fact.kind == "binary_cross_entropy" else self._kl(fact)

    def passed(self) -> str | None:
        return f"{' and '.join(sorted(self._right))} got what they need" if self._right else None

    def _nll(self, fact: LossCalled) -> Iterator[Finding]:
        scores, node = fact.input, ending(fact.input)
        # Without a reduction it may be a way of picking the values at the targets, not a loss.
        if fact.error is not None or not scores.is_floating_point() or fact.options.get("reduction", "mean") == "none":
            return
        between, dim = ends(scores), class_dimension(scores)
        if between is None or scores.shape[dim] < 2:
            return
        # Non-positive values need not sum to 1 (a focal loss weighs log-probabilities), unless a layer just made them.
        if node is not None and node.op in ("Softmax", "Sigmoid"):
            what = "probabilities, not their logarithms"
        elif between[1] > POSITIVE or (node is not None and node.op in LINEAR and off_one(scores, dim, log=True) > OFF):
            what = "raw scores, not log-probabilities"
        else:
            return
        yield self._found(
            fact,
            node,
            f"nll_loss is given {what}",
            f"values from {between[0]:.3g} to {between[1]:.3g}; their exponentials are off a sum of 1 by "
            f"{off_one(scores, dim, log=True):.3g} in the middle of the rows",
        )

    def _bce(self, fact: LossCalled) -> Iterator[Finding]:
        between = ends(fact.input)
        if (
            fact.error is None
            or between is None
            or not fact.input.requires_grad
            or (between[0] >= 0 and between[1] <= 1)
        ):
            return
        yield self._found(
            fact,
            ending(fact.input),
            "binary_cross_entropy is given raw scores, not probabilities",
            f"values from {between[0]:.3g} to {between[1]:.3g}, and torch refused them: it needs 0 to 1",
        )

    def _kl(self, fact: LossCalled) -> Iterator[Finding]:
        given, wanted, node = ends(fact.input), ends(fact.target), ending(fact.input)
        if fact.error is not None or given is None or wanted is None:
            return
        log_target = bool(fact.options.get("log_target", False))
        numbers = f"input from {given[0]:.3g} to {given[1]:.3g}, target from {wanted[0]:.3g} to {wanted[1]:.3g}"
        distribution = given[0] >= 0 and given[1] <= 1.0001 and given[1] > POSITIVE
        if not log_target and wanted[0] < -1e-6 and distribution:
            message = "the arguments of kl_div are exchanged: log-probabilities belong first, probabilities second"
        elif not log_target and wanted[0] < -1e-6:
            message = "the target of kl_div is not probabilities: it has negative values, and log_target is False"
        elif node is not None and node.op in ("Softmax", "Sigmoid"):
            message = "the input of kl_div is probabilities, not their logarithms"
        elif given[1] > POSITIVE and (log_target or _sums_to_one(fact.target)):
            message = (
                f"the input of kl_div is {'probabilities' if distribution else 'raw scores'}, not log-probabilities"
            )
        elif log_target and wanted[1] > POSITIVE and wanted[0] >= 0:
            message = "the target of kl_div is probabilities, and log_target=True takes it for their logarithms"
        else:
            return
        yield self._found(fact, node, message, numbers)

    def _found(self, fact: LossCalled, node: Node | None, message: str, evidence: str) -> Finding:
        self._looks[fact.place] = LOOKS
        self._right[fact.kind] -= 1
        made = (node.place, f"{node.op} made the input") if node is not None else (None, "")
        return self.finding(message, evidence, place=fact.place, related=[made] if made[0] != fact.place else ())


def _sums_to_one(tensor: Tensor) -> bool:
    """Whether it holds distributions, over the classes or the last dimension."""
    if tensor.dim() == 0 or not tensor.is_floating_point():
        return False
    return any(off_one(tensor, dim) < 0.01 for dim in {class_dimension(tensor), tensor.dim() - 1})


WEIGHED = frozenset(("Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "linear", "conv1d", "conv2d", "conv3d"))
NOT_LOG = WEIGHED | {"softmax", "sigmoid", "relu", "tanh"}
WRONG = {
    "nll_loss": (NOT_LOG, "log-probabilities", "log_softmax"),
    "kl_div": (NOT_LOG, "log-probabilities", "log_softmax"),
    "binary_cross_entropy": (WEIGHED | {"log_softmax", "logsigmoid", "relu", "tanh"}, "probabilities", "sigmoid"),
}
"""By the loss: operations that do not make what it wants, what that is, and what would make it."""


def in_source(program: Program) -> Iterator[Checked]:
    """The last operation on the loss's input cannot have made probabilities, or their logarithms."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            if event.kind not in WRONG:
                continue
            ops, wanted, by = WRONG[event.kind]
            ends = endings(event.input)
            if not all(isinstance(end, values.Tensor) and end.op in ops for end in ends):
                continue
            first = ends[0]
            if not isinstance(first, values.Tensor) or id(event.node) in told:
                continue
            told.add(id(event.node))
            finding = program.finding(
                LogitsInProbabilityLoss,
                f"{event.kind} wants {wanted}, and its input ends in a {first.op}",
                f"the input's last operation is `{first.at.unit.text(first.node)}`; nothing makes {wanted} of it",
                at=event,
                related=[(first, "the input's last operation")],
                help=f"apply {by} before the loss, or take the loss that wants raw scores",
            )
            yield Checked(finding, _mended(program, event, first))


def _mended(program: Program, event: read.LossCalled, end: values.Tensor) -> Fix | None:
    if end.op == "softmax" and event.kind in ("nll_loss", "kl_div"):
        if is_read_otherwise(program, event.input, event.kind):
            return None
        title = "give the loss logarithms of probabilities"
        return exchanged(program, event.input, "log_softmax", "LogSoftmax", title)
    if end.op not in WEIGHED:
        return None
    if event.kind == "nll_loss":
        title = "take the loss that wants raw scores"
        return other_loss(program, event, "CrossEntropyLoss", "cross_entropy", title)
    if event.kind == "binary_cross_entropy" and not is_cut_at_a_half(program):
        title = "take the loss that wants raw scores"
        return other_loss(program, event, "BCEWithLogitsLoss", "binary_cross_entropy_with_logits", title)
    return None


FIRES = {
    "nll on raw scores": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            loss = F.nll_loss(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "nll on softmax": """
        model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        criterion = nn.NLLLoss()
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            criterion(model(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "bce on raw scores": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        x = torch.randn(16, 4)
        loss = nn.BCELoss()(model(x), (x[:, :1] > 0).float())
        loss.backward()
        opt.step()
    """,
    "kl of probabilities": """
        student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD(student.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            soft = torch.softmax(teacher(x), 1).detach()
            opt.zero_grad()
            F.kl_div(torch.softmax(student(x), 1), soft, reduction="batchmean").backward()
            opt.step()
    """,
    "both learn, and both are given as logarithms": """
        a, b = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.kl_div(torch.log_softmax(a(x), 1), torch.log_softmax(b(x), 1), reduction="batchmean").backward()
            opt.step()
    """,
}

SILENT = {
    "log-softmax, also for pixels": """
        model = nn.Conv2d(1, 3, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(4, 1, 5, 5)
            opt.zero_grad()
            F.nll_loss(F.log_softmax(model(x), 1), torch.randint(0, 3, (4, 5, 5))).backward()
            opt.step()
    """,
    "focal loss": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            logp = F.log_softmax(model(x), 1)
            opt.zero_grad()
            F.nll_loss((1 - logp.exp()) ** 2 * logp, x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "logarithm of a mixture": """
        a, b = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            p = 0.5 * (torch.softmax(a(x), 1) + torch.softmax(b(x), 1))
            opt.zero_grad()
            nn.NLLLoss()(torch.log(p + 1e-8), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "mutual learning, both ways of kl": """
        a, b = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            p, q = F.log_softmax(a(x), 1), F.log_softmax(b(x), 1)
            loss = F.kl_div(p, q.exp(), reduction="batchmean") + F.kl_div(q, p, log_target=True, reduction="batchmean")
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

READ_FIRES = {
    "the probabilities of a distribution": """
        import torch
        from torch import nn
        from torch.distributions import Categorical
        class Policy(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.Linear(4, 3)
            def forward(self, x):
                return Categorical(logits=self.layers(x))
        policy, loss = Policy(), nn.NLLLoss()
        for x, y in data:
            loss(policy(x).probs, y).backward()
    """,
    "NLLLoss of raw scores": """
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        loss_fn = nn.NLLLoss()
        for x, y in loader:
            loss_fn(net(x), y).backward()
    """,
    "BCELoss of raw scores": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(4, 1)
            def forward(self, x):
                return self.out(x).squeeze(-1)
        net, criterion = Net(), nn.BCELoss()
        for x, y in loader:
            criterion(net(x), y).backward()
    """,
    "kl_div of probabilities": """
        import torch.nn.functional as F
        def step(student, x, soft):
            return F.kl_div(F.softmax(student(x), dim=1), soft, reduction="batchmean")
    """,
}

READ_SILENT = {
    "the logarithms of a distribution's probabilities": """
        import torch
        from torch import nn
        from torch.distributions import Bernoulli, Categorical
        net, gate, loss = nn.Linear(4, 3), nn.Linear(4, 1), nn.NLLLoss()
        for x, y, z in data:
            found = Categorical(logits=net(x))
            (loss(found.probs.log(), y) - found.log_prob(y).mean()).backward()
            nn.functional.binary_cross_entropy(Bernoulli(logits=gate(x)).probs, z).backward()
    """,
    "as they want it": """
        import torch
        import torch.nn.functional as F
        from torch import nn
        net = nn.Linear(4, 3)
        for x, y in loader:
            out = net(x)
            F.nll_loss(F.log_softmax(out, 1), y).backward()
            F.nll_loss(torch.log(torch.softmax(out, 1) + 1e-8), y).backward()
            nn.BCELoss()(torch.sigmoid(out), y).backward()
    """,
    "a model that is not known": """
        import torch.nn.functional as F
        def step(model, x, y):
            return F.nll_loss(model(x), y)
    """,
}
