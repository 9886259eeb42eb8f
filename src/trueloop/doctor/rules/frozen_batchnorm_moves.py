"""A frozen batch normalisation goes on learning its statistics.

Sees: a batch-normalisation layer all of whose parameters are frozen, that is in train mode and whose running mean
changes over several steps, while its weights stay the same.

Why it matters: ``requires_grad = False`` does not freeze statistics. The frozen part drifts away from what it was
trained to be, and is another network at the end, in eval mode, than the one that the new layers were trained on.

Usual causes: ``model.train()`` in each epoch wakes the frozen backbone as well.

Fix: put frozen batch normalisation in eval mode after each ``model.train()`` (in a ``train`` of your own that calls
``super().train(mode)`` first).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueloop.doctor.facts import Called, ModeSet
from trueloop.doctor.findings import Finding
from trueloop.doctor.parts import own_part
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import blocks, values
from trueloop.doctor.source import events as read
from trueloop.doctor.source.edits import after, before, spelled, together
from trueloop.doctor.source.fixes import Checked, Fix
from trueloop.doctor.source.mending import is_plain
from trueloop.doctor.source.modes import named
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.ritual import learned_from
from trueloop.doctor.source.ways import Run, common_loop

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 5  # at so many different steps; a guess: a GAN freezes its discriminator for single passes


@dataclass
class _Moved:
    mean: Tensor
    """A copy of the running mean when it was first seen frozen and awake."""
    weight: float
    step: int
    steps: int = 0


class FrozenBatchnormMoves(Rule):
    """Knows it by the layer's mode, its parameters' ``requires_grad``, and its running mean."""

    name = "frozen-batchnorm-moves"
    code = 204
    level = "warning"
    certainty = "certain"
    seen_by = ("source", "run")

    def __init__(self, trace: Trace) -> None:
        from torch.nn.modules.batchnorm import _BatchNorm
        from torch.utils.weak import WeakIdKeyDictionary

        super().__init__(trace)
        self._kind = _BatchNorm
        self._moved: Any = WeakIdKeyDictionary()  # a layer -> what was seen of it
        self._waking: Any = WeakIdKeyDictionary()  # a module -> the line that put it in train mode
        self._told: set[int] = set()
        self._frozen = 0

    def mode_set(self, fact: ModeSet) -> None:
        if fact.mode and fact.place is not None:
            self._waking[fact.module] = fact.place

    def called(self, fact: Called) -> Iterator[Finding]:
        of = fact.of
        if not of.close or not of.model.layers or of.model.number in self._told:
            return
        moving: list[tuple[str, float]] = []
        for name, layer in of.model.layers:
            if not isinstance(layer, self._kind) or layer.running_mean is None:
                continue
            parameters = list(layer.parameters(recurse=False))
            if not parameters or any(p.requires_grad for p in parameters):
                self._moved.pop(layer, None)
                continue
            if not layer.training:
                self._frozen += 1
                continue
            weight = float(own_part(parameters[0]).double().sum())
            known = self._moved.get(layer)
            if known is None or known.weight != weight:  # a teacher follows by averages
                self._moved[layer] = _Moved(layer.running_mean.detach().clone(), weight, of.step)
                continue
            if of.step > known.step:
                known.step = of.step
                known.steps += 1
                if known.steps >= STEPS:
                    moving.append((name, float((layer.running_mean - known.mean).abs().max())))
        if not moving or not max(change for _, change in moving):
            return
        self._told.add(of.model.number)
        name, change = max(moving, key=lambda pair: pair[1])
        root = of.model.module
        woken = None if root is None else self._waking.get(root)
        named = ", ".join(repr(one) for one, _ in moving[:3]) + (
            f" and {len(moving) - 3} more" if len(moving) > 3 else ""
        )
        yield self.finding(
            f"{named} of {of.model.kind} {'is' if len(moving) == 1 else 'are'} frozen, but in train mode: the running "
            "statistics go on changing",
            f"over {STEPS} steps the running mean of {name!r} has moved by up to {change:.3g}; its weight is frozen",
            place=woken or of.place,
            related=[(of.place, "the pass that changes them")] if woken else (),
        )

    def passed(self) -> str | None:
        return "frozen batch normalisation was in eval mode" if self._frozen else None


def in_source(program: Program) -> Iterator[Checked]:
    """A model is trained with frozen batch norms in train mode, and they are trained nowhere in that loop or later."""
    for run in program.runs:
        if not run.complete:
            continue
        calls = [call for call in run.of(read.Called) if call.training and call.grad]
        told: set[int] = set()
        for number, call in enumerate(calls):
            norms = [one for one in call.frozen if _keeps_statistics(one) and id(one) not in told]
            norms = [one for one in norms if "copied" not in one.attrs]  # a momentum encoder's follow on purpose
            others = [one for n, one in enumerate(calls) if n > number or common_loop(one.at, call.at) is not None]
            if not norms or any(_learns(other, one) for other in others for one in norms):
                continue
            backward = next(learned_from(run, call), None)
            if backward is None:
                continue
            told |= {id(one) for one in norms}
            finding = program.finding(
                FrozenBatchnormMoves,
                f"nn.{norms[0].name} is frozen, and goes on learning its statistics: it is in train mode",
                "its parameters have `requires_grad = False`, and nothing puts it in eval mode",
                at=call,
                related=[(norms[0], "the layer"), (backward, "trained here")],
            )
            yield Checked(finding, _mended(program, run, call))


def _mended(program: Program, run: Run, call: read.Called) -> Fix | None:
    """Puts the frozen ones into eval mode after ``model.train()``, or ahead of the training."""
    written = [spelled(program, kind) for kind in sorted({norm.kind for norm in call.frozen})]
    wakes = [e for e in run.of(read.ModeSet) if e.target is call.target and e.training and e.at.unit is program.unit]
    wake: Any = next((e.node for e in wakes if common_loop(e.at, call.at) is not None), None)
    thing = getattr(getattr(wake, "func", None), "value", None)
    name = named(program, call) if thing is None else program.unit.text(thing)
    if not is_plain(name) or any(added for _, added in written):
        return None
    which = ", ".join(spelling for spelling, _ in written)
    which = which if len(written) == 1 else f"({which})"
    step, one = program.unit.tree.default_indent, "layer" if name == "module" else "module"
    text = "\n".join(
        (
            f"for {one} in {name}.modules():",
            f"{step}if isinstance({one}, {which}) and {one}.affine and not {one}.weight.requires_grad:",
            f"{step}{step}{one}.eval()",
        )
    )
    loops = blocks.loops(program.unit, call.node)
    place = before(program, loops[0] if loops else call.node, text) if wake is None else after(program, wake, text)
    return together("leave the frozen ones in eval mode", place)


def _learns(call: read.Called, norm: values.Object) -> bool:
    """Whether a layer's parameters may be trained by a call: then it was frozen for a while only."""
    return all(one is not norm for one in call.frozen) and any(one is norm for one in parts(call.target))


