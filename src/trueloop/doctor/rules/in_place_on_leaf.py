"""A parameter is updated by hand through ``.data``.

Sees: ``p.data -= lr * p.grad`` and its kin.

Why it matters: autograd does not see what happens to ``.data``: if the parameter's old value is still needed by a
backward, the gradient is wrong, silently. Under ``torch.no_grad()`` the same mistake is an error.

Usual causes: a loop from before ``torch.no_grad`` existed; ``p -= lr * p.grad`` was an error, and ``.data`` made it go.

Fix: ``with torch.no_grad(): p -= lr * p.grad``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks
from trueloop.doctor.source.edits import put, spelled, together, wrapped
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import is_alone

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
