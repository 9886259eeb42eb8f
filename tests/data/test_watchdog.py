"""Workers that raise, exit, are killed, hang or are stopped: one error, and nothing left behind."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

import trueloop
from trueloop.data.feed import Feed, feed
from trueloop.errors import WorkerError

BAD = 9
"""The sample at which it happens: the second of batch 2 at batch size 4, worker 0 of 2."""
SECONDS = 2.0
"""The timeout of a batch: long for this work, short for a test."""


def misbehave(fault: str) -> None:
    match fault:
        case "raise":
            raise OSError("the image is truncated")
        case "exit":
            os._exit(3)
        case "exit well":
            os._exit(0)
        case "sys.exit":
            raise SystemExit(4)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            faulthandler.disable()  # pytest's would fill the screen
            os.kill(os.getpid(), signal.SIGABRT)
        case "sleep":
            time.sleep(1e6)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)


class Faulty(Dataset[Tensor]):
    def __init__(self, fault: str, samples: int = 40) -> None:
        self.fault, self.samples = fault, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Tensor:
        if index == BAD:
            misbehave(self.fault)
        return torch.full((1000,), index)  # large enough for shared memory


class FaultyStream(IterableDataset[Tensor]):
    def __init__(self, fault: str) -> None:
        self.samples = Faulty(fault)

    def __iter__(self) -> Iterator[Tensor]:
        return (self.samples[index] for index in range(40))


CAUSES = {
    "raise": "raised",
    "exit": "exited",
    "exit well": "exited",
    "sys.exit": "exited",
    "kill": "killed",
    "crash": "killed",
    "sleep": "hangs",
    "stop": "hangs",
}
WORDS = {
    "raise": "OSError: the image is truncated",
    "exit": "exited with code 3",
    "exit well": "exited with code 0",
    "sys.exit": "exited with code 4",
    "kill": r"killed by SIGKILL.*out of memory\?",
    "crash": "killed by SIGABRT",
    "sleep": "no batch came for 2 seconds",
    "stop": "no batch came for 2 seconds",
}


def caught(reading: Feed) -> tuple[WorkerError, list[Any]]:
    """The error, and the batches before it; whatever happened, nothing may be left."""
    before = set(Path("/dev/shm").glob("torch_*"))
    batches: list[Any] = []
    error: WorkerError | None = None
    try:  # pytest.raises would keep the loader, and so its persistent workers, alive
        batches.extend(reading.epoch(0))
    except WorkerError as raised:
        error = raised.with_traceback(None)
        traceback.clear_frames(raised.__cause__.__traceback__ if raised.__cause__ else None)
    assert error is not None
    assert multiprocessing.active_children() == []
    assert not [thread for thread in threading.enumerate() if thread.name == "trueloop watchdog"]
    mine = [path for path in set(Path("/dev/shm").glob("torch_*")) - before if not _alive(path)]
    assert mine == []
    return error, batches


def _alive(path: Path) -> bool:  # a file of another test's process, which runs at the same time
    return Path(f"/proc/{path.name.split('_')[1]}").exists()


@pytest.mark.parametrize("fault", CAUSES)
def test_a_dataset_in_workers(fault: str) -> None:
    error, batches = caught(feed(Faulty(fault), batch_size=4, workers=2, worker_timeout=SECONDS))
    assert error.cause == CAUSES[fault]
    assert error.worker == 0
    assert error.samples == (BAD,)
    assert "worker 0" in str(error)
    assert f"sample {BAD} (batch 2 of epoch 0)" in str(error)
    assert re.search(WORDS[fault], str(error))
    assert [int(batch[0, 0]) for batch in batches] == [0, 4][: len(batches)]


@pytest.mark.parametrize("fault", CAUSES)
def test_a_stream_in_a_worker(fault: str) -> None:
    error, _ = caught(feed(FaultyStream(fault), batch_size=4, workers=1, worker_timeout=SECONDS))
    assert (error.cause, error.worker, error.samples) == (CAUSES[fault], 0, (BAD,))
    assert re.search(WORDS[fault], str(error))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("fault", CAUSES)
def test_the_users_own_loader(fault: str, persistent: bool) -> None:
    loader = DataLoader(Faulty(fault), batch_size=4, num_workers=2, persistent_workers=persistent)
    reading = feed(loader, batch_size=None, worker_timeout=SECONDS)
    error, _ = caught(reading)
    assert (error.cause, error.worker) == (CAUSES[fault], 0)
    assert re.search(WORDS[fault].removeprefix("OSError: "), str(error))
    loader.dataset.fault = "none"  # type: ignore[attr-defined]
    assert len(list(reading.epoch(1))) == 10  # the dead do not haunt the next epoch
    del loader, reading, error  # the error's traceback holds the loader, and a loader its persistent workers
    gc.collect()
    assert multiprocessing.active_children() == []


def test_the_users_own_timeout_is_respected() -> None:
    loader = DataLoader(Faulty("sleep"), batch_size=4, num_workers=2, timeout=SECONDS)
    error, _ = caught(feed(loader, batch_size=None, worker_timeout=600.0))
    assert (error.cause, error.worker) == ("hangs", 0)


@pytest.mark.parametrize("data", [Faulty("raise"), FaultyStream("raise")])
def test_without_workers_the_exception_itself_is_chained(data: Any) -> None:
    error, batches = caught(feed(data, batch_size=4))
    assert (error.cause, error.worker, error.samples) == ("raised", 0, (BAD,))
    assert isinstance(error.__cause__, OSError)
    assert len(batches) == 2


def test_a_batch_that_cannot_be_collated_names_its_samples() -> None:
    samples = [(torch.zeros(2),), (torch.zeros(3),), (torch.zeros(2),), (torch.zeros(2),)]
    error, _ = caught(feed(samples, batch_size=2, workers=1))
    assert (error.cause, error.samples) == ("raised", (0, 1))
    assert "equal size" in str(error)


HUNG = """
import os, sys, time
from torch.utils.data import DataLoader
from trueloop.data.feed import feed

