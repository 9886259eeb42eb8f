"""The last layer cannot reach the targets.

Sees: the prediction in a regression loss comes straight out of a sigmoid, tanh, ReLU or softmax, and at least one
target value in twenty lies beyond what that function can give (over three calls or more); or the scores of
BCE-with-logits are made by a ReLU, which can never say "no".

Why it matters: the loss cannot fall below the distance between the targets and the function's end. The outputs pile
up there, where its gradient is nearly 0, and learning stops.

Usual causes: an activation after the last layer by habit; targets that were never scaled, or were standardised
(half of them are negative then) while the output is a ReLU.

Fix: end in a plain linear layer for regression and for scores, or scale the targets to the activation's range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueloop.doctor.endings import residuals
from trueloop.doctor.facts import BackwardBegun, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import Node, computed, origin
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ending
from trueloop.doctor.source.reaches import reaches
from trueloop.doctor.source.taking_off import is_read_otherwise, taken_off

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

RANGES = {
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Relu": (0.0, float("inf")),
    "Softplus": (0.0, float("inf")),
}
KINDS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
CALLS, VALUES = 3, 48  # so many calls, and target values in them, are seen before it is judged; a guess
SHARE = 0.05  # of the target values lie beyond the range; a few outliers are no reason to change the last layer
MARGIN = 0.05  # of the range, and at least of 1: what is beyond by less is nearly reached
LOOKS = 40  # calls of the loss that are looked at on each line
GRAPHS = 3  # the first graphs are read for losses by hand


@dataclass
class _Site:
    """One line with a loss."""

    op: str
    made: Place | None
    calls: int = 0
    values: int = 0
    beyond: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    told: bool = False


class OutputRangeTooSmall(Rule):
    """Knows it by the last operation and the targets' values."""

    name = "output-range-too-small"
    code = 308
    level = "error"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._sites: dict[tuple[Place | None, str], _Site] = {}
        self._looks: dict[Place | None, int] = {}
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if not fact.input.requires_grad or fact.error is not None:
            return
        looks = self._looks[fact.place] = self._looks.get(fact.place, 0) + 1
        if looks > LOOKS:
            return
        if fact.kind == "binary_cross_entropy_with_logits":
            yield from self._never_no(fact)
        if fact.kind not in KINDS or fact.options.get("reduction", "mean") == "none":
            return  # without a reduction some values may be masked afterwards
        node = origin(fact.input)
        if node is None or node.op not in RANGES or not fact.target.is_floating_point():
            return
        yield from self._seen(node, fact.target, fact.place)

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if fact.number >= GRAPHS:
            return
        for found in residuals(fact.graph):
            node = computed(found.predicted)
            if found.node.op != "Sub" or node is None or node.op not in RANGES or node.op == "Softplus":
                continue
            target = found.data
            if target is not None:
                yield from self._seen(node, target, found.node.place or fact.place)

    def passed(self) -> str | None:
        return "targets lay within what the last layer can give" if self._right else None

    def _seen(self, node: Node, target: Tensor, place: Place | None) -> Iterator[Finding]:
        import torch

        site = self._sites.setdefault((place, node.op), _Site(node.op, node.place))
        if site.told or not readable(target):
            return
        low, high = RANGES[node.op]
        margin = MARGIN * max(1.0, min(high, 1.0) - low)
        values = target.detach()
        beyond = (values < low - margin) | (values > high + margin)
        lowest, highest, count = torch.stack([*torch.aminmax(values), beyond.sum().to(values.dtype)]).tolist()
        if lowest != lowest:
            return
        site.calls, site.values, site.beyond = site.calls + 1, site.values + values.numel(), site.beyond + int(count)
        site.low, site.high = min(site.low, lowest), max(site.high, highest)
        self._right += not count
        if site.calls < CALLS or site.values < VALUES or site.beyond < SHARE * site.values:
            return
        site.told = True
        name = {"Relu": "ReLU"}.get(site.op, site.op.lower())
        reach = f"{low:g} to {high:g}" if high < float("inf") else "0 and above"
        yield self.finding(
            f"the prediction ends in a {name}, which gives {reach}, and the targets lie between {site.low:.4g} and "
            f"{site.high:.4g}",
            f"{100 * site.beyond / site.values:.0f} % of {site.values} target values of {site.calls} calls are beyond",
            place=site.made or place,
            related=[(place, "the loss that compares them")] if site.made and site.made != place else (),
        )

    def _never_no(self, fact: LossCalled) -> Iterator[Finding]:
        node = origin(fact.input)
        if node is None or node.op != "Relu":
            return
        site = self._sites.setdefault((fact.place, "logits"), _Site("Relu", node.place))
        if site.told:
            return
        site.told = True
        yield self.finding(
            "the scores of BCE-with-logits end in a ReLU: none is below 0, so no probability is below 0.5",
            f"ReluBackward0 made the input {tuple(fact.input.shape)} of the loss",
            place=site.made or fact.place,
            related=[(fact.place, "the loss")] if site.made and site.made != fact.place else (),
            certainty="certain",
        )


