"""Every step trains on the same batch, though the loader has more.

Sees: at least 95 % of a model's training passes (15 or more) have the same samples, and these are one batch of a
loader with several; or each step begins the loader anew and takes its first batch, which is always the same one; or,
without a loader, they are always the same few rows of a table that is four times as long or longer, in a loop inside
a loop.

Why it matters: the model sees a handful of samples and learns them by heart; the other data are never used.

Usual causes: ``next(iter(loader))`` inside the loop, which begins anew each time, over a loader without shuffling;
the batch is fetched once, above the loop.

Fix: ``for batch in loader:`` inside a loop over epochs; for an endless stream, make one iterator above the loop, and
a new one only when it has ended. Where one batch is meant (a test whether the model can learn it by heart), say so in
a name or a comment (``overfit``), and the rule is silent.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Called, Ended, Fetched, LoaderBegun, Settled, Stepped
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import with_argument
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.data import length
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.provenance import ancestors

if TYPE_CHECKING:
    from trueloop.doctor.seen import LoaderSeen, Pass
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.source.ways import Run
    from trueloop.doctor.trace import Trace

STEPS = 15
NEARLY_ALL = 0.95
KEPT = 1000
LONGER = 4  # a table of which a batch is a piece, by so many times (a guess): a training part is most of its table
ON_PURPOSE = re.compile(
    r"overfit|sanity|memori[sz]|benchmark|profil|throughput|smoke|debug|"
    r"(one|single|fixed|same)[ _-]?(mini)?[ _-]?batch",
    re.IGNORECASE,
)


class SameBatchEveryStep(Rule):
    """Counts, for each model, which samples its training passes have, and compares with what loaders gave."""

    name = "same-batch-every-step"
    code = 511
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._batches: dict[int, Counter[int]] = {}  # model -> fingerprints of its training batches
        self._last: dict[int, Pass] = {}
        self._of: dict[int, tuple[LoaderSeen, int, Place | None]] = {}  # fingerprint -> who gave it, its batches
        self._begun: dict[int, Place | None] = {}
        self._firsts: dict[int, Counter[int]] = {}  # loader -> fingerprints of its first batches
        self._tables: dict[int, int] = {}  # model -> rows of the table that its first batch is a piece of
        self._made: dict[int, Place | None] = {}  # model -> where its optimizer was made
        self._right = 0

    def loader_begun(self, fact: LoaderBegun) -> None:
        self._begun[fact.loader.number] = fact.place

    def fetched(self, fact: Fetched) -> None:
        loader = fact.loader
        if fact.position or loader.iterations > KEPT:
            return
        from trueloop.doctor.samples import fingerprints, tensors_in

        first = next(iter(tensors_in(fact.batch)), None)
        if first is None or first.device.type != "cpu":
            return
        found = hash(fingerprints(first))
        self._firsts.setdefault(loader.number, Counter())[found] += 1
        if found not in self._of and len(self._of) < KEPT:
            self._of[found] = loader, batches_of(loader), fact.place

    def called(self, fact: Called) -> None:
        number = fact.of.model.number
        if number in self._tables or not fact.of.grad:
            return
        from trueloop.doctor.samples import tensors_in

        first = next(iter(tensors_in(fact.inputs)), None)
        table = None if first is None or not first.dim() else first._base
        self._tables[number] = len(table) if table is not None and table.dim() else 0

    def stepped(self, fact: Stepped) -> None:
        for one in fact.passes:
            self._made.setdefault(one.model.number, fact.optimizer.place)

    def settled(self, fact: Settled) -> None:
        of = fact.of
        alike = len(set(of.samples)) == 1 < len(of.samples)  # inputs that tell nothing of which samples they are
        if of.phase == "training" and of.samples and not alike:
            counted = self._batches.setdefault(of.model.number, Counter())
            if len(counted) < KEPT:
                counted[hash(of.samples)] += 1
            self._last[of.model.number] = of

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for number, counted in self._batches.items():
            (batch, times), total = counted.most_common(1)[0], sum(counted.values())
            one = self._last[number]
            if total < STEPS:
                continue
            same = times >= NEARLY_ALL * total
            given = (self._of.get(batch) if same else None) or self._begun_anew(one)
            if given is None:
                if same and self._is_a_piece(one) and not on_purpose(one.place):
                    yield self.finding(
                        f"every step trains on the same {len(one.samples)} rows of {self._tables[number]:,}",
                        f"{times} of {total} training passes of {one.model.kind} have the same samples",
                        place=one.place,
                    )
                    return
                self._right += not same
                continue
            loader, batches, place = given
            if batches < 2 or on_purpose(one.place) or on_purpose(place):
                continue
            begun = f"; the loader was begun anew {loader.iterations} times" if loader.iterations >= STEPS else ""
            yield self.finding(
                f"every step trains on the same batch, and the loader has {batches}",
                f"{times if same else loader.iterations} of {total} training passes of {one.model.kind} have the same "
                f"{len(one.samples)} samples{begun}",
                place=place,
                related=[(one.place, "they are trained on here"), (loader.place, "the loader is made here")],
            )
            return

    def _is_a_piece(self, one: Pass) -> bool:
        """A small piece of a table, inside a loop over batches inside a loop over epochs."""
        made, place = self._made.get(one.model.number), one.place
        if self._tables.get(one.model.number, 0) < LONGER * max(len(one.samples), 1) or place is None:
            return False
        loops = loops_around(place)
        inside = made is not None and made.file == place.file and any(a <= made.line <= b for a, b in loops)
        return len(loops) >= 2 and not inside

    def _begun_anew(self, one: Pass) -> tuple[LoaderSeen, int, Place | None] | None:
        """The loader of a pass, if only its first batch is ever taken, and that is always the same one."""
        loader = one.loader
        if loader is None or not loader.trains:
            return None
        firsts = self._firsts.get(loader.number, Counter())
        times = sum(firsts.values())
        if times < STEPS or len(firsts) > 1 or loader.fetched > 1.05 * loader.iterations:
            return None
        return loader, batches_of(loader), self._begun.get(loader.number)

    def passed(self) -> str | None:
        return f"{self._right} models were trained on changing batches" if self._right else None


def batches_of(loader: LoaderSeen) -> int:
    """How many batches an epoch has; 0 where that is not known."""
    try:
        return 0 if loader.loader is None else len(loader.loader)
    except (TypeError, NotImplementedError):
        return 0


def loops_around(place: Place) -> list[tuple[int, int]]:
    """The loops around a line, by their first and last lines."""
    try:
        tree = ast.parse("".join(linecache.getlines(place.file)))
    except (SyntaxError, ValueError):
        return []
    loops = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, (ast.For, ast.While))
    ]
    return [(first, last) for first, last in loops if first <= place.line <= last]


def on_purpose(place: Place | None) -> bool:
    """Whether the function or the loop around a line says that one batch is meant, in a name, a text or a comment."""
    if place is None:
        return False
    lines = linecache.getlines(place.file)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return False
    first = last = place.line
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.For, ast.While)):
            end = node.end_lineno or node.lineno
            if node.lineno <= place.line <= end:
                first, last = min(first, node.lineno), max(last, end)
    above = first
    while above > 1 and first - above < 4 and lines[above - 2].strip() and not lines[above - 2].startswith("# about:"):
        above -= 1
    return any(ON_PURPOSE.search(line) for line in lines[above - 1 : last])


def in_source(program: Program) -> Iterator[Checked]:
    """A loader that does not shuffle is begun anew in every turn, for its first batch, and that is trained on."""
    told: set[int] = set()
    for run in program.runs:
        steps = {step.at.loops for step in run.of(read.Stepped)}
        for backward in run.of(read.Backward):
            for one in ancestors(backward.loss):
                begun = one.options.get("iterator") if isinstance(one, values.Tensor) else None
                if not isinstance(one, values.Tensor) or one.op != "fetched":
                    continue
                loader = one.inputs[0]
                turn = backward.at.loops
                if not turn or turn not in steps or id(one.node) in told:
                    continue
                if not isinstance(loader, values.Object) or not _in_order(loader):
                    continue
                anew = isinstance(begun, values.Tensor) and begun.at.loops == turn
                again = begun is None and one.at.loops == turn and _left_at_once(run, one)
                if not anew and not again:
                    continue
                told.add(id(one.node))
                finding = program.finding(
                    SameBatchEveryStep,
                    "every step is taken on the same batch: the loader's first",
                    "in each turn of the loop a new iterator is made, and the loader does not shuffle",
                    at=one,
                    related=[(loader, "the loader"), (backward, "trained on here")],
                    help="go through the loader: `for batch in loader`",
                )
                yield Checked(finding, _mended(program, loader))
        yield from _one_batch_for_all(program, run)


def _one_batch_for_all(program: Program, run: Run) -> Iterator[Checked]:
    """Whatever a run trains on is one minibatch, which was fetched above all loops."""
    steps = {turn.loop for step in run.of(read.Stepped) for turn in step.at.loops}
    backwards = [one for one in run.of(read.Backward) if any(turn.loop in steps for turn in one.at.loops)]
    drawn = ("fetched", "randn", "rand")
    fetched = [
        [one for one in ancestors(event.loss) if isinstance(one, values.Tensor) and one.op in drawn]
        for event in backwards
    ]
    batches = {id(one): one for found in fetched for one in found}
    if len(batches) != 1 or not all(fetched) or ON_PURPOSE.search(program.unit.code.lower()):
        return
    batch = next(iter(batches.values()))
    loader = batch.inputs[0] if batch.op == "fetched" and batch.inputs else None
    size = values.constant(loader.option("batch_size", 1)) if isinstance(loader, values.Object) else None
    if batch.at.loops or not isinstance(loader, values.Object) or loader.kind != "torch.utils.data.DataLoader":
        return
    if type(size) is not int or not 1 < size <= MINIBATCH or (length(loader.option("dataset", 0)) or 2 * size) <= size:
        return
    finding = program.finding(
        SameBatchEveryStep,
        "every step is taken on the same batch: it was fetched once, above the loop",
        f"the loader gives batches of {size}, and only its first one is trained on",
        at=batch,
        related=[(loader, "the loader"), (backwards[0], "trained on here")],
        help="go through the loader: `for batch in loader`",
    )
    yield Checked(finding)


MINIBATCH = 512
"""Larger ones may be all that there is."""


def _left_at_once(run: Run, batch: values.Tensor) -> bool:
    """``for batch in loader: return batch``: the loop never comes to its second batch."""
    loops: list[Any] = [one.node for one in run.of(read.Iterated) if getattr(one.node, "iter", None) is batch.node]
    lines = getattr(loops[0].body, "body", ()) if loops else ()
    if not lines or any(kind(one) == "Continue" for one in blocks.walk(loops[0])):
        return False
    return kind(lines[-1]) == "SimpleStatementLine" and kind(lines[-1].body[-1]) in ("Return", "Break")


def _mended(program: Program, loader: values.Object) -> Fix | None:
    """The first batch of a loader that shuffles is another one every time."""
    return together("shuffle: each step takes other samples", with_argument(program, loader.node, "shuffle", "True", 2))


def _in_order(loader: values.Object) -> bool:
    if loader.kind != "torch.utils.data.DataLoader" or set(loader.kwargs) & {"sampler", "batch_sampler", "**"}:
        return False
    shuffle = loader.option("shuffle", 2)
    return shuffle is None or (isinstance(shuffle, values.Constant) and not shuffle.value)


FIRES = {
    "a new iterator in each step": """
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        loader = DataLoader(data, batch_size=10)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(30):
            x, y = next(iter(loader))
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
    """,
    "fetched once, above the loop": """
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        loader = DataLoader(data, batch_size=10, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = next(iter(loader))
        step = 0
        while step < 30:
            opt.zero_grad()
            F.mse_loss(model(x), y).backward()
            opt.step()
            step += 1
    """,
}

FIRES |= {
    "the counter is not used": """
        x, y = torch.randn(200, 6), torch.randn(200, 1)
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(3):
            for i in range(10):
                opt.zero_grad()
                F.mse_loss(model(x[:20]), y[:20]).backward()
                opt.step()
    """,
}

SILENT = {
    "inputs that are all zero": """
        data = TensorDataset(torch.zeros(200, 6), torch.randn(200, 1))
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(4):
            for x, y in DataLoader(data, batch_size=20, shuffle=True):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "few labels, several runs": """
        x, y = torch.randn(200, 6), torch.randn(200, 1)
        for lr in (0.1, 0.01):
            model = nn.Linear(6, 1)
            opt = torch.optim.SGD(model.parameters(), lr=lr)
            for epoch in range(30):
                opt.zero_grad()
                F.mse_loss(model(x[:20]), y[:20]).backward()
                opt.step()
    """,
    "a test of one batch": """
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        loader = DataLoader(data, batch_size=10, shuffle=True)
        def can_overfit(model, batch):
            x, y = batch
            opt = torch.optim.SGD(model.parameters(), lr=0.01)
            for step in range(30):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
        can_overfit(nn.Linear(4, 1), next(iter(loader)))
    """,
    "the whole set is one batch": """
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        loader = DataLoader(data, batch_size=60)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for epoch in range(30):
            for x, y in loader:
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
    "several steps on each batch": """
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        loader = DataLoader(data, batch_size=20, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for x, y in loader:
            for inner in range(20):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    """,
}

READ_FIRES = {
    "fetched once, above the loop": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(data, batch_size=64, shuffle=True)
        x, y = next(iter(loader))
        for epoch in range(5):
            for _ in range(len(loader)):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "a loop that is left at once": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(data, batch_size=32)
        def get_batch():
            for batch in loader:
                return batch
        for step in range(100):
            x, y = get_batch()
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "next(iter(loader))": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(data, batch_size=32)
        for step in range(100):
            x, y = next(iter(loader))
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "all in one batch, a look at the first": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        def fit(x, y):
            for step in range(100):
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
        fit(*next(iter(DataLoader(data, batch_size=len(data)))))
        loader = DataLoader(data, batch_size=32, shuffle=True)
        shown, labels = next(iter(loader))
        print(net(shown).shape)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "said to be so": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        x, y = next(iter(DataLoader(data, batch_size=32)))
        for step in range(100):  # the net must be able to overfit one batch
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "one iterator, or a shuffled loader": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        mixed = DataLoader(data, batch_size=32, shuffle=True)
        stream = iter(DataLoader(data, batch_size=32))
        for step in range(100):
            x, y = next(stream)
            a, b = next(iter(mixed))
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            nn.functional.cross_entropy(net(a), b).backward()
            opt.step()
    """,
}