class Hangs:
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if index == 2:
            print(os.getpid(), flush=True)
            time.sleep(1e6)
        return index

if __name__ == "__main__":
    epoch = feed(Hangs(), batch_size=1, workers=2, worker_timeout=1e6).epoch(0)
    next(epoch)
    next(epoch)
    next(epoch)
"""


def test_a_worker_that_hangs_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hung.py").write_text(HUNG)
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    command = [sys.executable, str(tmp_path / "hung.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=60)  # its output is open for as long as a worker has it
        except subprocess.TimeoutExpired:
            os.kill(worker, signal.SIGKILL)
            raise


ORPHAN = """
import os, time
from trueloop.data.watchdog import _Loyal
loyal, parent = _Loyal(None, os.getpid()), os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    time.sleep(0.01)
loyal(0)
time.sleep(1e6)
"""


def test_a_worker_whose_parent_died_before_it_began_ends() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(trueloop.__file__).parents[1])}
    command = [sys.executable, "-c", ORPHAN]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=60)  # it has the pipe until its end
    assert ended.stderr == b""


class HoldsTheInterpreter(Dataset[Tensor]):
    """Hangs in C, so that no Python runs in the worker: neither a handler of signals nor another thread."""

    def __init__(self, begun: Path) -> None:
        self.begun = begun

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        if index == 1:
            self.begun.touch()  # its other worker gives sample 0
            ctypes.PyDLL(None).sleep(600)
        return torch.zeros(1)


def test_a_worker_ends_when_its_parent_terminates_it_whatever_it_does(tmp_path: Path) -> None:
    reading = feed(
        HoldsTheInterpreter(tmp_path / "begun"), batch_size=1, workers=2, worker_timeout=600.0, shuffle=False
    )
    epoch = reading.epoch(0)
    next(epoch)
    while not (tmp_path / "begun").exists():
        time.sleep(0.001)
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()  # as multiprocessing does when the parent exits, and then waits for it
    for worker in workers:
        worker.join(60)
    ended = [worker.exitcode for worker in workers]
    for worker in workers:
        worker.kill()
    assert ended == [-signal.SIGKILL, -signal.SIGKILL]
    with pytest.raises(WorkerError, match="killed by SIGKILL"):
        list(epoch)


class StartsAProgram(Dataset[Tensor]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        with subprocess.Popen(["sleep", "600"]) as program:
            program.terminate()
            try:
                return torch.tensor(program.wait(60))
            finally:
                program.kill()


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_sigterm_from_others_ends_no_worker_but_what_it_starts(start: str) -> None:
    """A scheduler sends it to the whole group, while the step at whose end the run is saved needs the worker."""
    loader = DataLoader(StartsAProgram(), num_workers=1, persistent_workers=True, multiprocessing_context=start)
    reading = feed(loader, batch_size=None, worker_timeout=600.0)
    assert [int(batch) for batch in reading.epoch(0)] == [-signal.SIGTERM]
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    assert [int(batch) for batch in reading.epoch(1)] == [-signal.SIGTERM]
    assert multiprocessing.active_children() == [worker]
    del reading, loader, worker
    gc.collect()
    assert multiprocessing.active_children() == []


def test_a_death_during_the_users_own_step_waits_for_the_next_fetch() -> None:
    # torch raises it from a signal handler, wherever the main thread is
    reading = feed(Faulty("none", samples=400), batch_size=4, workers=2)
    epoch = reading.epoch(0)
    next(epoch)
    victim = multiprocessing.active_children()[0]
    victim.kill()
    wait([victim.sentinel])
    assert sum(range(100_000)) == 4999950000  # a step of some bytecodes, in which a signal handler would run
    with pytest.raises(WorkerError, match="killed by SIGKILL"):
        list(epoch)
    assert multiprocessing.active_children() == []


def test_a_slow_user_is_no_hanging_worker() -> None:
    reading = feed(Faulty("none", samples=8), batch_size=4, workers=1, worker_timeout=1.0)
    epoch = reading.epoch(0)
    next(epoch)
    time.sleep(1.5)
    assert len(list(epoch)) == 1
