"""A recurrent network's ``dropout`` does nothing.

Sees: an LSTM, GRU or RNN with ``dropout > 0`` and one layer. It acts between layers, and there is nothing between.

Why it matters: the regularisation that the code asks for is not there, and tuning it changes nothing.

Usual causes: the number of layers was reduced to one; the option is taken for a dropout on the output.

Fix: put an ``nn.Dropout`` behind the recurrent layer, or use ``num_layers=2`` or more.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Called
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import is_users
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.arguments import given
from trueloop.doctor.source.fixes import Checked

if TYPE_CHECKING:
    from trueloop.doctor.source.program import Program

LINES = 120  # of the class that holds the layer, in which the line that makes it is looked for


class DropoutWithoutEffect(Rule):
    """Looks at each model once, when it is first called."""

    name = "dropout-without-effect"
    code = 209
    level = "note"
    certainty = "certain"
    seen_by = ("source", "run")

    def called(self, fact: Called) -> Iterator[Finding]:
        if fact.of.model.passes != 1 or (root := fact.of.model.module) is None:
            return
        from torch import nn

        for name, layer in root.named_modules():
            if isinstance(layer, nn.RNNBase) and layer.dropout > 0 and layer.num_layers == 1:
                kind = type(layer).__name__
                owner = root.get_submodule(name.rpartition(".")[0]) if name else root
                yield self.finding(
                    f"dropout={layer.dropout} of {name or 'the'} {kind} does nothing: it has one layer",
                    f"{kind} of {fact.of.model.kind} has num_layers=1; its dropout acts between layers only",
                    place=_made(owner, kind) or fact.of.place,
                )


def _made(owner: Any, kind: str) -> Place | None:
    """The line in the owner's ``__init__`` that makes the layer."""
    code = getattr(type(owner).__init__, "__code__", None)
    if code is None or not is_users(code.co_filename):
        return None
    pattern = re.compile(rf"\b{kind}\s*\(")
    for line in range(code.co_firstlineno, code.co_firstlineno + LINES):
        if pattern.search(linecache.getline(code.co_filename, line)):
            return Place(code.co_filename, line)
    return None


_RECURRENT = ("torch.nn.LSTM", "torch.nn.GRU", "torch.nn.RNN")


def in_source(program: Program) -> Iterator[Checked]:
    """A recurrent layer is made with a dropout above 0 and with one layer, by its literal or by default."""
    told: set[int] = set()
    for run in program.runs:
        for event in run.of(read.Made):
            made = event.made
            dropout = values.constant(made.option("dropout", 5))
            drops = made.kind in _RECURRENT and isinstance(dropout, (int, float)) and dropout > 0
            if not drops or id(made.node) in told or not _one_layer(event):
                continue
            told.add(id(made.node))
            finding = program.finding(
                DropoutWithoutEffect,
                f"dropout={dropout} of the {made.name} does nothing: it has one layer",
                "its dropout acts between layers only, and `num_layers` is 1",
                at=made,
            )
            yield Checked(finding)


def _one_layer(event: read.Made) -> bool:
    """Whether the line itself says so: a number that is handed in may be another one elsewhere."""
    made = event.made
    if "**" in made.kwargs or any(isinstance(one, values.Unknown) and one.via == "*" for one in made.args):
        return False
    layers = made.option("num_layers", 2)
    if layers is None:
        return True
    return values.constant(layers) == 1 and type(given(made.node, "num_layers", 2)).__name__ == "Integer"


FIRES = {
    "one layer of LSTM": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.LSTM(4, 8, dropout=0.5)
                self.out = nn.Linear(8, 1)
            def forward(self, x):
                return self.out(self.rnn(x)[0][-1])
        Net()(torch.randn(5, 3, 4))
    """,
    "a GRU by itself": """
        rnn = nn.GRU(4, 8, num_layers=1, dropout=0.2)
        rnn(torch.randn(5, 3, 4))
    """,
}

SILENT = {
    "two layers": """
        rnn = nn.LSTM(4, 8, num_layers=2, dropout=0.5)
        rnn(torch.randn(5, 3, 4))
    """,
    "no dropout": """
        rnn = nn.LSTM(4, 8)
        nn.Dropout(0.5)(rnn(torch.randn(5, 3, 4))[0])
    """,
}

READ_FIRES = {
    "one layer, said so": """
        from torch import nn
        class Net(nn.Module):
            def __init__(self, hidden=40):
                super().__init__()
                self.gru = nn.GRU(input_size=8, hidden_size=hidden, num_layers=1, dropout=0.5, batch_first=True)
            def forward(self, x):
                return self.gru(x)[0]
    """,
    "one layer by default, two directions": """
        import torch
        lstm = torch.nn.LSTM(16, 20, bidirectional=True, dropout=0.4)
        loss = lstm(x)[0].mean()
        loss.backward()
    """,
    "all by place": """
        import torch.nn as nn
        def make(drop=0.3):
            net = nn.RNN(8, 16, 1, "tanh", True, drop)
            return net, nn.Dropout(0.1)
    """,
}

READ_SILENT = {
    "two layers, or no dropout": """
        import torch.nn as nn
        a = nn.LSTM(8, 16, 2, dropout=0.3)
        b = nn.LSTM(8, 16, num_layers=1)
        c = nn.GRU(8, 16, dropout=0.0)
        out = nn.functional.dropout(a(x)[0])
    """,
    "so many layers as are asked for": """
        import torch.nn as nn
        class Net(nn.Module):
            def __init__(self, layers=1, dropout=0.3):
                super().__init__()
                self.a = nn.LSTM(8, 16, layers, dropout=dropout)
                self.b = nn.LSTM(8, 16, num_layers=layers, dropout=dropout if layers > 1 else 0)
                self.c = nn.GRU(8, 16, dropout=dropout, **options)
                self.layers = layers
                self.d = nn.GRU(8, 16, self.layers, dropout=dropout)
        Net()
        Net(2)
    """,
}
