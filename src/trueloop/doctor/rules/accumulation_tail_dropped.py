"""The last, short window of accumulated gradients is never stepped on, or flows into the next epoch.

Sees: an optimizer steps on k backwards at a time, the training loader ends with fewer pending, and they are cleared
before the next step, or the next epoch adds to them; or the script ends with fewer than k pending. In the text: the
loss is divided by k, the step has one condition, and the number of batches is known and no multiple of k.

Why it matters: the gradients of the last batches of each epoch are lost, or mixed with the next epoch's into a step
that is larger than the others. A small loss of data, hence a note.

Usual causes: the number of batches is not a multiple of k, and the loop only steps at every k-th.

Fix: step at the last batch as well (``if (i + 1) % k == 0 or i + 1 == len(loader)``), dividing by the length of that
window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, LoaderEnded, Paused, Stepping
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.data import batches
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.provenance import trains
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.seen import OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

WINDOWS = 2


class AccumulationTailDropped(Rule):
    """Counts backwards to a step, and what is pending where the loader ends."""

    name = "accumulation-tail-dropped"
    code = 113
    level = "note"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._lengths: dict[int, tuple[int, int]] = {}  # optimizer -> length of its windows, how many of that in a row
        self._lines: dict[int, Place | None] = {}
        self._pending: dict[int, int] = {}  # optimizer -> backwards pending when the loader ended
        self._told: set[int] = set()
        self._whole = 0

    def loader_ended(self, fact: LoaderEnded) -> None:
        if not fact.loader.trains:
            return
        for seen in self.trace.optimizers:
            left = self._left(seen)
            if left:
                self._pending[seen.number] = left

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        count, number = len(fact.accumulated), fact.optimizer.number
        if count < 2 and number not in self._lengths:
            return
        left = self._pending.pop(number, 0)
        if left and count > left and number not in self._told:
            self._told.add(number)
            next_one = fact.accumulated[left]
            how = "are cleared unused" if next_one.clean else "flow into the first step of the next epoch"
            yield self._finding(fact.optimizer, left, how, fact.accumulated[left - 1].place, fact.place)
        length, times = self._lengths.get(number, (count, 0))
        if fact.has_closure or any(one.clean for one in fact.accumulated[1:]):
            self._lengths.pop(number, None)
        elif not left:
            self._lengths[number] = (count, times + 1 if count == length else 1)
            self._lines[number] = fact.accumulated[-1].place if fact.accumulated else None
            self._whole += 1

    def paused(self, fact: Paused) -> None:
        self._lengths.clear()
        self._pending.clear()

    def ended(self, fact: Ended) -> Iterator[Finding]:
        for seen in self.trace.optimizers if fact.error is None else ():
            left = self._left(seen)
            if left and seen.number not in self._told and seen.accumulated[-1].place == self._lines.get(seen.number):
                yield self._finding(seen, left, "are never used", seen.accumulated[-1].place, seen.last_step_place)

    def passed(self) -> str | None:
        return f"{self._whole} windows of accumulated gradients were stepped on whole" if self._whole else None

    def _left(self, seen: OptimizerSeen) -> int:
        length, times = self._lengths.get(seen.number, (0, 0))
        return len(seen.accumulated) if times >= WINDOWS and 0 < len(seen.accumulated) < length else 0

    def _finding(self, seen: OptimizerSeen, left: int, how: str, place: Place | None, step: Place | None) -> Finding:
        length = self._lengths[seen.number][0]
        return self.finding(
            f"the last {left} of an epoch's backwards {how}: {seen.kind} steps at every {length}th",
            f"windows of {length} backwards; {left} were pending when the data ended",
            place=place,
            related=[(step, "the step")],
        )


def in_source(program: Program) -> Iterator[Checked]:
    """The loss is divided by k, the step has a condition, and the number of batches is known and no multiple of k."""
    told: set[int] = set()
    for run in program.runs:
        for backward in run.of(read.Backward):
            count = _windows(backward.loss)
            step = _conditional_step(run, backward) if count is not None else None
            if step is None or count is None or id(step.node) in told:
                continue
            loop = step.at.loops[-1].loop
            over = next((event.over for event in run.of(read.Iterated) if event.loop == loop), None)
            number = None if over is None else batches(over)
            if number is None or number % count == 0 or number < count:
                continue
            told.add(id(step.node))
            finding = program.finding(
                AccumulationTailDropped,
                f"the last {number % count} of {number} batches of an epoch are in no whole window of {count}",
                f"the step comes once in {count} batches, and nothing steps after the loop",
                at=step,
                related=[(backward, "each batch's backward")],
            )
            yield Checked(finding)


def _windows(loss: values.Value) -> int | None:
    """By how many a loss is divided."""
    by = loss.inputs[1] if isinstance(loss, values.Tensor) and loss.op == "div" and len(loss.inputs) == 2 else None
    count = values.constant(by)
    return count if isinstance(count, int) and count > 1 else None


def _conditional_step(run: Run, backward: read.Backward) -> read.Stepped | None:
    """The one step in the backward's turn, if it has one condition more, and that says nothing of a last batch."""
    steps = [event for event in run.of(read.Stepped) if trains(event.target, backward.loss) is not False]
    if not backward.at.loops or len({id(event.node) for event in steps}) != 1:
        return None
    step = next((event for event in steps if event.at.loops == backward.at.loops), None)
    more = [branch for branch in step.at.branches if branch not in backward.at.branches] if step is not None else []
    if len(more) != 1 or more[0].arm != 0 or any(word in more[0].key for word in (" or ", " and ", "len(", "last")):
        return None
    return step


