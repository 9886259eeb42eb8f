"""What an evaluation remembers of its batches: the exact mean of their losses, and metrics over all samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from trueloop.data.device import move
from trueloop.errors import ArgumentError
from trueloop.objective import Computed, Mean

CPU = torch.device("cpu")

MetricFunction = Callable[[Any, Any], Any]
"""``(outputs, targets) -> number``: sees all samples of the evaluation at once, so that any metric is exact."""

Metrics = Mapping[str, Metric | MetricFunction]
"""By name: torchmetrics are updated a batch at a time, functions are called once."""


class Tally:
    """The losses and metrics of one evaluation.

    Args:
        metrics: torchmetrics are reset.
        is_sum: the losses are sums, and not means.
    """

    def __init__(self, metrics: Metrics, *, is_sum: bool = False) -> None:
        self.metrics = metrics
        self.loss = Mean(is_sum=is_sum)
        self._updated = [metric for metric in metrics.values() if isinstance(metric, Metric)]
        self._has_functions = len(self._updated) < len(metrics)
        self._kept: list[tuple[Any, Any]] = []
        for metric in self._updated:
            metric.reset()

    def add(self, computed: Computed, samples: int, output: Any, target: Any) -> None:
        """Adds a batch: its loss, and what metrics look at."""
        self.loss.add(computed.loss, computed.count, samples)
        for metric in self._updated:
            metric.update(output, target)
        if self._has_functions:
            self._kept.append((move(output, CPU), move(target, CPU)))

    def gather(self) -> None:
        """All batches have been added: other processes, where there are any, tell theirs."""

    def values(self) -> dict[str, Any]:
        """Each metric's value over all batches."""
        return values_of(self.metrics, self._kept)


def values_of(metrics: Metrics, kept: list[tuple[Any, Any]]) -> dict[str, Any]:
    """The value of each metric: of torchmetrics from their states, of functions from outputs and targets."""
    outputs, targets = (join([one for one, _ in kept]), join([one for _, one in kept])) if kept else (None, None)
    return {
        name: computed(metric) if isinstance(metric, Metric) else metric(outputs, targets)
        for name, metric in metrics.items()
    }


def computed(metric: Metric) -> Any:
    """A metric's value by this process's states alone: torchmetrics would wait for other processes, if there are."""
    parts = [one for one in metric.modules() if isinstance(one, Metric)]
    before = [one._to_sync for one in parts]
    for one in parts:
        one._to_sync = False
    try:
        return metric.compute()
    finally:
        for one, waits in zip(parts, before, strict=True):
            one._to_sync = waits


def join(parts: list[Any]) -> Any:
    """The batches' outputs as one, on the CPU; scalars (a loss that the model returns) are stacked, a value a batch."""
    first = parts[0]
    if isinstance(first, Tensor):
        if first.dim() == 0:
            return torch.stack([part.cpu() for part in parts])
        try:
            return torch.cat([part.cpu() for part in parts])
        except RuntimeError as error:
            raise ArgumentError(
                f"the model's outputs cannot be joined, since their shapes differ from batch to batch ({error}); "
                "pad them, or predict batch by batch: trainer.evaluating(…)"
            ) from None
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {key: join([part[key] for part in parts]) for key in first}
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        return type(first)(**{f.name: join([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(first)})
    if isinstance(first, (tuple, list)):
        joined = [join(list(column)) for column in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return parts
