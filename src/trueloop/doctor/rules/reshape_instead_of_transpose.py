"""Dimensions are exchanged by ``view`` or ``reshape``: the values of different samples are mixed.

Sees: in the forward pass, a ``view`` or ``reshape`` takes the batch's dimension from the front to another place (a
batch of shape (50, 8, 8) becomes (8, 50, 8)); and the model's output for a sample depends on the others of its batch,
which is tried on a copy in eval mode (as for batch-samples-mix). Or a convolution is given (samples, length, channels)
reshaped to (samples, channels, length), or images so: then the values of one sample are mixed.

Why it matters: a reshape keeps the values in their order in memory and only counts them anew. What comes out are not
the samples with their dimensions exchanged, but pieces of several samples each.

Usual causes: a layer wants (time, batch, features), or (batch, channels, length), and the shapes only had to fit.

Fix: ``x.transpose(0, 1)`` or ``x.permute(…)``; or ``batch_first=True`` where the layer has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import Called
from trueloop.doctor.findings import Finding
from trueloop.doctor.rule import Rule
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.mending import replaced

if TYPE_CHECKING:
    import libcst as cst

    from trueloop.doctor.source.program import Program


class ReshapeInsteadOfTranspose(Rule):
    """Asks ``neighbours``, which notes the reshapes of the copy's forward pass."""

    name = "reshape-instead-of-transpose"
    code = 516
    level = "warning"
    certainty = "measured"
    seen_by = ("source", "run")

    def called(self, fact: Called) -> Iterator[Finding]:
        if not fact.of.samples:
            return
        from trueloop.doctor.neighbours import mixing

        found = mixing(self.trace, fact)
        if found is not None and found.inside:
            old, new, place = found.inside[0]
            yield self.finding(
                f"{old} is reshaped to {new}, which does not bring the channels to the front: it mixes their values",
                "a convolution is given what comes out",
                place=place or fact.of.place,
                certainty="likely",
                related=[(fact.of.place, "the model is called here")],
            )
            return
        if found is None or not found.change or not found.reshapes:
            return
        old, new, place = found.reshapes[0]
        yield self.finding(
            f"{old} is reshaped to {new}, which does not exchange dimensions: it mixes the samples of the batch",
            f"replacing half of a batch of {len(fact.of.samples)} changes the outputs of the other half by up to "
            f"{found.change:.0%} of the largest",
            place=place or fact.of.place,
            related=[(fact.of.place, "the model is called here")],
        )


def in_source(program: Program) -> Iterator[Checked]:
    """A tensor's dimensions are read into names, and the tensor is reshaped to the same names in another order."""
    import libcst as cst
    from libcst import matchers

    text = program.unit.code
    if ".view(" not in text and ".reshape(" not in text:
        return
    for function in matchers.findall(program.unit.tree, matchers.FunctionDef()):
        sizes: dict[str, list[str]] = {}
        body = getattr(function, "body", None)
        for line in body.body if isinstance(body, cst.IndentedBlock) else ():
            if not isinstance(line, cst.SimpleStatementLine):
                sizes.clear()  # what a branch or a loop does is not followed
                continue
            for call in matchers.findall(
                line, matchers.Call(func=matchers.Attribute(attr=matchers.Name("view") | matchers.Name("reshape")))
            ):
                found = _exchanged(program, call, sizes) if isinstance(call, cst.Call) else None
                if found is not None:
                    yield found
            for statement in line.body:
                if isinstance(statement, (cst.Assign, cst.AnnAssign, cst.AugAssign)):
                    _learn(program, statement, sizes)


def _learn(
    program: Program, statement: cst.Assign | cst.AnnAssign | cst.AugAssign, sizes: dict[str, list[str]]
) -> None:
    """``n, t, f = x.shape`` is noted; what is assigned anew is no longer known."""
    import libcst as cst
    from libcst import matchers

    told = program.unit.text
    targets = [one.target for one in statement.targets] if isinstance(statement, cst.Assign) else [statement.target]
    names = [told(name) for target in targets for name in matchers.findall(target, matchers.Name())]
    gone = {*names, *(f"{name} of" for name in names)}
    for thing in [one for one, given in sizes.items() if one in gone or set(given) & set(names)]:
        del sizes[thing]
    target, value = targets[0], statement.value
    if value is not None and (of := sizes.get(_projected(program, value))):
        sizes.update({f"{name} of": of for name in names})
    if value is not None and isinstance(target, cst.Name) and (ids := _called_on_a_name(program, value, "Embedding")):
        near = sizes.get(ids, [])
        thing = target.value
        sizes[thing] = [*(near if len(near) == 2 else (f"{thing}.size(0)", f"{thing}.size(1)")), "-1"]
        return
    if not isinstance(target, cst.Tuple) or value is None:
        return
    thing, _, shape = told(value).rpartition(".")
    plain = "_" not in names and len(set(names)) == len(names) == len(target.elements) > 1
    if plain and shape in ("shape", "size()") and thing.isidentifier():
        sizes[thing] = names


