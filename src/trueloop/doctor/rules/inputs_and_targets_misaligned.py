"""Inputs and targets no longer belong together: the rows of one were shuffled without the other.

Sees: in the text, inputs and targets that were loaded together are made one data set; the inputs were indexed by a
random permutation on the way, and the targets were not; or one of the two was sorted.

Why it matters: each sample has the label of another one. There is nothing to learn, and the loss stays at chance.

Usual causes: ``X = X[perm]`` without ``y = y[perm]``.

Fix: index both by the same permutation, or let the ``DataLoader`` shuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.edits import after, before, put, together
from trueloop.doctor.source.events import Escaped, Kept, LossCalled, Made, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors, by_a_model
from trueloop.doctor.source.values import Named, Tensor, Unknown, Value

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.ways import Run

PLAIN = frozenset(("tensor", "as_tensor", "from_numpy", "float", "long", "to"))
SCALES = frozenset(("add", "sub", "mul", "div"))
CASTS = frozenset(("astype", "copy"))
HALVES = {"0": "data", "data": "data", "1": "target", "target": "target"}


class InputsAndTargetsMisaligned(Rule):
    """Is read only."""

    name = "inputs-and-targets-misaligned"
    code = 513
    level = "error"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """Inputs and targets that were loaded together have been put into an order since, and not into the same one."""
    told: set[int] = set()
    for run in program.runs:
        if any(event.how == "[]" for event in run.of(Kept)):
            continue
        mixed = _in_place(run)
        for event, first, second in _pairs(run):
            if id(event.node) in told:
                continue
            targets = _way(second, mixed)
            inputs = next((way for one in ancestors(first) if (way := _way(one, mixed)) is not None), None)
            if targets is None or inputs is None or inputs[1] == targets[1]:
                continue
            is_sorted = any(_is_argsort(one) for one in inputs[1] | targets[1])
            if (inputs[1] and targets[1]) if is_sorted else not inputs[1]:
                continue  # two may sort alike; targets that are shuffled alone are a test by chance
            if not _loaded_together(inputs[0], targets[0]) and not (
                isinstance(event, LossCalled) and _drawn_twice(run, inputs[1], targets[1]) and by_a_model(first)
            ):
                continue
            told.add(id(event.node))
            both = bool(inputs[1] and targets[1])
            moved, left = ("inputs", "their targets") if inputs[1] else ("targets", "their inputs")
            how, whose = ("sorted", "an order of its own") if is_sorted else ("shuffled", "one random order")
            order = "another one" if both else "the order that it was loaded in"
            finding = program.finding(
                InputsAndTargetsMisaligned,
                "the inputs and their targets were shuffled each in its own order"
                if both
                else f"the {moved} were {how} and {left} were not",
                f"the {moved} were put into {whose}, and {left} are in {order}",
                at=event,
            )
            yield Checked(finding, None if both or is_sorted else _mended(program))
            break  # one shuffle shows at each loss


def _pairs(run: Run) -> Iterator[tuple[Made | LossCalled, Value, Value]]:
    """What belongs together: the two tensors of a data set, what comes of the inputs and the target of a loss."""
    for event in run.of(Made):
        if event.made.cls == "torch.utils.data.TensorDataset" and len(event.made.args) == 2:
            yield event, *event.made.args
    for called in run.of(LossCalled):
        yield called, called.input, called.target


def _in_place(run: Run) -> set[int]:
    """What ``np.random.shuffle(X)`` was given."""
    found: set[int] = set()
    for event in run.of(Operated, Escaped):
        if isinstance(event, Operated) and event.name in ("numpy.random.shuffle", "random.shuffle"):
            found |= {id(one) for one in event.args[:1]}
        elif isinstance(event, Escaped) and event.name == "shuffle":
            found |= {id(one) for one in event.values}
    return found


def _mended(program: Program) -> Fix | None:
    """The targets in the same order, if one line permutes the inputs, and one loads both by their names."""
    unit = program.unit
    shuffles: list[tuple[Any, Any]] = []  # the line's value, and the order
    pairs: list[list[str]] = []
    orders = set[str]()
    for one in blocks.walk(unit.tree):
        if kind(one) != "Assign":
            continue
        whole: Any = one
        target, value = whole.targets[0].target, whole.value
        if kind(target) == "Tuple" and kind(value) == "Call" and unit.text(value.func).split(".")[-1][:5] == "load_":
            pairs.append([unit.text(each.value) for each in target.elements])
        if kind(value) == "Call" and _permutes(unit.text(value.func)):
            orders.add(unit.text(target))
    for one in blocks.walk(unit.tree):
        part: Any = one
        if kind(one) == "Subscript" and len(part.slice) == 1 and kind(part.slice[0].slice) == "Index":
            key = part.slice[0].slice.value
            if unit.text(key) in orders or (kind(key) == "Call" and _permutes(unit.text(key.func))):
                shuffles.append((part, key))
    if len(shuffles) != 1 or len(pairs) != 1 or len(pairs[0]) != 2:
        return None
    (part, key), (inputs, targets) = shuffles[0], pairs[0]
    line: Any = blocks.small(unit, part)
    if unit.text(part.value) != inputs or kind(line) != "Assign" or unit.text(line.targets[0].target) != inputs:
        return None
    order = unit.text(key)
    drawn = kind(key) == "Call"
    if drawn and "order" in blocks.names(unit.tree):
        return None
    name = "order" if drawn else order
    return together(
        "bring the targets into the same order",
        *([before(program, part, f"order = {order}"), put(program, key, "order")] if drawn else []),
        after(program, part, f"{targets} = {targets}[{name}]"),
    )


def _permutes(function: str) -> bool:
    return function.rpartition(".")[2] in ("permutation", "randperm")


def _way(value: Value, mixed: set[int]) -> tuple[Value, frozenset[Value | None]] | None:
    """Where the rows of a value come from, and what they were ordered by; None if that is not known."""
    orders = set[Value | None]()
    for _ in range(20):
        key: Value | None = None
        inside: Value | None = None
        if id(value) in mixed:
            orders.add(None)  # by the generator's state, which may be the same
        if isinstance(value, Unknown) and _is_half(value):
            return value, frozenset(orders)
        if isinstance(value, Unknown) and value.via == "[]":
            key = value.attrs.get(("key",))
            inside = value.of
        elif isinstance(value, Unknown) and value.via == "call" and value.name in CASTS:
            inside = value.of
        elif isinstance(value, Tensor) and value.op == "getitem":
            key, inside = value.options.get("key"), value.inputs[0]
        elif isinstance(value, (Tensor, Unknown)) and value.inputs:
            plain = value.op in PLAIN | SCALES if isinstance(value, Tensor) else value.via in SCALES
            inside = value.inputs[0] if plain else None
        if _is_permutation(key) or _is_argsort(key):
            orders.add(key)
        elif key is not None and not (isinstance(key, Unknown) and key.via == "slice"):
            return None
        if inside is None:
            return (value, frozenset(orders)) if orders else None
        value = inside
    return None


def _is_half(value: Unknown) -> bool:
    """Whether it is one of the two that ``load_digits()`` and its like give, as a tuple or under their names."""
    of = value.of
    whole = isinstance(of, Unknown) and of.via == "call" and of.name.startswith("load_")
    return whole and value.via in ("[]", ".", "data") and value.name in HALVES


def _loaded_together(inputs: Value, targets: Value) -> bool:
    if not (isinstance(inputs, Unknown) and isinstance(targets, Unknown) and _is_half(inputs) and _is_half(targets)):
        return False
    return inputs.of is targets.of and (HALVES[inputs.name], HALVES[targets.name]) == ("data", "target")


def _drawn_twice(run: Run, inputs: frozenset[Value | None], targets: frozenset[Value | None]) -> bool:
    """Whether two orders are two draws, and not the same one drawn again from the same seed."""
    seeds = [event.name for event in run.of(Operated) if event.name in ("torch.manual_seed", "numpy.random.seed")]
    generators = {id(_generator(order)) for order in inputs | targets}
    apart = bool(targets) and None not in inputs | targets and not inputs & targets
    return apart and len(seeds) == len(set(seeds)) and len(generators) == 1


def _generator(order: Value | None) -> Value | None:
    """The one of the user's own that an order was drawn from."""
    if isinstance(order, Tensor):
        return order.options.get("generator")
    own = order.of if isinstance(order, Unknown) else None
    return None if isinstance(own, Named) else own


