"""The third promise: a real recipe, killed with SIGKILL at random moments and resumed, ends as if nothing had been.

A process that has imported torch forks a child for each attempt: what is killed is a whole process that runs the
command line, and no attempt waits for an import. Run as a script, this file is that process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

RECIPE = """
import os
import random

import numpy as np
import torch
from torch import nn

import trueloop as tl


class Augmented(torch.utils.data.Dataset):
    def __init__(self, samples):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(samples, 1, 6, 6, generator=generator)
        self.y = (self.x.sum((1, 2, 3)) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] + 0.1 * torch.randn(1, 6, 6) + 0.1 * float(np.random.normal())
        return (x.flip(2) if random.random() < 0.5 else x), self.y[index]


doing = None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
            nn.Linear(288, 2),
        )

    def forward(self, x):
        global doing
        if doing is None:
            doing = os.open(os.environ["DOING"], os.O_WRONLY | os.O_CREAT)
        os.pwrite(doing, b"step      " if self.training else b"evaluation", 0)
        return self.body(x)


def unkillable(epochs: int = 5) -> tl.Recipe:
    tl.seed_all(3)
    trainer = tl.Trainer(
        Net(),
        nn.CrossEntropyLoss(),
        tl.optim.adamw(lr=0.01),
        schedule=tl.schedules.one_cycle(),
        metrics={"accuracy": lambda output, target: (output.argmax(1) == target).float().mean()},
        average=tl.optim.ema(0.9),
        accumulate=2,
        clip_norm=1.0,
    )
    val = Augmented(400)
    return tl.Recipe(
        trainer, Augmented(100), (val.x, val.y), epochs=epochs, batch_size=6, seed=3,
        workers=int(os.environ["WORKERS"]), evaluate_every_steps=5, saving=tl.Saving(every_steps=3),
    )
"""


class Kill(NamedTuple):
    """A signal, and its moment."""

    seconds: float
    """From the first pass through the model on; or from the start of the process."""
    in_training: bool = True
    number: int = signal.SIGKILL
    group: bool = False
    """Its workers get it as well, as a terminal's Ctrl-C."""


class Machine:
    """Runs the command line in processes that may be killed.

    Args:
        folder: where they stand.
        process: forks them.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self._folder, self._process = folder, process

    def run(self, *arguments: str, kill: Kill | None = None, workers: int = 2) -> int:
        """One command, killed or awaited; gives its exit code, or the signal that killed it as a negative one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._doing.unlink(missing_ok=True)
        environment = {"DOING": str(self._doing), "WORKERS": str(workers)}
        order = {"arguments": arguments, "kill": kill, "environment": environment}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def go_on(self, run: Path, *, kill: Kill | None = None, workers: int = 2) -> int:
        """Begins a run, or goes on with it: what whoever finds the machine up again would type."""
        verb = ("resume",) if (run / "run.json").exists() else ("train", "recipe.py:unkillable", "--out")
        return self.run(*verb, str(run), kill=kill, workers=workers)

    def was_doing(self, run: Path) -> str:
        """What a killed process was at."""
        if any((run / "checkpoints").glob(".writing-*")):
            return "save"
        return self._doing.read_text().strip() if self._doing.exists() else "start"

    def __truediv__(self, name: str) -> Path:
        return self._folder / name

    @property
    def _doing(self) -> Path:
        return self / "doing"

    @property
    def said(self) -> str:
        """All that was printed."""
        return (self / "log").read_text()


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    (folder / "recipe.py").write_text(RECIPE)
    command = [sys.executable, "-W", "error", __file__, str(folder / "log")]
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment) as process:
        yield Machine(folder, process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    memory = Path("/dev/shm")  # where syncing costs nothing: a kill loses nothing that was written, synced or not
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        booted(Path(folder)) as machine,
    ):
        yield machine