def _keeps_statistics(norm: values.Object) -> bool:
    return norm.option("affine", 3) is None and norm.option("track_running_stats", 4) is None


FIRES = {
    "a frozen backbone inside the model": """
        backbone = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
        for p in backbone.parameters():
            p.requires_grad = False
        model = nn.Sequential(backbone, nn.Linear(16, 2))
        opt = torch.optim.SGD(model[1].parameters(), lr=0.1)
        for epoch in range(2):
            model.train()
            for _ in range(5):
                opt.zero_grad()
                F.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 2, (16,))).backward()
                opt.step()
    """,
    "features from another root": """
        backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).requires_grad_(False)
        head = nn.Linear(4 * 36, 2)
        opt = torch.optim.SGD(head.parameters(), lr=0.1)
        for _ in range(12):
            with torch.no_grad():
                features = backbone(torch.randn(8, 1, 8, 8))
            opt.zero_grad()
            F.cross_entropy(head(features), torch.randint(0, 2, (8,))).backward()
            opt.step()
    """,
}

SILENT = {
    "frozen and in eval mode": """
        backbone = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU()).requires_grad_(False)
        model = nn.Sequential(backbone, nn.Linear(16, 2))
        opt = torch.optim.SGD(model[1].parameters(), lr=0.1)
        model.train()
        backbone.eval()
        for _ in range(12):
            opt.zero_grad()
            F.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 2, (16,))).backward()
            opt.step()
    """,
    "a discriminator frozen for the generator's step": """
        G = nn.Linear(4, 2)
        D = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        for step in range(20):
            D.requires_grad_(True)
            od.zero_grad()
            (D(G(torch.randn(8, 4)).detach()).mean() - D(torch.randn(8, 2)).mean()).backward()
            od.step()
            D.requires_grad_(False)
            og.zero_grad()
            (-D(G(torch.randn(8, 4))).mean()).backward()
            og.step()
    """,
    "a teacher that follows by averages": """
        import copy
        student = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        teacher = copy.deepcopy(student).requires_grad_(False)
        opt = torch.optim.Adam(student.parameters(), lr=1e-2)
        for _ in range(20):
            x = torch.randn(16, 8)
            with torch.no_grad():
                aim = teacher(x + 0.1 * torch.randn(16, 8))
            opt.zero_grad()
            (F.mse_loss(student(x), aim) + F.cross_entropy(student(x), torch.randint(0, 2, (16,)))).backward()
            opt.step()
            with torch.no_grad():
                for p, q in zip(student.parameters(), teacher.parameters()):
                    q.data.mul_(0.9).add_(p.data, alpha=0.1)
    """,
}