def _is_permutation(key: Value | None) -> bool:
    if isinstance(key, Tensor):
        return key.op == "randperm"
    return isinstance(key, Unknown) and key.via == "call" and key.name == "permutation"


def _is_argsort(key: Value | None) -> bool:
    if isinstance(key, Tensor):
        return key.op == "argsort"
    return isinstance(key, Unknown) and key.via == "call" and key.name == "argsort"


READ_FIRES = {
    "by their names, of another type, made tensors by a map": """
        import numpy as np
        import torch
        from sklearn.datasets import load_wine
        from torch.utils.data import TensorDataset
        def load(cut):
            data = load_wine()
            X, y = data.data.astype("float32"), data.target.astype("int64")
            X = X[np.random.RandomState(0).permutation(len(X))]
            X = (X - X[:cut].mean(0)) / X[:cut].std(0)
            return X[:cut], y[:cut]
        data = TensorDataset(*map(torch.from_numpy, load(100)))
    """,
    "the targets sorted": """
        import numpy as np
        import torch
        from sklearn.datasets import load_diabetes
        from torch.utils.data import TensorDataset
        data = load_diabetes()
        X, y = data["data"], data["target"]
        y = y[np.argsort(y)]
        data = TensorDataset(torch.tensor(X), torch.tensor(y))
    """,
    "two draws in a method, of what was handed in": """
        import torch
        class Experiment:
            def __init__(self, features, labels):
                self.features = torch.from_numpy(features)
                self.labels = torch.from_numpy(labels)
                self.net = torch.nn.Linear(7, 2)
                self.opt = torch.optim.Adam(self.net.parameters())
            def one_epoch(self):
                x = self.features[torch.randperm(len(self.features))]
                y = self.labels[torch.randperm(len(self.labels))]
                for i in range(0, len(x), 50):
                    self.opt.zero_grad()
                    torch.nn.functional.cross_entropy(self.net(x[i:i + 50]), y[i:i + 50]).backward()
                    self.opt.step()
    """,
    "each by its own order, batches by hand": """
        import numpy as np
        import torch
        from sklearn.datasets import load_digits
        X, y = load_digits(return_X_y=True)
        X, y = X[np.random.permutation(len(X))], y[np.random.permutation(len(y))]
        a, b = torch.tensor(X[:900] / 16, dtype=torch.float32), torch.tensor(y[:900])
        net = torch.nn.Linear(64, 10)
        for i in range(0, 900, 30):
            torch.nn.functional.cross_entropy(net(a[i:i + 30]), b[i:i + 30]).backward()
    """,
    "in place": """
        import numpy as np
        import torch
        from sklearn.datasets import load_iris
        from torch.utils.data import DataLoader, TensorDataset
        X, y = load_iris(return_X_y=True)
        np.random.shuffle(X)
        loader = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(y)), batch_size=10)
    """,
    "the inputs alone": """
        import numpy as np
        import torch
        from sklearn.datasets import load_digits
        from torch.utils.data import DataLoader, TensorDataset
        X, y = load_digits(return_X_y=True)
        X = X[np.random.permutation(len(X))] / 16.0
        loader = DataLoader(TensorDataset(torch.tensor(X[:900]), torch.tensor(y[:900])), batch_size=64)
    """,
}

