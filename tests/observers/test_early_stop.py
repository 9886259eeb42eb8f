from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.events import EvalEnded, RunStarted, StepEnded, Stop
from trueloop.observers import EarlyStop

Evaluated = Callable[..., EvalEnded]


def replies(stop: EarlyStop, events: list[EvalEnded]) -> list[int]:
    """The positions of the events that were answered by ``Stop``."""
    return [position for position, event in enumerate(events) if stop(event) is not None]


def test_stops_after_patience_evaluations_in_a_row(evaluated: Evaluated) -> None:
    losses = [1.0, 0.9, 0.95, 0.8, 0.81, 0.82, 0.83]
    assert replies(EarlyStop(patience=3), [evaluated(i, loss) for i, loss in enumerate(losses)]) == [6]


def test_the_sentence_names_metric_best_and_step(evaluated: Evaluated) -> None:
    stop = EarlyStop(patience=1)
    assert stop(evaluated(10, 0.5)) is None
    assert stop(evaluated(20, 0.6)) == Stop("loss has not improved on 0.5 (step 10) for 1 evaluation")


def test_an_improvement_must_be_larger_than_min_delta(evaluated: Evaluated) -> None:
    events = [evaluated(0, 1.0), evaluated(1, 0.75), evaluated(2, 0.5)]
    assert replies(EarlyStop(patience=1, min_delta=0.25), events[:2]) == [1]
    assert replies(EarlyStop(patience=1, min_delta=0.2), events) == []


def test_small_steps_are_measured_from_the_best_and_add_up(evaluated: Evaluated) -> None:
    stop = EarlyStop(patience=3, min_delta=0.1)
    assert replies(stop, [evaluated(i, loss) for i, loss in enumerate([1.0, 0.95, 0.92, 0.85, 0.8])]) == []


def test_mode_max(evaluated: Evaluated) -> None:
    stop = EarlyStop("accuracy", patience=1, mode="max")
    events = [evaluated(i, 1.0, accuracy=accuracy) for i, accuracy in enumerate([0.5, 0.6, 0.6])]
    assert replies(stop, events) == [2]


def test_nan_is_never_an_improvement(evaluated: Evaluated) -> None:
    losses = [math.nan, math.nan, 1.0, math.nan, math.nan, math.nan]
    stop = EarlyStop(patience=3)
    assert replies(stop, [evaluated(i, loss) for i, loss in enumerate(losses)]) == [5]
    reply = EarlyStop(patience=1)(evaluated(0, math.nan))
    assert reply == Stop("loss has never been a number for 1 evaluation")


def test_a_new_run_counts_anew_and_a_resumed_one_goes_on(evaluated: Evaluated, started: RunStarted) -> None:
    stop = EarlyStop(patience=2)
    for event in (evaluated(0, 0.1), evaluated(1, 0.2)):
        stop(event)
    stop(started._replace(step=2))
    assert stop.waited == 1
    stop(started)
    assert stop(evaluated(0, 5.0)) is None
    assert stop.best == 5.0


def test_says_nothing_to_other_events(stepped: Callable[..., StepEnded]) -> None:
    assert EarlyStop(patience=1)(stepped(1)) is None


def test_an_unknown_metric_gets_the_nearest(evaluated: Evaluated) -> None:
    stop = EarlyStop("acuracy", mode="max")
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        stop(evaluated(1, 0.5, accuracy=0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "accuracy"}, "mode='max' or mode='min'"),
        ({"patience": 0}, "got patience=0"),
        ({"min_delta": -0.1}, "got min_delta=-0.1"),
        ({"min_delta": math.nan}, "got min_delta=nan"),
        ({"mode": "lowest"}, "got mode='lowest'"),
    ],
)
def test_settings_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        EarlyStop(**arguments)  # type: ignore[arg-type]
