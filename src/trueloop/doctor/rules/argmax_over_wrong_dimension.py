"""A softmax or an argmax runs over the batch: samples compete with each other in the place of classes.

Sees: the softmax before a loss sums to 1 over the batch, or over positions, and not over the dimension where the
loss expects the classes; a softmax inside the model over dimension 0 of what has the input's samples and positions,
where the loss has the samples first as well; or ``argmax`` (``max`` with indices) over dimension 0 of the table of
scores, (samples, classes), of a model that was trained with cross-entropy.

Why it matters: a sample's probabilities depend on which others are in its batch, and the loss pushes them against
each other. An argmax over the batch names a sample for each class, not a class for each sample: the metric means
nothing.

Usual causes: ``dim=0`` by mistake; ``Softmax()`` without ``dim`` on three dimensions; code for one sample used on a
batch.

Fix: run over the classes: ``dim=1`` for (samples, classes), ``dim=-1`` where the classes come last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.endings import class_dimension, dimension, softmax_behind
from trueloop.doctor.facts import BackwardBegun, Chosen, LossCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import off_one, readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.seen import ModelSeen
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.data import PREDICTIONS
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors, endings
from trueloop.doctor.source.samples import samples_first

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKS = 5  # calls of the loss that are looked at on each line
GRAPHS = 3  # the first graphs are read for softmaxes inside the model
OFF = 0.05  # how far sums of probabilities may be from 1
BY_CLASS = ("cross_entropy", "nll_loss", "kl_div")
OTHERS = ("mse_loss", "l1_loss", "binary_cross_entropy", "smooth_l1_loss")


class ArgmaxOverWrongDimension(Rule):
    """Knows it by the softmax's dimension and the sums of its values, and by the tables that ``argmax`` is given."""

    name = "argmax-over-wrong-dimension"
    code = 311
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: Counter[Place | None] = Counter()
        self._classes: dict[ModelSeen, int] = {}  # a model that gave (samples, classes) to cross-entropy -> classes
        self._rows: tuple[int, int] | None = None  # the number of the pass before the last loss, and its scores' rows
        self._right = 0

    def loss_called(self, fact: LossCalled) -> Iterator[Finding]:
        if self._looks[fact.place] >= LOOKS or fact.error is not None:
            return
        if fact.kind not in BY_CLASS and fact.kind not in OTHERS:
            return
        self._looks[fact.place] += 1
        scores = fact.input
        if fact.of is not None and scores.dim():
            self._rows = fact.of.number, len(scores)
        if not scores.requires_grad or scores.dim() < 2 or not readable(scores):
            return
        by_index = fact.kind in ("cross_entropy", "nll_loss") and not fact.target.is_floating_point()
        if by_index and scores.dim() == 2 and fact.of is not None:
            self._classes[fact.of.model] = scores.shape[1]
        made = softmax_behind(scores)
        if made is None:
            return
        node, log = made
        dim, shape = dimension(node), node.shape
        if dim is None or shape is None or len(shape) < 2:
            return
        wrong = self._wrong(fact, dim, shape, log)
        self._right += not wrong
        if wrong:
            self._looks[fact.place] = LOOKS
            expected = class_dimension(scores)
            name = "log-softmax" if node.op == "LogSoftmax" else "softmax"
            yield self.finding(
                f"the {name} before {fact.kind} runs over dim {dim} of {shape}, "
                + ("the batch: samples compete with each other" if dim == 0 else "which is not that of the classes"),
                f"values sum to {_sum(scores, expected, log):.3f} over the classes (dim {expected}), 1 over dim {dim}",
                place=node.place or fact.place,
                related=[(fact.place, "the loss")] if node.place and node.place != fact.place else (),
            )

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding]:
        if fact.number >= GRAPHS:
            return
        shape = next(
            (of.shapes[0] for of in fact.passes if of.shapes and self._rows == (of.number, of.shapes[0][0])), ()
        )
        if len(shape) < 2 or shape[0] < 2 or shape[0] in shape[1:]:
            return  # time may come first, or all pairs are meant
        for node in fact.graph.of("Softmax"):
            if node.shape is None or node.shape[:2] != shape[:2] or dimension(node) != 0 or node.place is None:
                continue
            yield self.finding(
                f"the softmax runs over dim 0 of {node.shape}, the batch: samples compete with each other",
                f"the model's input is {shape}, and the loss is given {shape[0]} samples",
                place=node.place,
                related=[(fact.place, "the backward through it")],
            )

    def chosen(self, fact: Chosen) -> Iterator[Finding]:
        last = self.trace.last_pass
        samples, classes = fact.input.shape
        if fact.dim == 1 or last is None or samples < 2 or classes < 2 or not fact.input.is_floating_point():
            return
        if self._classes.get(last.model) != classes or not last.shapes or last.shapes[0][:1] != (samples,):
            return
        if fact.place is None or self._looks[fact.place] >= LOOKS:
            return
        self._looks[fact.place] = LOOKS
        over = "all values" if fact.dim is None else "dim 0, the batch,"
        yield self.finding(
            f"argmax runs over {over} of the scores ({samples}, {classes}): it names "
            + (
                "one place in the whole table"
                if fact.dim is None
                else "a sample for each class, not a class for each sample"
            ),
            f"the model's scores are {samples} samples by {classes} classes, as cross-entropy was given them",
            place=fact.place,
        )

    def passed(self) -> str | None:
        return "softmaxes before the loss ran over the classes" if self._right else None

    def _wrong(self, fact: LossCalled, dim: int, shape: tuple[int, ...], log: bool) -> bool:
        scores = fact.input
        if dim and shape[dim] == 1:
            return False  # softmax-over-one-value's
        if fact.kind in BY_CLASS:
            expected = class_dimension(scores)
            if fact.kind == "kl_div":  # it has no dimension of classes: only the batch is surely wrong
                return dim == 0 and shape == tuple(scores.shape) and shape[1] > 1 and self._batch(fact, shape[0])
            if scores.shape[expected] < 2 or off_one(scores, expected, log=log) < OFF:
                return False
            square = scores.dim() == 2 and scores.shape[0] == scores.shape[1]
            return not (square and _counts_up(fact.target))  # both ways through a table of pairs
        return dim == 0 and shape == tuple(scores.shape) and shape[1] > 1 and self._batch(fact, shape[0])

    def _batch(self, fact: LossCalled, size: int) -> bool:
        """Whether a dimension of this size is the batch of the pass before the loss."""
        return fact.of is not None and bool(fact.of.shapes) and fact.of.shapes[0][:1] == (size,) and size > 1


