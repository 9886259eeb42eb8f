"""A parameter is updated by hand through ``.data``, or with a graph.

Sees: ``p.data -= lr * p.grad`` and its kin; ``p -= lr * p.grad`` of a leaf that requires grad, outside ``no_grad``.

Why it matters: autograd does not see what happens to ``.data``: if the parameter's old value is still needed by a
backward, the gradient is wrong, silently. Under ``torch.no_grad()`` the same mistake is an error. Outside of it, torch
refuses to change a leaf that requires grad: the script ends at its first step.

Usual causes: a loop from before ``torch.no_grad`` existed; ``p -= lr * p.grad`` was an error, and ``.data`` made it go.

Fix: ``with torch.no_grad(): p -= lr * p.grad``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.edits import put, spelled, together, wrapped
from trueloop.doctor.source.events import Backward, Operated
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import is_alone
from trueloop.doctor.source.modules import is_module, owner
from trueloop.doctor.source.provenance import ancestors
from trueloop.doctor.source.values import Tensor, Unknown, Value

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program


class InPlaceOnLeaf(Rule):
    """Is read only."""

    name = "in-place-on-leaf"
    code = 804
    level = "note"
    certainty = "certain"
    seen_by = ("source",)


def in_source(program: Program) -> Iterator[Checked]:
    """A leaf is changed by its gradient with a graph, or ``.data`` of a thing by that thing's gradient."""
    yield from _with_a_graph(program)
    yield from _through_data(program)


def _with_a_graph(program: Program) -> Iterator[Checked]:
    """Of a script that calls backward itself, so that gradients are not off around all of it."""
    told: set[int] = set()
    for run in program.runs:
        learns = any(True for _ in run.of(Backward))
        for event in run.of(Operated) if learns else ():
            if event.name != "Tensor.change" or id(event.node) in told or not _is_own_leaf(*event.args):
                continue
            if _is_awaited(event):
                continue
            told.add(id(event.node))
            node: Any = event.node
            whose = program.unit.text(node.target) if event.at.unit is program.unit else "the parameter"
            finding = program.finding(
                InPlaceOnLeaf,
                f"`{whose}` is changed outside of `torch.no_grad()`: torch refuses that of a leaf that requires grad",
                "it is changed in place by its own gradient, while a graph is recorded",
                at=event,
                level="error",
                help=f"change `{whose}` under `torch.no_grad()`",
            )
            yield Checked(finding)


def _is_awaited(event: Operated) -> bool:
    """Whether an error is caught around it: ``try``, ``with pytest.raises(RuntimeError)``."""
    above: list[Any] = list(blocks.around(event.at.unit, event.node))
    contexts = [item.item for one in above if blocks.kind(one) == "With" for item in one.items]
    raises = any("raises" in blocks.names(one) or "assertRaises" in blocks.names(one) for one in contexts)
    return raises or any(blocks.kind(one) == "Try" for one in above)


def _is_own_leaf(before: Value, by: Value) -> bool:
    """Whether it is a leaf that requires grad, for sure, and what it is changed by has its own gradient in it."""
    if isinstance(before, Tensor):
        leaf = before.graph is True and not any(isinstance(one, Tensor) and one.graph for one in before.inputs)
        leaf = leaf and (before.layer is None or before.op == "parameter")
    else:
        leaf = is_module(owner(before))
    return leaf and any(_is_gradient_of(one, before) for one in ancestors(by))


def _is_gradient_of(value: Value, leaf: Value) -> bool:
    if isinstance(value, Tensor):
        return value.op == "grad" and value.inputs[0] is leaf
    return isinstance(value, Unknown) and value.via == "grad" and value.of is leaf


def _through_data(program: Program) -> Iterator[Checked]:
    """``.data`` of a thing is changed by that thing's gradient."""
    import libcst as cst
    from libcst import matchers

    text = program.unit.code
    if ".data" not in text or ".grad" not in text or "backward(" not in text:
        return
    of_data = matchers.AugAssign(target=matchers.Attribute(attr=matchers.Name("data")))
    gradient = matchers.Attribute(attr=matchers.Name("grad"))
    for node in matchers.findall(program.unit.tree, of_data):
        if not isinstance(node, cst.AugAssign) or not isinstance(node.target, cst.Attribute):
            continue
        whose = program.unit.text(node.target.value)
        if not any(program.unit.text(one) == f"{whose}.grad" for one in matchers.findall(node.value, gradient)):
            continue
        finding = program.finding(
            InPlaceOnLeaf,
            f"`{whose}` is updated through `.data`, where autograd does not see it",
            f"`{program.unit.text(node)}`",
            at=program.line(node),
            help=f"under `torch.no_grad()`, change `{whose}` itself",
        )
        yield Checked(finding, _mended(program, node))