READ_FIRES = {
    "frozen by name": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
                self.fc = nn.Linear(4, 2)
            def forward(self, x):
                return self.fc(self.stem(x).mean((2, 3)))
        net = Net()
        for name, p in net.named_parameters():
            if not name.startswith("fc"):
                p.requires_grad = False
        opt = torch.optim.Adam(net.fc.parameters())
        for x, y in loader:
            net.train()
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "by a function that goes over the names": """
        import torch
        from torch import nn
        def freeze(module):
            for name, p in module.named_parameters():
                p.requires_grad_(False)
        body, head = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), nn.Linear(8, 2)
        net = nn.Sequential(body, head)
        freeze(body)
        opt = torch.optim.Adam(head.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "train() wakes the frozen part": """
        import torch
        from torch import nn
        backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        head = nn.Linear(144, 5)
        for p in backbone.parameters():
            p.requires_grad = False
        model = nn.Sequential(backbone, head)
        opt = torch.optim.SGD(head.parameters(), lr=0.1)
        for epoch in range(3):
            model.train()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
    """,
    "in train mode from its birth": """
        import torch
        from torch import nn
        backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        backbone.requires_grad_(False)
        model = nn.Sequential(backbone, nn.Linear(144, 5))
        opt = torch.optim.SGD(model[1].parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
    """,
}

READ_SILENT = {
    "others are frozen by name": """
        import torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
                self.fc = nn.Linear(4, 2)
            def forward(self, x):
                return self.fc(self.stem(x).mean((2, 3)))
        net = Net()
        for name, p in net.named_parameters():
            if "fc" in name:
                p.requires_grad = False
        opt = torch.optim.Adam(net.stem.parameters())
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "some of the children, which is not known": """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        for child in list(net.children())[:1]:
            for p in child.parameters():
                p.requires_grad = False
        opt = torch.optim.Adam(p for p in net.parameters() if p.requires_grad)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    """,
    "a momentum encoder": """
        import copy, torch
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.q = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
                self.k = copy.deepcopy(self.q)
                for p in self.k.parameters():
                    p.requires_grad = False
            def forward(self, x):
                with torch.no_grad():
                    k = self.k(x)
                return (self.q(x) * k).sum(1)
        net = Net()
        opt = torch.optim.Adam(net.q.parameters())
        for x in loader:
            opt.zero_grad()
            net(x).mean().backward()
            opt.step()
    """,
    "put at rest": """
        import torch
        from torch import nn
        backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        head = nn.Linear(144, 5)
        backbone.requires_grad_(False)
        model = nn.Sequential(backbone, head)
        opt = torch.optim.SGD(head.parameters(), lr=0.1)
        for epoch in range(3):
            model.train()
            backbone.eval()
            for x, y in loader:
                opt.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                opt.step()
    """,
    "frozen for one pass, in a GAN": """
        import torch
        from torch import nn
        g, d = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        opt_g, opt_d = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())
        for x in loader:
            d.requires_grad_(True)
            opt_d.zero_grad()
            (d(g(torch.randn(8, 4)).detach()).mean() - d(x).mean()).backward()
            opt_d.step()
            d.requires_grad_(False)
            opt_g.zero_grad()
            (-d(g(torch.randn(8, 4))).mean()).backward()
            opt_g.step()
    """,
    "some of its parameters": """
        import torch
        from torch import nn
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        for p in list(model.parameters())[:2]:
            p.requires_grad = False
        for name, p in model.named_parameters():
            if name.startswith("0"):
                p.requires_grad = False
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
    """,
}
