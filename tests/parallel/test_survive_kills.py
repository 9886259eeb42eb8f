"""The command on several processes: killed at random moments and begun again, asked to end, stopped by hand."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import trueloop
from trueloop.errors import REQUEUE
from trueloop.observers.run_folder import describe

MINE = """
import time, torch, trueloop as tl
from torch import nn


def recipe(epochs: int = 6, seconds: float = 0.0) -> tl.Recipe:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(100, 8, generator=generator), torch.randint(0, 3, (100,), generator=generator)
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    trainer = tl.Trainer(model, nn.CrossEntropyLoss(), tl.optim.adamw(lr=0.01), average=tl.optim.ema(0.9), doctor=False)
    return tl.Recipe(trainer, (x, y), (x, y), epochs=epochs, batch_size=12, seed=1,
                     observers=[lambda event: time.sleep(seconds) if isinstance(event, tl.StepEnded) else None])
"""

TRUELOOP = ["-m", "trueloop"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "30", "-m", "trueloop"]

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command in a folder that holds the recipe."""
    (tmp_path / "mine.py").write_text(MINE)
    environment = {**os.environ, "PYTHONPATH": str(Path(trueloop.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, by: list[str] = TRUELOOP) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([sys.executable, *by, *arguments], cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ranks_of(launcher: int) -> list[int]:
    """The processes that a launcher has started and that are there, in the order of their ranks."""
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        ranks = {}
        for child in children:
            values = dict(pair.partition("=")[::2] for pair in Path(f"/proc/{child}/environ").read_text().split("\0"))
            if "RANK" in values:
                ranks[values["RANK"]] = int(child)
        return [ranks[rank] for rank in sorted(ranks)]
    except (FileNotFoundError, ProcessLookupError):
        return []


def has_more(checkpoints: Path, before: set[str]) -> bool:
    return bool({path.name for path in checkpoints.glob("step-*")} - before)


def awaited(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> str:
    told, _ = process.communicate(timeout=seconds)
    return told


@pytest.mark.parametrize(("by", "flags", "kills"), [(TRUELOOP, ["--restarts", "30"], 20), (TORCHRUN, [], 20)])
def test_killed_at_random_moments_it_ends_with_the_bits_of_the_unbroken_run(
    start: Start, tmp_path: Path, by: list[str], flags: list[str], kills: int
) -> None:
    if by == TRUELOOP:
        flags = [*flags, "--processes", "2"]
    flags = ["--epochs", "40", "--save-every-steps", "7", *flags]
    told = finish(start("train", "mine.py:recipe", "--out", "whole", *flags, by=by))
    assert (tmp_path / "whole" / "model.safetensors").exists(), told
    broken = start("train", "mine.py:recipe", "--out", "broken", "--seconds", "0.3", *flags, by=by)
    chance, seen, left = random.Random(kills), [0], kills
    while broken.poll() is None and left:
        ranks = ranks_of(broken.pid)
        if len(ranks) == 2 and ranks != seen:
            time.sleep(chance.uniform(0.5, 10.0))
            os.kill(chance.choice(ranks), signal.SIGKILL)
            seen, left = ranks, left - 1
        time.sleep(0.05)
    told = finish(broken, 300)
    assert (broken.returncode, left) == (0, 0), told
    first, second = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "broken"))
    assert first == second


def test_what_the_launcher_is_asked_for_reaches_all_processes(start: Start, tmp_path: Path) -> None:
    flags = ["--processes", "2", "--out", "run"]
    for asked, code, status in ((signal.SIGTERM, REQUEUE, "preempted"), (signal.SIGINT, 130, "interrupted")):
        whole = {path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")}
        verb = ["resume", "run", *flags[:2]] if whole else ["train", "mine.py:recipe", *flags]
        started = start(*verb, *([] if whole else ["--epochs", "90", "--seconds", "0.05", "--save-every-steps", "9"]))
        awaited(partial(has_more, tmp_path / "run" / "checkpoints", whole))
        started.send_signal(asked)
        told = finish(started)
        assert started.returncode == code, told
        assert describe(tmp_path / "run")["status"] == status
        assert told.count("to go on: trueloop resume") == 1
        assert "Traceback" not in told


def test_a_mistake_in_the_request_is_told_once_and_not_tried_again(start: Start, tmp_path: Path) -> None:
    started = start("train", "mine.py:recipe", "--processes", "2", "--restarts", "3", "--out", "run", "--epochs", "0")
    told = finish(started)
    assert started.returncode == 2
    assert told.count("error:") == 1
    assert "restart" not in told
    assert "Traceback" not in told


def test_processes_end_with_a_launcher_that_is_killed(start: Start, tmp_path: Path) -> None:
    started = start(
        "train", "mine.py:recipe", "--processes", "2", "--out", "run", "--epochs", "90", "--seconds", "0.05"
    )
    awaited(lambda: (tmp_path / "run" / "checkpoints" / "step-00000000").exists())
    ranks = ranks_of(started.pid)
    assert len(ranks) == 2
    started.kill()
    awaited(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks))
    assert describe(tmp_path / "run")["status"] == "preempted"
