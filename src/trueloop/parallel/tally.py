"""An evaluation's tally on several processes; see ``deal``."""

from __future__ import annotations

from typing import Any

from torchmetrics import Metric

from trueloop.data.device import move
from trueloop.errors import PeerError
from trueloop.objective import Computed, Count
from trueloop.parallel.deal import States, fold, folds, in_order, states_of
from trueloop.parallel.reduce import of_the_first
from trueloop.parallel.world import world
from trueloop.tally import CPU, Metrics, Tally, computed, values_of


class SharedTally(Tally):
    """Keeps what each batch gave, and puts all of it in the order of the batches at the end.

    Args:
        metrics: as for ``Tally``. Of a torchmetric whose states add up, the states of each batch travel; of any other,
            and for functions, outputs and targets do.
        is_sum: as for ``Tally``.
    """

    def __init__(self, metrics: Metrics, *, is_sum: bool = False) -> None:
        super().__init__(metrics, is_sum=is_sum)
        self._folded = {n: one for n, one in metrics.items() if isinstance(one, Metric) and folds(one)}
        self._losses: list[tuple[Any, Count, int]] = []
        self._states: list[dict[str, States]] = []

    def add(self, batch: Computed, samples: int, output: Any, target: Any) -> None:
        """Keeps what a batch of this process gave."""
        self._losses.append((move(batch.loss.detach(), CPU), move(batch.count, CPU), samples))
        states = {}
        for name, metric in self._folded.items():
            metric.reset()
            metric.update(output, target)
            states[name] = states_of(metric)
        self._states.append(states)
        if len(self._folded) < len(self.metrics):
            self._kept.append((move(output, CPU), move(target, CPU)))

    def gather(self) -> None:
        """The losses of all batches, in their order, on every process."""
        for loss, count, samples in in_order(self._losses):
            self.loss.add(loss, count, samples)

    def values(self) -> dict[str, Any]:
        """Rank 0 computes the metrics of all; every process gets them."""
        states, kept = in_order(self._states), in_order(self._kept)
        values: dict[str, Any] = {}
        failed: Exception | None = None
        if world().first:
            try:
                values = self._of_all(states, kept)
            except Exception as error:
                failed = error
        values, why = of_the_first((values, None if failed is None else f"{type(failed).__name__}: {failed}"))
        if failed is not None:
            raise failed
        if why is not None:
            raise PeerError(f"process 0 has failed to compute the metrics: {why}")
        return values

    def _of_all(self, states: list[dict[str, States]], kept: list[tuple[Any, Any]]) -> dict[str, Any]:
        values = {}
        functions = {name: one for name, one in self.metrics.items() if not isinstance(one, Metric)}
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric):
                continue
            if name in self._folded:
                fold(metric, [one[name] for one in states])
            else:
                metric.reset()
                for output, target in kept:
                    metric.update(move(output, metric.device), move(target, metric.device))
            values[name] = move(computed(metric), CPU)
        own = values_of(functions, kept) if functions else {}
        return {name: own[name] if name in own else values[name] for name in self.metrics}
