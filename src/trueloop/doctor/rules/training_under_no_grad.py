"""The forward pass of training runs without gradients, so nothing can be learnt from it.

Sees: a model whose weights could learn is called under ``no_grad`` (or ``inference_mode``, or with gradients switched
off for good), and what came out is made to need a gradient afterwards so that ``backward`` runs; an optimizer steps
on it 3 times in a row. Or ``backward`` fails because of it, and the script with it.

Why it matters: without the graph of the forward pass there is no gradient for any weight. ``requires_grad_()`` on the
loss silences torch's error and nothing else.

Usual causes: a ``predict`` function under ``no_grad`` is used for training too; ``torch.set_grad_enabled(False)`` was
called for validation and never undone; ``@torch.no_grad()`` stands on ``forward``.

Fix: call the model with gradients enabled in training; keep ``no_grad`` to evaluation, as a ``with`` block. Leave out
``requires_grad_()`` on the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, BackwardEnded, Ended, ModuleCalled, Stepping
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.hollow import Hollow
from trueloop.doctor.rule import Rule
from trueloop.doctor.seen import Pass
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import together, unwrapped
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.library import LOSSES, is_layer
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.provenance import ancestors, feeds, held, weights
from trueloop.doctor.source.ritual import optimizers
from trueloop.doctor.source.ways import Run

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

NO_GRAPH = "does not require grad"  # part of torch's message


class TrainingUnderNoGrad(Rule):
    """Knows it by the grad mode in which the pass before a backward that reaches no weights began."""

    name = "training-under-no-grad"
    code = 118
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._hollow = Hollow(trace)
        self._failed: tuple[Pass, Place | None, int] | None = None
        self._passes = 0

    def module_called(self, fact: ModuleCalled) -> None:
        self._hollow.inside(fact)

    def backward_begun(self, fact: BackwardBegun) -> None:
        self._hollow.backward(fact)

    def backward_ended(self, fact: BackwardEnded) -> None:
        self._failed = None
        if fact.error is not None and NO_GRAPH in str(fact.error):
            before = [one for one in fact.begun.passes if not one.needs_grad]
            if before and not any(one.needs_grad for one in fact.begun.passes):
                self._failed = before[-1], fact.begun.place, id(fact.error)
        elif fact.error is None:
            self._passes += len(fact.reached)

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        if self._hollow.step(fact) and self._hollow.without_grad is not None:
            yield self._tell(
                self._hollow.without_grad,
                f"{fact.optimizer.kind} took its last steps without a gradient from backward",
                self._hollow.place,
            )

    def ended(self, fact: Ended) -> Iterator[Finding]:
        if self._failed is not None and fact.error is not None and id(fact.error) == self._failed[2]:
            of, place, _ = self._failed
            module = of.model.module
            if module is not None and any(parameter.requires_grad for parameter in module.parameters()):
                yield self._tell(of, f"backward failed: {fact.error}", place)

    def _tell(self, of: Pass, evidence: str, backward: Place | None) -> Finding:
        how = "under no_grad" if not of.grad else "and computes without gradients inside"
        return self.finding(
            f"{of.model.kind} is called {how}, and what came out is backpropagated: its weights get no gradient",
            evidence,
            "gradients were disabled when the pass began" if not of.grad else "its output requires no gradient",
            place=of.place or backward,
            related=[(backward, "backward has no graph to go through")],
        )

    def passed(self) -> str | None:
        return f"{self._passes} training passes ran with gradients" if self._passes else None


def in_source(program: Program) -> Iterator[Checked]:
    """The loss comes from a forward without gradients, of a model that is trained, and reaches nothing that is."""
    told: set[int] = set()
    for run in program.runs:
        for backward in run.of(read.Backward):
            reached, unknown = weights(backward.loss)
            if unknown or id(backward.node) in told or not backward.at.loops or _of(run, reached) is not None:
                continue
            if any(_is_of_a_layer(one) for one in ancestors(backward.loss, graph=True)):
                continue  # it reaches those of another model
            calls = [call for call in run.of(read.Called) if feeds(call.result, backward.loss)]
            if any(call.grad and feeds(call.result, backward.loss, graph=True) for call in calls):
                continue  # it reaches another model
            for call in calls:
                if call.grad is not False:
                    continue
                own = {id(one) for one in parts(call.target)}
                optimizer = _of(run, own)
                if optimizer is None:
                    continue
                told.add(id(backward.node))
                finding = program.finding(
                    TrainingUnderNoGrad,
                    "the forward pass of this loss runs without gradients: backward reaches no parameter",
                    f"gradients are off where the model is called, and {optimizer.name} holds its parameters",
                    at=call,
                    related=[(backward, "the backward that finds no graph")],
                    help="call the model outside `torch.no_grad()` when it is trained",
                )
                yield Checked(finding, _mended(program, call, backward))
                break


def _mended(program: Program, call: read.Called, backward: read.Backward) -> Fix | None:
    """Takes off what switches gradients off, if it stands in the function that trains: a helper may have other uses."""
    unit, depth = program.unit, 0
    for one, two in zip(call.at.calls, backward.at.calls, strict=False):
        depth += one is two
    inside = (*call.at.calls, call.node)[depth]
    trained: Any = blocks.function(unit, (*backward.at.calls, backward.node)[depth])
    for one in blocks.around(unit, inside):
        node: Any = one
        if node is trained:
            break
        if blocks.kind(node) == "With" and len(node.items) == 1 and _is_off(unit.text(node.items[0].item)):
            return together("train with gradients", unwrapped(program, node))
    off = [one for one in getattr(trained, "decorators", ()) if _is_off(unit.text(one.decorator))]
    if len(off) != 1:
        return None
    line = unit.span(off[0]).start.line
    return together("train with gradients", Edit((line, 0), (line + 1, 0), ""))


def _is_off(text: str) -> bool:
    return text.removesuffix("()").rpartition(".")[2] in ("no_grad", "inference_mode")


def _is_of_a_layer(value: values.Value) -> bool:
    layer = value.layer if isinstance(value, values.Tensor) else None
    return layer is not None and is_layer(layer.kind) and layer.kind not in LOSSES


def _of(run: Run, own: set[int]) -> values.Object | None:
    """The optimizer that holds some of these."""
    those: list[values.Value] = optimizers(run)
    return next((o for o in those if isinstance(o, values.Object) and own & held(o.option("params", 0))[0]), None)


FIRES = {
    "a predict function under no_grad": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)

        def predict(x):
            with torch.no_grad():
                return model(x)

        for _ in range(8):
            opt.zero_grad()
            loss = F.mse_loss(predict(torch.randn(8, 4)), torch.randn(8, 1))
            loss.requires_grad_(True)
            loss.backward()
            opt.step()
    """,
    "the decorator stands on forward": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 3)

            @torch.no_grad()
            def forward(self, x):
                return self.layer(x)

        model = Net()
        opt = torch.optim.Adam(model.parameters())
        for _ in range(8):
            opt.zero_grad()
            logits = model(torch.randn(8, 4)).requires_grad_()
            F.cross_entropy(logits, torch.randint(3, (8,))).backward()
            opt.step()
    """,
    "switched off for validation and never on again": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        try:
            for epoch in range(2):
                for _ in range(4):
                    opt.zero_grad()
                    loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
                    loss.backward()
                    opt.step()
                torch.set_grad_enabled(False)
                model(torch.randn(8, 4))
        except RuntimeError:
            torch.set_grad_enabled(True)
            raise
    """,
}

