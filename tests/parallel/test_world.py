"""How processes meet, and part: who never comes is named; whoever has done its work ends well."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from trueloop.parallel.world import _let_go

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a thread runs")

SCRIPT = """
import os, torch, trueloop as tl
from torch import distributed, nn
from trueloop.parallel.world import world

world()
distributed.barrier()
for thread in os.listdir("/proc/self/task"):  # gloo's get a core when nobody else wants one
    if open(f"/proc/self/task/{thread}/comm").read().startswith("pt_gloo_run"):
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
torch.manual_seed(0)
trainer = tl.Trainer(nn.Linear(2, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1), doctor=False)
trainer.fit((torch.randn(8, 2), torch.randn(8, 1)), epochs=2, batch_size=4, progress=False, seed=1)
"""


LATE = """
import sys, time
from datetime import timedelta
import torch, trueloop as tl
from torch import nn
from trueloop.parallel import world

rank, late, way = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
world.TIMEOUT = timedelta(seconds=600 if way == "has met them" else 25)
if way == "has met them":
    world.world()
if rank == late:
    time.sleep(600)
timeout = 5.0 if way == "has met them" else None
trainer = tl.Trainer(nn.Linear(2, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1), process_timeout=timeout)
try:
    trainer.fit((torch.randn(8, 2), torch.randn(8, 1)), epochs=1, batch_size=4, progress=False)
except tl.errors.ProcessError as error:
    print("told:", error, error.ranks)
except tl.errors.PeerError:
    print("leaves it to another")
"""


@pytest.mark.parametrize(("late", "way"), [(0, ""), (1, ""), (1, "has met them")])
def test_a_process_that_does_not_come_is_named(
    tmp_path: Path, environments: Callable[[int], list[Mapping[str, str]]], late: int, way: str
) -> None:
    (tmp_path / "script.py").write_text(LATE)
    started = [
        subprocess.Popen(
            [sys.executable, tmp_path / "script.py", str(rank), str(late), way],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, environment in enumerate(environments(3))
    ]
    try:
        waited = [process.communicate(timeout=200)[0] for rank, process in enumerate(started) if rank != late]
    finally:
        for process in started:
            process.kill()
        started[late].communicate()
    told = [line for text in waited for line in text.splitlines() if line.startswith("told:")]
    assert len(told) == (2 if late == 0 else 1), waited  # there is no place where the two could agree who tells
    for line in told:
        assert f"process {late}" in line.partition(" for " if not way else "told:")[2]
        assert "what comes before" in line
        assert f"({late},)" in line


def test_threads_of_gloo_are_waited_for() -> None:
    begun, done = threading.Event(), list[bool]()

    def work() -> None:
        ctypes.CDLL(None).prctl(15, b"pt_gloo_runloop", 0, 0, 0)  # PR_SET_NAME
        begun.set()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000)  # without the interpreter's lock
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    _let_go()
    assert done
    thread.join()


@pytest.fixture
def busy() -> Iterator[None]:
    """Somebody else is at work on every core."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.mark.usefixtures("busy")
def test_a_process_that_has_done_its_work_is_not_aborted(
    tmp_path: Path, environments: Callable[[int], list[Mapping[str, str]]]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for _ in range(4):  # half of these were aborted, or hung
        started = [
            subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment, stderr=subprocess.PIPE)
            for environment in environments(2)
        ]
        told = [process.communicate(timeout=120)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], told
