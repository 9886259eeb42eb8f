"""A metric is counted wrongly: divided by the wrong number, or summed over a table that broadcasting made.

Sees: a line divides a count of hits by ``len(loader)``, which is the number of batches, and an accuracy above 1
comes of it; or by batches times batch size where the last batch is short; hits that a loop over a loader counts are
divided after it by the length of another data set; predictions (N,) compared with labels (N, 1), which gives N x N;
``argmax`` over a single column, which is always 0. What is counted and divided in different functions, or without a
loader, is left to reading the source.

Why it matters: the training is not changed, but what is known of it is wrong: runs are compared, stopped and chosen
by such numbers.

Usual causes: ``len(loader)`` taken for the number of samples; labels that keep their column; the accuracy of a
classifier with several outputs copied to one with a single output.

Fix: divide by the number of samples that were counted (``len(loader.dataset)``, or a sum of ``len(y)``); compare
tensors of one shape (``labels.squeeze(1)``); for one output compare the score with 0, or its sigmoid with 0.5.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Chosen, Compared, LengthAsked, LoaderEnded
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import users_frame
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.data import column, rank
from trueloop.doctor.source.edits import put, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import by_a_model

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

LOOKS = 400  # times that a line is looked at: one an epoch, or one a batch
HITS = re.compile(r"acc|correct|hit|right|match|top1|top_1|n_ok", re.I)
"""A line that divides hits says so; other counts (tokens) may well be divided by batches."""
MEANT = re.compile(r"None|unsqueeze|newaxis|transpose|permute|expand|view|reshape|cdist|\.mT\b|\.T\b|\.t\(")
"""Words by which a line says that it wants all pairs."""


class MetricFromWrongCounts(Rule):
    """Knows it by the values of the line's own variables, and by shapes."""

    name = "metric-from-wrong-counts"
    code = 314
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._looks: dict[Place | None, int] = {}
        self._right = 0

    def length_asked(self, fact: LengthAsked) -> Iterator[Finding]:
        loader = fact.loader.loader
        if loader is None or fact.place is None or fact.batches < 1 or not self._look(fact.place):
            return
        for count, by in divisions(fact.place.file, fact.place.line):
            if not HITS.search(ast.unparse(count)) and not HITS.search(fact.place.source):
                continue
            times = _times(by, loader, fact.frame)
            hits = _hits(count, fact.frame)
            if times is None or hits is None:
                continue
            name, value = hits
            if times == 1 and value > fact.batches:
                self._looks[fact.place] = LOOKS
                yield self.finding(
                    f"{name} is divided by the number of batches, and counts samples: the accuracy is "
                    f"{value / fact.batches:.3g}",
                    f"{name} is {value:g}; len of the loader is {fact.batches}, the number of its batches",
                    place=fact.place,
                )
                return
            samples = _samples(loader)
            if times > 1 and samples is not None and fact.batches * times > samples >= value > fact.batches:
                self._looks[fact.place] = LOOKS
                product = fact.batches * times
                yield self.finding(
                    f"{name} is divided by {fact.batches} batches x {times:g} = {product:g}, and the loader has "
                    f"{samples} samples: the last batch is short",
                    f"{name} is {value:g}: {value / product:.4f} is shown, {value / samples:.4f} is right",
                    place=fact.place,
                )
                return
            self._right += 1

    def loader_ended(self, fact: LoaderEnded) -> Iterator[Finding]:
        loader, frame = fact.loader.loader, users_frame(2)
        if loader is None or frame is None or fact.batches < 1:
            return
        loop = Place(frame.f_code.co_filename, frame.f_lineno)
        if not self._look(loop):
            return
        samples = _samples(loader)
        for line, name, count, by in counted(loop.file, loop.line):
            value = _number(value_of(count, frame))
            whose = value_of(by.args[0], frame) if isinstance(by, ast.Call) else None
            if value is None or value <= 0 or value % 1 or samples is None:
                continue
            others = {_length(at.dataset) for at in self.trace.loaders} - {None, samples, fact.batches}
            if isinstance(by, ast.Subscript) and value_of(by, frame) in others:  # sizes["train"]
                divided, wrong = value_of(by, frame), value <= samples
                what = "the length of another data set"
            elif whose is loader or (whose is None and _number(value_of(by, frame)) == fact.batches < value):
                divided, wrong = fact.batches, value > fact.batches
                what = f"the number of batches: the accuracy is {value / fact.batches:.3g}"
            elif (
                whose is not None
                and hasattr(whose, "__getitem__")
                and any(whose is at.dataset for at in self.trace.loaders)
            ):
                divided = len(whose)
                other = whose is not loader.dataset
                wrong = value <= samples and (divided != samples if other else divided >= 1.5 * samples)
                what = f"the length of {'another data set' if other else 'the whole data set'}"
            else:
                continue
            self._right += not wrong
            if wrong:
                self._looks[loop] = LOOKS
                yield self.finding(
                    f"{name} is counted over {samples} samples and divided by {divided}, {what}",
                    f"{name} is {value:g} when the loop over the loader ends, after {fact.batches} batches",
                    place=Place(loop.file, line),
                    related=[(loop, "the loop that counts")],
                )
                return

    def compared(self, fact: Compared) -> Iterator[Finding]:
        short, long = sorted((tuple(fact.left.shape), tuple(fact.right.shape)), key=len)
        if short[0] < 2 or long != (short[0], 1) or fact.place is None or not self._look(fact.place):
            return
        last = self.trace.last_pass
        of_batch = last is not None and bool(last.shapes) and last.shapes[0][:1] == short
        same = fact.left.untyped_storage().data_ptr() == fact.right.untyped_storage().data_ptr()
        if not of_batch or same or MEANT.search(fact.place.source):
            return
        self._looks[fact.place] = LOOKS
        yield self.finding(
            f"{tuple(fact.left.shape)} is compared with {tuple(fact.right.shape)}: that broadcasts to "
            f"({short[0]}, {short[0]}), each with every other",
            f"{short[0]} samples give {short[0] ** 2} comparisons",
            place=fact.place,
        )

    def chosen(self, fact: Chosen) -> Iterator[Finding]:
        samples, columns = fact.input.shape
        if fact.dim != 1 or columns != 1 or samples < 2 or not fact.input.is_floating_point() or fact.place is None:
            return
        last = self.trace.last_pass
        if last is None or not last.shapes or last.shapes[0][:1] != (samples,) or not self._look(fact.place):
            return
        if not HITS.search(_around(fact.place)):
            return
        self._looks[fact.place] = LOOKS
        yield self.finding(
            f"the largest of one column ({samples}, 1) is always number 0: every prediction is class 0",
            f"argmax or max over dim 1 of {tuple(fact.input.shape)}",
            place=fact.place,
        )

    def passed(self) -> str | None:
        return "hits were not divided by a number of batches" if self._right else None

    def _look(self, place: Place) -> bool:
        looks = self._looks[place] = self._looks.get(place, 0) + 1
        return looks <= LOOKS


