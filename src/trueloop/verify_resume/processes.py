"""Processes of a trial: a fork of this one, or a new interpreter; waited for, and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Process(Protocol):
    """As far as a trial needs one: ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """The exit code; None as long as it runs."""


class Forked:
    """A fork of this process that does one thing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """As that of ``subprocess.Popen``."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def forked(job: Callable[[], None], log: Path) -> Forked:
    """Does ``job`` in a fork of this process, with what it prints in ``log``; the exit code is 1 if it raises.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder, "log")
        ...     code = finished(forked(lambda: print("hello"), log), seconds=60)
        ...     code, log.read_text()
        (0, 'hello\\n')
    """
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:  # nothing of the parent's may run in here: no handler of an exception, no atexit
        os.setsid()
        with log.open("w", encoding="utf-8") as file:
            for number in (0, 1, 2):
                os.dup2(file.fileno(), number)
            sys.stdout = sys.stderr = file
            try:
                job()
                code = 0
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)


def interpreted(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Runs ``python`` with ``command`` in a new process, with what it prints in ``log``."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def finished(process: Process, seconds: float) -> int | None:
    """Waits; then, and whatever happens meanwhile, ends the process and those that it started.

    Returns:
        Its exit code; None if it was still running after so many seconds.
    """
    until = time.monotonic() + seconds
    code = None
    try:
        while (code := process.poll()) is None and time.monotonic() < until:
            time.sleep(_PAUSE)
    finally:
        _end(process, running=code is None)
    return code


_PAUSE = 0.01


def _end(process: Process, *, running: bool) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # its loaders' workers, too
    if running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        while process.poll() is None:
            time.sleep(_PAUSE)
