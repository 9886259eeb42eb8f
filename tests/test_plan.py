"""What the plan says is what the run does."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import trueloop as tl
from trueloop.plan import Rate, course, describe_rate
from trueloop.testing import Recorder, mlp, regression


def trainer_of(**options: Any) -> tl.Trainer:
    return tl.Trainer(mlp(), nn.MSELoss(), options.pop("optimizer", tl.optim.sgd(lr=0.1)), **options)


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(1, 30), batch_size=st.integers(1, 9), accumulate=st.integers(1, 4), epochs=st.integers(1, 3))
def test_the_steps_it_says_are_the_steps_that_are_taken(
    samples: int, batch_size: int, accumulate: int, epochs: int
) -> None:
    record = Recorder()
    trainer = trainer_of(accumulate=accumulate, schedule=tl.schedules.one_cycle())
    result = trainer.fit(
        regression(samples), epochs=epochs, batch_size=batch_size, observers=[record], progress=False
    )  # fmt: skip
    (started,) = record.of(tl.RunStarted)
    plan, steps = started.plan, record.of(tl.StepEnded)
    assert plan.steps == result.steps == len(steps)
    assert plan.steps_per_epoch == len(steps) // epochs
    assert plan.samples_per_step == batch_size * accumulate
    assert max(step.samples for step in steps) <= plan.samples_per_step
    assert plan.samples == samples
    rates = [step.lr for step in steps]
    assert plan.rate.start == pytest.approx(rates[0])
    assert plan.rate.end == pytest.approx(rates[-1])
    assert plan.rate.peak == pytest.approx(max(rates))
    assert plan.rate.peak_step is not None
    assert rates[plan.rate.peak_step] == pytest.approx(max(rates))


def test_the_ritual_is_in_its_order_with_every_option_in_place() -> None:
    trainer = trainer_of(
        optimizer=tl.optim.adamw(lr=0.1), accumulate=2, clip_norm=1.0, clip_value=0.5, precision="fp16",
        penalty=tl.objective.l1(0.1), average=tl.optim.ema(0.9), schedule=tl.schedules.cosine(),
    )  # fmt: skip
    plan = trainer.plan(regression(8), epochs=1, batch_size=2)
    assert list(plan.ritual) == [
        "forward in fp16", "loss MSELoss", "zero at the window's start", "divide by the window's share (accumulates 2)",
        "backward scaled", "penalty", "unscale", "clip norm 1", "clip value 0.5", "AdamW, fused", "schedule cosine",
        "average",
    ]  # fmt: skip
    bare = trainer_of(optimizer=tl.optim.sgd(lr=0.1, fused=False)).plan(regression(8), epochs=1, batch_size=2)
    assert list(bare.ritual) == ["forward", "loss MSELoss", "zero", "backward", "SGD"]


def test_what_trains_at_which_rate_and_decay() -> None:
    model = mlp(norm=True)
    model[0].weight.requires_grad_(False)
    trainer = tl.Trainer(model, nn.MSELoss(), tl.optim.adamw(lr=0.01, weight_decay=0.05))
    plan = trainer.plan(regression(8), epochs=1, batch_size=4)
    assert {(group.name, group.weights, group.lr, group.weight_decay) for group in plan.groups} == {
        ("no_decay", 5 + 5 + 5 + 1, 0.01, 0.0),
        ("decay", 5, 0.01, 0.05),
    }
    assert plan.frozen == 15
    text = str(plan)
    assert "5 weights in 1 tensor (decay) at 0.01, weight decay 0.05" in text
    assert "15 weights are in no optimizer" in text


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (tl.schedules.cosine(total_steps=100), "100 steps, but the run has .*10 steps: it is cut off before its end"),
        (tl.schedules.cosine(total_steps=4), "4 steps, but the run has .*10 steps: it is over too early"),
        (tl.schedules.warmup_cosine(warmup_steps=500), "begins at step 500 is never reached"),
        (tl.schedules.cosine(), None),
        (tl.schedules.constant(), None),
    ],
)
def test_a_schedule_of_another_length_is_said(schedule: Any, message: str | None) -> None:
    notes = trainer_of(schedule=schedule).plan(regression(20), epochs=2, batch_size=4).notes
    if message is None:
        assert notes == ()
    else:
        assert any(re.search(message, note) for note in notes)


def test_a_torch_scheduler_of_another_length_is_said_and_its_cadence_too() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for total, message in ((10, None), (50, "but the run has 2 epochs / 10 steps")):
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total)
        trainer = tl.Trainer(model, nn.MSELoss(), optimizer, schedule=scheduler)
        plan = trainer.plan(regression(20), epochs=2, batch_size=4)
        assert "once a step: OneCycleLR" in plan.rate.schedule
        assert any(message in note for note in plan.notes) if message else plan.notes == ()


def test_a_plateau_with_nothing_to_watch_is_said() -> None:
    """ReduceLROnPlateau moves after evaluations: without validation data it never does."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = tl.Trainer(model, nn.MSELoss(), optimizer, schedule=lr_scheduler.ReduceLROnPlateau(optimizer))
    plan = trainer.plan(regression(20), epochs=2, batch_size=4)
    assert any("evaluat" in note for note in plan.notes)
    assert trainer.plan(regression(20), regression(5), epochs=2, batch_size=4).notes == ()


