"""Predictions (N, 1) meet targets (N,): each prediction is compared with every target.

Sees: the two sides of an element-wise loss differ in shape as (N, 1) and (N,) do, so that a table of N x N comes of
it. Torch's own losses (``mse_loss``, ``l1_loss`` …) show their arguments; a loss written by hand shows in its graph
a difference or a product of N x N out of N predictions, which is then averaged.

Why it matters: the mean runs over all pairs. It is smallest when every prediction is the mean of all targets, so
the model learns to ignore its input, and no error is raised.

Usual causes: a last layer ``nn.Linear(…, 1)`` without ``squeeze(1)``; targets that were never given their column.

Fix: bring both to one shape: ``prediction.squeeze(1)``, or ``target.unsqueeze(1)``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import residuals
from trueloop.doctor.facts import BackwardBegun, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.graph import Node
from trueloop.doctor.readings import ends
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import atom, given
from trueloop.doctor.source.data import column, gives_one, rank
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors, by_a_model, endings

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

KINDS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss")
LOOKS = 20  # calls of a loss that are looked at on each line; shapes alone, so it costs next to nothing
GRAPHS = 3  # the first graphs are read for losses by hand: torch keeps the lines of as many
MEANT = re.compile(r"None|unsqueeze|newaxis|transpose|permute|expand|view|reshape|outer|cdist|\.mT\b|\.T\b|\.t\(")
"""Words by which a line says that it wants all pairs."""

Shape = tuple[int, ...]


class BroadcastLoss(Rule):
    """Knows it by shapes."""

    name = "broadcast-loss"
    code = 304
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
        one, other = tuple(fact.input.shape), tuple(fact.target.shape)
        self._right += one == other
        if fact.error is not None or not crossed(one, other):
            return
        between = ends(fact.target if fact.input.requires_grad else fact.input)
        if between is not None and between[0] == between[1]:
            return  # a constant target (a GAN's ones): the mean over all pairs is the same mean
        self._looks[fact.place] = LOOKS
        yield self.finding(
            f"{fact.kind} compares each of {len(fact.input)} predictions with every target: {one} against {other}",
            f"the input is {one}, the target {other}: they broadcast to {_table(one, other)}",
            place=fact.place,
        )

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if fact.number >= GRAPHS:
            return
        for found in residuals(fact.graph):
            table, side = found.node.shape, found.predicted.shape
            if not _spread(table, side) or table is None or side is None or _shaped_by_hand(found.predicted, side):
                continue
            kept = found.data if found.node.op == "Mul" else None
            if kept is not None and not crossed(side, tuple(kept.shape)):
                continue
            place = found.node.place
            if place is None or MEANT.search(place.source):
                continue
            other = tuple(kept.shape) if kept is not None else (table[1:] if len(side) == len(table) else (*side, 1))
            what = "difference" if found.node.op == "Sub" else "product"
            yield self.finding(
                f"the loss takes each of {table[0]} predictions with every target: {side} with {other} gives {table}",
                f"{found.node.op}Backward0 on the way to the loss: the side of the model is {side}, the {what} {table}",
                place=place,
                related=[(fact.place, "the backward through it")],
            )

    def passed(self) -> str | None:
        return "predictions and targets had the same shape" if self._right else None


def crossed(one: Shape, other: Shape) -> bool:
    """Whether two shapes differ by a column alone, and broadcast to a table of all pairs.

    Example:
        >>> crossed((8, 1), (8,)), crossed((8,), (8, 1)), crossed((8, 1), (8, 1)), crossed((8, 3), (3,))
        (True, True, False, False)
        >>> crossed((8, 1, 5), (8, 5)), crossed((8, 8, 1), (8, 8)), crossed((8, 5, 1), (5, 1))
        (True, True, False)
    """
    short, long = sorted((one, other), key=len)
    if not short or short[0] < 2:
        return False
    return long in ((short[0], 1, *short[1:]), (*short, 1))


def _table(one: Shape, other: Shape) -> Shape:
    short, long = sorted((one, other), key=len)
    return (long[0], *short)


def _spread(table: Shape | None, side: Shape | None) -> bool:
    if table is None or side is None or len(table) < 2 or table[0] != table[1] or table[0] < 2:
        return False
    return side in ((table[0], 1, *table[2:]), (table[0], *table[2:])) and side != table


def _shaped_by_hand(node: Node, side: Shape) -> bool:
    """A column that the script made of a row just before: then all pairs are meant."""
    below = next(iter(node.inputs), None)
    return (
        len(side) > 1
        and below is not None
        and below.shape is not None
        and len(below.shape) < len(side)
        and (node.op in ("Unsqueeze", "View", "Index", "UnsafeView", "ReshapeAlias"))
    )


def in_source(program: Program) -> Iterator[Checked]:
    """A layer with one output gives a column, and the target is a row, or the other way: by the data's own shapes."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.LossCalled):
            shapes = _shapes(event.input, event.target)
            if event.kind not in KINDS or id(event.node) in told or not shapes:
                continue
            told.add(id(event.node))
            finding = program.finding(
                BroadcastLoss,
                f"{event.kind} compares each prediction with every target: {shapes}",
                f"the predictions and the targets are {shapes}",
                at=event,
            )
            by_name = ("input", 0) if shapes.startswith("(N, 1)") else ("target", 1)
            yield Checked(finding, _mended(program, given(event.node, *by_name)))
        for backward in run.of(read.Backward):
            for difference, shapes in _by_hand(backward.loss):
                if id(difference.node) in told:
                    continue
                told.add(id(difference.node))
                finding = program.finding(
                    BroadcastLoss,
                    f"each prediction is compared with every target: {shapes}",
                    f"the two sides of `{difference.at.unit.text(difference.node)}` are {shapes}",
                    at=difference,
                    related=[(backward, "the backward of their mean")],
                )
                sides = [getattr(difference.node, side, None) for side in ("left", "right")]
                columns = [side for side, one in zip(sides, difference.inputs, strict=True) if rank(one) == 2]
                yield Checked(finding, _mended(program, columns[0]) if len(columns) == 1 else None)


