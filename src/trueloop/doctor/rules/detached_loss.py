"""The loss that is backpropagated was rebuilt from numbers, so no gradient comes to the weights.

Sees: backward is called on a tensor without a graph, or with a graph that begins at a new tensor which is no weight;
the model's output did have a graph, which was thrown away; and an optimizer steps on it, 3 times in a row (10 times
where other backwards did reach weights: a loss of zero for an empty batch is made from a number on purpose).

Why it matters: ``backward`` runs without an error and computes nothing for the model. The steps change no weight; the
figures move only with the batches.

Usual causes: ``torch.tensor(loss.item(), requires_grad=True)``, ``Variable(loss.data)``, or ``requires_grad_()`` on the
output of numpy or of ``.detach()``, added to silence "element 0 of tensors does not require grad".

Fix: compute the loss from the model's output with torch operations alone, without ``.item()``, ``.data``,
``.detach()``, ``.numpy()`` or a new tensor between the two, and call ``backward`` on that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import BackwardBegun, ModuleCalled, Stepping
from trueloop.doctor.findings import Finding
from trueloop.doctor.hollow import Hollow
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, results, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.arguments import WHOLE
from trueloop.doctor.source.edits import ends, put, together, without
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.provenance import ancestors, endings
from trueloop.doctor.source.results import CUTS, STEPS
from trueloop.doctor.written import assigned, backwarded

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace


class DetachedLoss(Rule):
    """Knows it by the graph: no leaf of it is a weight."""

    name = "detached-loss"
    code = 117
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._hollow = Hollow(trace)
        self._leaf = False

    def module_called(self, fact: ModuleCalled) -> None:
        self._hollow.inside(fact)

    def backward_begun(self, fact: BackwardBegun) -> None:
        if self._hollow.backward(fact):
            self._leaf = all(loss.grad_fn is None for loss in fact.losses)

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        hollow = self._hollow
        if hollow.step(fact) and hollow.cut:
            name = backwarded(hollow.place)
            made = assigned(hollow.place, name, r"tensor|Variable|item|data|detach|numpy|float|requires_grad")
            what = "a tensor made from a number" if self._leaf else "a graph that begins at a tensor made from numbers"
            yield self.finding(
                f"backward is called on {what}: no gradient reaches the weights of {fact.optimizer.kind}",
                "the loss is a leaf: it has no grad_fn" if self._leaf else "no leaf of the loss's graph is a parameter",
                f"{fact.optimizer.kind} took its last steps without a single gradient from it",
                place=made or hollow.place,
                related=[(hollow.place, "backward stops here")] if made else [],
            )

    def passed(self) -> str | None:
        return "backward reached weights" if self._hollow.reached else None


MADE_ANEW = frozenset(
    ["tensor", "as_tensor", "FloatTensor", "values.Tensor", "variable", "parameter", "requires_grad_", "from_numpy"]
)


def in_source(program: Program) -> Iterator[Checked]:
    """The loss is a new tensor, made of what was cut off its graph and said to require gradients; or it is cut off."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Backward):
            new = [
                end
                for end in endings(event.loss)
                if isinstance(end, values.Tensor) and end.op in MADE_ANEW and end.inputs
            ]
            new = new or _asked(event.loss)
            if not new and id(event.node) not in told and _is_bare(event.loss):
                told.add(id(event.node))
                yield Checked(_of_a_bare_one(program, event), _uncut(program, event.loss))
            if not new or id(event.node) in told:
                continue
            cuts = (one for one in ancestors(new[0]) if one is not new[0] and _is_cut(one))
            if all(_had_none(one) for one in cuts):
                continue
            told.add(id(event.node))
            finding = program.finding(
                DetachedLoss,
                "the loss that is backpropagated was made anew from numbers: no gradient reaches the model",
                f"it is made by `{new[0].at.unit.text(new[0].node)}`, of values whose graph was cut off",
                at=event,
                related=[(new[0], "the new tensor")],
                help="backpropagate the loss itself, as the loss function gives it",
            )
            yield Checked(finding, _mended(program, new[0]))