def record(run: Path) -> list[dict[str, Any]]:
    """All that was written down, but for what depends on the clock and on how often it was started."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["event"] not in ("RunStarted", "RunEnded", "Saved")]
    return [{name: value for name, value in line.items() if name not in ("time", "seconds")} for line in told]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


class Whole(NamedTuple):
    """The run that was never stopped."""

    weights: bytes
    record: list[dict[str, Any]]
    seconds: float
    """From its first step to its end."""


def unbroken(machine: Machine) -> Whole:
    run = machine / "whole"
    assert machine.go_on(run) == 0, machine.said
    times = [json.loads(line)["time"] for line in (run / "events.jsonl").read_text().splitlines()]
    return Whole(weights(run), record(run), times[-1] - times[1])


def killed(machine: Machine, whole: Whole, kills: int, workers: Sequence[int]) -> Counter[str]:
    """Kills runs at random moments, so often in all, and sees that each of them ends as the whole one did."""
    moments = random.Random(kills)
    was_doing: Counter[str] = Counter()
    while was_doing.total() < kills:  # a run may end before all kills are done: the next one takes the rest
        run, code = machine / f"killed-{was_doing.total()}", -signal.SIGKILL
        while code != 0:
            kill = Kill(moments.uniform(0, 3 * whole.seconds / max(kills, 12)), in_training=moments.random() < 0.9)
            number = was_doing.total()
            code = machine.go_on(run, kill=kill if number < kills else None, workers=workers[number % len(workers)])
            assert code in (0, -signal.SIGKILL), machine.said
            if code != 0:
                was_doing[machine.was_doing(run)] += 1
        assert record(run) == whole.record
        assert weights(run) == whole.weights
    return was_doing


@pytest.mark.parametrize(("kills", "workers"), [(6, [2]), (3, [0, 2])], ids=["2 workers", "0 and 2 workers in turn"])
def test_a_run_that_is_killed_at_random_ends_with_the_same_bytes(
    kills: int, workers: list[int], machine: Machine
) -> None:
    whole = unbroken(machine)
    assert [line["step"] for line in whole.record if line["event"] == "StepEnded"] == [*range(1, 46)]
    assert killed(machine, whole, kills, workers).total() == kills


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[2], [0, 2]], ids=["2 workers", "0 and 2 workers in turn"])
def test_a_run_that_is_killed_fifty_times_ends_with_the_same_bytes(workers: list[int], tmp_path: Path) -> None:
    """On the disk, whose saves take long enough to be hit."""
    with booted(tmp_path) as machine:
        was_doing = killed(machine, unbroken(machine), 50, workers)
    print(was_doing)
    assert was_doing.total() == 50
    assert {"step", "evaluation", "save"} <= was_doing.keys()


@pytest.mark.parametrize(
    ("number", "group", "code"),
    [(signal.SIGTERM, False, 75), (signal.SIGTERM, True, 75), (signal.SIGINT, True, 130)],
    ids=["SIGTERM", "SIGTERM to the group", "Ctrl-C"],
)
def test_a_run_that_is_asked_to_end_loses_no_step(number: int, group: bool, code: int, machine: Machine) -> None:
    """Each end is in good order, and the last one is the whole run's."""
    whole = unbroken(machine)
    run, moments, taken = machine / "run", random.Random(1), 0
    for _ in range(4):
        kill = Kill(moments.uniform(0, whole.seconds / 6), number=number, group=group)
        assert machine.go_on(run, kill=kill) == code, machine.said
        facts = json.loads((run / "run.json").read_text())
        newest = sorted((run / "checkpoints").glob("step-*"))[-1]
        assert (facts["status"], newest.name[:13]) == (
            "preempted" if code == 75 else "interrupted",
            f"step-{facts['steps']:08}",
        )
        assert facts["steps"] > taken
        taken = facts["steps"]
    assert machine.go_on(run) == 0, machine.said
    assert record(run) == whole.record
    assert weights(run) == whole.weights


# --- the process that forks -----------------------------------------------------------------------------------------


def serve(log: str) -> None:
    """Forks a child for each order that comes in a line, and answers how it ended."""
    import torch

    for name in ("cli.train", "cli.resume", "trainer", "observers.progress"):
        import_module(f"trueloop.{name}")
    import_module("torch._dynamo")  # which torch's optimizers import, in 2 s
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            obey(order, log)
        ended = threading.Event()
        if order["kill"] is not None:
            threading.Thread(target=kill, args=(child, *order["kill"], order["environment"]["DOING"], ended)).start()
        status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its number is not given to another yet
        assert status is not None
        ended.set()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def kill(
    child: int, seconds: float, in_training: bool, number: int, group: bool, doing: str, ended: threading.Event
) -> None:
    while in_training and not os.path.exists(doing):
        if ended.wait(0.001):
            return
    if not ended.wait(seconds):
        (os.killpg if group else os.kill)(child, number)


def obey(order: dict[str, Any], log: str) -> None:
    from trueloop.cli.main import main

    code = 1
    try:
        with open(log, "a") as file, open(os.devnull) as nothing:
            for number, stream in ((0, nothing), (1, file), (2, file)):
                os.dup2(stream.fileno(), number)
        os.environ.update(order["environment"])
        code = main(order["arguments"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