def _shapes(one: values.Value, other: values.Value) -> str:
    """The shapes of a prediction and of a target that broadcast; empty if that is not known."""
    if _is_taken_against_best(one, other):
        return "(N, 1) against (N,)"
    ends = values.options(one)
    if not all(_is_of_one_output(end) for end in ends):
        return ""
    if all(column(end) for end in ends) and rank(other) == 1:
        return "(N, 1) against (N,)"
    if all(rank(end) == 1 for end in ends) and column(other):
        return "(N,) against (N, 1)"
    return ""


def _is_of_one_output(value: values.Value) -> bool:
    """Whether a value is what a layer with one output gives, but for its form."""
    return all(gives_one(end) for end in endings(value))


def _by_hand(loss: values.Value) -> Iterator[tuple[values.Tensor, str]]:
    """The differences of a prediction and a target in a mean of their squares or sizes."""
    for one in ancestors(loss, graph=True):
        inside = one.inputs[0] if isinstance(one, values.Tensor) and one.op in ("pow", "abs", "square") else None
        if isinstance(inside, values.Tensor) and inside.op == "sub" and len(inside.inputs) == 2:
            a, b = inside.inputs
            shapes = _shapes(a, b) or _shapes(b, a)
            both = by_a_model(a) and by_a_model(b)  # all pairs of predictions may be meant
            if shapes and (not both or _is_taken_against_best(a, b) or _is_taken_against_best(b, a)):
                yield inside, shapes


def _is_taken_against_best(one: values.Value, other: values.Value) -> bool:
    """Whether a column is taken out of what a network gives, and met by the largest of each row that its like gives.

    Whatever the largest are added to: what broadcasts with a row stays as long as the row.
    """
    outputs = _taken(one)
    layer = outputs.layer if isinstance(outputs, values.Tensor) else None
    for best in _best(other) if layer is not None else ():
        like = best.layer if isinstance(best, values.Tensor) else None
        if like is not None and layer is not None and (like.node is layer.node or like.kwargs is layer.kwargs):
            return True  # made on one line, or a copy
    return False


def _taken(value: values.Value) -> values.Value | None:
    """The outputs in ``outputs.gather(1, actions.unsqueeze(1))``."""
    if not isinstance(value, values.Tensor) or value.op != "gather" or not value.inputs:
        return None
    of, dim, index = (*value.inputs, None, None)[:3]
    dim, index = value.options.get("dim", dim), value.options.get("index", index)
    made = index.op if isinstance(index, values.Tensor) else getattr(index, "name", "")
    size = (
        values.constant(index.inputs[-1])
        if isinstance(index, (values.Tensor, values.Unknown)) and index.inputs
        else None
    )
    is_column = (made == "unsqueeze" and size in (1, -1)) or (made in ("view", "reshape") and size == 1)
    return of if is_column and values.constant(dim) in (1, -1) else None