def _counts_up(target: Tensor) -> bool:
    return target.dim() == 1 and not target.is_floating_point() and target.tolist() == list(range(len(target)))


def _sum(tensor: Tensor, dim: int, log: bool) -> float:
    values = tensor.detach().float()
    return float((values.exp() if log else values).sum(dim).flatten().median())


def in_source(program: Program) -> Iterator[Checked]:
    """A batch goes through a softmax over dimension 0 right before a loss of classes, or an argmax over it."""
    told: set[int] = set()
    last: set[int] = set()  # the layers whose output is (batch, classes), as cross-entropy takes it
    for run in program.runs:
        for event in run.of(read.LossCalled):
            if event.kind not in ("cross_entropy", "nll_loss"):
                continue
            for end in _out_of_logarithms(event.input):
                if not isinstance(end, values.Tensor):
                    continue
                scores = endings(end.inputs[0]) if end.op in _SOFTMAX and end.inputs else (end,)
                last |= {id(one.layer) for one in scores if isinstance(one, values.Tensor) and one.layer is not None}
                if end.op not in _SOFTMAX or id(end.node) in told:
                    continue
                dim = end.options.get("dim") or (end.inputs[1] if len(end.inputs) > 1 else None)
                if end.layer is not None:
                    dim = end.layer.option("dim", 0)
                through = [one.op for one in ancestors(end) if isinstance(one, values.Tensor)]
                batch = "fetched" in through or samples_first(end.inputs[0])
                if values.constant(dim) != 0 or not batch or {"permute", "t", "T"} & set(through):
                    continue
                told.add(id(end.node))
                finding = program.finding(
                    ArgmaxOverWrongDimension,
                    f"the {end.op} is over dimension 0, the batch: its values sum to one over the samples",
                    "the loss wants (batch, classes), and a loader's batch came to it without turning",
                    at=end,
                    related=[(event, "the loss")],
                    help="take it over the classes: `dim=1`, or `dim=-1`",
                )
                yield Checked(finding, _mended(program, event, end))
        for event in run.of(read.LossCalled):
            for pooled, weights in _weighted(event.input):
                if id(weights.node) in told:
                    continue
                told.add(id(weights.node))
                finding = program.finding(
                    ArgmaxOverWrongDimension,
                    "the weights are a softmax over dimension 0, the batch: they sum to one over the samples",
                    f"`{pooled.at.unit.text(pooled.node)}` adds up over dimension {_dim(pooled)}",
                    at=weights,
                    certainty="likely",
                    related=[(pooled, "what they weigh is added up here"), (event, "the loss")],
                    help=f"take it over what is added up: `dim={_dim(pooled)}`",
                )
                yield Checked(finding)
    for run in program.runs:
        for chosen in run.of(read.Operated):
            if chosen.name not in _CHOOSES or id(chosen.node) in told or not _over_samples(chosen, last):
                continue
            told.add(id(chosen.node))
            finding = program.finding(
                ArgmaxOverWrongDimension,
                "the largest is taken over dimension 0, the batch: it names a sample for each class, no class",
                "what it is taken of is the (batch, classes) that cross-entropy is given in training"
                if not _is_of_transformers(chosen.args[0])
                else "the Trainer hands over the scores of all samples, one row each",
                at=chosen,
                help="take it over the classes: `dim=1`, or `dim=-1`",
            )
            place = 0 if chosen.name.startswith("Tensor.") else 1
            dim = given(chosen.node, "dim", place) or given(chosen.node, "axis", place)
            edit = put(program, dim, "-1" if _is_of_transformers(chosen.args[0]) else "1") if dim is not None else None
            yield Checked(finding, together("take the largest over the classes", edit))


