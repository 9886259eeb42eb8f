"""The progress display: live in a terminal or notebook, a line per epoch elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trueloop.events import EpochEnded, EvalEnded, Event, Found, RunEnded, RunStarted, SaveFailed, StepEnded
from trueloop.observers.screen import Screen, choose_screen

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding

_SECONDS_BETWEEN_DRAWINGS = 0.125  # 8 a second, and an epoch's end may come one early: 10 at most in any second


class Progress:
    """Prints the plan, a line per epoch (and per evaluation within one), and a summary.

    In a terminal or a notebook there is a live display below: epoch, step, loss, the last metrics, rate, samples/s and
    the time left of the whole run, drawn at most 10 times a second; lines wait for it. A step that is not drawn costs a
    look at the clock; the loss is read from the device only when it is drawn.

    Args:
        console: where to print; standard output by default.
        clock: seconds since anything, never going back.

    Example:
        >>> from io import StringIO
        >>> console = Console(file=StringIO())
        >>> progress = Progress(console)
        >>> progress(EvalEnded(step=8, epoch=0, metrics={"loss": 0.51, "accuracy": 0.75}, samples=20, seconds=0.1))
        >>> progress(EpochEnded(epoch=0, step=8, loss=0.62, samples=80, seconds=1.25))
        >>> print(console.file.getvalue(), end="")
        epoch 1 · step 8 · train loss 0.62 · val loss 0.51, accuracy 0.75 · 1.25 s
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._last: StepEnded | None = None
        self._before: dict[str, EvalEnded | None] = {}
        self._begin(None)

    def __call__(self, event: Event) -> None:
        match event:
            case StepEnded():
                self._last = event
                self._samples += event.samples
                if self._clock() >= self._due:
                    self._tick()
            case RunStarted():
                self._begin(event)
                for line in event.plan.lines():
                    self._screen.line(line)
                self._tick()
            case EvalEnded():
                self._evaluated(event)
            case EpochEnded():
                self._epoch_ended(event)
            case SaveFailed():
                self._screen.line(f"NOT SAVED at step {event.step:,}: {event.reason}")
            case Found():
                self._found.append(event.finding)
                self._screen.line(_finding(event.finding))
            case RunEnded():
                self._run_ended(event)

    def _begin(self, event: RunStarted | None) -> None:
        self._chosen: Screen | None = None
        self._due = -math.inf  # when a step has more to do than to be remembered
        self._next_drawing = -math.inf
        self._last = None
        self._epoch = event.epoch if event else 0
        self._samples = 0
        self._epochs = event.plan.epochs if event else None
        self._steps = event.plan.steps if event else None
        self._steps_per_epoch = event.plan.steps_per_epoch if event else None
        self._first_step = event.step if event else 0
        self._epoch_step = event.epoch * (self._steps_per_epoch or 0) if event else 0
        self._held: EvalEnded | None = None  # until it is known whether an epoch ends here: then they share a line
        resumed = event is not None and event.step > 0
        self._latest: EvalEnded | None = self._before.get("latest") if resumed else None
        self._best: EvalEnded | None = self._before.get("best") if resumed else None
        self._found: list[Finding] = []
        self._evaluating_seconds = 0.0
        self._started = self._clock()
        self._speed: float | None = None
        self._speed_from = (self._started, 0)  # the training clock (seconds without evaluations), samples

    def state_dict(self) -> dict[str, Any]:
        """The best and the latest evaluation, for the summary."""
        known = {"best": self._best, "latest": self._latest}
        return {name: None if event is None else event._asdict() for name, event in known.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""
        self._before = {name: None if fields is None else EvalEnded(**fields) for name, fields in state.items()}

    @property
    def _screen(self) -> Screen:
        if self._chosen is None:  # made late: whether standard output is a terminal may change after the import
            self._chosen = choose_screen(self.console or Console())
        return self._chosen

    def _tick(self, early: float = 0.0) -> None:
        """Says what was held back, and draws if it is time (or will be in ``early`` seconds)."""
        if self._held is not None:
            self._screen.line(_joined(f"step {self._held.step:,}", _metrics(self._held), _seconds(self._held.seconds)))
            self._held = None
        if not self._screen.live:
            self._due = math.inf
            return
        now = self._clock()
        if now >= self._next_drawing - early:
            self._next_drawing = max(self._next_drawing, now) + _SECONDS_BETWEEN_DRAWINGS
            self._measure_speed(now)
            self._screen.draw(self._drawing(now))
        self._due = self._next_drawing

    def _evaluated(self, event: EvalEnded) -> None:
        if self._held is not None:
            self._tick()
        self._held = self._latest = event
        self._evaluating_seconds += event.seconds
        if self._best is None or event.metrics["loss"] < self._best.metrics["loss"] or _is_nan(self._best):
            self._best = event
        self._due = -math.inf

    def _epoch_ended(self, event: EpochEnded) -> None:
        here = self._held if self._held is not None and self._held.step == event.step else None
        if here is not None:
            self._held = None
        if self._steps_per_epoch is None:
            self._steps_per_epoch = event.step - self._epoch_step
        self._epoch_step = event.step
        self._screen.line(
            _joined(
                f"epoch {_of(event.epoch + 1, self._epochs)}",
                f"step {event.step:,}",
                f"train loss {_figure(event.loss)}",
                _metrics(here) if here else "",
                f"rate {_figure(self._last.lr)}" if self._last else "",
                _seconds(event.seconds),
            )
        )
        self._epoch = event.epoch + 1
        self._tick(early=_SECONDS_BETWEEN_DRAWINGS)

    def _run_ended(self, event: RunEnded) -> None:
        self._tick()
        steps = event.step - self._first_step
        training = event.seconds - self._evaluating_seconds
        self._screen.line(
            _joined(
                event.reason,
                f"{steps:,} step{'s' * (steps != 1)} in {_seconds(event.seconds)}",
                f"{self._samples / training:,.0f} samples/s" if self._samples and training > 0 else "",
            )
        )
        if self._latest is not None and self._best is not None:
            if self._best.step != self._latest.step:
                self._screen.line(f"  best  {_metrics(self._best)} at step {self._best.step:,}")
            self._screen.line(f"  last  {_metrics(self._latest)} at step {self._latest.step:,}")
        loud = [finding for finding in self._found if finding.level != "note"]
        if loud:
            names = ", ".join(dict.fromkeys(finding.name for finding in loud))
            self._screen.line(f"  the doctor found {names}: trueloop explain {loud[0].name}")
        self._screen.close()
        self._chosen = None

    def _measure_speed(self, now: float) -> None:
        now -= self._evaluating_seconds
        before, samples = self._speed_from
        if self._samples > samples and now > before:
            speed = (self._samples - samples) / (now - before)
            self._speed = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
            self._speed_from = (now, self._samples)

    def _drawing(self, now: float) -> RenderableType:
        step = self._last.step if self._last else self._first_step
        head = Table.grid(padding=(0, 1))
        epoch = self._epoch + 1 if self._epochs is None else min(self._epoch + 1, self._epochs)
        cells: list[RenderableType] = [f"epoch {_of(epoch, self._epochs)}"]
        if self._steps_per_epoch:
            cells.append(ProgressBar(self._steps_per_epoch, step - self._epoch_step, width=30))
        elif self._total():
            cells.append(ProgressBar(self._total(), step, width=30))
        cells += [f"step {_of(step, self._total())}", self._time(now, step)]
        head.add_row(*cells)
        facts = _joined(
            f"loss {_figure(float(self._last.loss))}" if self._last else "",
            _metrics(self._latest) if self._latest else "",
            f"rate {_figure(self._last.lr)}" if self._last else "",
            f"{self._speed:,.0f} samples/s" if self._speed else "",
        )
        return Group(head, Text(facts)) if facts else head

    def _time(self, now: float, step: int) -> str:
        elapsed, done, total = now - self._started, step - self._first_step, self._total()
        if not total or not done:
            return _hours(elapsed)
        return f"{_hours(elapsed)}, {_hours(elapsed / done * max(total - step, 0))} left"

    def _total(self) -> int | None:
        if self._steps is not None or self._epochs is None or self._steps_per_epoch is None:
            return self._steps
        return self._epochs * self._steps_per_epoch


def _finding(finding: Finding) -> str:
    where = f" ({finding.place})" if finding.place else ""
    said = finding.as_dict()
    return f"{finding.level}[{finding.name}]: {said['message']}{where}. {said['help']}"


def _joined(*facts: str) -> str:
    return " · ".join(fact for fact in facts if fact)


def _of(number: int, total: int | None) -> str:
    return f"{number:,}" if total is None else f"{number:>{len(f'{total:,}')},}/{total:,}"


def _metrics(event: EvalEnded) -> str:
    return "val " + ", ".join(f"{name} {_figure(value)}" for name, value in _loss_first(event.metrics).items())


def _loss_first(metrics: Mapping[str, float]) -> dict[str, float]:
    return {"loss": metrics["loss"]} | dict(metrics)


def _is_nan(event: EvalEnded) -> bool:
    return math.isnan(event.metrics["loss"])


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 60 else _hours(seconds)


def _hours(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