FIRES = {
    "cleared at the head of the next epoch": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(112, 4), torch.randint(3, (112,))), batch_size=8, shuffle=True)
        for epoch in range(3):
            opt.zero_grad()
            for i, (x, y) in enumerate(data):
                (F.cross_entropy(model(x), y) / 4).backward()
                if (i + 1) % 4 == 0:
                    opt.step()
                    opt.zero_grad()
    """,
    "at the script's end": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(14):
            x = torch.randn(8, 4)
            (F.mse_loss(model(x), x.sum(1, keepdim=True)) / 4).backward()
            if i % 4 == 3:
                opt.step()
                opt.zero_grad()
    """,
}

SILENT = {
    "divides evenly": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(128, 4), torch.randint(3, (128,))), batch_size=8, shuffle=True)
        for epoch in range(3):
            for i, (x, y) in enumerate(data):
                (F.cross_entropy(model(x), y) / 4).backward()
                if (i + 1) % 4 == 0:
                    opt.step()
                    opt.zero_grad()
    """,
    "the rest is stepped on": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(112, 4), torch.randint(3, (112,))), batch_size=8, shuffle=True)
        for epoch in range(3):
            for i, (x, y) in enumerate(data):
                (F.cross_entropy(model(x), y) / 4).backward()
                if (i + 1) % 4 == 0 or i + 1 == len(data):
                    opt.step()
                    opt.zero_grad()
    """,
}

READ_FIRES = {
    "35 batches in windows of four": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        loader = DataLoader(TensorDataset(torch.randn(1400, 4), torch.randn(1400, 1)), batch_size=40, shuffle=True)
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters())
        accumulate = 4
        for epoch in range(5):
            for i, (x, y) in enumerate(loader):
                loss = nn.functional.mse_loss(model(x), y) / accumulate
                loss.backward()
                if (i + 1) % accumulate == 0:
                    opt.step()
                    opt.zero_grad()
    """,
    "counted by hand": """
        import torch
        from torch import nn
        def train(model, X, y, k=5):
            opt = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in range(8):
                opt.zero_grad()
                i = 0
                for rows in torch.randperm(864).split(32):
                    (nn.functional.mse_loss(model(X[rows]), y[rows]) / k).backward()
                    i += 1
                    if i == k:
                        opt.step()
                        opt.zero_grad()
                        i = 0
    """,
}

READ_SILENT = {
    "the last batch steps too; windows that fit; a number that is not known": """
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        data = TensorDataset(torch.randn(1400, 4), torch.randn(1400, 1))
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters())
        loader = DataLoader(data, batch_size=40, shuffle=True)
        for i, (x, y) in enumerate(loader):
            (nn.functional.mse_loss(model(x), y) / 4).backward()
            if (i + 1) % 4 == 0 or i + 1 == len(loader):
                opt.step()
                opt.zero_grad()
        for i, (x, y) in enumerate(loader):
            (nn.functional.mse_loss(model(x), y) / 5).backward()
            if (i + 1) % 5 == 0:
                opt.step()
                opt.zero_grad()
        for i, (x, y) in enumerate(more):
            (nn.functional.mse_loss(model(x), y) / 4).backward()
            if (i + 1) % 4 == 0:
                opt.step()
                opt.zero_grad()
    """,
    "a step after the loop": """
        import torch
        from torch import nn
        model = nn.Linear(4, 1)
        opt = torch.optim.Adam(model.parameters())
        for epoch in range(3):
            for i, rows in enumerate(torch.randperm(900).split(40)):
                (nn.functional.mse_loss(model(X[rows]), y[rows]) / 4).backward()
                if (i + 1) % 4 == 0:
                    opt.step()
                    opt.zero_grad()
            opt.step()
            opt.zero_grad()
    """,
}