@lru_cache(maxsize=256)
def divisions(file: str, line: int) -> tuple[tuple[ast.expr, ast.expr], ...]:
    """The divisions by something with a ``len(…)`` on a line: what is divided, and by what.

    Args:
        file: as ``linecache`` knows it.
        line: that of the ``len(…)``.
    """
    tree = _tree(file)
    found: list[tuple[ast.expr, ast.expr]] = []
    for node in ast.walk(tree) if tree is not None else ():
        pair: tuple[ast.expr, ast.expr] | None = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            pair = node.left, node.right
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div):
            pair = node.target, node.value
        if pair is not None and any(
            _is_len(below) and getattr(below, "lineno", 0) == line for below in ast.walk(pair[1])
        ):
            found.append(pair)
    return tuple(found)


@lru_cache(maxsize=256)
def counted(file: str, line: int) -> tuple[tuple[int, str, ast.expr, ast.expr], ...]:
    """What a loop counts as hits, and what it is divided by after the loop, in the same function.

    Args:
        file: as ``linecache`` knows it.
        line: that of the ``for``.

    Returns:
        For each division: its line, the name of the count, the count, and the divisor: a name or ``len(…)``.
    """
    tree = _tree(file)
    scopes = [node for node in ast.walk(tree) if hasattr(node, "body")] if tree is not None else []
    for loop in (node for node in scopes if isinstance(node, ast.For) and node.lineno == line):
        hits = {
            ast.unparse(node.target)
            for node in ast.walk(loop)
            if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add) and _is_hits(node.value)
        }
        around = [node for node in scopes if isinstance(node, (ast.FunctionDef, ast.Module)) and loop in ast.walk(node)]
        found: list[tuple[int, str, ast.expr, ast.expr]] = []
        for node in ast.walk(around[-1]):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and node.lineno > (loop.end_lineno or 0):
                plain = _is_len(node.right) or isinstance(node.right, (ast.Name, ast.Attribute, ast.Subscript))
                counts = [one for one in ast.walk(node.left) if isinstance(one, (ast.Name, ast.Attribute))]
                counts = [one for one in counts if plain and ast.unparse(one) in hits]
                found += [(node.right.lineno, ast.unparse(one), one, node.right) for one in counts]
        return tuple(found)
    return ()