def _exchanged(program: Program, call: cst.Call, sizes: dict[str, list[str]]) -> Checked | None:
    import libcst as cst

    told = program.unit.text
    thing = told(call.func.value) if isinstance(call.func, cst.Attribute) else ""
    given, old = [told(one.value) for one in call.args], sizes.get(thing)
    if old is None and isinstance(call.func, cst.Attribute):
        return _heads(program, call, given, sizes.get(_projected(program, call.func.value)) or sizes.get(f"{thing} of"))
    if old is not None and old[-1] == "-1" and len(given) == 3:  # of an embedding
        given = [one.replace(".shape[0]", ".size(0)").replace(".shape[1]", ".size(1)") for one in given]
        old = [*old[:2], given[2]]
    if old is None or given == old or sorted(given) != sorted(old):
        return None
    order = ", ".join(str(old.index(one)) for one in given)
    finding = program.finding(
        ReshapeInsteadOfTranspose,
        f"({', '.join(old)}) is reshaped to ({', '.join(given)}), which does not exchange dimensions: "
        "it mixes their values",
        f"`{thing}` has the dimensions ({', '.join(old)}), and `{told(call)}` counts its values anew",
        at=program.line(call),
        certainty="likely",
        help=f"`{thing}.permute({order})` exchanges them",
    )
    return Checked(finding, replaced(program, call, f"{thing}.permute({order})", "exchange the dimensions"))


def _projected(program: Program, value: cst.BaseExpression) -> str:
    """What a linear layer of the model's own is given: ``x`` of ``self.query(x)``; empty if it is no such call."""
    from libcst import matchers

    while matchers.matches(value, matchers.Call(matchers.Attribute(attr=matchers.Name("chunk")))):
        value = value.func.value  # type: ignore[attr-defined]
    return _called_on_a_name(program, value, "Linear")


def _called_on_a_name(program: Program, value: cst.BaseExpression, kind: str) -> str:
    """``x`` of ``self.layer(x)``, if the layer is of this kind; else nothing."""
    import libcst as cst

    if not isinstance(value, cst.Call) or len(value.args) != 1 or not isinstance(value.args[0].value, cst.Name):
        return ""
    layer = re.escape(program.unit.text(value.func))
    is_it = re.search(rf"{layer}\s*=\s*(\w+\.)*{kind}\(", program.unit.code)
    return value.args[0].value.value if layer.startswith("self") and is_it else ""


def _heads(program: Program, call: cst.Call, given: list[str], old: list[str] | None) -> Checked | None:
    """(batch, time, features) that is made (batch, heads, time, size) at once."""
    if old is None or len(old) != 3 or len(given) != 4 or given[0] != old[0] or given[2] != old[1]:
        return None
    if given[1] in old or given[3] in old or "-1" in given:
        return None
    finding = program.finding(
        ReshapeInsteadOfTranspose,
        f"({', '.join(old)}) is reshaped to ({', '.join(given)}), which does not bring `{given[1]}` before `{old[1]}`: "
        "it mixes their values",
        f"the last dimension, `{old[2]}`, holds `{given[1]}` × `{given[3]}`; a reshape counts all values anew",
        at=program.line(call),
        certainty="likely",
        help=f"`.view({given[0]}, {given[2]}, {given[1]}, {given[3]}).transpose(1, 2)`",
    )
    method = program.unit.text(call.func)
    text = f"{method}({given[0]}, {given[2]}, {given[1]}, {given[3]}).transpose(1, 2)"
    return Checked(finding, replaced(program, call, text, "split the last dimension, then exchange the two"))