def _mended(program: Program, node: cst.AugAssign) -> Fix | None:
    """The thing itself is changed, under ``torch.no_grad()``; a name of another function's would become this one's."""
    unit = program.unit
    target: Any = node.target
    whose, line = unit.text(target.value), blocks.statement(unit, node)
    home: Any = blocks.function(unit, node)
    if line is None or not is_alone(line) or blocks.kind(line) == "If" or "(" in whose:
        return None
    if home is not None and blocks.kind(target.value) == "Name":
        own = {one.name.value for one in blocks.walk(home.params) if blocks.kind(one) == "Param"}  # type: ignore[attr-defined]
        if whose not in own | blocks.stored(unit, home.body):
            return None
    change = put(program, target, whose)
    title = f"change `{whose}` under no_grad"
    around: list[Any] = [one for one in blocks.around(unit, node) if blocks.kind(one) == "With"]
    if any("no_grad" in unit.text(one.items[0].item) for one in around):
        return together(title, change)
    name, added = spelled(program, "torch.no_grad")
    return together(title, change, wrapped(program, line, line, f"with {name}():"), added)


READ_FIRES = {
    "a leaf itself, with a graph": """
        import torch
        def sgd(params, lr):
            for param in params:
                param -= lr * param.grad
                param.grad.zero_()
        w, b = torch.zeros(5, requires_grad=True), torch.zeros(1, requires_grad=True)
        for x, y in data:
            torch.nn.functional.mse_loss(x @ w + b, y).backward()
            sgd([w, b], 0.05)
    """,
    "a module's parameters, with a graph": """
        import torch
        net = torch.nn.Linear(4, 1)
        for x, y in data:
            torch.nn.functional.mse_loss(net(x), y).backward()
            for p in net.parameters():
                p -= 0.1 * p.grad
            net.zero_grad()
    """,
    "by hand": """
        import torch
        w = torch.zeros(3, requires_grad=True)
        for x, y in data:
            torch.nn.functional.mse_loss(x @ w, y).backward()
            w.data -= 0.1 * w.grad
            w.grad = None
    """,
    "each parameter, and under no_grad": """
        import torch
        w = torch.zeros(3, requires_grad=True)
        def update(parameters, rate):
            for p in parameters:
                p.data -= rate * p.grad
        for x, y in data:
            torch.nn.functional.mse_loss(x @ w, y).backward()
            with torch.no_grad():
                w.data -= 0.1 * w.grad
    """,
}

READ_SILENT = {
    "a function under no_grad, what is no leaf, and an error that is awaited": """
        import torch
        @torch.no_grad()
        def sgd(params, lr):
            for param in params:
                param -= lr * param.grad
        w = torch.zeros(5, requires_grad=True)
        image = torch.rand(5)
        image.requires_grad_()
        for x, y in data:
            hidden = x @ w
            hidden.retain_grad()
            torch.nn.functional.mse_loss(hidden, y).backward()
            sgd([w], 0.05)
            adversarial = image.detach()
            adversarial -= 0.1 * image.grad.sign()
            hidden -= 0.1 * hidden.grad
            try:
                w -= 0.1 * w.grad
            except RuntimeError as error:
                print(error)
    """,
    "under no_grad": """
        import torch
        w = torch.zeros(3, requires_grad=True)
        for x, y in data:
            torch.nn.functional.mse_loss(x @ w, y).backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
            w.grad = None
    """,
    "a clamp": """
        import torch
        w = torch.nn.Parameter(torch.zeros(3))
        opt = torch.optim.SGD([w], lr=0.1)
        for x, y in data:
            opt.zero_grad()
            torch.nn.functional.mse_loss(x @ w, y).backward()
            print(w.grad)
            opt.step()
            w.data *= 0.99
    """,
}
