"""Schedules: pure functions of the step, equal to torch's schedulers where torch has them."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from trueloop import schedules
from trueloop.schedules import Curve, Schedule

steps = some.integers(0, 3000)
totals = some.integers(1, 2000)
ends = some.floats(0, 1)
CURVES: dict[str, Callable[[float], Curve]] = {
    "linear": lambda end: schedules.linear(end),
    "cosine": lambda end: schedules.cosine(end),
    "polynomial": lambda end: schedules.polynomial(2.0, end),
    "one_cycle": lambda end: schedules.one_cycle(start=0.1, end=end),
    "warmup_cosine": lambda end: schedules.warmup_cosine(5, end),
}
curves = some.builds(lambda make, end: make(end), some.sampled_from(list(CURVES.values())), ends)


@given(curves, totals, steps)
def test_multipliers_of_curves_stay_between_0_and_1(curve: Curve, total: int, step: int) -> None:
    assert -1e-15 <= curve.over(total)(step) <= 1 + 1e-15


@given(some.integers(0, 500), steps)
def test_multipliers_of_endless_schedules_stay_above_0_and_at_most_1(warmup_steps: int, step: int) -> None:
    endless = (
        schedules.inverse_sqrt(warmup_steps),
        schedules.exponential(0.999),
        schedules.step_decay(warmup_steps + 1, 0.9),
        schedules.constant(),
        schedules.warmup(warmup_steps, schedules.constant()),
    )
    assert all(0 < schedule(step) <= 1 for schedule in endless)


@given(some.sampled_from(["linear", "cosine", "polynomial"]), ends, totals)
def test_falling_curves_start_at_1_never_rise_and_reach_their_end(name: str, end: float, total: int) -> None:
    curve = CURVES[name](end).over(total)
    course = [curve(step) for step in range(total + 1)]
    assert course[0] == pytest.approx(1, abs=1e-15)
    assert all(later <= earlier + 1e-15 for earlier, later in itertools.pairwise(course))
    assert course[-1] == end


@given(curves, totals, some.integers(0, 1000))
def test_curves_hold_their_last_value_beyond_their_end(curve: Curve, total: int, beyond: int) -> None:
    curve = curve.over(total)
    assert curve(total + beyond) == curve(total)


@given(some.integers(1, 200), some.integers(1, 500), ends)
def test_warmup_cosine_rises_to_its_peak_at_warmup_steps_and_falls_to_its_end(rise: int, fall: int, end: float) -> None:
    curve = schedules.warmup_cosine(rise, end).over(rise + fall)
    course = [curve(step) for step in range(rise + fall + 1)]
    assert course[0] == 1 / (rise + 1)  # the first step is not wasted
    assert all(earlier < later for earlier, later in itertools.pairwise(course[: rise + 1]))
    assert course[rise] == pytest.approx(1, abs=1e-15)
    assert all(later <= earlier + 1e-15 for earlier, later in itertools.pairwise(course[rise:]))
    assert course[-1] == end


@given(some.integers(1, 300), some.integers(300, 2000))
def test_warmup_meets_what_follows_without_a_jump(rise: int, total: int) -> None:
    for second in (schedules.constant(), schedules.linear(), schedules.cosine(), schedules.exponential(0.99)):
        schedule = schedules.bind(schedules.warmup(rise, second), total + rise)
        slope = 1 / (rise + 1)
        assert schedule(rise) == pytest.approx(1, abs=1e-15)
        assert abs(schedule(rise) - schedule(rise - 1)) <= slope + 1e-12


@given(some.integers(1, 100), some.integers(1, 100), some.integers(0, 300))
def test_then_is_its_first_part_and_then_its_second_from_its_own_step_0(cut: int, rest: int, step: int) -> None:
    first, second = schedules.linear(0.5), schedules.cosine(0.1)
    joined = schedules.bind(schedules.then(first, cut, second), cut + rest)
    expected = first.over(cut)(step) if step < cut else second.over(rest)(step - cut)
    assert joined(step) == expected


@given(some.integers(1, 50), some.integers(1, 50), some.integers(1, 50), some.integers(0, 200))
def test_then_nests(one: int, two: int, three: int, step: int) -> None:
    parts = (schedules.constant(0.5), schedules.linear(0.2), schedules.cosine(0.1))
    right = schedules.then(parts[0], one, schedules.then(parts[1], two, parts[2]))
    assert isinstance(right, Curve)
    assert right.joins == (one, one + two)
    bound = right.over(one + two + three)
    starts: list[tuple[int, Schedule]] = [(one + two, parts[2].over(three)), (one, parts[1].over(two)), (0, parts[0])]
    start, part = next((start, part) for start, part in starts if step >= start)
    assert bound(step) == part(step - start)


def test_then_of_functions_is_a_function_without_length() -> None:
    schedule = schedules.then(lambda step: 0.25, 3, lambda step: 1 / (step + 1))
    assert [schedule(step) for step in range(5)] == [0.25, 0.25, 0.25, 1.0, 0.5]
    assert schedules.length(schedule) is None
    assert schedules.bind(schedule, 10) is schedule


@given(curves, totals, totals)
def test_over_is_idempotent_and_own_length_wins(curve: Curve, total: int, other: int) -> None:
    bound = curve.over(total)
    assert bound.over(other) is bound
    assert schedules.bind(bound, other) is bound
    assert schedules.length(bound) == total
    assert curve.total_steps is None  # bound is a new one


def test_length_of_parts_adds_up() -> None:
    assert schedules.length(schedules.then(schedules.constant(), 10, schedules.linear(total_steps=5))) == 15
    assert schedules.length(schedules.warmup_cosine(10, total_steps=100)) == 100
    assert schedules.length(schedules.warmup_cosine(10)) is None


@pytest.mark.parametrize("total", [1, 2, 3, 7, 100, 231])
@pytest.mark.parametrize("base", [1.0, 3e-4])
def test_equals_torch(total: int, base: float) -> None:
    def close(ours: Schedule, theirs: Callable[[torch.optim.Optimizer], LRScheduler], last: int = total) -> None:
        expected = torch_course(theirs, base, last + 1)
        assert [base * ours(step) for step in range(last + 1)] == pytest.approx(expected, rel=0, abs=1e-12 * base)

    close(schedules.linear(0.1, 0.4, total), lambda o: lr_scheduler.LinearLR(o, 0.4, 0.1, total), total + 5)
    close(schedules.cosine(0.1, total), lambda o: lr_scheduler.CosineAnnealingLR(o, total, eta_min=0.1 * base))
    close(schedules.polynomial(1.5, 0.0, total), lambda o: lr_scheduler.PolynomialLR(o, total, power=1.5), total + 5)
    close(schedules.exponential(0.97), lambda o: lr_scheduler.ExponentialLR(o, 0.97))
    close(schedules.step_decay(3, 0.5), lambda o: lr_scheduler.StepLR(o, 3, 0.5))
    close(schedules.constant(), lambda o: lr_scheduler.ConstantLR(o, 1.0))


@pytest.mark.parametrize("total", [1, 2, 5, 10, 11, 100, 997])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("factors", [(25.0, 1e4), (10.0, 10.0), (4.0, 1.0)])
def test_one_cycle_equals_torch(total: int, warmup: float, factors: tuple[float, float]) -> None:
    divided, finally_divided = factors
    ours = schedules.one_cycle(warmup, 1 / divided, 1 / divided / finally_divided, total)
    if warmup * total == 1:  # torch divides by zero there; ours starts at the peak
        assert ours(0) == 1.0
        return

    def theirs(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer,
            0.5,
            total,
            pct_start=warmup,
            div_factor=divided,
            final_div_factor=finally_divided,
            cycle_momentum=False,
        )

    expected = torch_course(theirs, 0.5, total)
    assert [0.5 * ours(step) for step in range(total)] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(curves, totals, some.floats(1e-6, 1))
def test_a_schedule_in_lambda_lr_gives_the_same_bits(curve: Curve, total: int, base: float) -> None:
    count = min(total, 20)
    schedule = curve.over(total)
    expected = torch_course(lambda optimizer: lr_scheduler.LambdaLR(optimizer, schedule), base, count)
    assert [base * schedule(step) for step in range(count)] == expected


def test_an_unbound_curve_says_how_to_bind_it() -> None:
    with pytest.raises(ValueError, match=r"cosine has no length yet: give it total_steps=…, or call \.over"):
        schedules.cosine()(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.cosine(total_steps=0), "total_steps must be .* 1 or more, got total_steps=0"),
        (lambda: schedules.cosine().over(-3), "got total_steps=-3"),
        (lambda: schedules.linear(total_steps=a(2.5)), "whole number .* got total_steps=2.5"),
        (lambda: schedules.linear(end=-0.1), "end must be .* 0 or more, got end=-0.1"),
        (lambda: schedules.linear(start=math.inf), "start must be a finite .* got start=inf"),
        (lambda: schedules.cosine(end=math.nan), "got end=nan"),
        (lambda: schedules.constant(-1), "value must be .* got value=-1"),
        (lambda: schedules.warmup_cosine(-1), "warmup_steps must be .* 0 or more, got warmup_steps=-1"),
        (lambda: schedules.warmup_cosine(a(0.1)), "whole number .* got warmup_steps=0.1"),
        (lambda: schedules.warmup_cosine(100, total_steps=100), "less than total_steps, got warmup_steps=100"),
        (lambda: schedules.inverse_sqrt(-5), "got warmup_steps=-5"),
        (lambda: schedules.one_cycle(warmup=1.5), "fraction of the run, from 0 to 1, got warmup=1.5"),
        (lambda: schedules.one_cycle(start=-1), "got start=-1"),
        (lambda: schedules.step_decay(0), "every_steps must be .* 1 or more, got every_steps=0"),
        (lambda: schedules.step_decay(5, factor=0), "factor must be finite and more than 0, got factor=0"),
        (lambda: schedules.exponential(math.nan), "got factor=nan"),
        (lambda: schedules.polynomial(0), "power must be finite and more than 0, got power=0"),
        (lambda: schedules.polynomial(1, end=-1), "got end=-1"),
        (lambda: schedules.then(schedules.constant(), 0, schedules.constant()), "steps must be .* got steps=0"),
        (lambda: schedules.stepped(None, every=a("batch")), "'step', 'epoch' or 'evaluation', got every='batch'"),
        (lambda: schedules.stepped(None, every="step", metric="loss"), "only after an evaluation, got metric='loss'"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_a_schedule_is_in_words() -> None:
    assert repr(schedules.one_cycle(warmup=0.2, total_steps=9)) == "one_cycle(warmup=0.2) over 9 steps"
    assert schedules.describe(schedules.then(schedules.constant(), 5, schedules.linear())) == (
        "constant for 5 steps then linear"
    )
    assert schedules.describe(schedules.warmup(3, schedules.constant())) == "warmup(3) then constant"
    assert schedules.describe(torch_course) == "torch_course"  # type: ignore[arg-type]


def test_stepped_stores_what_it_is_given() -> None:
    scheduler = object()
    assert schedules.stepped(scheduler, every="evaluation", metric="accuracy") == schedules.Stepped(
        scheduler, "evaluation", "accuracy"
    )


def test_schedules_do_not_import_torch() -> None:
    code = "import sys, trueloop.schedules; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def a(value: Any) -> Any:
    """A value that the type checker would not let through."""
    return value


def torch_course(make: Callable[[torch.optim.Optimizer], LRScheduler], base: float, count: int) -> list[float]:
    """The rates of the first ``count`` steps under one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = make(optimizer)
    course = []
    for step in range(count):
        course.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if step < count - 1:
            scheduler.step()
    return course