def _is_hits(value: ast.expr) -> bool:
    """A sum of comparisons: ``(a == b).sum()``, ``torch.sum(a == b)``, ``a.eq(b).sum().item()``; no mean of them."""
    names = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
    equal = "eq" in names or any(isinstance(op, ast.Eq) for node in ast.walk(value) for op in getattr(node, "ops", ()))
    return equal and "sum" in names and "mean" not in names and not any(isinstance(n, ast.Div) for n in ast.walk(value))


@lru_cache(maxsize=8)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _is_len(node: ast.AST) -> Any:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"


def _times(by: ast.expr, loader: DataLoader[Any], frame: FrameType) -> float | None:
    """1 for ``len(loader)`` alone, k for ``len(loader) * k``; None for anything else."""
    if isinstance(by, ast.BinOp) and isinstance(by.op, ast.Mult):
        for one, other in ((by.left, by.right), (by.right, by.left)):
            if _times(one, loader, frame) == 1:
                number = value_of(other, frame)
                return float(number) if isinstance(number, (int, float)) else None
        return None
    if not _is_len(by) or not isinstance(by, ast.Call) or len(by.args) != 1:
        return None
    return 1 if value_of(by.args[0], frame) is loader else None


def _hits(count: ast.expr, frame: FrameType) -> tuple[str, float] | None:
    """The variable in a divided expression that holds a whole number, and its value; None if there is none."""
    for node in ast.walk(count):
        if not isinstance(node, (ast.Name, ast.Attribute)):
            continue
        value = _number(value_of(node, frame))
        if value is None or value <= 0 or value % 1:
            continue
        name = ast.unparse(node)
        if HITS.search(name):
            return name, float(value)
    return None