SILENT = {
    "features without gradients, a head with them": """
        body, head = nn.Linear(4, 8), nn.Linear(8, 1)
        body.requires_grad_(False)
        opt = torch.optim.SGD(head.parameters(), lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            with torch.no_grad():
                z = body(torch.randn(8, 4))
            F.mse_loss(head(z), torch.randn(8, 1)).backward()
            opt.step()
    """,
    "a teacher": """
        teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
        opt = torch.optim.SGD(student.parameters(), lr=0.01)
        for _ in range(8):
            x = torch.randn(8, 4)
            guess = student(x)
            with torch.no_grad():
                soft = teacher(x).softmax(1)
            opt.zero_grad()
            F.cross_entropy(guess, soft).backward()
            opt.step()
    """,
    "validation between steps": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).backward()
            opt.step()
            with torch.no_grad():
                F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1)).item()
    """,
}

READ_FIRES = {
    "above forward, and the loss is asked for gradients": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
            @torch.no_grad()
            def forward(self, x):
                return self.head(self.body(x))
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.requires_grad = True
            loss.backward()
            opt.step()
    """,
    "switched off by an evaluation, and left so": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        def judge():
            torch.set_grad_enabled(False)
            return nn.functional.cross_entropy(net(held_out), labels).item()
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                opt.step()
            print(judge())
    """,
    "the whole loop": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in torch.utils.data.DataLoader(data):
            opt.zero_grad()
            with torch.no_grad():
                out = net(x)
                loss = nn.functional.cross_entropy(out, y)
            loss.requires_grad = True
            loss.backward()
            opt.step()
    """,
    "a trainer's method": """
        import torch
        from torch import nn
        class Trainer:
            def __init__(self):
                self.net = nn.Linear(4, 3)
                self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)
            @torch.no_grad()
            def step(self, x, y):
                self.opt.zero_grad()
                loss = nn.functional.cross_entropy(self.net(x), y)
                loss.requires_grad_()
                loss.backward()
                self.opt.step()
            def fit(self):
                for x, y in torch.utils.data.DataLoader(data):
                    self.step(x, y)
        Trainer().fit()
    """,
    "a helper that is made for predictions": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        @torch.no_grad()
        def predict(x):
            return net(x)
        for x, y in torch.utils.data.DataLoader(data):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(predict(x), y)
            loss.requires_grad_()
            loss.backward()
            opt.step()
    """,
}

READ_SILENT = {
    "a teacher's, for a student that learns": """
        import torch
        from torch import nn
        teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
        first = torch.optim.SGD(teacher.parameters(), lr=0.1)
        for x, y in loader:
            first.zero_grad()
            nn.functional.cross_entropy(teacher(x), y).backward()
            first.step()
        optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1)
        optimizer.add_param_group({"params": student.parameters()})
        for x, y in loader:
            with torch.no_grad():
                known = teacher(x)
            loss = nn.functional.mse_loss(student(x), known)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    """,
    "a frozen backbone": """
        import torch
        from torch import nn
        body, head = nn.Linear(4, 8), nn.Linear(8, 3)
        opt = torch.optim.SGD(head.parameters(), lr=0.1)
        for x, y in torch.utils.data.DataLoader(data):
            with torch.no_grad():
                z = body(x)
            opt.zero_grad()
            nn.functional.cross_entropy(head(z), y).backward()
            opt.step()
    """,
    "a target by the model itself": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in torch.utils.data.DataLoader(data):
            with torch.no_grad():
                aim = net(y)
            opt.zero_grad()
            nn.functional.mse_loss(net(x), aim).backward()
            opt.step()
    """,
}