def _weighted(value: values.Value) -> Iterator[tuple[values.Tensor, values.Tensor]]:
    """Weighted sums over another dimension than the batch, and their weights, which are a softmax over the batch."""
    for one in ancestors(value):
        if not isinstance(one, values.Tensor) or one.op != "sum" or _dim(one) in (None, 0) or not one.inputs:
            continue
        product = one.inputs[0]
        sides = product.inputs if isinstance(product, values.Tensor) and product.op == "mul" else ()
        if any(isinstance(side, values.Tensor) and side.op in ("log", "log_softmax") for side in sides):
            continue  # an entropy, which is added up over all
        for side in sides:
            known = isinstance(side, values.Tensor) and side.op == "softmax" and bool(side.inputs)
            if isinstance(side, values.Tensor) and known and _dim(side) == 0 and samples_first(side.inputs[0]):
                yield one, side


def _dim(value: values.Tensor) -> int | None:
    """The dimension that an operation goes over, if it is written as a number."""
    if value.layer is not None:
        given = value.layer.option("dim", 0)
    else:
        given = value.options.get("dim") or (value.inputs[1] if len(value.inputs) > 1 else None)
    found = values.constant(given)
    return found if type(found) is int else None


_SOFTMAX = ("softmax", "log_softmax")
_LOGARITHM = ("log", "add", "clamp", "clamp_min")
_CHOOSES = ("torch.argmax", "torch.max", "Tensor.argmax", "numpy.argmax", "np.argmax")


def _out_of_logarithms(value: values.Value) -> tuple[values.Value, ...]:
    """What a loss is given; of ``log(p + 1e-9)`` it is p."""
    found = []
    for end in endings(value):
        while isinstance(end, values.Tensor) and end.op in _LOGARITHM and end.inputs:
            inside = endings(end.inputs[0])
            end = inside[0] if len(inside) == 1 else values.Unknown()
        found.append(end)
    return tuple(found)


def _over_samples(chosen: read.Operated, last: set[int]) -> bool:
    """Whether the largest of a classifier's scores is taken over the samples."""
    dim = chosen.kwargs.get("dim") or chosen.kwargs.get("axis") or (chosen.args[1] if len(chosen.args) > 1 else None)
    scores = chosen.args[0] if chosen.args else None
    if dim is None or values.constant(dim, -1) != 0 or scores is None:
        return False
    if _is_of_transformers(scores):
        return True
    if not samples_first(scores):
        return False
    return all(isinstance(end, values.Tensor) and id(end.layer) in last for end in _under_probabilities(scores))


