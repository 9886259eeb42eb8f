"""End a run that has stopped getting better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.events import EvalEnded, Event, RunStarted, Stop


class EarlyStop:
    """Stops after ``patience`` evaluations in a row without an improvement by more than ``min_delta``.

    Args:
        metric: which of the evaluation's metrics; ``loss`` by default.
        patience: evaluations without improvement that it takes.
        min_delta: an improvement must be larger than this, in the metric's own unit.
        mode: ``min`` or ``max``: which way is better. None means ``min`` for ``loss``; any other metric must say.

    The model keeps the weights of the last step, not those of the best evaluation. NaN is never an improvement. A new
    run (one that starts at step 0) starts the counting anew.

    Raises:
        ArgumentError: a setting out of range, a metric other than ``loss`` without a mode, a run with no evaluation.
        UnknownNameError: the evaluation has no such metric (said at the first evaluation).

    Example:
        >>> stop = EarlyStop(patience=2)
        >>> losses = [1.0, 0.5, 0.6, 0.5]
        >>> replies = [stop(EvalEnded(step, 0, {"loss": loss}, 10, 0.1)) for step, loss in enumerate(losses)]
        >>> replies[:3], replies[3].reason
        ([None, None, None], 'loss has not improved on 0.5 (step 1) for 2 evaluations')
    """

    def __init__(
        self,
        metric: str = "loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        if patience < 1:
            raise ArgumentError(f"patience must be at least 1 evaluation, got patience={patience!r}")
        if not min_delta >= 0.0:
            raise ArgumentError(f"min_delta must be at least 0, got min_delta={min_delta!r}; the way is said by mode")
        if mode not in ("min", "max", None):
            raise ArgumentError(f"mode must be 'min' or 'max', got mode={mode!r}")
        if mode is None and metric != "loss":
            raise ArgumentError(f"is more {metric!r} better, or less? Say mode='max' or mode='min' to EarlyStop")
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.mode = mode or "min"
        self.best: float | None = None
        self.best_step = 0
        self.waited = 0

    def __call__(self, event: Event) -> Stop | None:
        match event:
            case EvalEnded():
                return self._judge(event)
            case RunStarted():
                if event.plan.evaluates.startswith("never"):
                    raise ArgumentError("EarlyStop looks at evaluations, and there is no validation data: give val=…")
                if event.step == 0:
                    self.best, self.best_step, self.waited = None, 0, 0
                elif self.waited >= self.patience:  # the run was broken off while this was being replied
                    return self._stop()
        return None

    def state_dict(self) -> dict[str, Any]:
        """The counting so far."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]

    def _judge(self, event: EvalEnded) -> Stop | None:
        if self.metric not in event.metrics:
            raise UnknownNameError("metric", self.metric, event.metrics)
        value = event.metrics[self.metric]
        if self._improves(value):
            self.best, self.best_step, self.waited = value, event.step, 0
            return None
        self.waited += 1
        return None if self.waited < self.patience else self._stop()

    def _stop(self) -> Stop:
        since = "has never been a number" if self.best is None else f"has not improved on {self.best:.6g}"
        step = "" if self.best is None else f" (step {self.best_step})"
        return Stop(f"{self.metric} {since}{step} for {self.waited} evaluation{'s' * (self.waited != 1)}")

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return value == value  # not NaN
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta  # False for NaN
