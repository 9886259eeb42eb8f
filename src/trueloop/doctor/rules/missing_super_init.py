"""A module's ``__init__`` does not call ``super().__init__()``.

Sees: the script ended with the error that torch raises for it.

Why it matters: a module without torch's own part cannot hold layers or parameters: the script dies.

Usual causes: ``super().__init__()`` is forgotten, or stands below the first layer.

Fix: call ``super().__init__()`` in the first line of the module's ``__init__``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Ended
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import is_users
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.edits import at_head, together
from trueloop.doctor.source.fixes import Checked, Fix

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program

ASSIGNED = re.compile(r"cannot assign (module|parameter|buffer)s? before Module\.__init__\(\) call")
MISSING = re.compile(
    r"object has no attribute '_(modules|parameters|buffers|forward_hooks|backward_hooks|(forward|backward)_pre_hooks)'"
)


class MissingSuperInit(Rule):
    """Knows it by the error that the script ended with."""

    name = "missing-super-init"
    code = 208
    level = "error"
    certainty = "certain"
    seen_by = ("source", "run")

    def ended(self, fact: Ended) -> Iterator[Finding]:
        from torch import nn

        error = fact.error
        if not isinstance(error, AttributeError):
            return
        frames = list(_frames(error.__traceback__))
        users = [(frame, line) for frame, line in frames if is_users(frame.f_code.co_filename)]
        if not users:
            return
        module = next(
            (m for frame, _ in reversed(frames) if isinstance(m := frame.f_locals.get("self"), nn.Module)), None
        )
        if module is None or not (ASSIGNED.search(str(error)) or MISSING.search(str(error))):
            return
        if "_modules" in vars(module) and not ASSIGNED.search(str(error)):
            return
        frame, line = users[-1]
        kind = type(module).__name__
        init = getattr(type(module).__init__, "__code__", None)
        start = Place(init.co_filename, init.co_firstlineno) if init and is_users(init.co_filename) else None
        yield self.finding(
            f"{kind}.__init__ does not call super().__init__() before it is used as a module",
            f"the script ended with: {error}",
            place=Place(frame.f_code.co_filename, line),
            related=[(start, "the `__init__` that leaves it out")],
        )


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def in_source(program: Program) -> Iterator[Checked]:
    """A module of the user's is made, and no way through its ``__init__`` leads to torch's own."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Constructed):
            init = event.cls.find("__init__")
            if event.reached is not False or not isinstance(init, values.Function) or id(init.node) in told:
                continue
            if _is_abstract(init):
                continue
            told.add(id(init.node))
            place = program.line(init.node, init.unit)
            finding = program.finding(
                MissingSuperInit,
                f"{event.cls.name}.__init__ does not call super().__init__()",
                f"{event.cls.name} is an nn.Module, and torch's part of it is never set up",
                at=place,
                help="call `super().__init__()` in the first line of `__init__`",
            )
            yield Checked(finding, _mended(program, init))


def _is_abstract(init: values.Function) -> bool:
    """Whether it ends by raising an error: no such module is ever made."""
    body: Any = init.node.body
    last = getattr(body.body[-1], "body", ()) if body.body else ()
    return isinstance(last, Sequence) and bool(last) and type(last[-1]).__name__ == "Raise"


def _mended(program: Program, init: values.Function) -> Fix | None:
    return together("call super().__init__() first", at_head(program, init.node, "super().__init__()"))


FIRES = {
    "layers without it": """
        class Net(nn.Module):
            def __init__(self):
                self.layer = nn.Linear(8, 1)
        Net()
    """,
    "called without it": """
        class Scale(nn.Module):
            def __init__(self, factor):
                self.factor = factor
            def forward(self, x):
                return x * self.factor
        Scale(2.0)(torch.ones(3))
    """,
}

SILENT = {
    "called": """
        class Net(nn.Module):
            def __init__(self):
                super(Net, self).__init__()
                self.layer = nn.Linear(8, 1)
            def forward(self, x):
                return self.layer(x)
        Net()(torch.randn(4, 8))
    """,
    "no __init__ at all": """
        class Twice(nn.Module):
            def forward(self, x):
                return 2 * x
        Twice()(torch.randn(4, 8))
    """,
}

READ_FIRES = {
    "forgotten": """
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                self.fc = nn.Linear(4, 3)
            def forward(self, x):
                return self.fc(x)
    """,
    "below its description, and on one line": """
        from torch import nn
        class Net(nn.Module):
            def __init__(self, n=3):
                \"\"\"Makes it.\"\"\"
                # the only layer
                self.fc = nn.Linear(4, n)
        class Other(nn.Module):
            def __init__(self): self.fc = nn.Linear(4, 3)
    """,
}

READ_SILENT = {
    "a base that is never made": """
        from torch import nn

        class Base(nn.Module):
            def __init__(self, width):
                # say what it is in a class below
                raise NotImplementedError

            def forward(self, x):
                return nn.functional.dropout(x, training=self.training)

        class Leaf(Base):
            def __init__(self, width):
                nn.Module.__init__(self)
                self.fc = nn.Linear(width, width)
    """,
    "called, in three ways": """
        from torch import nn
        import torch
        from other import Base
        class A(nn.Module):
            def __init__(self):
                super().__init__()
        class B(nn.Module):
            def __init__(self):
                nn.Module.__init__(self)
        class C(A):
            def __init__(self):
                super(C, self).__init__()
        class D(Base):
            def __init__(self):
                self.fc = nn.Linear(4, 3)
        class E(nn.Module):
            def __init__(self):
                torch.nn.Module.__init__(self)
                self.fc = nn.Linear(4, 3)
        A(), B(), C(), D(), E()
    """,
}