def _is_of_transformers(scores: values.Value) -> bool:
    """Whether its Trainer hands them to ``compute_metrics``: (samples, …, classes)."""
    return isinstance(scores, values.Tensor) and scores.op == PREDICTIONS


def _under_probabilities(value: values.Value) -> Iterator[values.Value]:
    for end in endings(value):
        if isinstance(end, values.Tensor) and end.op in _PLAIN and end.inputs:
            yield from _under_probabilities(end.inputs[0])
        else:
            yield end


_PLAIN = ("softmax", "log_softmax", "detach", "data", "numpy", "exp")


def _mended(program: Program, event: read.LossCalled, end: values.Tensor) -> Fix | None:
    """Dimension 1 is the classes' where the loss gets what the softmax makes as it is, or its logarithm."""
    reached = event.input
    while isinstance(reached, values.Tensor) and reached.op in _LOGARITHM and reached.inputs:
        reached = reached.inputs[0]
    made = end.node if end.layer is None else end.layer.node
    placed = [one for one in getattr(made, "args", ()) if one.keyword is None]
    of_method = end.layer is None and len(end.inputs) == len(placed) + 1
    dim = given(made, "dim", 0 if end.layer is not None or of_method else 1)
    if reached is not end or dim is None:
        return None
    return together(f"take the {end.op} over the classes", put(program, dim, "1"))


