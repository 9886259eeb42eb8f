"""Nothing reads a tensor's value in the hot path: on an accelerator each reading would wait for the device."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.observers import Jsonl, Progress, TensorBoard
from trueloop.observers.read import STEPS_PENDING
from trueloop.testing import Recorder, classification, mlp, reads_counted


def frozen() -> float:
    """A clock that stands: nothing that happens by the clock happens twice."""
    return 1000.0


def everything(**options: Any) -> tl.Trainer:
    model = mlp(outputs=4, width=8, norm=True, dropout=0.1)
    settings: dict[str, Any] = {
        "schedule": tl.schedules.warmup_cosine(warmup_steps=5),
        "metrics": {"accuracy": MulticlassAccuracy(4, average="micro")},
        "clip_norm": 1.0,
        "clip_value": 0.5,
        "penalty": tl.objective.l2(1e-4),
        "average": tl.optim.ema(0.9),
        "doctor": False,  # it reads values, on the few steps that it listens to
    }
    return tl.Trainer(model, nn.CrossEntropyLoss(ignore_index=3), tl.optim.adamw(lr=1e-3), **settings | options)


def test_the_doctor_reads_only_on_the_steps_that_it_listens_to(tmp_path: Path) -> None:
    few = reads(everything(doctor=True), 70, tmp_path)
    assert reads(everything(doctor=True), 120, tmp_path) == few


def reads(trainer: tl.Trainer, steps: int, folder: Path, *, loader: bool = False, watched: bool = True) -> int:
    """How many values one epoch of so many steps reads, with an evaluation at its end."""
    x, y = classification(4 * steps * trainer.choices.accumulate)
    val = classification(8, seed=1)
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
    observers: list[Any] = [
        Progress(screen, clock=frozen),
        Jsonl(folder / f"{steps}.jsonl", clock=frozen),
        TensorBoard(folder / f"board{steps}", clock=frozen),
        tl.observers.EarlyStop(),
    ]
    data: Any = DataLoader(TensorDataset(x, y), 4) if loader else (x, y)
    with reads_counted() as counted:
        trainer.fit(
            data, val, epochs=1, batch_size=None if loader else 4, progress=False,
            observers=observers if watched else (), shuffle=False,
        )  # fmt: skip
    assert trainer.step == steps
    assert ("samples/s" in screen.file.getvalue()) == watched, "the display was live"  # type: ignore[attr-defined]
    return sum(counted.values())


@pytest.mark.parametrize("loader", [False, True], ids=["arrays", "loader"])
def test_twice_the_steps_read_no_more_values(tmp_path: Path, loader: bool) -> None:
    few = reads(everything(), 40, tmp_path, loader=loader)
    assert reads(everything(), 80, tmp_path, loader=loader) == few
    assert few > 0, "the evaluation at the end reads: the counting works"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
def test_no_fused_optimizer_reads(tmp_path: Path, optimizer: str) -> None:
    counts = []
    for steps in (5, 25):
        trainer = tl.Trainer(mlp(outputs=4), nn.CrossEntropyLoss(), getattr(tl.optim, optimizer)(lr=0.01), doctor=False)
        counts.append(reads(trainer, steps, tmp_path, watched=False))
    assert counts[0] == counts[1]


def test_accumulating_counted_losses_reads_nothing_a_step(tmp_path: Path) -> None:
    def over_tokens(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        x, y = batch
        losses = nn.functional.cross_entropy(model(x), y, reduction="none", ignore_index=3)
        count = (y != 3).sum()
        return {"loss": losses.sum() / count, "count": count, "spread": losses.detach().std()}

    counts = []
    for steps in (20, 40):
        model = mlp(outputs=4, width=8)
        trainer = tl.Trainer(model, over_tokens, tl.optim.sgd(lr=0.01), accumulate=2, clip_norm=1.0, doctor=False)
        counts.append(reads(trainer, steps, tmp_path))
    assert counts[0] == counts[1]


def test_what_observers_read_is_read_in_batches(tmp_path: Path) -> None:
    """One reading for each 256 steps and observer, however many values that is."""
    few, many = 40, 40 + 2 * STEPS_PENDING
    trainers = [
        tl.Trainer(mlp(outputs=4), nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.01), clip_norm=1.0, doctor=False)
        for _ in "ab"
    ]
    more = reads(trainers[1], many, tmp_path) - reads(trainers[0], few, tmp_path)
    batches = math.ceil((many - few) / STEPS_PENDING)
    assert more <= 2 * batches  # two observers write each step: the record and TensorBoard
    assert len((tmp_path / f"{many}.jsonl").read_text().splitlines()) >= many


def test_the_loop_of_ones_own_reads_nothing_a_step() -> None:
    counts = []
    for steps in (10, 30):
        x, y = classification(4 * steps)
        model = mlp(outputs=4)
        trainer = tl.Trainer(
            model, optimizer=tl.optim.adamw(lr=1e-3), clip_norm=1.0, average=tl.optim.ema(0.9), doctor=False
        )
        with reads_counted() as counted:
            for _ in trainer.epochs(1):
                for inputs, targets in trainer.batches((x, y), batch_size=4):
                    trainer.update(nn.functional.cross_entropy(model(inputs), targets))
        assert trainer.step == steps
        counts.append(sum(counted.values()))
    assert counts[0] == counts[1]


def test_evaluation_reads_once_and_not_once_a_batch() -> None:
    counts = []
    for samples in (16, 160):
        trainer = everything()
        with reads_counted() as counted:
            trainer.evaluate(classification(samples), batch_size=4)
        counts.append(sum(counted.values()))
    assert counts[0] == counts[1]


def test_events_hold_tensors_and_not_numbers() -> None:
    record = Recorder()
    everything().fit(classification(8), epochs=1, batch_size=4, observers=[record], progress=False)
    for step in record.of(tl.StepEnded):
        assert isinstance(step.loss, Tensor)
        assert isinstance(step.grad_norm, Tensor)
        assert not step.loss.requires_grad


def test_the_counting_counts() -> None:
    with reads_counted() as counted:
        if torch.ones(1) > 0:
            torch.ones(2).tolist()
        torch.ones(1).item()
    assert (counted["__bool__"], counted["tolist"], counted["item"]) == (1, 1, 1)
    with reads_counted() as counted:
        torch.ones(3) + 1
    assert not any(counted.values())
