"""One process a run, and never a lock that nobody holds."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import trueloop
from trueloop.checkpoint.lock import NAME, lock
from trueloop.errors import RunFolderError

SRC = Path(trueloop.__file__).parents[1]

HOLD = """
import os, sys, time
from pathlib import Path
from trueloop.checkpoint.lock import lock
with lock(Path(sys.argv[1])):
    if "fork" in sys.argv:  # as a loader does
        if os.fork() == 0:
            print(os.getpid(), flush=True)  # it stands here: what a child does at a fork is done
            os.read(0, 1)
            os._exit(0)
    elif "exec" in sys.argv:
        import subprocess
        print(subprocess.Popen(["sleep", "600"], close_fds=False).pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(run: Path, *how: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the lock, and what it said when it did."""
    command = [sys.executable, "-c", HOLD, str(run), *how]
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, said):
        assert said == "held"
        says = rf"^another process trains in this folder: pid {process.pid} on \S+, since 20.*wait for it or stop it"
        with pytest.raises(RunFolderError, match=says) as caught, lock(tmp_path):
            pytest.fail("two processes in one run")
        assert caught.value.file == tmp_path


def test_kill_frees_it(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lock(tmp_path):
            assert f'"pid": {os.getpid()}' in (tmp_path / NAME).read_text()


@pytest.mark.parametrize("how", ["fork", "exec"])
def test_kill_frees_it_though_a_child_lives_on(tmp_path: Path, how: str) -> None:
    with holder(tmp_path, how) as (process, said):
        child = int(said)
        with pytest.raises(RunFolderError), lock(tmp_path):
            pytest.fail("two processes in one run")
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            os.kill(child, 0)  # it lives
            with lock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_child_that_ends_frees_nothing(tmp_path: Path) -> None:
    with lock(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(RunFolderError, match="this process trains in this folder already"), lock(tmp_path):
            pytest.fail("twice in one process")


LEAVE = """
import os, sys
from pathlib import Path
from trueloop.checkpoint.lock import lock
run = Path(sys.argv[1])
with lock(run):
    child = os.fork()
    if child == 0:
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]  # one gets the number of the lock's handle
if child == 0:
    assert all(os.fstat(other) for other in others)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""

TAKE = """
import os, sys
from pathlib import Path
from trueloop.checkpoint.lock import lock
from trueloop.errors import RunFolderError
run = Path(sys.argv[1])
with lock(run):
    child = os.fork()
    if child == 0:
        try:
            with lock(run):
                os._exit(1)
        except RunFolderError:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("script", [LEAVE, TAKE], ids=["leave", "take"])
def test_a_child_can_neither_free_it_nor_take_it(tmp_path: Path, script: str) -> None:
    run_script(script, tmp_path)


def test_there_is_no_lock_where_the_system_has_none(tmp_path: Path) -> None:
    run_script("import sys; sys.modules['fcntl'] = None\n" + TAKE.replace("os._exit(1)", "os._exit(0)"), tmp_path)
    assert not (tmp_path / NAME).exists()


def run_script(script: str, run: Path) -> None:
    command = [sys.executable, "-c", script, str(run)]
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    report = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert report.returncode == 0, report.stderr


def test_it_is_free_again_after_the_with(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), lock(tmp_path):
            raise KeyboardInterrupt
    assert re.fullmatch(r'\{"host": ".*", "pid": \d+, "started": ".*\+00:00"\}\n', (tmp_path / NAME).read_text())


def test_no_handle_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with lock(tmp_path), pytest.raises(RunFolderError), lock(tmp_path):
        pytest.fail("twice in one process")
    assert os.listdir("/proc/self/fd") == before


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with lock(tmp_path / "a"), lock(tmp_path / "b"):
        assert (tmp_path / "b" / NAME).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x", "host": 1, "started": 2}', b"\xff"])
def test_a_lock_that_is_not_signed_holds_too(tmp_path: Path, content: bytes) -> None:
    with lock(tmp_path):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(RunFolderError, match="another process trains in this folder; wait"), lock(tmp_path):
            pytest.fail("twice in one process")


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / NAME).symlink_to("/dev/null")
    for run in (tmp_path / "missing", tmp_path / "file", tmp_path / "linked", Path("/proc/self")):
        with pytest.raises(RunFolderError, match="cannot be locked"), lock(run):
            pytest.fail("locked what is no folder")


def test_the_pipe_of_a_holder_says_when_it_dies(tmp_path: Path) -> None:
    """The lock is gone no later than the process is."""
    with holder(tmp_path) as (process, _):
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        select.select([process.stdout], [], [])
        process.wait()
        with lock(tmp_path):
            pass