def _best(value: values.Value, depth: int = 12) -> Iterator[values.Value]:
    """What is reduced to the largest of each row, on an element-wise way to a value."""
    if not isinstance(value, values.Tensor) or depth == 0:
        return
    if value.op in ("max", "amax"):
        of, dim, keeps = (*value.inputs, None, None)[:3]
        dim, keeps = value.options.get("dim", dim), value.options.get("keepdim", keeps)
        if of is not None and values.constant(dim) in (1, -1) and values.constant(keeps, keeps) in (None, False):
            yield of
    elif value.op in ("add", "sub", "mul", "div", "neg", "detach", "float", "to"):
        for one in value.inputs:
            yield from _best(one, depth - 1)


def _mended(program: Program, column: cst.CSTNode | None) -> Fix | None:
    if column is None:
        return None
    return together("squeeze the column to a row, (N,)", put(program, column, f"{atom(program, column)}.squeeze(-1)"))


FIRES = {
    "mse of a column and a row": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.mse_loss(model(x), x.sum(1)).backward()
            opt.step()
    """,
    "by hand, with a squared difference": """
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(16, 4)
            y = x.sum(1)
            guess = model(x)
            loss = ((guess - y) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "a row of predictions and a column of targets": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        huber = nn.SmoothL1Loss()
        for _ in range(6):
            x = torch.randn(16, 4)
            y = x.sum(1, keepdim=True)
            opt.zero_grad()
            huber(model(x).squeeze(), y).backward()
            opt.step()
    """,
    "a forecast of as many steps as samples": """
        model = nn.GRU(1, 1, batch_first=True)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(8, 8, 1)
            opt.zero_grad()
            F.l1_loss(model(x)[0], x[:, :, 0].roll(1, 1)).backward()
            opt.step()
    """,
    "advantages of another shape, clipped": """
        policy = nn.Linear(4, 2)
        opt = torch.optim.Adam(policy.parameters(), lr=0.01)
        for _ in range(6):
            states, actions, advantage = torch.randn(16, 4), torch.randint(0, 2, (16, 1)), torch.randn(16)
            ratio = (torch.log_softmax(policy(states), 1).gather(1, actions) + 0.7).exp()
            loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "advantages of another shape": """
        policy = nn.Linear(4, 2)
        opt = torch.optim.Adam(policy.parameters(), lr=0.01)
        for _ in range(6):
            states, actions, advantage = torch.randn(16, 4), torch.randint(0, 2, (16, 1)), torch.randn(16)
            logp = torch.log_softmax(policy(states), 1).gather(1, actions)
            loss = -(logp * advantage).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "quantiles, ensembles and scalars on purpose": """
        model = nn.Linear(4, 5)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        tau = torch.linspace(0.1, 0.9, 5)
        for _ in range(6):
            x = torch.randn(16, 4)
            y = x.sum(1, keepdim=True)
            q = model(x)
            pinball = torch.maximum(tau * (y - q), (tau - 1) * (y - q)).mean()
            pairs = F.smooth_l1_loss(q.unsqueeze(2), q.detach().unsqueeze(1))
            opt.zero_grad()
            (pinball + 0.1 * pairs + F.mse_loss(q, torch.tensor(0.0))).backward()
            opt.step()
    """,
    "ones for a discriminator": """
        D = nn.Linear(2, 1)
        opt = torch.optim.Adam(D.parameters(), lr=0.01)
        for _ in range(6):
            opt.zero_grad()
            real, fake = D(torch.randn(16, 2)), D(torch.zeros(16, 2))
            (F.mse_loss(real, torch.ones(16)) + F.mse_loss(fake, torch.zeros(16))).backward()
            opt.step()
    """,
    "distances between all pairs": """
        G = nn.Linear(3, 1)
        opt = torch.optim.Adam(G.parameters(), lr=0.01)
        for _ in range(6):
            fake, real = G(torch.randn(16, 3)), torch.randn(16, 1)
            energy = 2 * (fake - real.t()).abs().mean() - (fake - fake.t()).abs().mean()
            opt.zero_grad()
            energy.backward()
            opt.step()
    """,
}

READ_FIRES = {
    "a row of predictions and a column of targets, in a class": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.Sequential(nn.Linear(10, 32), nn.SiLU(), nn.Linear(32, 1))
            def forward(self, x):
                return self.layers(x).squeeze(-1)
        X = torch.randn(1000, 10)
        y = X.sum(1).unsqueeze(1)
        y = (y - y[:800].mean()) / y[:800].std()
        loader = DataLoader(TensorDataset(X[:800], y[:800]), batch_size=40, shuffle=True)
        net = Net()
        for x, t in loader:
            nn.functional.smooth_l1_loss(net(x), t).backward()
    """,
    "squares by hand, and a function of one's own": """
        import numpy as np
        import torch
        from torch import nn
        class Prices:
            def __init__(self, n):
                g = np.random.default_rng(0)
                self.features = g.normal(size=(n, 3)).astype(np.float32)
                self.price = (self.features @ np.array([1.5, -0.7, -1.1])).astype(np.float32)
            def batches(self, size):
                order = np.random.permutation(len(self.price))
                for i in range(0, len(order), size):
                    j = order[i : i + size]
                    yield torch.from_numpy(self.features[j]), torch.from_numpy(self.price[j])
        def l1(estimate, actual):
            return torch.mean(torch.abs(estimate - actual))
        net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))
        for x, y in Prices(600).batches(50):
            (l1(net(x), y) + ((net(x) - y) ** 2).mean()).backward()
    """,
    "what was chosen, against the best of the next state": """
        import copy
        import torch
        from torch import nn
        q = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 2))
        frozen = copy.deepcopy(q)
        for s, a, r, after, done in memory:
            s, a, r, done = torch.tensor(s), torch.tensor(a), torch.tensor(r), torch.tensor(done)
            with torch.no_grad():
                target = r + 0.9 * (1 - done) * frozen(torch.tensor(after)).max(1).values
            nn.functional.smooth_l1_loss(q(s).gather(1, a.unsqueeze(1)), target).backward()
            ((q(s).gather(1, a.view(-1, 1)) - target) ** 2).mean().backward()
    """,
    "a column and a row": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        loader = DataLoader(TensorDataset(torch.randn(100, 4), torch.randn(100)), batch_size=10, shuffle=True)
        criterion = nn.MSELoss()
        for x, y in loader:
            criterion(net(x), y).backward()
    """,
}

READ_SILENT = {
    "dimensions that are kept, and columns by hand": """
        import torch
        from torch import nn
        net = nn.Linear(4, 1)
        for _ in range(10):
            x = torch.randn(16, 4)
            y, z = x.sum(1, keepdim=True), x.sum(dim=1)[:, None]
            nn.functional.mse_loss(net(x), y).backward()
            ((net(x) - z) ** 2).mean().backward()
            ((net(x).squeeze(1) - x.mean(1)) ** 2).mean().backward()
            (net(x) - net(x).T).abs().mean().backward()
            (net(x) - net(x).squeeze(1)).abs().mean().backward()
            nn.functional.mse_loss(net(x), torch.ones(16)).backward()
    """,
    "what was chosen and the best of the next state, both columns or both rows": """
        import copy
        import torch
        from torch import nn
        q = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 2))
        frozen, critic = copy.deepcopy(q), nn.Linear(7, 3)
        for s, a, r, after, done in memory:
            s, a, r, done, after = (torch.tensor(one) for one in (s, a, r, done, after))
            with torch.no_grad():
                best, kept = frozen(after).max(1).values, frozen(after).max(1, keepdim=True).values
                column = r.unsqueeze(1) + 0.9 * frozen(after).max(1)[0].unsqueeze(1)
            chosen = q(s).gather(1, a.unsqueeze(1))
            loss = nn.functional.smooth_l1_loss(chosen.squeeze(1), r + best)
            loss = loss + nn.functional.smooth_l1_loss(chosen, r + kept) + nn.functional.l1_loss(chosen, column)
            loss = loss + nn.functional.mse_loss(chosen, (r + best)[:, None])
            (loss + nn.functional.mse_loss(chosen, critic(after).mean() + r)).backward()
    """,
    "both are rows, both are columns, or it is not known": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        loader = DataLoader(TensorDataset(torch.randn(100, 4), torch.randn(100)), batch_size=10, shuffle=True)
        criterion = nn.MSELoss()
        for x, y in loader:
            criterion(net(x).squeeze(1), y).backward()
            criterion(net(x), y.unsqueeze(1)).backward()
            criterion(net(x), y[:, None]).backward()
        for x, y in others:
            criterion(net(x), y).backward()
    """,
}
