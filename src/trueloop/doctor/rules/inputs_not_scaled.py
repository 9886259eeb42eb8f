"""Inputs are not scaled: they reach the first layer with values far from zero, or features of very different size.

Sees: in three training passes, the first layer with weights (linear, convolution, recurrent) is given data as it
came, and its mean or deviation is beyond 10, or that of a feature is beyond 30 (RULES.md; a usual figure is 1;
torch-audit warns at 50 for the largest value, and UMLAUT's 1 is too strict: images normalised as for ImageNet reach
2.6). Data that a normalisation or an embedding takes first, or that the model divides itself, is not meant: what
counts is what the layer gets.

Why it matters: the gradient of a weight grows with its input, so no rate fits all weights: some diverge, others stand
still, units saturate or die in the first steps.

Usual causes: raw pixels (0 to 255) or raw columns of a table; a scaler that was fitted and not used.

Fix: subtract the mean and divide by the deviation, both taken from the training data alone (``StandardScaler``,
``transforms.Normalize``), or put ``nn.BatchNorm1d`` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardEnded, ModuleCalled
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.readings import readable
from trueloop.doctor.rule import Rule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trueloop.doctor.trace import Trace

PASSES = 3
BEYOND = 10.0
FEATURE = 30.0
SAMPLES = 4


class InputsNotScaled(Rule):
    """Reads the data that the first layers are given, in the first training passes."""

    name = "inputs-not-scaled"
    code = 504
    level = "warning"
    certainty = "measured"

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._kinds: tuple[type[nn.Module], ...] | None = None
        self._off: dict[int, tuple[str, tuple[str, ...]] | None] = {}  # a pass's number -> what is off in it
        self._counts: dict[int, int] = {}
        self._passes: dict[int, int] = {}

    def module_called(self, fact: ModuleCalled) -> None:
        """The first layer with weights in a pass decides; one that is frozen, or a normalisation, has scaled it."""
        of, module = fact.of, fact.module
        if self._passes.get(of.model.number, 0) >= PASSES or not of.grad or not fact.inputs or of.number in self._off:
            return
        kind = type(module).__name__
        if "Embedding" in kind or next(module.children(), None) is not None:
            return
        weights = list(module.parameters(recurse=False))
        if isinstance(module, self._layers()) and _is_data(fact.inputs[0]) and any(p.requires_grad for p in weights):
            self._off[of.number] = _off(fact.name, fact.inputs[0], channels_last=not hasattr(module, "stride"))
        elif weights or "Norm" in kind:
            self._off[of.number] = None

    def backward_ended(self, fact: BackwardEnded) -> Iterator[Finding] | None:
        found: tuple[str, tuple[str, ...], Place | None] | None = None
        for one in fact.reached:
            model = one.model.number
            if one.number not in self._off or self._passes.get(model, 0) >= PASSES:
                continue
            off = self._off.pop(one.number)
            self._passes[model] = self._passes.get(model, 0) + 1
            self._counts[model] = self._counts.get(model, 0) + (off is not None)
            if off is not None and self._counts[model] == PASSES:
                found = off[0], off[1], one.place
        self._off.clear()
        return None if found is None else iter([self.finding(found[0], *found[1], place=found[2])])

    def passed(self) -> str | None:
        if not self._passes or any(self._counts.values()):
            return None
        return "the data that the first layers get is near mean 0 and deviation 1"

    def _layers(self) -> tuple[type[nn.Module], ...]:
        if self._kinds is None:
            from torch import nn
            from torch.nn.modules.conv import _ConvNd

            self._kinds = (nn.Linear, _ConvNd, nn.RNNBase, nn.RNNCellBase)
        return self._kinds


def _is_data(data: object) -> bool:
    import torch

    return (
        isinstance(data, torch.Tensor)
        and data.is_floating_point()
        and not data.requires_grad
        and data.dim() > 1
        and readable(data)
        and data.numel() // max(data.shape[-1], 1) >= SAMPLES
    )


def _off(name: str, data: Tensor, channels_last: bool) -> tuple[str, tuple[str, ...]] | None:
    """What is off, in a sentence, and its evidence; None if nothing is."""
    values = data.detach().double()
    mean, std = float(values.mean()), float(values.std())
    if not math.isfinite(mean) or not math.isfinite(std):
        return None
    columns = values.movedim(-1 if channels_last else 1, -1).flatten(0, -2)
    means, stds = columns.mean(0), columns.std(0)
    sizes = (means.abs() + stds).tolist()
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    if abs(mean) <= BEYOND and std <= BEYOND and max(abs(float(means[largest])), float(stds[largest])) <= FEATURE:
        return None
    feature = "feature" if channels_last else "channel"
    evidence = [
        f"mean {mean:.4g}, deviation {std:.4g}, from {float(values.min()):.4g} to {float(values.max()):.4g}",
        f"{feature} {largest} has mean {float(means[largest]):.4g} and deviation {float(stds[largest]):.4g}",
    ]
    moving = [size for size in stds.tolist() if size > 0]
    if len(moving) > 1 and max(moving) > 100 * min(moving):
        evidence.append(f"the deviations of its {feature}s go from {min(moving):.3g} to {max(moving):.3g}")
    layer = f"the layer {name!r}" if name else "the model"
    return f"inputs are not scaled: {layer} gets data of mean {mean:.3g} and deviation {std:.3g}", tuple(evidence)


FIRES = {
    "columns as they came": """
        x = torch.stack([torch.randn(128) * 0.1, 800 + 300 * torch.randn(128), torch.rand(128)], 1)
        y = (x[:, 0] > 0).long()
        model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(10):
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
    """,
    "raw pixels": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
            def forward(self, images, labels=None):
                logits = self.out(F.relu(self.conv(images.float())).mean((2, 3)))
                return {"loss": F.cross_entropy(logits, labels), "logits": logits}
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=1e-4)
        images, labels = torch.randint(0, 256, (64, 3, 8, 8)).float(), torch.randint(0, 2, (64,))
        for index in torch.arange(64).split(8):
            opt.zero_grad()
            net(images[index], labels=labels[index])["loss"].backward()
            opt.step()
    """,
}

SILENT = {
    "normalised in the model": """
        x = torch.stack([torch.randn(128) * 0.1, 800 + 300 * torch.randn(128)], 1)
        y = (x[:, 0] > 0).long()
        model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(10):
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(64, 2)
            def forward(self, x):
                return self.out(x.flatten(1) / 255 - 0.5)
        net = Net()
        opt = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(10):
            opt.zero_grad()
            F.cross_entropy(net(torch.randint(0, 256, (16, 8, 8)).float()), torch.randint(0, 2, (16,))).backward()
            opt.step()
    """,
    "token ids": """
        model = nn.Sequential(nn.Embedding(5000, 8), nn.Flatten(), nn.Linear(40, 2))
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(10):
            x = torch.randint(0, 5000, (16, 5))
            opt.zero_grad()
            F.cross_entropy(model(x), x[:, 0] % 2).backward()
            opt.step()
    """,
}
