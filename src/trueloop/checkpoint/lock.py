"""One process a run: a lock that the kernel frees, whatever becomes of its holder."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from trueloop.errors import RunFolderError

with suppress(ImportError):  # Windows has none
    import fcntl

NAME = ".lock"


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold a run's folder against every other process, and against this one.

    The lock is the kernel's (``flock``): it ends with the process that took it, also by ``kill -9``, and also if
    children that it forked (workers of a loader) live on. Its file stays, and says who held it last. There is no lock
    where the system or the folder's file system has none (Windows, some network drives).

    Args:
        run: the run's folder.

    Raises:
        RunFolderError: somebody else holds it (it says who); or the folder is not there, or cannot be written.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> with lock(run), lock(run):
        ...     pass
        Traceback (most recent call last):
        trueloop.errors.RunFolderError: this process trains in this folder already: ...
    """
    if "fcntl" not in globals():
        yield
        return
    handle = _open(run)
    _HELD.add(handle)  # at once: a child that is forked from here on must not keep it
    try:
        _take(handle, run)
        yield
    finally:
        if handle in _HELD:  # else this is a forked child, which has let go, and the number may be another file's
            _HELD.discard(handle)
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked past Python has it too
            os.close(handle)


_HELD: set[int] = set()
_HAS_NONE = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def _let_go() -> None:
    """In a forked child: it shares the parent's lock, and would hold it for as long as it lives."""
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _open(run: Path) -> int:
    try:
        return os.open(run / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunFolderError(
            f"the run's folder cannot be locked: {error.strerror}; choose another, or mend its permissions", file=run
        ) from error


def _take(handle: int, run: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFolderError(_taken(handle), file=run) from error
    except OSError as error:
        if error.errno not in _HAS_NONE:
            raise RunFolderError(f"the run's folder cannot be locked: {error.strerror}", file=run) from error
    started = datetime.now(UTC).isoformat(timespec="seconds")
    who = json.dumps({"host": platform.node(), "pid": os.getpid(), "started": started}) + "\n"
    with suppress(OSError):  # on a full disk: who it is cannot be said, but the lock holds
        os.ftruncate(handle, 0)
        os.pwrite(handle, who.encode(), 0)


def _taken(handle: int) -> str:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
        host, pid, started = str(who["host"]), int(who["pid"]), str(who["started"])
    except (OSError, ValueError, KeyError, TypeError):  # it was just taken, and not yet signed
        return "another process trains in this folder; wait for it or stop it, or choose another folder"
    if (host, pid) == (platform.node(), os.getpid()):
        return (
            f"this process trains in this folder already: since {started}; end that run first, or choose another folder"
        )
    return (
        f"another process trains in this folder: pid {pid} on {host}, since {started}; wait for it or stop it, "
        "or choose another folder"
    )
