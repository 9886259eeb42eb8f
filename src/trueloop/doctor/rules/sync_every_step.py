"""Each step waits for the accelerator, to read a value.

Sees: on an accelerator, one line reads a tensor's value (``item()``, ``tolist()``, ``cpu()``, ``float(…)``) in nine
of ten steps or more, over 20 steps; how often and how long is counted. On a CPU nothing waits, and this is silent.

Why it matters: the accelerator works through a queue of operations that the program fills ahead. A value can be read
only when the queue is empty; after that the accelerator stands idle until it is filled again.

Usual causes: ``total += loss.item()``, ``print(loss)``, or accuracy as a number, in every step.

Fix: add up tensors (``total += loss.detach()``), and read the sum once an epoch; print every 50th step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Ended, Synchronised
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

STEPS = 20
NEARLY_EACH = 0.9


class SyncEveryStep(Rule):
    """Counts, line by line, the steps in which a value was read."""

    name = "sync-every-step"
    code = 701
    level = "note"
    certainty = "measured"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._read: dict[tuple[str, Place | None], list[float]] = {}  # -> times, steps, the last step, seconds

    def synchronised(self, fact: Synchronised) -> None:
        read = self._read.setdefault((fact.kind, fact.place), [0, 0, -1, 0.0])
        read[0] += 1
        if read[2] != self.trace.step:
            read[1], read[2] = read[1] + 1, self.trace.step
        read[3] += fact.seconds

    def ended(self, fact: Ended) -> Iterator[Finding]:
        steps = self.trace.heard
        if steps < STEPS:
            return
        for (kind, place), (times, in_steps, _, seconds) in self._read.items():
            if place is not None and in_steps >= NEARLY_EACH * steps:
                yield self.finding(
                    f"{kind}() waits for the accelerator in every step",
                    f"{times:.0f} times in {steps} steps, {1000 * seconds / steps:.2f} ms a step",
                    place=place,
                )

    def passed(self) -> str | None:
        return "values are not read in every step" if self._read else None


_ELSEWHERE = """
        class There(torch.Tensor):  # as if it were on an accelerator
            device = property(lambda self: torch.device("cuda"))
        def there(tensor):
            return tensor.detach().as_subclass(There)
        model = nn.Linear(4, 1)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        total = 0.0
        for step in range(30):
            opt.zero_grad()
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            opt.step()
            {body}
"""

FIRES = {
    "item": _ELSEWHERE.format(body="total += there(loss).item()"),
    "float": _ELSEWHERE.format(body="total += float(there(loss))"),
}

SILENT = {
    "each tenth step": _ELSEWHERE.format(body="total += there(loss).item() if step % 10 == 0 else 0"),
    "on a CPU": _ELSEWHERE.format(body="total += loss.item()"),
}
