"""An accelerator is there, and the training runs on the CPU.

Sees: after 20 steps, torch has an accelerator, the parameters that the optimizer steps are on the CPU, there are
100,000 of them or more, and a step takes 10 ms or more (smaller ones are no faster on an accelerator; both limits are
guesses).

Why it matters: the run takes many times as long as it must.

Usual causes: ``model.to(device)`` or ``batch.to(device)`` is missing; ``device`` is "cpu" by default.

Fix: ``device = torch.accelerator.current_accelerator() or "cpu"``, and move the model, before its optimizer is made,
and each batch there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Stepped
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace

STEPS = 20
PARAMETERS = 100_000
SECONDS = 0.010


class AcceleratorIdle(Rule):
    """Looks once, when steps have been timed."""

    name = "accelerator-idle"
    code = 702
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._times: list[float] = []
        self._last = 0.0
        self._available = True
        self._busy = False

    def stepped(self, fact: Stepped) -> Iterator[Finding]:
        if not self._available or len(self._times) > STEPS:
            return
        now = time.perf_counter()
        self._times.append(now - self._last)
        self._last = now
        if len(self._times) <= STEPS:
            return
        import torch

        self._available = torch.accelerator.is_available()
        if not self._available:
            return
        parameters = fact.optimizer.parameters()
        kinds = {parameter.device.type for parameter in parameters}
        count = sum(parameter.numel() for parameter in parameters)
        seconds = median(self._times[1:])
        self._busy = kinds != {"cpu"}
        if kinds == {"cpu"} and count >= PARAMETERS and seconds >= SECONDS:
            kind = torch.accelerator.current_accelerator()
            yield self.finding(
                f"the training runs on the CPU, and there is an accelerator ({kind})",
                f"all {count:,} parameters that {fact.optimizer.kind} steps are on the CPU; a step takes "
                f"{1000 * seconds:.0f} ms",
                place=fact.optimizer.place or fact.place,
            )

    def passed(self) -> str | None:
        return "the training runs on the accelerator" if self._busy else None


_ON_A_MACHINE_WITH_ONE = """
        import time
        there, current = torch.accelerator.is_available, torch.accelerator.current_accelerator
        torch.accelerator.is_available = lambda: True
        torch.accelerator.current_accelerator = lambda: torch.device("cuda")
        try:
            model = nn.Linear({width}, 400)
            opt = torch.optim.SGD(model.parameters(), lr=0.01)
            for step in range(30):
                opt.zero_grad()
                model(torch.randn(4, {width})).square().mean().backward()
                {wait}
                opt.step()
        finally:
            torch.accelerator.is_available, torch.accelerator.current_accelerator = there, current
"""

FIRES = {
    "left on the CPU": _ON_A_MACHINE_WITH_ONE.format(width=400, wait="time.sleep(0.012)"),
    "left there, with a large batch": _ON_A_MACHINE_WITH_ONE.format(width=800, wait="time.sleep(0.015)"),
}

SILENT = {
    "a tiny model": _ON_A_MACHINE_WITH_ONE.format(width=8, wait="time.sleep(0.012)"),
    "no accelerator": """
        model = nn.Linear(400, 400)
        opt = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(30):
            opt.zero_grad()
            model(torch.randn(4, 400)).square().mean().backward()
            opt.step()
    """,
}
