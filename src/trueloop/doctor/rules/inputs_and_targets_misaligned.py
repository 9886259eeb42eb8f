"""Inputs and targets no longer belong together: the rows of one were shuffled without the other.

Sees: in the text, inputs and targets that were loaded together are made one data set; the inputs were indexed by a
random permutation on the way, and the targets were not.

Why it matters: each sample has the label of another one. There is nothing to learn, and the loss stays at chance.

Usual causes: ``X = X[perm]`` without ``y = y[perm]``.

Fix: index both by the same permutation, or let the ``DataLoader`` shuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source.events import Kept, Made, Operated
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.values import Tensor, Unknown, Value

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program

PLAIN = frozenset(("tensor", "as_tensor", "from_numpy", "float", "long", "to"))
SCALES = frozenset(("add", "sub", "mul", "div"))


class InputsAndTargetsMisaligned(Rule):
    """Is read only."""

    name = "inputs-and-targets-misaligned"
    code = 513
    level = "error"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """A data set's inputs were permuted since they were loaded with its targets, and the targets were not."""
    told: set[int] = set()
    for run in program.runs:
        in_place = any(event.name.endswith(".shuffle") for event in run.of(Operated))
        if in_place or any(event.how == "[]" for event in run.of(Kept)):
            continue
        for event in run.of(Made):
            data = event.made
            if data.cls != "torch.utils.data.TensorDataset" or len(data.args) != 2 or id(event.node) in told:
                continue
            inputs, targets = (_way(one) for one in data.args)
            if inputs is None or targets is None or not (inputs[0].name == "0" and targets[0].name == "1"):
                continue
            if inputs[0].of is not targets[0].of or not inputs[1] or targets[1]:
                continue
            told.add(id(event.node))
            loaded = inputs[0].of.name if isinstance(inputs[0].of, Unknown) else ""
            finding = program.finding(
                InputsAndTargetsMisaligned,
                "the inputs were shuffled and their targets were not",
                f"of what `{loaded}` gives, the first is indexed by a permutation, and the second is not",
                at=event,
            )
            yield Checked(finding)


def _way(value: Value) -> tuple[Unknown, bool] | None:
    """The part of a loaded pair that a value comes from, and whether it was permuted; None if that is not known."""
    permuted = False
    for _ in range(20):
        key: Value | None = None
        inside: Value | None = None
        if isinstance(value, Unknown) and value.via == "[]":
            of = value.of
            if (
                value.name in ("0", "1")
                and isinstance(of, Unknown)
                and of.via == "call"
                and of.name.startswith("load_")
            ):
                return value, permuted
            key = value.attrs.get(("key",))
            inside = of
        elif isinstance(value, Tensor) and value.op == "getitem":
            key, inside = value.options.get("key"), value.inputs[0]
        elif isinstance(value, (Tensor, Unknown)) and value.inputs:
            plain = value.op in PLAIN | SCALES if isinstance(value, Tensor) else value.via in SCALES
            inside = value.inputs[0] if plain else None
        if _is_permutation(key):
            permuted = True
        elif key is not None and not (isinstance(key, Unknown) and key.via == "slice"):
            return None
        if inside is None:
            return None
        value = inside
    return None


def _is_permutation(key: Value | None) -> bool:
    if isinstance(key, Tensor):
        return key.op == "randperm"
    return isinstance(key, Unknown) and key.via == "call" and key.name == "permutation"


READ_FIRES = {
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
