"""How processes part: whoever has done its work ends well, however busy the machine."""

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
