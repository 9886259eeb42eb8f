"""Gradients of several batches are summed into one step, each of a mean loss that is not divided by their number.

Sees: k > 1 backwards of one line before each step, in three windows of the same length (a guess), each on other samples
and through the same parameters, the later ones adding to the first; the loss is a mean and nothing stands between it
and ``backward``; the gradients reach the step as backward left them. Silent where another optimizer steps in between (a
GAN), where the batches share their targets (several views of one batch), for sums, and where the rate is written as a
quotient.

Why it matters: the gradient is k times that of the mean over the whole window, so the step is as if the rate were k
times what it says, and changing k changes the training. (Adam and its kin divide the factor out again, except in
clipping, weight decay and epsilon: there it is only a note.)

Usual causes: the division by the number of accumulated batches was forgotten.

Fix: backpropagate ``loss / k``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from trueloop.doctor.calls import arguments_at
from trueloop.doctor.facts import BackwardBegun, BackwardEnded, Clipped, LossCalled, Paused, Stepped, Stepping, Unscaled
from trueloop.doctor.findings import Finding
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import together
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.library import LOSSES
from trueloop.doctor.source.mending import divided
from trueloop.doctor.source.ritual import gives
from trueloop.doctor.source.windows import nested_count, window_of
from trueloop.doctor.untouched import Untouched

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.graph import Node
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

WINDOWS = 3
MEANS = ("Mean", "NllLoss", "NllLoss2D", "NllLossNd", "MseLoss", "SmoothL1Loss", "HuberLoss", "BinaryCrossEntropy")
THROUGH = ("Add", "Sub", "Neg", "Squeeze", "Unsqueeze", "View", "ToCopy", "Select", "Clone", "Alias", "Reshape")
MEAN = 1  # torch's number for reduction="mean"
SCALE_FREE = (
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "RMSprop",
    "Adadelta",
    "Rprop",
    "SparseAdam",
    "Lion",
    "Adafactor",
    "Muon",
)


class AccumulationNotDivided(Rule):
    """Looks at each backward's loss until three windows are known."""

    name = "accumulation-not-divided"
    code = 112
    level = "warning"
    certainty = "likely"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._untouched = Untouched()
        self._losses: list[tuple[weakref.ref[Tensor], bool, int, int]] = []  # output, is a mean, samples, targets' hash
        self._raw: dict[int, bool] = {}  # backward -> its loss is a mean, not divided
        self._targets: dict[int, int] = {}  # backward -> hash of the targets of its losses
        self._reaches: dict[int, int] = {}  # backward -> hash of the parameters that it reaches
        self._samples: dict[int, int] = {}
        self._windows: dict[int, list[int]] = {}  # optimizer -> lengths of its last windows of raw means
        self._settled: set[int] = set()  # optimizers of which there is nothing more to say
        self._last_stepped = -1
        self._divided = 0

    def loss_called(self, fact: LossCalled) -> None:
        if not self._looks() or fact.output is None or fact.output.dim() or not fact.output.requires_grad:
            return
        is_mean = fact.options.get("reduction", "mean") in ("mean", "batchmean")
        many = fact.input.shape[0] if fact.input.dim() else 1
        self._losses.append((weakref.ref(fact.output), is_mean, many, _hash(fact.target)))
        del self._losses[:-8]

    def backward_begun(self, fact: BackwardBegun) -> None:
        if not self._looks():
            return
        losses, self._losses = self._losses, []
        if len(fact.losses) != 1:
            return
        number, loss = fact.number, fact.losses[0]
        if len(self._raw) > 4096:
            for kept in (self._raw, self._targets, self._reaches, self._samples):
                kept.clear()
        direct = [is_mean for output, is_mean, _, _ in losses if output() is loss]
        self._raw[number] = direct[-1] if direct else _is_raw_mean(fact)
        self._targets[number] = hash(tuple(targets for *_, targets in losses))
        self._samples[number] = max((many for _, _, many, _ in losses), default=2)

    def backward_ended(self, fact: BackwardEnded) -> None:
        if self._looks():
            for seen in self.trace.optimizers:
                if seen.accumulated and seen.accumulated[-1].backward == fact.begun.number:
                    self._untouched.mark(seen)
                    if len(seen.accumulated) > 1 and seen.number not in self._settled:
                        self._reach(fact.begun)

    def clipped(self, fact: Clipped) -> None:
        if self._looks():
            for seen in self.trace.optimizers:
                if seen.accumulated:
                    self._untouched.mark(seen)

    def unscaled(self, fact: Unscaled) -> None:
        self._untouched.allow(self.trace.optimizer_of(fact.optimizer))

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        seen, number = fact.optimizer, fact.optimizer.number
        if number in self._settled or not self._looks() or not fact.accumulated:
            return
        k = len(fact.accumulated)
        if fact.has_closure:
            return
        if k < 2 or not self._is_accumulation(fact):
            if k >= 2 or seen.steps > 2 * WINDOWS:  # it does something else, or single batches
                self._windows.pop(number, None)
            if k >= 2 and self._accumulates(fact):
                self._divided += 1
            if seen.steps > 50 and number not in self._windows:
                self._settled.add(number)
            return
        if any(self._raw.get(one.backward) is not True for one in fact.accumulated):
            self._divided += 1
            return
        lengths = self._windows.setdefault(number, [])
        lengths.append(k)
        if len(lengths) < WINDOWS or lengths.count(k) < WINDOWS:
            return
        self._settled.add(number)
        text = arguments_at(seen.place, seen.kind)
        if "/" in text.get("lr", text.get("1", "")):
            return
        kin = seen.kind in SCALE_FREE
        yield self.finding(
            f"{k} backwards are summed into each step and the mean loss is not divided by {k}: "
            + (f"{seen.kind} hides the factor" if kin else f"the rate is {k} times what it says"),
            f"in {WINDOWS} windows, {k} batches of {self._samples.get(fact.accumulated[-1].backward, 0)} samples each "
            "added the gradient of a mean loss, with nothing between the mean and backward",
            place=fact.accumulated[-1].place,
            related=[(fact.place, "the step that uses the sum")],
            help=f"Backpropagate loss / {k}.",
            level="note" if kin else None,
        )

    def stepped(self, fact: Stepped) -> None:
        self._last_stepped = fact.optimizer.number

    def paused(self, fact: Paused) -> None:
        self._windows.clear()

    def passed(self) -> str | None:
        return f"the loss of {self._divided} accumulated steps was divided or summed" if self._divided else None

    def _looks(self) -> bool:
        return self.trace.step < self.trace.close_steps

    def _reach(self, begun: BackwardBegun) -> None:
        self._reaches[begun.number] = hash(frozenset(begun.graph.parameters))

    def _accumulates(self, fact: Stepping) -> bool:
        """Backwards of one line, the first on cleared gradients, the others on top."""
        first, *rest = fact.accumulated
        one_line = len({one.place for one in fact.accumulated}) == 1
        return one_line and first.clean and not any(one.clean for one in rest)

    def _is_accumulation(self, fact: Stepping) -> bool:
        if not self._accumulates(fact) or self._last_stepped not in (-1, fact.optimizer.number):
            return False
        numbers = [one.backward for one in fact.accumulated]
        targets = [self._targets.get(number) for number in numbers]
        reaches = {self._reaches.get(number) for number in numbers[1:]}  # the first is not known to be one of several
        many = all(self._samples.get(number, 0) > 1 for number in numbers)
        return (
            many
            and len(reaches) == 1
            and all(a != b or a == _NOTHING for a, b in pairwise(targets))
            and self._untouched.holds(fact.optimizer)
        )


