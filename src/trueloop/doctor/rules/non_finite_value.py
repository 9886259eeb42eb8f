"""A value is not finite: NaN or Inf came up in the loss, the gradients or the weights, and an optimizer stepped on it.

Sees: the first loss that is not finite, the first step whose gradients are not, or the first whose weights are not
after it; the graph's own records then tell the operation that gave the first such value, its module and its samples.
The steps that a GradScaler leaves out are right, as are losses within a line search (LBFGS), and steps that the
script leaves out itself.

Why it matters: from here on every weight that is reached becomes NaN, and stays so.

Usual causes: a logarithm or a division of zero, a square root at zero (its slope is infinite), a rate that is too
high, gradients that explode over a long recurrence, an overflow in fp16, NaN in the data.

Fix: mend the operation that is named: add a small number under a root, a logarithm or a division (``(d +
1e-12).sqrt()``), use ``torch.logsumexp`` or ``log_softmax`` in the place of ``exp`` and ``log``; where it is an
overflow, lower the rate or clip the gradients.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.activations import tag_module
from trueloop.doctor.facts import (
    BackwardBegun,
    BackwardEnded,
    Called,
    Ended,
    LossCalled,
    ModuleCalled,
    Stepped,
    Stepping,
)
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.learnt import Learnt
from trueloop.doctor.nonfinite import (
    NO_GRAPH,
    RISKY,
    Break,
    Kept,
    finite,
    first_break,
    is_mask,
    keep,
    rows_of,
    suspects,
    with_batch,
)
from trueloop.doctor.places import forward_of
from trueloop.doctor.rule import Rule
from trueloop.doctor.samples import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.trace import Trace
    from trueloop.doctor.vitals import Vitals

IN_A_ROW = 3  # losses, where no optimizer's step tells what becomes of them
LEFT_OUT = 25  # steps that a scaler leaves out in a row: from 65536 it is at 0.002 by then
GRAPH = 3_000  # nodes; larger graphs are not read at each step
READ = 1_000_000  # values; what is larger, and has no graph, is not read


class NonFiniteValue(Rule):
    """Watches losses, gradients and weights; reads the graph where they break."""

    name = "non-finite-value"
    code = 401
    level = "error"
    certainty = "certain"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._told = False
        self._closure = False
        self._bad = 0  # losses in a row
        self._broken: tuple[str, Break | None, Place | None] | None = None  # phase, origin, the backward's line
        self._risky: dict[Place | None, bool] = {}
        self._suspects: list[Break] = []
        self._place: Place | None = None
        self._steps = 0
        self._lines = Learnt()
        self._maker: tuple[int, Break] | None = None  # the first module of a pass that broke something without a graph
        self._batch: deque[tuple[str, str, Any]] = deque(maxlen=6)  # weak
        self._held: list[Kept] = []  # from the backward that may have broken until its step, if it is to be kept

    def module_called(self, fact: ModuleCalled) -> None:
        if self._told:
            return
        tag_module(fact)
        if fact.of.grad and (self._maker is None or self._maker[0] != fact.of.number):
            broken = next(filter(_is_broken, tensors_in(fact.output, limit=2)), None)
            if broken is not None and all(map(finite, tensors_in(fact.inputs, limit=4))):
                name = f"{fact.name!r} ({type(fact.module).__name__})" if fact.name else type(fact.module).__name__
                kind = "NaN" if bool(broken.isnan().any()) else "infinity"
                what = f"the module {name} makes {kind} of finite inputs"
                self._maker = (
                    fact.of.number,
                    Break("", what, forward_of(fact.module), None, rows_of(broken), len(broken) if broken.dim() else 0),
                )

    def called(self, fact: Called) -> None:
        if fact.of.close and fact.of.grad and not self._told:
            for index, tensor in enumerate(tensors_in(fact.inputs, limit=3)):
                about = f"argument {index} of {fact.of.model.kind}, called at {fact.of.place}"
                self._remember("input", about, tensor)

    def loss_called(self, fact: LossCalled) -> None:
        if not self._told and (fact.of is None or fact.of.grad):
            self._remember("target", f"the targets of {fact.kind}, called at {fact.place}", fact.target)

    def stepping(self, fact: Stepping) -> None:
        self._closure = fact.has_closure

    def backward_begun(self, fact: BackwardBegun) -> Iterator[Finding] | None:
        if self._told or self._closure:
            return None
        values = fact.values
        if values is None:
            if any(loss.device.type != "cpu" or loss.numel() != 1 for loss in fact.losses):
                return None
            values = tuple(float(loss) for loss in fact.losses)
        self._place = fact.place
        if self.trace.lines.kept:
            self._lines.learn(fact.graph)
        if not fact.passes:  # what came before was not heard
            self._batch.clear()
        if self._broken is None:
            self._held.clear()
        if all(map(math.isfinite, values)):
            self._bad, self._broken = 0, None
            if fact.values is not None:
                self._suspect(fact)
                if self._suspects:
                    self._hold()
            return None
        self._bad += 1
        if fact.scaled and self._bad < LEFT_OUT:
            return None
        if self._broken is None:
            self._suspects.clear()
            self._hold()
            bad = [parameter for parameter in fact.graph.parameters.values() if not finite(parameter)]
            phase = f"{self.trace.name_of(bad[0])} was not finite before this forward pass" if bad else "forward"
            self._broken = phase, None if bad else self._origin(fact), fact.place
        return self._tell() if self._bad >= (LEFT_OUT if fact.scaled else IN_A_ROW) else None

    def backward_ended(self, fact: BackwardEnded) -> Iterator[Finding] | None:
        text = str(fact.error) if fact.error is not None else ""
        if self._told or "nan values" not in text:
            return None
        name = re.search(r"'(\w+?)(?:Backward\d*)?'", text)  # anomaly mode has named it, and ends the script
        found = next((one for one in self._suspects if name and one.op == name[1]), None)
        origin = found or Break(name[1] if name else "an operation", "NaN", None, None, [])
        self._broken = self._broken or ("backward", origin, fact.begun.place)
        return self._tell()

    def stepped(self, fact: Stepped) -> Iterator[Finding] | None:
        self._closure = False
        self._steps += 1
        if self._told:
            return None
        vitals = fact.vitals
        if self._broken is None and (vitals is None or _are_finite(vitals)):
            self._batch.clear()
            return None
        parameters = fact.optimizer.parameters()
        # A norm may overflow where all values are finite, so the values themselves decide.
        gradients = [p for p in parameters if p.grad is not None and not finite(p.grad)]
        was = {} if vitals is None else dict(zip(map(id, vitals.parameters), vitals.weights, strict=True))
        # What was not finite before this step (a mask that is a parameter) did not become so by it.
        weights = [p for p in parameters if not finite(p) and math.isfinite(was.get(id(p), 0.0))]
        if not gradients and not weights:
            return None
        if self._broken is None:
            if gradients:
                self._broken = (
                    "backward",
                    self._suspects[0] if self._suspects else self._gradient(gradients),
                    self._place,
                )
            else:
                what = f"{self.trace.name_of(weights[0])} overflows in the step, with finite gradients"
                self._broken = "the update", Break(fact.optimizer.kind, what, fact.place, None, []), fact.place
        return self._tell()

    def ended(self, fact: Ended) -> Iterator[Finding] | None:
        if self._told or self._broken is None or (fact.error is None and self._steps):
            return None
        return self._tell()

    def _origin(self, fact: BackwardBegun) -> Break | None:
        """What broke first; of what has no graph, only modules and the batch are known."""
        found = first_break(fact.graph, self._lines.finder(fact.graph))
        if found is None or found.what in (NO_GRAPH, "NaN", "a sum that overflows"):
            if self._maker is not None and self._maker[0] in (one.number for one in fact.passes):
                return self._maker[1]
            if found is not None and found.what == NO_GRAPH and any(_is_broken(one.tensor) for one in self._alive()):
                return found._replace(what="data that is not finite")
        return found

    def _remember(self, name: str, about: str, tensor: Tensor) -> None:
        from torch.utils.weak import TensorWeakRef

        self._batch.append((name, about, TensorWeakRef(tensor)))

    def _hold(self) -> None:
        """A batch that was made within a line dies with its graph, which backward frees."""
        if self.trace.save_to is not None:
            self._held = self._alive()

    def _alive(self) -> list[Kept]:
        alive = [Kept(name, about, tensor) for name, about, ref in self._batch if (tensor := ref()) is not None]
        return with_batch(self.trace, alive)

    def _suspect(self, fact: BackwardBegun) -> None:
        """Before a backward: operations whose slope is not finite; only where the graph holds any of the kind."""
        risky = self._risky.get(fact.place)
        if risky is None:
            nodes = fact.graph.nodes
            risky = self._risky[fact.place] = len(nodes) < GRAPH and any(node.op in RISKY for node in nodes)
        self._suspects = suspects(fact.graph, self._lines.finder(fact.graph)) if risky else []

    def _gradient(self, parameters: list[Tensor]) -> Break:
        """The gradient that broke: the nearest to the loss, as far as the optimizer's order tells."""
        name = self.trace.name_of(parameters[-1])
        return Break("backward", f"the gradient of {name} is not finite", None, None, [])

    def _tell(self) -> Iterator[Finding]:
        assert self._broken is not None
        self._told = True
        phase, origin, place = self._broken
        batch = self._held or self._alive()
        evidence = [f"first to break: {phase}"]
        if origin is None:
            message = "the loss is not finite"
        else:
            inside = f" in the module {origin.module!r}" if origin.module else ""
            message = f"{origin.what} ({origin.op}{inside}) makes values that are not finite"
            if origin.what == "NaN":
                message = f"NaN comes out of {origin.op}{inside}"
            elif origin.what == NO_GRAPH:
                message = f"{origin.what} (from data or constants) is not finite where {origin.op}{inside} takes it"
            elif not origin.op:
                message = origin.what
            if origin.rows and (not batch or any(t.dim() and len(t) == origin.size for _, _, t in batch)):
                more = f" and {len(origin.rows) - 10} more" if len(origin.rows) > 10 else ""
                evidence.append(f"samples {', '.join(map(str, origin.rows[:10]))}{more} of the batch")
        if path := keep(self.trace, batch):
            evidence.append(f"the batch is kept in {path}")
        self._held.clear()
        where = origin.place if origin is not None else None
        yield self.finding(
            message, *evidence, place=where or place, related=[(place, "the backward")] if where != place else []
        )

    def passed(self) -> str | None:
        return "losses, gradients and weights are finite" if self._steps and not self._told else None


