"""Windows of one series are split at random: those that are held out overlap those that are trained on.

Sees: in the text, windows cut from a series at each of its places (``series[i : i + width]``) are given to
``train_test_split`` without ``shuffle=False``.

Why it matters: nearly all values of a held-out window stand in training windows as well, and its future too. The
held-out figure says how well the network fills gaps, not how well it foretells.

Usual causes: ``train_test_split`` shuffles unless it is told not to.

Fix: split by time: ``train_test_split(X, y, shuffle=False)``, or cut the series in two before the windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.rule import Rule
from trueloop.doctor.source.events import Operated
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.values import Constant, Items, Tensor, Unknown, Value, constant

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program

STACKS = ("stack", "array", "asarray", "vstack", "tensor")


class TimeSeriesSplitAtRandom(Rule):
    """Is read only."""

    name = "time-series-split-at-random"
    code = 514
    level = "warning"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """What is split at random was stacked from windows that begin at each place of a series."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(Operated):
            if event.name != "sklearn.model_selection.train_test_split" or not event.args or id(event.node) in told:
                continue
            mixes = constant(event.kwargs.get("shuffle", Constant(True))) is True
            width = _width(event.args[0])
            if width is None or not mixes or "**" in event.kwargs:
                continue
            told.add(id(event.node))
            finding = program.finding(
                TimeSeriesSplitAtRandom,
                "overlapping windows of one series are split at random: training sees the held-out values",
                f"windows of {width} begin at each place of the series, and the split shuffles them",
                at=event,
            )
            yield Checked(finding)


def _width(value: Value) -> int | None:
    """How wide the windows are that a value is stacked from, each one place after the last; None if it is not that."""
    if isinstance(value, Tensor):
        op, inputs = value.op, value.inputs
    elif isinstance(value, Unknown) and value.via == "call":
        op, inputs = value.name, value.inputs
    else:
        return None
    rows = inputs[0] if op in STACKS and inputs else None
    if not isinstance(rows, Items) or not _each_place(rows.node):
        return None
    window = rows.attrs.get("each")
    key = None
    if isinstance(window, Unknown) and window.via == "[]":
        key = window.attrs.get(("key",))
    elif isinstance(window, Tensor) and window.op == "getitem":
        key = window.options.get("key")
    if not isinstance(key, Unknown) or key.via != "slice":
        return None
    low, high, step = key.attrs["bounds"]
    if constant(step, 0) is not None or not isinstance(high, Unknown) or high.via != "add" or high.inputs[0] is not low:
        return None
    width = constant(high.inputs[1])
    return width if type(width) is int and width >= 2 else None


def _each_place(node: cst.CSTNode) -> bool:
    """Whether it is ``[… for i in range(n)]``, or from a place on."""
    import libcst as cst

    if not isinstance(node, cst.ListComp) or node.for_in.ifs or node.for_in.inner_for_in is not None:
        return False
    over = node.for_in.iter
    is_range = isinstance(over, cst.Call) and isinstance(over.func, cst.Name) and over.func.value == "range"
    return isinstance(over, cst.Call) and is_range and len(over.args) < 3


READ_FIRES = {
    "windows, then a split": """
        import numpy as np
        import torch
        from sklearn.model_selection import train_test_split
        from torch.utils.data import DataLoader
        def windows(series, width):
            return np.stack([series[i:i + width] for i in range(len(series) - width)]), series[width:]
        X, y = windows(np.load("series.npy"), 16)
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2)
        loader = DataLoader(X_train, batch_size=32)
    """,
}

READ_SILENT = {
    "in order, or side by side": """
        import numpy as np
        import torch
        from sklearn.model_selection import train_test_split
        from torch.utils.data import DataLoader
        series = np.load("series.npy")
        X = np.stack([series[i:i + 16] for i in range(len(series) - 16)])
        X_train, X_test = train_test_split(X, shuffle=False)
        apart = np.stack([series[i:i + 16] for i in range(0, len(series) - 16, 16)])
        a, b = train_test_split(apart)
        loader = DataLoader(X_train, batch_size=32)
    """,
}
