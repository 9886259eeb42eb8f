"""Evaluation on several processes: whole batches in turn, and the results in the order of the batches.

A batch is computed by one process as one process alone would compute it, and sums are taken in the order in which that
one would take them: so losses, metrics and predictions are the same to the bit, on any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

from trueloop.parallel.reduce import gathered
from trueloop.parallel.world import world

T = TypeVar("T")

States = dict[str, dict[str, Any]]
"""Of a metric and those inside it, by their names: each one's states."""

_NONE: Any = object()

_FOLDED = {dim_zero_sum, dim_zero_cat, dim_zero_max, dim_zero_min}


def in_order(own: Sequence[T]) -> list[T]:
    """What all processes have of batches that were dealt in turn, in the order of the batches.

    Example:
        >>> in_order(["of batch 0", "of batch 1"])
        ['of batch 0', 'of batch 1']
    """
    turns = zip_longest(*gathered(list(own)), fillvalue=_NONE)
    return [batch for turn in turns for batch in turn if batch is not _NONE]


def same_buffers(model: nn.Module) -> None:
    """Gives every process rank 0's buffers (BatchNorm's statistics, which each takes of its own samples)."""
    if not world().alone:
        for buffer in model.buffers():
            distributed.broadcast(buffer, src=0)


def folds(metric: Metric) -> bool:
    """Whether a metric's states over all batches follow from those of each: sums from zero, lists, extremes.

    Example:
        >>> from torchmetrics import MeanSquaredError, PearsonCorrCoef
        >>> folds(MeanSquaredError()), folds(PearsonCorrCoef())
        (True, False)
    """
    return all(_folds(one, name) for one in _parts(metric).values() for name in one._defaults)


def states_of(metric: Metric) -> States:
    """The states of a metric and of those inside it, on the CPU."""
    return {
        name: {key: _on(getattr(one, key), torch.device("cpu")) for key in one._defaults}
        for name, one in _parts(metric).items()
    }


def fold(metric: Metric, states: Sequence[States]) -> None:
    """Puts a metric where the updates of all batches would have brought it.

    Args:
        metric: one that ``folds``.
        states: of each batch, in their order, as ``states_of`` gave them after an update of a metric that was reset.

    Example:
        >>> from torchmetrics import SumMetric
        >>> metric, seen = SumMetric(), []
        >>> for value in (1.0, 2.0):
        ...     metric.reset(); metric.update(value); seen.append(states_of(metric))
        >>> fold(metric, seen); metric.compute()
        tensor(3.)
    """
    for name, one in _parts(metric).items():
        for key in one._defaults:
            values = [state[name][key] for state in states]
            setattr(one, key, _on(_folded(values, one._reductions[key]), one.device))
        one._update_count, one._computed = len(states), None


def _parts(metric: Metric) -> Mapping[str, Metric]:
    return {name: one for name, one in metric.named_modules() if isinstance(one, Metric)}


def _folds(metric: Metric, key: str) -> bool:
    default, reduction = metric._defaults[key], metric._reductions[key]
    if reduction not in _FOLDED:
        return False
    return isinstance(default, list) or reduction is not dim_zero_sum or not bool(default.any())


def _folded(values: Sequence[Any], reduction: object) -> Any:
    if isinstance(values[0], list):
        return [part for value in values for part in value]
    if reduction is dim_zero_cat:
        return torch.cat([value.reshape(-1) if value.ndim == 0 else value for value in values])
    combine: Any = torch.maximum if reduction is dim_zero_max else torch.minimum
    if reduction is dim_zero_sum:
        combine = torch.add
    total: Tensor = values[0]
    for value in values[1:]:  # one after the other, as updates do
        total = combine(total, value)
    return total


def _on(value: Any, device: torch.device) -> Any:
    return [part.to(device) for part in value] if isinstance(value, list) else value.detach().clone().to(device)
