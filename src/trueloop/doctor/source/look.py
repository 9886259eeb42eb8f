"""Looks at many files: what is known from the last time is taken from there, the rest is shared out over processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.source.cache import Cache
from trueloop.doctor.source.discover import root_of
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.parse import trouble
from trueloop.doctor.source.read import STDIN, Source, Unread, bytes_of, of_bytes, of_file

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

Check = Callable[..., list[Checked]]
"""``check(source, root=folder)``: what is found in a source."""

FEW_BYTES = 60_000
"""Less than this is read sooner than a process is started."""


class Looked(NamedTuple):
    """What one file gave.

    Args:
        path: the file.
        source: what was read of it; None if nothing could be.
        found: what is wrong in it.
        unread: why it is not Python.
        failed: how the check itself broke.
    """

    path: str
    source: Source | None = None
    found: tuple[Checked, ...] = ()
    unread: Unread | None = None
    failed: str | None = None


def look(files: Sequence[str], cache: Cache, *, check: Check | None = None, jobs: int = 1) -> Iterator[Looked]:
    """Looks at files, and tells of each in their order.

    Args:
        files: their paths.
        cache: what is known of them.
        check: looks at one; None takes that of ``checks.py``.
        jobs: how many processes may work at once.

    Example:
        >>> [looked.unread.message for looked in look(["nowhere.py"], Cache(None))]
        ['No such file or directory']
    """
    known, ahead, size = dict[str, Looked](), list[str](), 0
    for file in files:
        try:
            content = bytes_of(file)
        except OSError:
            ahead.append(file)  # why, is told by whoever tries again
            continue
        found = cache.load(file, content, root_of(file))
        if found is None:
            ahead.append(file)
            size += len(content)
        else:
            source = of_bytes(content, file)
            known[file] = Looked(file, source if isinstance(source, Source) else None, tuple(found))
    for looked in _afresh(ahead, check, jobs if size > FEW_BYTES else 1):
        known[looked.path] = looked
        if looked.source is not None and looked.unread is None and looked.failed is None:
            cache.store(looked.path, looked.source.as_bytes(), root_of(looked.path), list(looked.found))
    yield from (known[file] for file in files)


def look_at(path: str, check: Check | None = None) -> Looked:
    """Looks at one file, now and here."""
    source = of_file(path)
    if source is None:
        return Looked(path)
    if isinstance(source, Unread):
        return Looked(path, unread=source)
    return look_into(source, check)


def look_into(source: Source, check: Check | None = None) -> Looked:
    """Looks at what has been read.

    Example:
        >>> look_into(Source("a.py", "x = (")).unread
        Unread(path='a.py', line=1, message="'(' was never closed")
    """
    wrong = trouble(source.text)
    if wrong is not None:
        return Looked(source.path, source, unread=Unread(source.path, wrong.line, wrong.message))
    try:
        return Looked(source.path, source, tuple(asked(source, check)))
    except RecursionError:  # an expression of a thousand terms, which is Python all the same
        return Looked(source.path, source)
    except Exception as error:  # the other files are to be read all the same
        return Looked(source.path, source, failed=f"{type(error).__name__}: {error}")


def asked(source: Source, check: Check | None = None) -> list[Checked]:
    """What the check finds in a source; LibCST is not imported for one that has nothing to do with torch."""
    from trueloop.doctor.source.library import ROOTS

    if check is None:
        if not any(root in source.text for root in ROOTS):
            return []
        from trueloop.doctor.source.checks import check as ours

        check = ours
    return check(source, root=None if source.path == STDIN else root_of(source.path))


def _afresh(files: Sequence[str], check: Check | None, jobs: int) -> Iterator[Looked]:
    jobs = min(jobs, len(files))
    if jobs <= 1:
        yield from (look_at(file, check) for file in files)
        return
    if check is None:
        from trueloop.doctor.source.checks import readers

        readers()  # imported once, before the processes fork
    left = dict.fromkeys(files)
    with _processes(jobs) as pool:
        futures = {file: pool.submit(look_at, file, check) for file in files}
        try:
            for file, future in futures.items():
                looked = _result(future)
                if looked is not None:
                    del left[file]
                    yield looked
        except BaseException:  # Ctrl-C: what has not begun is not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for file in left:  # one of these ended its process, and with it those of the others: each gets its own
        with _processes(1) as pool:
            told = "the process that read it died"
            yield _result(pool.submit(look_at, file, check)) or Looked(file, failed=told)


def _result(future: Future[Looked]) -> Looked | None:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool:
        return None


def _processes(number: int) -> ProcessPoolExecutor:
    import multiprocessing  # these take a while, and few files need no process
    from concurrent.futures import ProcessPoolExecutor

    forks = "fork" in multiprocessing.get_all_start_methods() and os.name == "posix" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if forks else "spawn")
    return ProcessPoolExecutor(number, mp_context=context, initializer=_end_at_interrupts)


def _end_at_interrupts() -> None:
    """Ctrl-C ends these at once, without a word: that is for the process that started them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
