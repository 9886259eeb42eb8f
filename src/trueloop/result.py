"""What came of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding


@dataclass(frozen=True)
class Result:
    """What ``fit`` returns.

    Attributes:
        steps: optimizer steps taken.
        epochs: epochs ended; the last one may have been cut short by ``steps``.
        loss: the mean training loss of the last epoch that ended; NaN if none did.
        metrics: the last evaluation's, ``loss`` among them; empty if there was none.
        history: the epochs and evaluations, in order.
        reason: why it ended: ``finished``, or the text of the ``Stop`` that ended it.
        seconds: from the first step's preparation to the end.
        out: the run's folder, if it has one.
        findings: what the doctor found.
    """

    steps: int
    epochs: int
    loss: float
    metrics: dict[str, float]
    history: tuple[EpochEnded | EvalEnded, ...]
    reason: str
    seconds: float
    out: Path | None
    findings: tuple[Finding, ...] = ()


@dataclass
class Collector:
    """An observer that makes a ``Result``.

    Example:
        >>> collect = Collector()
        >>> collect(EpochEnded(epoch=0, step=5, loss=0.25, samples=10, seconds=1.0))
        >>> collect(RunEnded(step=5, epoch=1, reason="finished", seconds=1.0))
        >>> collect.result().loss
        0.25
    """

    history: list[EpochEnded | EvalEnded] = field(default_factory=list)
    ended: RunEnded | None = None
    findings: list[Finding] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        match event:
            case EpochEnded() | EvalEnded():
                self.history.append(event)
            case Found():
                self.findings.append(event.finding)
            case RunEnded():
                self.ended = event

    def state_dict(self) -> dict[str, Any]:
        """The history, in plain values."""
        return {"history": [(type(event).__name__, event._asdict()) for event in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
        kinds: dict[str, type[EpochEnded | EvalEnded]] = {"EpochEnded": EpochEnded, "EvalEnded": EvalEnded}
        self.history = [kinds[name](**fields) for name, fields in state["history"]]

    def result(self, out: Path | None = None) -> Result:
        """The result, once ``RunEnded`` was seen."""
        assert self.ended is not None, "a run has a result when it has ended"
        losses = [event.loss for event in self.history if isinstance(event, EpochEnded)]
        evaluations = [event for event in self.history if isinstance(event, EvalEnded)]
        return Result(
            steps=self.ended.step,
            epochs=self.ended.epoch,
            loss=losses[-1] if losses else math.nan,
            metrics=dict(evaluations[-1].metrics) if evaluations else {},
            history=tuple(self.history),
            reason=self.ended.reason,
            seconds=self.ended.seconds,
            out=out,
            findings=tuple(self.findings),
        )