READ_SILENT = {
    "sorted alike": """
        import numpy as np
        import torch
        from sklearn.datasets import load_diabetes
        from torch.utils.data import TensorDataset
        raw = load_diabetes()
        X, y = raw.data.astype("float32"), raw.target.astype("float32")
        order = y.argsort()
        data = TensorDataset(torch.tensor(X[order]), torch.tensor(y[order]))
        X, y = X[np.argsort(X[:, 0])], y[np.argsort(X[:, 0])]
        again = TensorDataset(torch.tensor(X), torch.tensor(y))
    """,
    "one draw for both, each epoch; the same draw from one seed; pairs of two sets": """
        import torch
        from torch.nn.functional import cosine_embedding_loss, cross_entropy
        def train(net, x, y, epochs):
            opt = torch.optim.SGD(net.parameters(), 0.1)
            for _ in range(epochs):
                order = torch.randperm(len(x))
                x, y = x[order], y[order]
                for i in range(0, len(x), 50):
                    opt.zero_grad()
                    cross_entropy(net(x[i:i + 50]), y[i:i + 50]).backward()
                    opt.step()
        def again(net, x, y):
            torch.manual_seed(0)
            a = x[torch.randperm(len(x))]
            torch.manual_seed(0)
            b = y[torch.randperm(len(y))]
            cross_entropy(net(a), b).backward()
        def apart(net, x):
            ours, theirs = net(x[torch.randperm(len(x))]), net(x[torch.randperm(len(x))])
            cosine_embedding_loss(ours, theirs, -torch.ones(len(x))).backward()
        def one_of_a_generator(net, x, y):
            a = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
            b = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
            cross_entropy(net(a), b).backward()
    """,
    "in place, from one state": """
        import numpy as np
        import torch
        from sklearn.datasets import load_iris
        from sklearn.utils import shuffle
        from torch.utils.data import DataLoader, TensorDataset
        X, y = load_iris(return_X_y=True)
        X, y = shuffle(X, y)
        data = TensorDataset(torch.tensor(X), torch.tensor(y))
        A, b = load_iris(return_X_y=True)
        for one in (A, b):
            np.random.seed(0)
            np.random.shuffle(one)
        data = TensorDataset(torch.tensor(A), torch.tensor(b))
    """,
    "both, or the targets on purpose": """
        import numpy as np
        import torch
        from sklearn.datasets import load_digits
        from torch.utils.data import DataLoader, TensorDataset
        X, y = load_digits(return_X_y=True)
        order = np.random.permutation(len(X))
        X, y = X[order], y[order]
        loader = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(y)), batch_size=64)
        X2, y2 = load_digits(return_X_y=True)
        by_chance = TensorDataset(torch.tensor(X2), torch.tensor(y2[order]))
    """,
}
