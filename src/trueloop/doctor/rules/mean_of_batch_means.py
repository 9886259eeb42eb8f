"""The means of batches are averaged, and the last batch is short.

Sees: the sum of a loss's means over a loader is divided by the number of batches, or a list of them is averaged; the
data set's length is known, it is no multiple of the batch size, and the short batch is not dropped.

Why it matters: the samples of the short batch count for more than the others: the figure is not the mean over the
samples, and it changes with the batch size.

Usual causes: ``total += loss.item()`` and ``total / len(loader)``; ``np.mean(losses)``.

Fix: weight each batch by its size (``total += loss.item() * len(x)``) and divide by the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.arguments import atom, given
from trueloop.doctor.source.batches import length_of_batch
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.data import length
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.events import Kept, LossCalled, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors, feeds
from trueloop.doctor.source.values import Items, Object, Tensor, Unknown, Value, constant
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program


class MeanOfBatchMeans(Rule):
    """Is read only."""

    name = "mean-of-batch-means"
    code = 312
    level = "note"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """Means are averaged, each counting the same, and the loader's last batch is surely short."""
    told: set[int] = set()
    for run in program.runs:
        means = {id(event.result) for event in run.of(LossCalled) if "reduction" not in _given(event)}
        for event in run.of(Operated):
            if id(event.node) in told:
                continue
            loader = _summed(event, means) if event.name == "Tensor.div" else None
            whole = None if loader is not None else _averaged(event)
            if whole and all(_is_sum(one, means) for one in whole) and not _is_choice(program, run, event, whole):
                loader = _kept_whole(_source(whole))
            if loader is None:
                continue
            samples, size = length(loader.option("dataset", 0)), constant(loader.option("batch_size", 1))
            if samples is None or not isinstance(size, int) or size < 2 or samples < size or samples % size == 0:
                continue
            told.add(id(event.node))
            finding = program.finding(
                MeanOfBatchMeans,
                f"the mean of batch means is not the mean over the samples: the last batch has {samples % size}",
                f"{samples} samples in batches of {size}",
                at=event,
            )
            yield Checked(finding, None if whole else _mended(program, run, event))


def _summed(event: Operated, means: set[int]) -> Object | None:
    """The loader, of ``total / len(loader)``."""
    loader = _counted(event.args[1])
    known = loader is not None and _is_sum(event.args[0], means) and _comes_from(event.args[0], loader)
    return loader if known else None


def _averaged(event: Operated) -> tuple[Value, ...] | None:
    """What a list holds whose mean is taken: ``np.mean(losses)``, ``torch.stack(losses).mean()``, by its length."""
    of = event.args[0] if event.args else None
    if event.name == "Tensor.div":
        count = event.args[1]
        counted = count.inputs[0] if isinstance(count, Unknown) and count.name == "len" and count.inputs else None
        whole = counted.all() if isinstance(counted, Items) else ()
        added = of.inputs if isinstance(of, Tensor) and of.op == "sum" else ()
        return whole if [id(one) for one in whole] == [id(one) for one in added] else None
    if event.name not in MEANS or len(event.args) != 1 or event.kwargs:
        return None
    if isinstance(of, Tensor) and of.op == "stack":
        return of.inputs
    if isinstance(of, Tensor) and of.op in ("tensor", "as_tensor", "Tensor", "FloatTensor") and of.inputs:
        of = of.inputs[0]
    return of.all() if isinstance(of, Items) and of.kind in ("list", "generator") else None


MEANS = ("numpy.mean", "statistics.mean", "statistics.fmean", "torch.mean", "Tensor.mean")


def _is_choice(program: Program, run: Run, event: Operated, whole: tuple[Value, ...]) -> bool:
    """Whether a list holds but some of the batches, as far as it is filled where its mean is taken."""
    known = {id(one) for one in whole}
    inside = {turn.loop for turn in event.at.loops}
    for kept in (one for one in run.of(Kept) if id(one.value) in known):
        if any(branch not in event.at.branches for branch in kept.at.branches):
            return True
        if not kept.at.loops or kept.at.loops[-1].loop in inside:
            return True
        if any(kind(one) == "Break" for one in blocks.walk(kept.at.loops[-1].node)):
            return True
    return False


def _source(whole: tuple[Value, ...]) -> Value | None:
    """The one loader that all batches behind some values come from."""
    found = {id(one.inputs[0]): one.inputs[0] for value in whole for one in ancestors(value) if _is_fetched(one)}
    return next(iter(found.values())) if len(found) == 1 else None


def _is_fetched(value: Value) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.op == "fetched"


def _mended(program: Program, run: Run, event: Operated) -> Fix | None:
    """Each mean counts as often as its batch has samples, and the sum is divided by all of them."""
    added = {id(one.node): one for one in run.of(Kept) if feeds(one.value, event.args[0])}
    count: Any = getattr(event.node, "right", None)
    if len(added) != 1 or kind(count) != "Call" or program.unit.text(count.func) != "len":
        return None
    kept = next(iter(added.values()))
    node: Any = kept.node
    is_sum = kind(node) == "AugAssign"
    mean, total = (node.value, node.target) if is_sum else (given(node, "object", 0), getattr(node.func, "value", None))
    losses = [one for one in run.of(LossCalled) if feeds(one.result, kept.value) and one.at.loops == kept.at.loops]
    batch = length_of_batch(program, kept, losses[0] if losses else None)
    function = blocks.function(program.unit, node) or program.unit.tree
    named = [one for one in blocks.walk(function) if kind(one) == "Name" and one.value == getattr(total, "value", "")]  # type: ignore[attr-defined]
    if mean is None or batch is None or len(named) != 3:  # set to nothing, added to, divided: no other use
        return None
    return together(
        "take the mean over the samples",
        put(program, mean, f"{atom(program, mean)} * {batch}"),
        put(program, count.args[0].value, f"{program.unit.text(count.args[0].value)}.dataset"),
    )