@pytest.mark.parametrize(
    ("val", "how", "text"),
    [
        (None, {}, "never: no validation data was given"),
        (5, {}, "every epoch and at the end, on 5 samples"),
        (5, {"evaluate_every": 3}, "every 3 epochs and at the end, on 5 samples"),
        (
            5,
            {"evaluate_every": None, "evaluate_every_steps": 7},
            "every 7 steps and at the end, on 5 samples",
        ),
    ],
)
def test_when_it_evaluates_and_on_what(val: int | None, how: dict[str, Any], text: str) -> None:
    trainer = trainer_of(metrics={"mae": nn.functional.l1_loss})
    plan = trainer.plan(regression(20), val and regression(val), epochs=2, batch_size=4, **how)
    assert plan.evaluates.startswith(text)
    assert plan.evaluates.endswith(": loss, mae") == (val is not None)


def test_what_it_saves_and_how_it_reads_are_said() -> None:
    loader = DataLoader(TensorDataset(*regression(10)), 4)
    started = next(trainer_of().train(loader, epochs=1, saves="runs/one: model.safetensors"))
    assert isinstance(started, tl.RunStarted)
    assert started.plan.saves is not None
    assert started.plan.saves.startswith("runs/one: model.safetensors; a resume is exact, the order of your DataLoader")
    assert "your own DataLoader" in started.plan.data
    assert "gather" in trainer_of().plan(regression(8), epochs=1, batch_size=4).data


def test_fit_says_its_folder_and_the_plan_is_printed_before_the_first_step(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def first(event: tl.Event) -> None:
        if isinstance(event, tl.StepEnded) and not said:
            said.append(capsys.readouterr().out)

    trainer_of().fit(regression(8), epochs=1, batch_size=4, out=tmp_path / "run", observers=[first])
    assert "2 optimizer steps: 1 epoch of 2, 4 samples each" in said[0]
    assert "each step" in said[0]
    assert f"{tmp_path / 'run'}: every 10 minutes; keeps the last 2; a resume is exact" in " ".join(said[0].split())


def test_a_model_that_was_in_eval_mode_is_noted() -> None:
    trainer = tl.Trainer(mlp().eval(), nn.MSELoss(), tl.optim.sgd(lr=0.1))
    assert any("eval mode" in note for note in trainer.plan(regression(8), epochs=1, batch_size=4).notes)


def test_a_rate_in_one_line() -> None:
    assert describe_rate(Rate("constant", 0.1, 0.1, 0, 0.1)) == "0.1 throughout (constant)"
    assert describe_rate(Rate("torch's")) == "by torch's"
    rising = course("warmup", [(0, 0.5), (7, 1.0), (9, 0.25)], 0.1)
    assert describe_rate(rising) == "starts at 0.05, peaks at 0.1 in step 8, ends at 0.025 (warmup)"
