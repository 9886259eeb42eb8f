"""Gradients are never cleared: each step uses the sum of all gradients so far.

Sees: an optimizer steps, and every backward since its last step added to gradients that were there already.

Why it matters: the update follows the sum over all past batches, not this one. The step grows from batch to batch, as
if the rate rose and the momentum were 1, and the loss swings or diverges.

Usual causes: no ``zero_grad`` in the loop; it is called on another model or optimizer; it stands outside the loop.

Fix: call ``optimizer.zero_grad()`` once for each ``optimizer.step()``, before ``backward``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Paused, Stepping
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

STEPS = 2  # in a row: a first window may begin on gradients that were left by a test pass


class MissingZeroGrad(Rule):
    """Knows it by the gradients' state around each backward, so any way of clearing counts."""

    name = "missing-zero-grad"
    code = 101
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._dirty: dict[int, int] = {}  # optimizer -> steps in a row without a clean backward
        self._steps = 0

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        if fact.optimizer.steps == 0 or not fact.accumulated:
            return
        self._steps += 1
        number = fact.optimizer.number
        dirty = all(one.clean is False for one in fact.accumulated)
        self._dirty[number] = self._dirty.get(number, 0) + 1 if dirty else 0
        if self._dirty[number] == STEPS:
            yield self.finding(
                f"the gradients of {fact.optimizer.kind} are never cleared: each step uses the sum of all so far",
                f"at step {fact.optimizer.steps + 1} of this optimizer, backward added to gradients that the last "
                f"{STEPS} steps had used already",
                place=fact.accumulated[-1].place,
                related=[(fact.place, "the step that uses the sum")],
            )

    def paused(self, fact: Paused) -> None:
        self._dirty.clear()

    def passed(self) -> str | None:
        return f"gradients were clean before the backward of {self._steps} steps" if self._steps else None


FIRES = {
    "no zero_grad": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
            opt.step()
    """,
    "another model is zeroed": """
        model, other = nn.Linear(4, 1), nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            other.zero_grad()
            F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
            opt.step()
    """,
}

SILENT = {
    "cleared by hand": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(6):
            for p in model.parameters():
                p.grad = None
            F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
            opt.step()
    """,
    "accumulation": """
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for i in range(12):
            (F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)) / 3).backward()
            if i % 3 == 2:
                opt.step()
                opt.zero_grad()
    """,
}