def _given(event: LossCalled) -> dict[str, Value]:
    return event.result.options if isinstance(event.result, Tensor) else {}


def _is_sum(value: Value, means: set[int], depth: int = 12) -> bool:
    if id(value) in means:
        return True
    if depth == 0 or not isinstance(value, Tensor):
        return False
    if value.op in ("item", "detach", "cpu", "float", "add", "sum"):
        return bool(value.inputs) and all(constant(one) == 0 or _is_sum(one, means, depth - 1) for one in value.inputs)
    return False


def _counted(value: Value) -> Object | None:
    """The loader of ``len(loader)``, if it keeps its last batch."""
    if not isinstance(value, Unknown) or value.name != "len" or value.via != "call" or len(value.inputs) != 1:
        return None
    return _kept_whole(value.inputs[0])


def _kept_whole(loader: Value | None) -> Object | None:
    """A loader, if it keeps its last batch."""
    if not isinstance(loader, Object) or loader.cls != "torch.utils.data.DataLoader":
        return None
    changed = [name for name in ("drop_last", "sampler", "batch_sampler", "collate_fn") if name in loader.kwargs]
    return None if changed or len(loader.args) > 3 else loader


def _comes_from(value: Value, loader: Object) -> bool:
    fetched = [one for one in ancestors(value) if _is_fetched(one)]
    return bool(fetched) and all(one.inputs[0] is loader for one in fetched)


READ_FIRES = {
    "a list that numpy averages": """
        import numpy as np
        import torch
        from sklearn.datasets import load_digits
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        def evaluate(net, loader, criterion):
            losses = []
            for x, y in loader:
                losses.append(criterion(net(x), y).item())
            return np.mean(losses)
        X, y = load_digits(return_X_y=True)
        X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
        order = torch.randperm(len(y))
        net = nn.Linear(64, 10)
        valid = DataLoader(TensorDataset(X[order[1450:]], y[order[1450:]]), batch_size=64)
        with torch.no_grad():
            print(evaluate(net, valid, nn.CrossEntropyLoss()))
    """,
    "other ways to average a list": """
        import statistics
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Linear(4, 3)
        loader = DataLoader(TensorDataset(torch.randn(100, 4), labels), batch_size=32)
        with torch.no_grad():
            tensors = [nn.functional.cross_entropy(net(x), y) for x, y in loader]
            print(torch.stack(tensors).mean(), torch.tensor(tensors).mean(), sum(tensors) / len(tensors))
            print(statistics.fmean([nn.functional.cross_entropy(net(x), y).item() for x, y in loader]))
    """,
    "a short last batch": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Linear(4, 3)
        loader = DataLoader(TensorDataset(torch.randn(100, 4), labels), batch_size=32)
        total = 0.0
        with torch.no_grad():
            for x, y in loader:
                total += nn.functional.cross_entropy(net(x), y).item()
        print(total / len(loader))
    """,
}

READ_SILENT = {
    "lists of sums, of some batches, of the last ones, of even ones": """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net, data = nn.Linear(4, 3), TensorDataset(torch.randn(100, 4), labels)
        loader, even = DataLoader(data, batch_size=32), DataLoader(data, batch_size=25)
        sums, some, first, last, those = [], [], [], [], []
        with torch.no_grad():
            for i, (x, y) in enumerate(loader):
                sums.append(nn.functional.cross_entropy(net(x), y, reduction="sum").item())
                last.append(nn.functional.cross_entropy(net(x), y).item())
                if i % 2 == 0:
                    some.append(nn.functional.cross_entropy(net(x), y).item())
                print(np.mean(last))
            for i, (x, y) in enumerate(loader):
                if i == 2:
                    break
                first.append(nn.functional.cross_entropy(net(x), y).item())
            for x, y in even:
                those.append(nn.functional.cross_entropy(net(x), y).item())
        print(np.mean(sums) / 32, np.mean(some), np.mean(first), np.mean(last[-2:]), np.mean(those))
    """,
    "weighted, dropped, even, summed": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        net = nn.Linear(4, 3)
        data = TensorDataset(torch.randn(100, 4), labels)
        loader, even = DataLoader(data, batch_size=32), DataLoader(data, batch_size=25)
        dropped = DataLoader(data, batch_size=32, drop_last=True)
        total = other = third = fourth = 0.0
        with torch.no_grad():
            for x, y in loader:
                total += nn.functional.cross_entropy(net(x), y).item() * len(x)
                fourth += nn.functional.cross_entropy(net(x), y, reduction="sum").item()
            for x, y in dropped:
                other += nn.functional.cross_entropy(net(x), y).item()
            for x, y in even:
                third += nn.functional.cross_entropy(net(x), y).item()
        print(total / len(data), other / len(dropped), third / len(even), fourth / len(loader))
    """,
}
