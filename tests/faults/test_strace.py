"""A real process saves, and the system fails it: each call of a save once, with a full disk, a broken one, a kill.

Torch is imported once, in a process that forks one child a case. The child waits until strace holds it; then it saves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trueloop
from trueloop.checkpoint.retention import sweep
from trueloop.checkpoint.store import newest

SAVER = """
import os, sys
from pathlib import Path
import torch
from trueloop.checkpoint.retention import retain
from trueloop.checkpoint.store import Snapshot, write
from trueloop.errors import CheckpointError

def snapshot(step):
    model, state = {"weight": torch.full((10,), float(step))}, {"rng": torch.ones(3)}
    tensors = {"model.safetensors": model, "state.safetensors": state}
    return Snapshot(step, 0, "asked", {"loss": 0.5}, None, {"step": step}, tensors)

def save(folder):
    write(folder, snapshot(3))
    retain(folder, keep_last=2)

for line in sys.stdin:  # a folder: make it anew, with two checkpoints in it
    folder = Path(line.strip())
    for step in (1, 2):
        write(folder, snapshot(step))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        try:
            save(folder)
        except CheckpointError:
            os._exit(3)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # strace holds it
    os.write(writing, b"!")
    os.close(reading)
    os.close(writing)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

CALLS = ["openat", "write", "fsync", "close", "mkdir", "rename", "unlink", "rmdir"]
FAILURES = ["error=ENOSPC", "error=EIO", "signal=SIGKILL"]
SAVED, SAID, KILLED = 0, 3, -9

SRC = Path(trueloop.__file__).parents[1]


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not strace_works(), reason="needs strace, and leave to trace")


@pytest.fixture(scope="module")
def saver() -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SAVER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def save(saver: subprocess.Popen[str], folder: Path, call: str, failure: str, when: int) -> tuple[int, bool]:
    """How a save ended whose ``when``-th call failed, and whether there was such a call at all."""
    assert saver.stdin is not None
    assert saver.stdout is not None
    print(folder, file=saver.stdin, flush=True)
    child = saver.stdout.readline().strip()
    family = f"/^{call}(at2?)?$"  # rename, renameat, renameat2
    log = folder.with_suffix(".log")
    what = ["-e", f"trace={family}", "-e", f"inject={family}:{failure}:when={when}"]
    command = ["strace", "-o", str(log), *what, "-p", child]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        attached = strace.stderr.readline()
        assert "attached" in attached, attached
        print("go", file=saver.stdin, flush=True)
        code = int(saver.stdout.readline())
        strace.stderr.read()
    said = log.read_text()
    return code, "(INJECTED)" in said or "+++ killed by SIGKILL" in said


def check(saver: subprocess.Popen[str], folder: Path, call: str, failure: str, when: int) -> bool:
    """Whether there was such a call; what is on the disk after it is whole in any case."""
    code, reached = save(saver, folder, call, failure, when)
    stored, passed_over = newest(folder)
    step = stored.entry.step
    assert passed_over == []
    assert float(stored.tensors["model.safetensors"]["weight"][0]) == step
    if not reached:
        assert (code, step) == (SAVED, 3)
        return False
    assert code in ({KILLED} if failure == "signal=SIGKILL" else {SAID, SAVED})
    assert step in (2, 3)
    assert step == 3 or code != SAVED
    sweep(folder)
    assert all(name.startswith("step-") for name in os.listdir(folder))
    return True


@pytest.mark.parametrize("call", CALLS)
def test_one_call_fails(saver: subprocess.Popen[str], tmp_path: Path, call: str) -> None:
    whens = [1, 3] if call in ("openat", "write", "fsync", "close") else [1]
    for when in whens:
        for failure in FAILURES:
            folder = tmp_path / f"{when}-{failure.partition('=')[2]}"
            assert check(saver, folder, call, failure, when), f"{call} is not called {when} times in a save"


def test_a_save_syncs_every_file_and_both_folders(saver: subprocess.Popen[str], tmp_path: Path) -> None:
    assert not check(saver, tmp_path / "checkpoints", "fsync", "error=EIO", 99)
    files = len(os.listdir(newest(tmp_path / "checkpoints")[0].entry.path))
    synced = (tmp_path / "checkpoints.log").read_text().count("fsync(")
    assert synced == files + 2  # the folder that was written aside, and the one that holds its name


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_fails(saver: subprocess.Popen[str], tmp_path: Path, call: str, failure: str) -> None:
    when = 1
    while check(saver, tmp_path / str(when), call, failure, when):
        when += 1
    assert when > 1