_NOTHING = hash(())


def _hash(target: Tensor) -> int:
    if not readable(target):
        return hash(target.shape)
    values = target.detach().flatten()
    return hash((target.shape, *values[:: max(1, len(values) // 64)][:64].tolist()))


def _is_raw_mean(fact: BackwardBegun) -> bool:
    """From the loss down through sums and views only (and the scaler's factor): a mean."""
    from trueloop.doctor.graph import Node

    rest: list[Node | None] = [Node(root) for root in fact.graph.roots if root is not None]
    if fact.scaled and rest and rest[0] is not None and rest[0].op == "Mul":
        rest = rest[0].inputs
    found = False
    for _ in range(32):
        if not rest:
            break
        node = rest.pop(0)
        if node is None:
            continue
        if _base(node) in MEANS:
            reduction = node.saved("reduction")
            found = found or reduction is None or reduction == MEAN
        elif _base(node) in THROUGH:
            rest.extend(node.inputs)
    return found


def _base(node: Node) -> str:
    return node.op if node.op in MEANS else node.op.rstrip("0123456789")


def in_source(program: Program) -> Iterator[Checked]:
    """An optimizer steps every k turns, and each turn's loss is a mean as its function gives it, not divided by k."""
    told: set[int] = set()
    for run in program.runs:
        if any(run.of(read.GradientsUsed)):
            continue
        for backward in run.of(read.Backward):
            loss = backward.loss
            mean = isinstance(loss, values.Tensor) and loss.op in LOSSES.values() and "reduction" not in loss.options
            if not mean or id(backward.node) in told:
                continue
            for step in run.of(read.Stepped):
                if not gives(run, backward, step.target):
                    continue
                count = window_of(step, backward, run) or nested_count(step, backward, run)
                optimizer = step.target
                scaled = isinstance(optimizer, values.Object) and count in optimizer.at.unit.text(optimizer.node)
                late = any(
                    event.name == "Tensor.div" and event.args[0] is loss for event in run.of(read.Operated)
                )  # divided after backward: that is another rule's
                if not count or scaled or late:
                    continue
                told.add(id(backward.node))
                finding = program.finding(
                    AccumulationNotDivided,
                    f"the gradients of {count} batches are added up, and the loss is not divided by {count}",
                    "each turn's loss is a mean over its batch; the step comes once in several turns",
                    at=backward,
                    related=[(step, "the step")],
                    help=f"call backward on `loss / {count}`",
                )
                unit = program.unit
                seen = blocks.function(unit, step.node) is blocks.function(unit, backward.node)
                edit = divided(program, backward, count) if seen else None
                yield Checked(finding, together(f"divide the loss by {count}", edit))
                break


FIRES = {
    "four batches a step": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(256, 4), torch.randint(3, (256,))), batch_size=8, shuffle=True)
        for epoch in range(2):
            for i, (x, y) in enumerate(data):
                F.cross_entropy(model(x), y).backward()
                if (i + 1) % 4 == 0:
                    opt.step()
                    opt.zero_grad()
    """,
    "microbatches of a regression, a sum of terms": """
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for step in range(10):
            x = torch.randn(32, 4)
            y = x.sum(1, keepdim=True)
            opt.zero_grad()
            for xs, ys in zip(x.chunk(4), y.chunk(4)):
                loss = ((model(xs) - ys) ** 2).mean() + 1e-3 * model[0].weight.abs().sum()
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            opt.step()
    """,
}

SILENT = {
    "divided": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        data = DataLoader(TensorDataset(torch.randn(256, 4), torch.randint(3, (256,))), batch_size=8, shuffle=True)
        for i, (x, y) in enumerate(data):
            loss = F.cross_entropy(model(x), y) / 4
            loss.backward()
            if (i + 1) % 4 == 0:
                opt.step()
                opt.zero_grad()
    """,
    "a sum over samples, divided by their number": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in range(10):
            opt.zero_grad()
            for _ in range(4):
                x = torch.randn(8, 4)
                (F.mse_loss(model(x), x.sum(1, keepdim=True), reduction="sum") / 32).backward()
            opt.step()
    """,
    "the gradients are divided": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(10):
            opt.zero_grad()
            for _ in range(4):
                F.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
            for p in model.parameters():
                p.grad /= 4
            opt.step()
    """,
    "tasks with a shared trunk": """
        trunk = nn.Linear(4, 8)
        heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(3)])
        opt = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.02)
        for step in range(20):
            x = torch.randn(16, 4)
            opt.zero_grad()
            for task, head in enumerate(heads):
                F.mse_loss(head(torch.tanh(trunk(x))), x[:, task : task + 1]).backward()
            opt.step()
    """,
    "several views of one batch": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in range(20):
            x, y = torch.randn(16, 4), torch.randint(3, (16,))
            opt.zero_grad()
            for view in (x, x + 0.1 * torch.randn_like(x)):
                F.cross_entropy(model(view), y).backward()
            opt.step()
    """,
    "a discriminator's two halves": """
        G, D = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.SGD(G.parameters(), 1e-2), torch.optim.SGD(D.parameters(), 1e-2)
        bce = nn.BCEWithLogitsLoss()
        for i in range(20):
            od.zero_grad()
            for x, label in ((torch.randn(16, 2), 1.0), (G(torch.randn(16, 2)).detach(), 0.0)):
                bce(D(x), torch.full((16, 1), label)).backward()
            od.step()
            og.zero_grad()
            bce(D(G(torch.randn(16, 2))), torch.ones(16, 1)).backward()
            og.step()
    """,
}

READ_FIRES = {
    "a count of one's own, in a helper": """
        import torch
        from torch import nn
        class Accumulator:
            def __init__(self, optimizer, window):
                self.optimizer, self.window, self.count = optimizer, window, 0
            def backward(self, loss):
                loss.backward()
                self.count += 1
                if self.count == self.window:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                    self.count = 0
        net = nn.Linear(4, 3)
        helper = Accumulator(torch.optim.SGD(net.parameters(), lr=0.1), window=8)
        for epoch in range(3):
            for x, y in loader:
                helper.backward(nn.functional.cross_entropy(net(x), y))
    """,
    "a count of one's own, left early": """
        import torch
        from torch import nn
        net, seen = nn.Linear(4, 3), 0
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            nn.functional.cross_entropy(net(x), y).backward()
            seen += 1
            if seen < K:
                continue
            opt.step()
            opt.zero_grad()
            seen = 0
    """,
    "in a loop of its own": """
        import torch
        from torch import nn
        def train(net, opt, batches, micro_steps):
            while True:
                opt.zero_grad()
                for _ in range(micro_steps):
                    x, y = next(batches)
                    nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "a condition with a name": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(loader):
            nn.functional.cross_entropy(net(x), y).backward()
            full = (i + 1) % 8 == 0
            if full:
                opt.step()
                opt.zero_grad()
    """,
    "left early between the steps": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(loader):
            nn.functional.cross_entropy(net(x), y).backward()
            if (i + 1) % 8:
                continue
            opt.step()
            opt.zero_grad()
    """,
    "not divided": """
        import torch
        from torch import nn
        K = 8
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(loader):
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            if (i + 1) % K == 0:
                opt.step()
                opt.zero_grad()
    """,
    "through the scaler, in a trainer": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self, net, every):
                self.net, self.every = net, every
                self.opt = torch.optim.SGD(net.parameters(), lr=0.1)
                self.scaler = torch.amp.GradScaler()
            def fit(self, loader):
                for i, (x, y) in enumerate(loader):
                    self.scaler.scale(nn.functional.cross_entropy(self.net(x), y)).backward()
                    if (i + 1) % self.every == 0:
                        self.scaler.step(self.opt)
                        self.scaler.update()
                        self.opt.zero_grad()
    """,
}

READ_SILENT = {
    "a count of one's own: divided, and counted for something else": """
        import torch
        from torch import nn
        net, seen, waited = nn.Linear(4, 3), 0, 0
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            (nn.functional.cross_entropy(net(x), y) / K).backward()
            seen += 1
            if seen == K:
                opt.step()
                opt.zero_grad()
                seen = 0
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            waited += 1
            if waited >= 3:
                opt.step()
                waited = 0
    """,
    "tasks that are added up": """
        import torch
        from torch import nn
        def train(net, opt, batches, tasks):
            while True:
                opt.zero_grad()
                for _ in range(tasks):
                    x, y = next(batches)
                    nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
    """,
    "divided": """
        import torch
        from torch import nn
        K = 8
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(loader):
            loss = nn.functional.cross_entropy(net(x), y) / K
            loss.backward()
            if (i + 1) % K == 0:
                opt.step()
                opt.zero_grad()
    """,
    "a sum, and a rate that knows": """
        import torch
        from torch import nn
        K = 8
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1 / K)
        for i, (x, y) in enumerate(loader):
            nn.functional.cross_entropy(net(x), y).backward()
            if i % K == K - 1:
                opt.step()
                opt.zero_grad()
    """,
    "a step every time, a print sometimes": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(loader):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            if i % 100 == 0:
                print(loss.item())
    """,
}