def _mended(program: Program, new: values.Tensor) -> Fix | None:
    """The value itself in the place of what is made anew of it, where only ``item``, ``detach`` or ``data`` cut it."""
    unit, call = program.unit, new.node
    args: Any = getattr(call, "args", ())
    cuts = [one for one in ancestors(new) if one is not new and _is_cut(one)]
    if new.op not in ("tensor", "as_tensor", "FloatTensor", "variable") or not args or args[0].keyword or args[0].star:
        return None
    if blocks.statement(unit, call) is None or not all(_had_graph(one) for one in cuts):
        return None
    inner = args[0].value
    gone = [end for end in blocks.walk(inner) if _without_cut(end) is not None]
    if not gone or any(blocks.kind(one) in ("List", "ListComp") for one in blocks.walk(inner)):
        return None
    above: Any = next(blocks.around(unit, call))
    base = _without_cut(inner)
    if base is not None and blocks.kind(above) == "Assign" and blocks.stored(unit, above) == {unit.text(base)}:
        return together("backpropagate the loss itself", without(program, call))  # else `loss = loss`
    shut = blocks.kind(inner) not in WHOLE and blocks.kind(above) == "Attribute"
    (begin, stop), (first, last) = ends(program, call), ends(program, inner)
    edits = [Edit(begin, first, "(" * shut), Edit(last, stop, ")" * shut)]
    edits += [Edit(ends(program, _without_cut(one))[1], ends(program, one)[1], "") for one in gone]
    merged = [*edits[:1], *(_joined(edits[1], edits[2:]))]
    return together("backpropagate the loss itself", merged)


def _uncut(program: Program, loss: values.Value) -> Fix | None:
    """``loss.backward()`` in the place of ``loss.detach().backward()``."""
    node: Any = getattr(loss, "node", None)
    inner = None if getattr(loss, "op", "") != "detach" else _without_cut(node)
    return None if inner is None else together("keep the graph", put(program, node, program.unit.text(inner)))


def _joined(last: Edit, cuts: list[Edit]) -> list[Edit]:
    """The edits of the cuts and of what stands behind them: what touches becomes one."""
    found: list[Edit] = []
    for edit in sorted([*cuts, last]):
        if found and found[-1].end == edit.start:
            found[-1] = Edit(found[-1].start, edit.end, found[-1].text + edit.text)
        else:
            found.append(edit)
    return found


def _without_cut(node: Any) -> Any:
    """``loss`` of ``loss.item()``, ``loss.detach()`` and ``loss.data``; None of all else."""
    if blocks.kind(node) == "Call" and blocks.kind(node.func) == "Attribute" and not node.args:
        return node.func.value if node.func.attr.value in ("item", "detach") else None
    return node.value if blocks.kind(node) == "Attribute" and node.attr.value == "data" else None


def _had_graph(cut: values.Value) -> bool:
    """Whether what was cut off was the graph of a loss: known, or given by a call of what is not known."""
    if isinstance(cut, values.Tensor):
        return bool(cut.inputs) and (_is_cut(cut.inputs[0]) or results.graph_of(cut.inputs[0]) is True)
    before = cut.of if isinstance(cut, values.Unknown) else None
    return (isinstance(before, values.Unknown) and before.via == "call") or results.graph_of(before) is True


def _had_none(cut: values.Value) -> bool:
    """Whether there was no graph to cut off: of targets that are cast, of what ran under ``no_grad``."""
    if not isinstance(cut, values.Tensor) or not cut.inputs:
        return False
    return all(results.graph_of(one) is False for one in cut.inputs)


def _is_bare(loss: values.Value) -> bool:
    """Whether a loss is cut off its graph, and nothing was done with it since."""
    those = [one for one in endings(loss) if not (isinstance(one, values.Constant) and one.value is None)]
    ops = [
        one.op if isinstance(one, values.Tensor) else one.via if isinstance(one, values.Unknown) else ""
        for one in those
    ]
    return bool(ops) and set(ops) <= {"detach", "item", "tolist", "numpy"} and results.graph_of(loss) is False