def _is_broken(tensor: Tensor) -> bool:
    """Whether a tensor without a graph is not finite; asked where its values are at hand."""
    near = tensor.device.type == "cpu" and tensor.numel() <= READ and tensor.grad_fn is None
    return near and not finite(tensor) and not is_mask(tensor)


def _are_finite(vitals: Vitals) -> bool:
    gradients = (gradient for gradient in vitals.gradients if gradient is not None)
    return all(map(math.isfinite, (*vitals.weights, *vitals.updates, *gradients)))


FIRES = {
    "a square root at zero": """
        embed = nn.Linear(6, 4)
        opt = torch.optim.Adam(embed.parameters(), lr=1e-3)
        x = torch.randn(64, 6)
        for step in range(8):
            i, j = torch.randint(64, (16,)), torch.randint(64, (16,))
            if step == 5:
                j[3] = i[3]
            distance = (embed(x[i]) - embed(x[j])).pow(2).sum(1).sqrt()
            loss = distance.mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "the logarithm of zero": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(6, 3)
            def forward(self, x):
                return F.relu(self.out(x))
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(8):
            p = net(torch.randn(16, 6))
            loss = -torch.log(p / p.sum(1, keepdim=True)).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
    "it runs away": """
        x = torch.randn(64, 6)
        w = nn.Parameter(torch.randn(6, 1))
        opt = torch.optim.SGD([w], lr=1e4)
        for step in range(60):
            loss = ((x @ w) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "steps that a scaler leaves out": """
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
        for _ in range(12):
            x = torch.randn(16, 6)
            opt.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.mse_loss(model(x), x[:, :1])
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
    """,
    "losses that the script leaves out": """
        model = nn.Linear(6, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(12):
            x = torch.randn(16, 6)
            if step == 7:
                x[0] = 1e30
            opt.zero_grad()
            loss = F.mse_loss(model(x), torch.zeros(16, 1))
            if not torch.isfinite(loss):
                continue
            loss.backward()
            opt.step()
    """,
    "a root that is kept from zero": """
        embed = nn.Linear(6, 4)
        opt = torch.optim.Adam(embed.parameters(), lr=1e-3)
        x = torch.randn(64, 6)
        for step in range(8):
            distance = ((embed(x) - embed(x)).pow(2).sum(1) + 1e-12).sqrt()
            opt.zero_grad()
            (distance.mean() + embed(x).square().mean()).backward()
            opt.step()
    """,
}
