"""trueloop, with everything on: metrics, live progress, the run's folder with events.jsonl and weights."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torchmetrics
from rich.console import Console

import trueloop as tl
from benchmarks.workloads import LR, Stopwatch, Trained, Work
from trueloop.observers import Progress
from trueloop.recipes.fashion_mnist import cnn
from trueloop.result import Result


def train(work: Work, epochs: int) -> Trained:
    """Metrics, live progress, jsonl, weights saved at the end, and an evaluation each epoch."""
    return _fit(work, epochs, evaluate=True)


def train_alone(work: Work, epochs: int) -> Trained:
    """The same without evaluation."""
    return _fit(work, epochs, evaluate=False)


def train_stream(work: Work, epochs: int) -> Trained:
    """The stream of events, with nobody watching: what the loop itself costs."""
    trainer = tl.Trainer(work.model(), work.make_loss(), tl.optim.adam(lr=LR))
    with Stopwatch() as watch:
        for _ in trainer.train((work.x, work.y), epochs=epochs, batch_size=work.batch_size):
            pass
    return watch.trained(trainer.model)


def train_channels_last(work: Work, epochs: int) -> Trained:
    """fp32, with the memory laid out by pixels."""
    return _fit(work, epochs, evaluate=False, memory_format="channels_last")


def train_bf16(work: Work, epochs: int) -> Trained:
    """bf16 and channels_last."""
    return _fit(work, epochs, evaluate=False, memory_format="channels_last", precision="bf16")


def _fit(work: Work, epochs: int, *, evaluate: bool, **settings: Any) -> Trained:
    if work.name == "regression":
        metric: torchmetrics.Metric = torchmetrics.R2Score()
    else:
        metric = torchmetrics.classification.MulticlassAccuracy(10, average="micro")
        assert str(work.model()) == str(cnn()), "the recipe's model has changed: change the one in workloads.py"
    trainer = tl.Trainer(work.model(), work.make_loss(), tl.optim.adam(lr=LR), metrics={"metric": metric}, **settings)
    held_out = (work.x_val, work.y_val) if evaluate else None
    with scratch() as folder, live_console() as console:
        with Stopwatch() as watch:
            result: Result = trainer.fit(
                (work.x, work.y),
                held_out,
                epochs=epochs,
                batch_size=work.batch_size,
                out=folder / "run",
                progress=False,  # the one that follows instead: live, although this is no terminal
                observers=[Progress(console)],
            )
        assert result.steps == work.steps(epochs), f"expected {work.steps(epochs)} steps, got {result.steps}"
    return watch.trained(trainer.model)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes away."""
    folder = Path(tempfile.mkdtemp(prefix="trueloop-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def live_console() -> Iterator[Console]:
    """A console that takes itself for a terminal of 120 columns, so that drawings are made and written in full."""
    with Path(os.devnull).open("w") as nowhere:
        yield Console(file=nowhere, force_terminal=True, force_interactive=True, width=120, height=40)