def _of_a_bare_one(program: Program, event: read.Backward) -> Finding:
    return program.finding(
        DetachedLoss,
        "the loss that is backpropagated has no graph: no gradient reaches the model",
        f"`{event.at.unit.text(event.node)}`: the loss was cut off its graph by `.detach()`, `.item()` or the like",
        at=event,
        help="hand over the loss itself, as the loss function gives it; log `loss.item()`",
    )


def _asked(loss: values.Value) -> list[values.Tensor]:
    """``loss.requires_grad_()`` as a line of its own leaves a mark on the value."""
    return [
        one for one in endings(loss) if isinstance(one, values.Tensor) and "asked" in one.attrs and one.graph is False
    ]


def _is_cut(value: values.Value) -> bool:
    return (isinstance(value, values.Tensor) and value.op in CUTS | STEPS) or (
        isinstance(value, values.Unknown) and value.via in CUTS
    )


FIRES = {
    "a new tensor from the loss's number": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
            loss = torch.tensor(loss.item(), requires_grad=True)
            loss.backward()
            opt.step()
    """,
    "predictions went through numpy": """
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        opt = torch.optim.Adam(model.parameters())
        for _ in range(8):
            opt.zero_grad()
            guess = torch.from_numpy(model(torch.randn(8, 4)).detach().numpy()).requires_grad_()
            loss = ((guess - torch.randn(8, 1)) ** 2).mean()
            loss.backward()
            opt.step()
    """,
    "the model gives out detached values": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 1)

            def forward(self, x):
                return self.layer(x).data

        model, mse = Net(), nn.MSELoss()
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            loss = mse(model(torch.randn(8, 4)), torch.randn(8, 1))
            loss.requires_grad = True
            loss.backward()
            opt.step()
    """,
}

SILENT = {
    "attacks on the input between steps": """
        model = nn.Linear(4, 3)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(8):
            x, y = torch.randn(8, 4), torch.randint(3, (8,))
            model.requires_grad_(False)
            x.requires_grad_()
            F.cross_entropy(model(x), y).backward()
            model.requires_grad_(True)
            opt.zero_grad()
            F.cross_entropy(model((x + 0.1 * x.grad.sign()).detach()), y).backward()
            opt.step()
    """,
    "raw tensors updated by hand": """
        w = torch.randn(4, 1, requires_grad=True)
        for _ in range(8):
            loss = (torch.randn(8, 4) @ w).square().mean()
            loss.backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
                w.grad = None
    """,
    "a batch without objects": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for i in range(30):
            opt.zero_grad()
            if i % 7:
                loss = F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 1))
            else:
                loss = torch.tensor(0.0, requires_grad=True)
            loss.backward()
            opt.step()
    """,
    "a picture is optimized": """
        net = nn.Linear(6, 2).requires_grad_(False)
        picture = torch.zeros(1, 6, requires_grad=True)
        opt = torch.optim.Adam([picture], lr=0.05)
        for _ in range(8):
            opt.zero_grad()
            (-net(picture)[0, 1]).backward()
            opt.step()
    """,
}

READ_FIRES = {
    "decisions that are told to require gradients": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = (net(x).argmax(1) != y).float().mean()
            loss.requires_grad = True
            loss.backward()
            opt.step()
    """,
    "rebuilt from its number": """
        import torch
        def train(model, loader, criterion, optimizer):
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss = torch.tensor(loss.item(), requires_grad=True)
                loss.backward()
                optimizer.step()
    """,
    "a Variable of its data": """
        import torch
        from torch.autograd import Variable
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            Variable(loss.data, requires_grad=True).backward()
            opt.step()
    """,
    "a sum of numbers": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)

        for x, y in loader:
            opt.zero_grad()
            a, b = nn.functional.cross_entropy(net(x), y), net(x).square().mean()
            torch.tensor(a.item() + 0.5 * b.detach().item(), requires_grad=True).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "a weight that is a number": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            (loss * torch.tensor(0.5 / loss.item())).backward()
            opt.step()
    """,
}
