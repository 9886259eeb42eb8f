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
from typing import Any

from trueloop.doctor.facts import Called
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.places import is_users
from trueloop.doctor.rule import Rule

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