FIRES = {
    "log-softmax over the batch": """
        model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(dim=0))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            opt.zero_grad()
            F.nll_loss(model(x), x[:, :3].argmax(1)).backward()
            opt.step()
    """,
    "softmax over positions": """
        head = nn.Linear(4, 3)
        opt = torch.optim.Adam(head.parameters(), lr=0.01)
        for _ in range(6):
            x = torch.randn(8, 5, 4)
            logp = torch.log_softmax(head(x), dim=1)
            opt.zero_grad()
            F.nll_loss(logp.reshape(-1, 3), x[..., :3].argmax(-1).reshape(-1)).backward()
            opt.step()
    """,
    "attention that runs over the batch": """
        class Pool(nn.Module):
            def __init__(self):
                super().__init__()
                self.score, self.head = nn.Linear(4, 1), nn.Linear(4, 2)

            def forward(self, x):
                weights = F.softmax(self.score(x), dim=0)
                return self.head((weights * x).sum(1))

        model = Pool()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 5, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[:, 0, 0] > 0).long()).backward()
            opt.step()
    """,
    "argmax over the batch in the metric": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            y = x[:, :3].argmax(1)
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
        with torch.no_grad():
            out = model(x)
            same = (out.argmax(0) == F.one_hot(y, 3).argmax(0)).float().mean()
    """,
}

SILENT = {
    "both ways through a table of pairs": """
        enc = nn.Linear(4, 3)
        opt = torch.optim.SGD(enc.parameters(), lr=0.1)
        for _ in range(6):
            a, b = enc(torch.randn(8, 4)), enc(torch.randn(8, 4))
            pairs, labels = a @ b.t(), torch.arange(8)
            loss = F.nll_loss(F.log_softmax(pairs, 1), labels) + F.nll_loss(F.log_softmax(pairs, 0), labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "attention over a bag, a largest feature": """
        class Bag(nn.Module):
            def __init__(self):
                super().__init__()
                self.score, self.head = nn.Linear(4, 1), nn.Linear(8, 2)

            def forward(self, bag):
                pooled = (torch.softmax(self.score(bag), 0) * bag).sum(0)
                return self.head(torch.cat([pooled, bag.max(0).values])).unsqueeze(0)

        model = Bag()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            bag = torch.randn(7, 4)
            opt.zero_grad()
            F.cross_entropy(model(bag), (bag[:1, 0] > 0).long()).backward()
            opt.step()
    """,
    "attention with time first": """
        class Pool(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.score, self.head = nn.GRU(4, 8), nn.Linear(8, 1), nn.Linear(8, 2)

            def forward(self, x):
                h = self.rnn(x)[0]
                return self.head((torch.softmax(self.score(h), 0) * h).sum(0))

        model = Pool()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for length in (5, 16, 7):
            x = torch.randn(length, 16, 4)
            opt.zero_grad()
            F.cross_entropy(model(x), (x[0, :, 0] > 0).long()).backward()
            opt.step()
    """,
    "classes first, then turned": """
        w = nn.Parameter(torch.randn(3, 4))
        opt = torch.optim.SGD([w], lr=0.1)
        for _ in range(6):
            x = torch.randn(16, 4)
            logp = torch.log_softmax(w @ x.t(), 0).t()
            opt.zero_grad()
            F.nll_loss(logp, x[:, :3].argmax(1)).backward()
            opt.step()
            shown = logp.argmax(1)
    """,
}

READ_FIRES = {
    "attention over a bag, whose weights are taken over the bags": """
        import torch
        import torch.nn.functional as F
        from torch import nn
        from torch.utils.data import DataLoader
        class Bags(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.attend, self.out = nn.Linear(6, 24), nn.Linear(24, 1), nn.Linear(24, 2)
            def forward(self, bag):
                z = torch.relu(self.embed(bag))
                weight = F.softmax(self.attend(z), dim=0)
                return self.out((weight * z).sum(1))
        net = Bags()
        for bag, y in DataLoader(data, 40, shuffle=True):
            F.cross_entropy(net(bag), y).backward()
    """,
    "the metric": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        def correct(out, y):
            _, predicted = torch.max(out.data, 0)
            return (predicted == y[:len(predicted)]).sum().item()
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        for x, y in DataLoader(data, batch_size=8):
            nn.functional.cross_entropy(net(x), y).backward()
        with torch.no_grad():
            hits = sum(correct(net(x), y) for x, y in DataLoader(held, batch_size=8))
    """,
    "the logarithm of a softmax over drawn rows": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=0))
        for rows in torch.randperm(100).split(10):
            nn.functional.nll_loss(torch.log(net(X[rows]) + 1e-9), y[rows]).backward()
    """,
    "dim=0 in forward": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        from torch.utils.data import DataLoader
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 3)
            def forward(self, x):
                return F.log_softmax(self.fc(x), dim=0)
        net = Net()
        for x, y in DataLoader(data):
            F.nll_loss(net(x), y).backward()
    """,
}

READ_SILENT = {
    "attention over a bag, and over time that comes first": """
        import torch
        import torch.nn.functional as F
        from torch import nn
        from torch.utils.data import DataLoader
        class Pool(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.attend, self.out = nn.Linear(6, 24), nn.Linear(24, 1), nn.Linear(24, 2)
            def forward(self, x):
                z = torch.relu(self.embed(x))
                late = z.transpose(0, 1)
                first = (F.softmax(self.attend(z), dim=1) * z).sum(1)
                second = (F.softmax(self.attend(late), dim=0) * late).sum(0)
                third = (F.softmax(self.attend(late), dim=0) * late).sum(-1).t()
                return self.out(first + second) + third.mean(1, keepdim=True)
        net = Pool()
        for x, y in DataLoader(data, 40, shuffle=True):
            F.cross_entropy(net(x), y).backward()
    """,
    "one sample, a bag, both ways through pairs": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        from torch.utils.data import DataLoader
        net, enc = nn.Linear(4, 3), nn.Linear(4, 8)
        for x, y in DataLoader(data, batch_size=8):
            F.cross_entropy(net(x), y).backward()
            pairs = enc(x) @ enc(x + 1).T
            F.cross_entropy(pairs, torch.arange(8)).backward()
            shown = pairs.argmax(0), net(x)[0].argmax(0), net(x).max(1)[1], (net(x).softmax(1) > 0.5).max(0)
        for x, y in samples:
            scores = net(x)
            F.cross_entropy(scores, torch.tensor(y)).backward()
            print(scores.argmax(dim=0))
    """,
    "over the classes": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        for x, y in DataLoader(data):
            F.nll_loss(F.log_softmax(net(x), dim=1), y).backward()
    """,
}