def in_source(program: Program) -> Iterator[Checked]:
    """The prediction ends in a function whose range is known, and the targets surely reach beyond it.

    Or BCE-with-logits is given what a ReLU made.
    """
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            end = ending(event.input)
            if not isinstance(end, values.Tensor) or id(event.node) in told:
                continue
            if event.kind == "binary_cross_entropy_with_logits" and end.op == "relu":
                reach = "a ReLU gives no number below 0, and so never a probability below 0.5"
            elif event.kind in KINDS and end.op in _ENDS:
                (least, most), known = _ENDS[end.op], reaches(event.target)
                if known is None or (least <= known[0] and known[1] <= most):
                    continue
                ends = f"begins at {least:g}" if known[1] <= most else f"ends at {most:g}"
                reach = f"a {end.op} {ends}, and the targets go from {known[0]:g} to {known[1]:g}, at least"
            else:
                continue
            told.add(id(event.node))
            finding = program.finding(
                OutputRangeTooSmall,
                f"the last layer cannot reach the targets: {reach}",
                f"`{end.at.unit.text(end.node)}` makes the input of {event.kind}",
                at=event,
                related=[(end, f"the {end.op}")],
            )
            yield Checked(finding, _mended(program, event, end))


def _mended(program: Program, event: read.LossCalled, end: values.Tensor) -> Fix | None:
    if is_read_otherwise(program, event.input, event.kind):
        return None
    return taken_off(program, event.input, f"take the {end.op} off: then the last layer reaches all numbers")


_ENDS = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "softplus": (0.0, math.inf),
}


FIRES = {
    "sigmoid for large targets": """
        model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.mse_loss(model(x), 20 + 5 * x[:, :1]).backward()
            opt.step()
    """,
    "relu for standardised targets": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 1)

            def forward(self, x):
                return F.relu(self.b(F.relu(self.a(x)))).squeeze(1)

        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        criterion = nn.SmoothL1Loss()
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            criterion(net(x), x[:, 0]).backward()
            opt.step()
    """,
    "by hand": """
        model = nn.Sequential(nn.Linear(4, 1), nn.Tanh())
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(32, 4)
            y = 3 * x[:, :1]
            opt.zero_grad()
            (y - model(x)).pow(2).mean().backward()
            opt.step()
    """,
    "relu before bce with logits": """
        model = nn.Sequential(nn.Linear(4, 1), nn.ReLU())
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.binary_cross_entropy_with_logits(model(x), (x[:, :1] > 0).float()).backward()
            opt.step()
    """,
}

SILENT = {
    "autoencoder with a sigmoid, targets within": """
        model = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6), nn.Sigmoid())
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.rand(16, 6)
            opt.zero_grad()
            (F.mse_loss(model(x), x) + ((model(x) - x) ** 2).mean()).backward()
            opt.step()
    """,
    "tanh that is scaled": """
        model = nn.Sequential(nn.Linear(4, 1), nn.Tanh())
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.mse_loss(10 * model(x), x.sum(1, keepdim=True)).backward()
            opt.step()
    """,
    "counts from a relu": """
        model = nn.Sequential(nn.Linear(4, 1), nn.ReLU())
        nn.init.constant_(model[0].bias, 1.0)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.l1_loss(model(x), x[:, :1].abs()).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "standardised targets from a ReLU": """
        import torch
        from sklearn.preprocessing import StandardScaler
        from torch import nn
        ys = StandardScaler().fit(y.reshape(-1, 1))
        target = torch.tensor(ys.transform(y.reshape(-1, 1))).float()
        other = (raw - raw.mean()) / raw.std()
        net = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1), nn.ReLU())
        opt = torch.optim.Adam(net.parameters())
        for step in range(100):
            opt.zero_grad()
            nn.functional.mse_loss(net(X), target).backward()
            opt.step()
    """,
    "ages from a sigmoid": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        age = torch.randint(18, 90, (800, 1)).float()
        net = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
        opt = torch.optim.Adam(net.parameters())
        for a, b in DataLoader(TensorDataset(torch.randn(800, 6), age), batch_size=40, shuffle=True):
            opt.zero_grad()
            nn.functional.l1_loss(net(a), b).backward()
            opt.step()
    """,
    "a sigmoid for amounts": """
        import torch
        from sklearn.datasets import load_diabetes
        from torch import nn
        X, y = load_diabetes(return_X_y=True)
        X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32).unsqueeze(1)
        net = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())
        opt = torch.optim.Adam(net.parameters())
        for step in range(100):
            opt.zero_grad()
            nn.functional.mse_loss(net(X), y).backward()
            opt.step()
    """,
    "scores out of a ReLU": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(10, 1), nn.ReLU())
        criterion = nn.BCEWithLogitsLoss()
        for x, y in loader:
            criterion(net(x), y).backward()
    """,
}

READ_SILENT = {
    "counts from a ReLU, shares, what was squeezed into the range": """
        import torch
        from sklearn.preprocessing import MinMaxScaler
        from torch import nn
        count = torch.randint(0, 9, (800, 1)).float()
        net, prob = nn.Sequential(nn.Linear(6, 1), nn.ReLU()), nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
        opt = torch.optim.Adam([*net.parameters(), *prob.parameters()])
        scaled = torch.tensor(MinMaxScaler().fit_transform(y)).float()
        for step in range(100):
            opt.zero_grad()
            loss = nn.functional.mse_loss(net(X), count) + nn.functional.mse_loss(prob(X), count / 8)
            (loss + nn.functional.mse_loss(prob(X), scaled)).backward()
            opt.step()
    """,
    "scaled targets": """
        import torch
        from sklearn.datasets import load_diabetes
        from torch import nn
        X, y = load_diabetes(return_X_y=True)
        X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y / 350, dtype=torch.float32).unsqueeze(1)
        net = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())
        opt = torch.optim.Adam(net.parameters())
        for step in range(100):
            opt.zero_grad()
            nn.functional.mse_loss(net(X), y).backward()
            nn.functional.mse_loss(350 * net(X), 350 * y)
            opt.step()
    """,
}
