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
from trueloop.doctor.source.arguments import with_argument
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.events import Kept, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.values import Class, Constant, Function, Items, Object, Tensor, Unknown, Value, constant

if TYPE_CHECKING:
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
        grown = {id(one.into): one for one in run.of(Kept) if one.how == "append"}
        for event in run.of(Operated):
            if id(event.node) in told or not event.args:
                continue
            if event.name == "torch.utils.data.random_split":
                sliced = _slices(event.args[0])
                seen = f"each sample of {sliced} begins one place after the last" if sliced else ""
            elif event.name == "sklearn.model_selection.train_test_split":
                mixes = constant(event.kwargs.get("shuffle", Constant(True))) is True and "**" not in event.kwargs
                width = _width(event.args[0], grown) if mixes else None
                seen = f"windows of {width} begin at each place of the series" if width else ""
            else:
                continue
            if not seen:
                continue
            told.add(id(event.node))
            finding = program.finding(
                TimeSeriesSplitAtRandom,
                "overlapping windows of one series are split at random: training sees the held-out values",
                f"{seen}, and the split shuffles them",
                at=event,
            )
            yield Checked(finding, _mended(program, event) if event.name.startswith("sklearn") else None)


def _slices(data: Value) -> str:
    """The name of a class of the user's whose samples are ``series[i : i + width]``; empty if it is none."""
    import libcst as cst
    from libcst import matchers

    cls = data.cls if isinstance(data, Object) else None
    if not isinstance(cls, Class):
        return ""
    gives, counts = cls.find("__getitem__"), cls.find("__len__")
    if not isinstance(gives, Function) or not isinstance(counts, Function) or len(gives.node.params.params) != 2:
        return ""
    index = gives.node.params.params[1].name.value
    stored = matchers.findall(gives.node, matchers.AssignTarget(matchers.Name(index)))
    here = matchers.Name(index)
    ahead = matchers.BinaryOperation(here, matchers.Add(), ~matchers.Integer("1"))
    window = matchers.Subscript(slice=[matchers.SubscriptElement(matchers.Slice(here, ahead, None))])
    shorter = matchers.findall(counts.node, matchers.BinaryOperation(operator=matchers.Subtract()))
    lasting = not matchers.findall(counts.node, matchers.FloorDivide())
    plain = isinstance(gives.node, cst.FunctionDef) and not stored and shorter and lasting
    return cls.name if plain and matchers.findall(gives.node, window) else ""


def _mended(program: Program, event: Operated) -> Fix | None:
    """In order; scikit-learn cannot stratify then."""
    if "stratify" in event.kwargs:
        return None
    return together(
        "split in order: the last part of the series is held out",
        with_argument(program, event.node, "shuffle", "False"),
    )


def _width(value: Value, grown: dict[int, Kept]) -> str:
    """How wide the windows are that a value is stacked from, each one place after the last; empty if it is not that."""
    while True:
        if isinstance(value, Tensor):
            op, inputs = value.op, value.inputs
        elif isinstance(value, Unknown) and value.of is not None and (value.via == "[]" or value.name in FORMS):
            op, inputs = "form", (value.of,)
        elif isinstance(value, Unknown) and value.via == "call":
            op, inputs = value.name, value.inputs
        else:
            return ""
        rows = inputs[0] if inputs else None
        if op not in (*FORMS, "form", "tensor") or rows is None or isinstance(rows, Items):
            break
        if isinstance(value, Unknown) and value.via == "[]" and not _adds_dimensions(value.attrs.get(("key",))):
            return ""
        value = rows
    if op not in STACKS or not isinstance(rows, Items) or not _each_place(rows, grown):
        return ""
    window = rows.attrs.get("each")
    key = None
    if isinstance(window, Unknown) and window.via == "[]":
        key = window.attrs.get(("key",))
    elif isinstance(window, Tensor) and window.op == "getitem":
        key = window.options.get("key")
    if not isinstance(key, Unknown) or key.via != "slice":
        return ""
    low, high, step = key.attrs["bounds"]
    if constant(step, 0) is not None or not isinstance(high, Unknown) or high.via != "add" or high.inputs[0] is not low:
        return ""
    width = constant(high.inputs[1], "several")
    return str(width) if width == "several" or (type(width) is int and width >= 2) else ""


FORMS = ("astype", "reshape", "expand_dims", "float", "unsqueeze", "from_numpy", "as_tensor")


def _adds_dimensions(key: Value | None) -> bool:
    """``[..., None]``, ``[:, :, np.newaxis]``: all rows are still there."""
    cells = key.all() if isinstance(key, Items) else ()
    return bool(cells) and any(constant(one, 0) is None or getattr(one, "name", "") == "numpy.newaxis" for one in cells)


def _each_place(rows: Items, grown: dict[int, Kept]) -> bool:
    """Whether it is ``[… for i in range(n)]``, or from a place on; or a list that grows so."""
    import libcst as cst

    node = rows.node
    kept = grown.get(id(rows))
    if kept is not None and kept.at.loops and not kept.at.branches:
        loop = kept.at.loops[-1].node
        over = loop.iter if isinstance(loop, cst.For) else None
    elif isinstance(node, cst.ListComp) and not node.for_in.ifs and node.for_in.inner_for_in is None:
        over = node.for_in.iter
    else:
        return False
    is_range = isinstance(over, cst.Call) and isinstance(over.func, cst.Name) and over.func.value == "range"
    return isinstance(over, cst.Call) and is_range and len(over.args) < 3


READ_FIRES = {
    "a list of windows that grows": """
        import numpy as np
        import torch
        from sklearn.model_selection import train_test_split
        from torch.utils.data import DataLoader
        def sequences(series, lookback):
            xs, ys = [], []
            for i in range(len(series) - lookback):
                xs.append(series[i : i + lookback])
                ys.append(series[i + lookback])
            return np.array(xs)[..., None], np.array(ys)
        X, y = sequences(np.load("prices.npy"), 30)
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=1)
        loader = DataLoader(X_train, batch_size=32)
    """,
    "a data set of windows": """
        import torch
        from torch.utils.data import DataLoader, Dataset, random_split
        class Windows(Dataset):
            def __init__(self, series, width):
                self.series, self.width = series, width
            def __len__(self):
                return len(self.series) - self.width
            def __getitem__(self, i):
                return self.series[i : i + self.width], self.series[i + self.width]
        train, val = random_split(Windows(torch.randn(500), 24), [400, 76])
        loader = DataLoader(train, batch_size=32)
    """,
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
    "pieces side by side, rows": """
        import torch
        from torch.utils.data import DataLoader, Dataset, random_split
        class Pieces(Dataset):
            def __init__(self, series, width):
                self.series, self.width = series, width
            def __len__(self):
                return (len(self.series) - 1) // self.width
            def __getitem__(self, i):
                i = i * self.width
                return self.series[i : i + self.width]
        class Rows(Dataset):
            def __init__(self, rows):
                self.rows = rows
            def __len__(self):
                return len(self.rows) - 1
            def __getitem__(self, i):
                return self.rows[i]
        for data in (Pieces(torch.randn(500), 24), Rows(torch.randn(500, 3))):
            train, val = random_split(data, [0.8, 0.2])
            loader = DataLoader(train, batch_size=32)
    """,
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