FIRES = {
    "time first by view": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.out = nn.GRU(3, 8), nn.Linear(8, 2)
            def forward(self, x):
                n, t, f = x.shape
                return self.out(self.rnn(x.view(t, n, f))[0][-1])
        model = Net()
        x, y = torch.randn(96, 7, 3), torch.randint(0, 2, (96,))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                model(x[72:])
    """,
    "channels to the front for a convolution": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.out = nn.Conv1d(3, 8, 3), nn.Linear(8, 2)
            def forward(self, x):
                return self.out(self.conv(x.reshape(-1, 3, 9)).mean(2))
        model = Net()
        x, y = torch.randn(96, 9, 3), torch.randint(0, 2, (96,))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                model(x[72:])
    """,
    "channels first by reshape": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix, self.out = nn.Linear(5, 5), nn.Linear(20, 2)
            def forward(self, x):
                h = self.mix(x.reshape(4, -1, 5)).transpose(0, 1)
                return self.out(h.flatten(1))
        x, y = torch.randn(90, 4, 5), torch.randint(0, 2, (90,))
        train = DataLoader(TensorDataset(x[:70], y[:70]), batch_size=14, shuffle=True)
        model = Net()
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(4):
            for a, b in train:
                opt.zero_grad()
                F.cross_entropy(model(a), b).backward()
                opt.step()
            with torch.no_grad():
                model(x[70:])
    """,
}

SILENT = {
    "transposed": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.out = nn.GRU(3, 8), nn.Linear(8, 2)
            def forward(self, x):
                return self.out(self.rnn(x.transpose(0, 1))[0][-1])
        model = Net()
        x, y = torch.randn(96, 7, 3), torch.randint(0, 2, (96,))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                model(x[72:])
    """,
    "rows unfolded into images, and a channel of one": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.more, self.out = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 1), nn.Linear(48, 2)
            def forward(self, x):
                h = self.conv(x.view(-1, 6, 6, 1).reshape(-1, 1, 6, 6))
                return self.out(self.more(h.flatten(1).view(-1, 3, 4, 4)).flatten(1))
        model = Net()
        x, y = torch.randn(96, 36), torch.randint(0, 2, (96,))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                model(x[72:])
    """,
    "steps folded into the batch and out again": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.each, self.out = nn.Linear(3, 8), nn.Linear(56, 2)
            def forward(self, x):
                n, t, f = x.shape
                h = self.each(x.reshape(n * t, f)).view(n, t * 8)
                return self.out(h)
        model = Net()
        x, y = torch.randn(96, 7, 3), torch.randint(0, 2, (96,))
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.randperm(72).split(12):
                opt.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                opt.step()
            with torch.no_grad():
                model(x[72:])
    """,
}

READ_FIRES = {
    "an embedding for a network that wants time first": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(20, 16)
                self.rnn = nn.LSTM(16, 16)
            def forward(self, x):
                n, t = x.shape
                e = self.table(x)
                return self.rnn(e.view(t, n, 16))[0][-1]
    """,
    "an embedding whose sizes are asked for": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Embedding(20, 16)
                self.rnn = nn.LSTM(16, 16)
            def forward(self, x):
                e = self.embed(x)
                e = e.view(e.size(1), e.shape[0], -1)
                return self.rnn(e)[0][-1]
    """,
    "heads of attention": """
        import torch
        from torch import nn
        class Attention(nn.Module):
            def __init__(self, dim, heads):
                super().__init__()
                self.heads, self.size = heads, dim // heads
                self.qk = nn.Linear(dim, 2 * dim)
                self.v = nn.Linear(dim, dim)
            def forward(self, x):
                B, T, C = x.shape
                q, k = self.qk(x).chunk(2, dim=-1)
                q = q.reshape(B, self.heads, T, self.size)
                k = k.reshape(B, self.heads, T, self.size)
                v = self.v(x).view(B, self.heads, T, self.size)
                return (torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).reshape(B, T, C)
        nn.functional.cross_entropy(Attention(8, 2)(x), y).backward()
    """,
    "time first by view": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.GRU(3, 8)
            def forward(self, x):
                n, t, f = x.shape
                return self.rnn(x.view(t, n, f))[0][-1]
    """,
}

READ_SILENT = {
    "an embedding, transposed or folded": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Embedding(20, 16)
                self.rnn = nn.LSTM(16, 16)
            def forward(self, x, h):
                n, t = x.shape
                e = self.embed(x)
                a = e.view(n, t, 2, 8).transpose(1, 2)
                b = e.view(n * t, 16), e.view(e.size(0), -1), e.reshape(n, -1, 16)
                e = e.transpose(0, 1)
                e = e.reshape(t, n, 16)
                h = h.view(h.size(1), h.size(0), -1)
                return self.rnn(e)[0][-1], a, b, h
    """,
    "heads of attention, exchanged": """
        import torch
        from torch import nn
        class Attention(nn.Module):
            def __init__(self, dim, heads):
                super().__init__()
                self.heads, self.size = heads, dim // heads
                self.q = nn.Linear(dim, dim)
            def forward(self, x):
                B, T, C = x.shape
                q = self.q(x).view(B, T, self.heads, self.size).transpose(1, 2)
                h = q.reshape(B, self.heads, T, self.size)
                turned = self.q(x).transpose(1, 2)
                return turned.reshape(B, self.heads, self.size, T), h
        nn.functional.cross_entropy(Attention(8, 2)(x), y).backward()
    """,
    "transposed, or another tensor": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def forward(self, x):
                n, t, f = x.shape
                y = x.view(n, t * f)
                x = x.permute(1, 0, 2).contiguous()
                return x.view(t, n, f), y.view(t, n, f)
    """,
}