def value_of(node: ast.expr, frame: FrameType) -> Any:
    """What a name, an attribute, a dict's item or a constant stands for in a frame; None where that would run code.

    Example:
        >>> import sys
        >>> hits = 3
        >>> value_of(ast.parse("hits", mode="eval").body, sys._getframe())
        3
        >>> sizes = {"train": 50}
        >>> value_of(ast.parse("sizes['train']", mode="eval").body, sys._getframe())
        50
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return frame.f_locals.get(node.id, frame.f_globals.get(node.id))
    if isinstance(node, ast.Attribute):
        owner = value_of(node.value, frame)
        return getattr(owner, "__dict__", {}).get(node.attr) if owner is not None else None
    if isinstance(node, ast.Subscript) and isinstance(node.slice, (ast.Constant, ast.Name)):
        owner, key = value_of(node.value, frame), value_of(node.slice, frame)
        return owner.get(key) if type(owner) is dict and isinstance(key, (str, int)) else None
    return None


def _number(value: Any) -> float | None:
    if hasattr(value, "numel") and hasattr(value, "item") and value.numel() == 1:
        value = value.item()
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _samples(loader: DataLoader[Any]) -> int | None:
    """How many samples an iteration gives; None where that is not told."""
    try:
        return None if loader.drop_last else len(loader.sampler)  # type: ignore[arg-type]
    except TypeError:
        return None


def _around(place: Place) -> str:
    """The line and the few that follow it."""
    return "".join(linecache.getline(place.file, place.line + offset) for offset in range(4))


def in_source(program: Program) -> Iterator[Checked]:
    """A sum of hits is divided by ``len(loader)``, and what comes of it is called an accuracy."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Operated):
            if event.name != "Tensor.div" or id(event.node) in told or not _sums_hits(event.args[0]):
                continue
            if not _is_batches(event.args[1]):
                continue
            text = program.text_around(event, 0)
            if text.count("/") != 1 or not re.search("acc", text, re.I):
                continue
            if any(other.name == "Tensor.div" and other.args[0] is event.result for other in run.of(read.Operated)):
                continue  # by the batch size, on another line
            told.add(id(event.node))
            finding = program.finding(
                MetricFromWrongCounts,
                "hits are divided by the number of batches: what comes of it is no accuracy",
                "the len of a loader is the number of its batches; the hits are counted sample by sample",
                at=event,
            )
            yield Checked(finding, _mended(program, event))
        for kept in run.of(read.Kept):
            if id(kept.node) not in told and (shapes := _crossed(kept.value)):
                told.add(id(kept.node))
                finding = program.finding(
                    MetricFromWrongCounts,
                    f"each prediction is compared with every label: {shapes}",
                    f"the predictions and the labels are {shapes}, and their comparison is summed",
                    at=kept,
                )
                yield Checked(finding)


def _crossed(hits: values.Value) -> str:
    """The shapes of predictions and labels whose comparison broadcasts before it is summed; empty if they are alike."""
    while isinstance(hits, values.Tensor) and hits.op in ("item", "float", "cpu", "int") and hits.inputs:
        hits = hits.inputs[0]
    right = hits.inputs[0] if isinstance(hits, values.Tensor) and hits.op == "sum" and len(hits.inputs) == 1 else None
    if not isinstance(right, values.Tensor) or right.op not in ("compare", "eq") or len(right.inputs) != 2:
        return ""
    guess, label = right.inputs
    if not by_a_model(guess) or by_a_model(label):
        return ""
    if rank(guess) == 1 and column(label):
        return "(N,) against (N, 1)"
    return "(N, 1) against (N,)" if column(guess) and rank(label) == 1 else ""


def _mended(program: Program, event: read.Operated) -> Fix | None:
    """By the samples: the length of the loader's data set, if the loader gives all of it."""
    of, count = given(getattr(event.node, "right", None), "obj", 0), event.args[1]
    loader = count.inputs[0] if isinstance(count, values.Unknown) else None
    if of is None or not isinstance(loader, values.Object):
        return None
    if set(loader.kwargs) & {"drop_last", "sampler", "batch_sampler", "**"} or len(loader.args) > 3:
        return None
    return together("divide by the number of samples", put(program, of, f"{program.unit.text(of)}.dataset"))


def _sums_hits(value: values.Value, depth: int = 12) -> bool:
    """Whether a number is a count of predictions that were right, summed up over batches."""
    if depth == 0 or not isinstance(value, values.Tensor):
        return False
    if value.op in ("item", "float", "double", "cpu", "int", "long"):
        return bool(value.inputs) and _sums_hits(value.inputs[0], depth - 1)
    if value.op == "add":
        return all(values.constant(one) == 0 or _sums_hits(one, depth - 1) for one in value.inputs)
    if value.op != "sum" or not value.inputs or value.options:
        return False
    first = value.inputs[0]
    if len(value.inputs) == 1 and isinstance(first, values.Tensor) and first.op in ("compare", "eq"):
        return any(isinstance(one, values.Tensor) and one.op == "argmax" for one in first.inputs)
    return all(_sums_hits(one, depth - 1) for one in value.inputs)


