"""Each step waits for the accelerator, to read a value.

Sees: on an accelerator, one line reads a tensor's value (``item()``, ``tolist()``, ``cpu()``, ``float(…)``) in nine of
ten steps or more, over 20 steps; how often and how long is counted. On a CPU nothing waits, and this is silent. In the
text: the script moves things to ``cuda`` and knows no other device, and the loss is added up or printed as a number in
every turn.

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
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program
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


def in_source(program: Program) -> Iterator[Checked]:
    """The script runs on an accelerator alone, and each step's loss is read or printed, under no condition."""
    text = program.unit.code
    if not any(word in text for word in (".cuda(", '.to("cuda', ".to('cuda")):
        return
    if any(word in text.lower() for word in ("is_available", "cpu", "argparse", "device_type")):
        return  # it may as well run where nothing waits
    told: set[int] = set()
    for run in program.runs:
        losses = list(run.of(read.Backward))
        read_in: list[read.Kept | read.Operated] = [*run.of(read.Kept), *run.of(read.Operated)]
        for event in read_in:
            if isinstance(event, read.Operated) and event.name != "builtins.print":
                continue
            given = (event.value,) if isinstance(event, read.Kept) else event.args
            backward = next((one for one in losses if any(_reads(value, one) for value in given)), None)
            if backward is None or id(event.node) in told or not backward.at.loops:
                continue
            if event.at.loops != backward.at.loops or event.at.branches != backward.at.branches:
                continue
            told.add(id(event.node))
            finding = program.finding(
                SyncEveryStep,
                "each step waits for the accelerator, to read its loss",
                "the loss is read as a number in every turn, under no condition",
                at=event,
                related=[(backward, "the loss")],
                certainty="certain",
            )
            yield Checked(finding)
            return


def _reads(value: values.Value, backward: read.Backward) -> bool:
    """Whether it is the number in a loss; also as shown by an f-string."""
    shown = value.attrs.get("shown", ()) if isinstance(value, values.Unknown) else ()
    if shown:
        return any(_reads(one, backward) for one in shown)
    if isinstance(value, values.Tensor) and value.op in ("item", "mul") and value.inputs:
        return value.inputs[0] is backward.loss or _reads(value.inputs[0], backward)
    return isinstance(value, values.Unknown) and value.via == "item" and value.of is backward.loss


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

READ_FIRES = {
    "summed up": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3).cuda()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(10):
            total = 0.0
            for x, y in loader:
                opt.zero_grad()
                loss = nn.functional.cross_entropy(net(x.cuda()), y.cuda())
                loss.backward()
                opt.step()
                total += loss.item()
            print(total)
    """,
    "printed": """
        import torch
        from torch import nn
        def train(net, loader, criterion):
            net.to("cuda")
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for x, y in loader:
                opt.zero_grad()
                loss = criterion(net(x.to("cuda")), y.to("cuda"))
                loss.backward()
                opt.step()
                print(f"loss {loss.item():.3f}")
    """,
}

READ_SILENT = {
    "now and then, or as a tensor": """
        import torch
        from torch import nn
        net = nn.Linear(4, 3).cuda()
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        total = torch.zeros((), device="cuda")
        for i, (x, y) in enumerate(loader):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x.cuda()), y.cuda())
            loss.backward()
            opt.step()
            total += loss.detach()
            if i % 50 == 0:
                print(loss.item())
    """,
    "on whatever there is": """
        import torch
        from torch import nn
        device = "cuda" if torch.cuda.is_available() else "cpu"
        net = nn.Linear(4, 3).to(device)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x.to(device)), y.to(device))
            loss.backward()
            opt.step()
            print(loss.item())
    """,
}
