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
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from torch import Tensor

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
            weight = float(parameters[0].double().sum())
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
