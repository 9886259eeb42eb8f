"""Learning-rate schedules: pure functions of the optimizer step.

``Schedule = Callable[[int], float]``: given the step that is about to be taken (0, 1, 2 …) it returns the multiplier
of each parameter group's own rate. Any such function is a schedule; these are the usual ones.

Some depend on how long the run is. They are a ``Curve``, which the trainer stretches over the run's steps (``bind``),
unless it was given its own ``total_steps``. Except for ``one_cycle`` a curve reaches its end value at step
``total_steps``, the first one after the run, so that each step of the run does something (torch counts the same way).
Every one holds its last value beyond its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Curve:
    """A schedule that is stretched over a number of steps.

    Args:
        formula: ``(step, total_steps) -> multiplier``, asked only for steps in ``[0, total_steps]``.
        total_steps: its length; None means "the run's", which the trainer fills in.
        text: what it is, in words.
        joins: the steps at which one part gives way to the next (the end of a warm-up).

    Example:
        >>> Curve(lambda step, total_steps: 1 - step / total_steps).over(4)(1)
        0.75
    """

    formula: Callable[[int, int], float]
    total_steps: int | None = None
    text: str = "curve"
    joins: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.total_steps is not None:
            _check_steps("total_steps", self.total_steps, least=1)

    def __call__(self, step: int) -> float:
        """The multiplier at optimizer step ``step`` (0-based); beyond the end, the last one."""
        total = self.total_steps
        if total is None:
            raise ValueError(
                f"{self.text} has no length yet: give it total_steps=…, or call .over(total_steps); "
                "the trainer does so with the steps of the run"
            )
        return self.formula(min(step, total), total)

    def over(self, total_steps: int) -> Curve:
        """This curve over ``total_steps`` optimizer steps; one that has a length of its own keeps it."""
        return self if self.total_steps is not None else replace(self, total_steps=total_steps)

    def __repr__(self) -> str:
        return self.text if self.total_steps is None else f"{self.text} over {self.total_steps} steps"


def bind(schedule: Schedule, total_steps: int) -> Schedule:
    """The schedule for a run of ``total_steps`` steps: curves are stretched over it, other functions pass unchanged.

    Example:
        >>> bind(linear(), 10)(5)
        0.5
    """
    return schedule.over(total_steps) if isinstance(schedule, Curve) else schedule


def length(schedule: Schedule) -> int | None:
    """The schedule's own length in optimizer steps; None if it has none, or takes the run's.

    Example:
        >>> length(cosine(total_steps=100)), length(cosine()), length(constant())
        (100, None, None)
    """
    return schedule.total_steps if isinstance(schedule, Curve) else None


def describe(schedule: Schedule) -> str:
    """What a schedule is, in words, for the plan.

    Example:
        >>> describe(warmup_cosine(100)), describe(cosine(total_steps=50)), describe(step_decay(30))
        ('warmup(100) then cosine', 'cosine over 50 steps', 'step_decay(every_steps=30, factor=0.1)')
    """
    return repr(schedule) if isinstance(schedule, Curve) else getattr(schedule, "__name__", None) or repr(schedule)


def constant(value: float = 1.0) -> Schedule:
    """The same rate at every step.

    Example:
        >>> constant()(1_000)
        1.0
    """
    _check_rate("value", value)
    return _named("constant" if value == 1 else f"constant({value})", lambda step: value)


def linear(end: float = 0.0, start: float = 1.0, total_steps: int | None = None) -> Curve:
    """A straight line from ``start`` to ``end`` (torch's LinearLR).

    Example:
        >>> [linear(total_steps=4)(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    _check_rate("end", end)
    _check_rate("start", start)

    def formula(step: int, total: int) -> float:
        return start + (end - start) * step / total if step < total else end

    return Curve(formula, total_steps, "linear" + _given(end=(end, 0.0), start=(start, 1.0)))


def cosine(end: float = 0.0, total_steps: int | None = None) -> Curve:
    """Half a cosine from 1 down to ``end`` (torch's CosineAnnealingLR; Loshchilov & Hutter 2017, no restarts).

    Example:
        >>> [round(cosine(total_steps=4)(step), 3) for step in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    _check_rate("end", end)

    def formula(step: int, total: int) -> float:
        return end + (1 - end) * (1 + math.cos(math.pi * step / total)) / 2

    return Curve(formula, total_steps, "cosine" + _given(end=(end, 0.0)))


def warmup_cosine(warmup_steps: int, end: float = 0.0, total_steps: int | None = None) -> Curve:
    """A straight rise over ``warmup_steps`` steps, the peak, then half a cosine down to ``end``.

    Example:
        >>> schedule = warmup_cosine(warmup_steps=3, total_steps=7)
        >>> [round(schedule(step), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    fall = cosine(end)
    if total_steps is not None:
        _check_steps("total_steps", total_steps, least=1)
        if warmup_steps >= total_steps:
            raise ValueError(
                f"warmup_steps must be less than total_steps, got warmup_steps={warmup_steps} "
                f"and total_steps={total_steps}; the rate would never reach its peak"
            )
        fall = fall.over(total_steps - warmup_steps)
    rise_and_fall = warmup(warmup_steps, fall)
    assert isinstance(rise_and_fall, Curve)
    return rise_and_fall


def warmup(warmup_steps: int, second: Schedule) -> Schedule:
    """A straight rise over ``warmup_steps`` steps, then ``second`` from its own step 0 on.

    The rise is ``(step + 1) / (warmup_steps + 1)`` (nanoGPT's), so that the first step is not wasted on a rate of 0
    and the peak is at step ``warmup_steps`` exactly.

    Example:
        >>> [warmup(3, constant())(step) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    _check_steps("warmup_steps", warmup_steps, least=0)
    if warmup_steps == 0:
        return second
    rise = _named(f"warmup({warmup_steps})", lambda step: (step + 1) / (warmup_steps + 1))
    return then(rise, warmup_steps, second)


def one_cycle(
    warmup: float = 0.3, start: float = 1 / 25, end: float = 1 / 25 / 1e4, total_steps: int | None = None
) -> Curve:
    """Half a cosine up from ``start`` to 1 over the first ``warmup`` (a fraction) of the run, and one down to ``end``.

    Equals torch's OneCycleLR relative to ``max_lr``, with ``pct_start=warmup``, ``div_factor=1/start`` and
    ``final_div_factor=start/end``; momentum is left alone. As there, the end is reached *at* the run's last step.
    (Super-convergence, Smith & Topin 2018.)

    Example:
        >>> [round(one_cycle(total_steps=10)(step), 3) for step in range(11)]
        [0.04, 0.52, 1.0, 0.95, 0.812, 0.611, 0.389, 0.188, 0.05, 0.0, 0.0]
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup must be a fraction of the run, from 0 to 1, got warmup={warmup}")
    _check_rate("start", start)
    _check_rate("end", end)

    def formula(step: int, total: int) -> float:
        peak, last = warmup * total - 1, total - 1
        step = min(step, last)
        if peak > 0 and step <= peak:
            return _half_cosine(start, 1.0, step / peak)
        return _half_cosine(1.0, end, (step - peak) / (last - peak)) if last > peak else 1.0

    defaults = {"warmup": (warmup, 0.3), "start": (start, 1 / 25), "end": (end, 1 / 25 / 1e4)}
    return Curve(formula, total_steps, "one_cycle" + _given(**defaults))


def step_decay(every_steps: int, factor: float = 0.1) -> Schedule:
    """Times ``factor`` after each ``every_steps`` optimizer steps (torch's StepLR, counted in steps).

    Example:
        >>> [step_decay(2, factor=0.5)(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    _check_steps("every_steps", every_steps, least=1)
    _check_positive("factor", factor)
    return _named(
        f"step_decay(every_steps={every_steps}, factor={factor})",
        lambda step: float(factor ** (step // every_steps)),
    )


def exponential(factor: float) -> Schedule:
    """Times ``factor`` at each optimizer step (torch's ExponentialLR, counted in steps). Above 1 it grows.

    Example:
        >>> [exponential(0.5)(step) for step in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """
    _check_positive("factor", factor)
    return _named(f"exponential({factor})", lambda step: float(factor**step))


def polynomial(power: float, end: float = 0.0, total_steps: int | None = None) -> Curve:
    """From 1 to ``end`` as ``(1 - step / total_steps) ** power`` (torch's PolynomialLR).

    Example:
        >>> [polynomial(2.0, total_steps=4)(step) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    _check_positive("power", power)
    _check_rate("end", end)

    def formula(step: int, total: int) -> float:
        return end + (1 - end) * float((1 - step / total) ** power)

    return Curve(formula, total_steps, f"polynomial({power})" + _given(end=(end, 0.0)))


def inverse_sqrt(warmup_steps: int) -> Schedule:
    """A straight rise over ``warmup_steps`` steps, then down with the square root of the step (Vaswani et al. 2017).

    Example:
        >>> [round(inverse_sqrt(3)(step), 3) for step in (0, 1, 2, 3, 15, 63)]
        [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]
    """
    _check_steps("warmup_steps", warmup_steps, least=0)
    peak = warmup_steps + 1
    return _named(
        f"inverse_sqrt(warmup_steps={warmup_steps})", lambda step: min((step + 1) / peak, math.sqrt(peak / (step + 1)))
    )


def then(first: Schedule, steps: int, second: Schedule) -> Schedule:
    """``first`` for ``steps`` steps, then ``second`` from its own step 0 on.

    A curve without a length is stretched over what is its own: ``first`` over ``steps``, ``second`` over the rest of
    the run. Nothing is rescaled: the two meet without a jump if ``first`` ends where ``second`` begins.

    Example:
        >>> schedule = then(constant(), 2, linear(total_steps=2))
        >>> [schedule(step) for step in range(5)]
        [1.0, 1.0, 1.0, 0.5, 0.0]
    """
    _check_steps("steps", steps, least=1)
    first = bind(first, steps)
    text = f"{_bare(first)}{'' if _bare(first).startswith('warmup') else f' for {steps} steps'} then {_bare(second)}"
    if not isinstance(second, Curve):
        return _named(text, lambda step: first(step) if step < steps else second(step - steps))

    def formula(step: int, total: int) -> float:
        if step < steps:
            return first(step)
        rest = second.total_steps or max(1, total - steps)
        return second.formula(min(step - steps, rest), rest)

    total_steps = None if second.total_steps is None else steps + second.total_steps
    return Curve(formula, total_steps, text, (steps, *(steps + join for join in second.joins)))


@dataclass(frozen=True)
class Stepped:
    """A torch LRScheduler and its cadence; made by ``stepped``."""

    scheduler: Any
    every: Literal["step", "epoch", "evaluation"]
    metric: str | None = None


def stepped(scheduler: Any, every: Literal["step", "epoch", "evaluation"], metric: str | None = None) -> Stepped:
    """Say how often a torch LRScheduler is to be stepped, where the trainer's own choice is not what you want.

    Args:
        scheduler: a ``torch.optim.lr_scheduler.LRScheduler``.
        every: after each optimizer ``step``, ``epoch`` or ``evaluation``.
        metric: the evaluation's metric that ``scheduler.step(value)`` is given (ReduceLROnPlateau needs one); only
            with ``every="evaluation"``.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> stepped(torch.optim.lr_scheduler.StepLR(optimizer, 100), every="step").every
        'step'
    """
    if every not in ("step", "epoch", "evaluation"):
        raise ValueError(f"every must be 'step', 'epoch' or 'evaluation', got every={every!r}")
    if metric is not None and every != "evaluation":
        raise ValueError(
            f"a metric is known only after an evaluation, got metric={metric!r} with every={every!r}; "
            "write every='evaluation'"
        )
    return Stepped(scheduler, every, metric)


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * fraction) + 1)


def _named(text: str, function: Schedule) -> Schedule:
    function.__name__ = function.__qualname__ = text  # so that the plan can say what it is
    return function


def _bare(schedule: Schedule) -> str:
    return schedule.text if isinstance(schedule, Curve) else describe(schedule)


def _given(**settings: tuple[float, float]) -> str:
    """``(name=value, …)`` for the settings that are not at their default."""
    changed = [f"{name}={value}" for name, (value, default) in settings.items() if value != default]
    return f"({', '.join(changed)})" if changed else ""


def _check_steps(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of optimizer steps, {least} or more, got {name}={value!r}")


def _check_rate(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite multiplier of the base rate, 0 or more, got {name}={value}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and more than 0, got {name}={value}")