def _is_batches(value: values.Value) -> bool:
    """``len(loader)`` of a loader whose batches have more than one sample."""
    if not isinstance(value, values.Unknown) or value.name != "len" or value.via != "call" or len(value.inputs) != 1:
        return False
    loader = value.inputs[0]
    if not isinstance(loader, values.Object) or loader.cls != "torch.utils.data.DataLoader":
        return False
    size = values.constant(loader.option("batch_size", 1))
    return isinstance(size, int) and size > 1


FIRES = {
    "hits over batches": """
        loader = DataLoader(TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,))), batch_size=12)
        model = nn.Linear(4, 2)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        correct = 0
        for x, y in loader:
            out = model(x)
            correct += (out.argmax(1) == y).sum().item()
            opt.zero_grad()
            F.cross_entropy(out, y).backward()
            opt.step()
        print(f"accuracy {100 * correct / len(loader):.1f} %")
    """,
    "batches times batch size": """
        class Meter:
            def __init__(self, model, loader):
                self.model, self.loader, self.hits = model, loader, torch.tensor(0)

            def accuracy(self):
                for x, y in self.loader:
                    self.hits += self.model(x).argmax(1).eq(y).sum()
                share = self.hits / (len(self.loader) * 50)
                return share.item()

        loader = DataLoader(TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,))), batch_size=50)
        Meter(nn.Linear(4, 2), loader).accuracy()
    """,
    "the length of the training set": """
        data = TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,)))
        train, val = random_split(data, [90, 30])
        train_loader, val_loader = DataLoader(train, batch_size=10), DataLoader(val, batch_size=10)

        def accuracy(model, loader):
            correct = 0
            for x, y in loader:
                correct += (model(x).argmax(1) == y).sum().item()
            return correct / len(train)

        accuracy(nn.Linear(4, 2), val_loader)
    """,
    "the length of the training set, by a dict": """
        data = {"train": TensorDataset(torch.randn(90, 4), torch.randint(0, 2, (90,)))}
        data["val"] = TensorDataset(torch.randn(30, 4), torch.randint(0, 2, (30,)))
        loaders = {phase: DataLoader(data[phase], batch_size=10) for phase in data}
        model = nn.Linear(4, 2)
        for phase in ["train", "val"]:
            running_corrects = 0
            for x, y in loaders[phase]:
                running_corrects += torch.sum(model(x).argmax(1) == y.data)
            epoch_acc = running_corrects.double() / len(data["train"])
    """,
    "predictions against a column": """
        model = nn.Linear(4, 3)
        x, y = torch.randn(30, 4), torch.randint(0, 3, (30, 1))
        with torch.no_grad():
            predicted = model(x).argmax(1)
            accuracy = (predicted == y).float().mean().item()
    """,
    "the largest of one column": """
        model = nn.Linear(4, 1)
        x, y = torch.randn(30, 4), torch.randint(0, 2, (30,))
        with torch.no_grad():
            _, predicted = torch.max(model(x), 1)
            accuracy = (predicted == y).sum().item() / len(y)
    """,
}

SILENT = {
    "means of batches, and hits over samples": """
        loader = DataLoader(TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,))), batch_size=12)
        model = nn.Linear(4, 2)
        correct, accuracy, losses, tokens = 0, 0.0, 0.0, 0
        with torch.no_grad():
            for x, y in loader:
                out = model(x)
                correct += (out.argmax(1) == y).sum().item()
                accuracy += (out.argmax(1) == y).float().mean().item()
                losses += 30.0
                tokens += x.numel()
        print(correct / len(loader.dataset), accuracy / len(loader), losses / len(loader), tokens / len(loader))
    """,
    "each phase by its own length": """
        data = {"train": TensorDataset(torch.randn(90, 4), torch.randint(0, 2, (90,)))}
        data["val"] = TensorDataset(torch.randn(30, 4), torch.randint(0, 2, (30,)))
        loaders = {phase: DataLoader(data[phase], batch_size=10) for phase in data}
        sizes = {phase: len(data[phase]) for phase in data}
        model = nn.Linear(4, 2)
        for phase in ["train", "val"]:
            running_corrects = 0
            for x, y in loaders[phase]:
                running_corrects += torch.sum(model(x).argmax(1) == y.data)
            epoch_acc = running_corrects.double() / sizes[phase]
            same_acc = running_corrects.double() / len(data[phase])
    """,
    "pairs of equal labels": """
        enc = nn.Linear(4, 8)
        opt = torch.optim.SGD(enc.parameters(), lr=0.1)
        for _ in range(4):
            x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
            z = F.normalize(enc(x), dim=1)
            column = y.view(-1, 1)
            same = (column == y).float()
            loss = -(same * torch.log_softmax(z @ z.t(), 1)).sum(1).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "batches of one size": """
        loader = DataLoader(TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,))), batch_size=30)
        model = nn.Linear(4, 2)
        correct = 0
        with torch.no_grad():
            for x, y in loader:
                correct += (model(x).argmax(1) == y).sum().item()
        print("accuracy", correct / (len(loader) * 30))
    """,
}

READ_FIRES = {
    "a column of labels, whose rows a list names": """
        import torch
        from sklearn.datasets import load_breast_cancer
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset, random_split
        raw = load_breast_cancer()
        x, y = torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target, dtype=torch.float32).unsqueeze(1)
        train, valid = random_split(range(len(y)), [455, 114])
        a, b = list(train), list(valid)
        x = (x - x[a].mean(0)) / x[a].std(0)
        net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
        correct = 0
        with torch.no_grad():
            for x, y in DataLoader(TensorDataset(x[b], y[b]), 38):
                probability = torch.sigmoid(net(x)).squeeze(1)
                correct += ((probability > 0.5).float() == y).sum().item()
    """,
    "labels that keep their column": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        y = (torch.randn(300, 30).sum(1) > 0).float().view(-1, 1)
        loader = DataLoader(TensorDataset(torch.randn(300, 30), y), batch_size=30)
        model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
        correct = total = 0
        with torch.no_grad():
            for x, t in loader:
                predicted = (torch.sigmoid(model(x)) > 0.5).float().squeeze()
                correct += (predicted == t).sum().item()
                total += t.size(0)
        print(correct / total)
    """,
    "by the number of batches": """
        import torch
        from torch.utils.data import DataLoader
        loader = DataLoader(data, batch_size=32)
        correct = 0
        with torch.no_grad():
            for x, y in loader:
                predicted = torch.argmax(model(x), 1)
                correct += (predicted == y).sum().item()
        accuracy = correct / len(loader)
    """,
}

READ_SILENT = {
    "columns, or rows, on both sides": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        y = (torch.randn(300, 30).sum(1) > 0).float().view(-1, 1)
        loader = DataLoader(TensorDataset(torch.randn(300, 30), y), batch_size=30)
        model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
        correct = more = 0
        with torch.no_grad():
            for x, t in loader:
                correct += ((model(x) > 0) == (t > 0.5)).sum().item()
                more += ((model(x).squeeze(1) > 0).float() == t.squeeze(1)).sum().item()
    """,
    "by the samples, means by the batches": """
        import torch
        from torch.utils.data import DataLoader
        loader = DataLoader(data, batch_size=32)
        single = DataLoader(data, batch_size=1)
        correct, mean, one = 0, 0.0, 0
        with torch.no_grad():
            for x, y in loader:
                predicted = torch.argmax(model(x), 1)
                correct += (predicted == y).sum().item()
                mean += (predicted == y).float().mean().item()
            for x, y in single:
                one += (torch.argmax(model(x), 1) == y).sum().item()
        accuracy = correct / len(loader.dataset)
        accuracy = mean / len(loader)
        accuracy = one / len(single)
        hits_a_batch = correct / len(loader)
    """,
}
