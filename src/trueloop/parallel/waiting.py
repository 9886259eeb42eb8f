"""Who waits for whom: a process that does not go on is named, with the line that it stands at.

Each process leaves word of itself in the store of the group, once a second and from a thread of its own: after which
event its run stands, and in which line. Whoever has waited too long for the others reads what they have left. One
whose word is old is stopped, or its machine is gone; one that is not itself in an exchange with the others is what
they wait for. It shows all its threads, and ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from types import FrameType
from typing import Any, NamedTuple

from torch import distributed

from trueloop.errors import PeerError
from trueloop.parallel.world import World

BEAT_SECONDS = 1.0
STALE_BEATS = 4
PATIENCE_SECONDS = 5.0
"""So long a process waits for the words of one that may be on its way."""
ANSWER_SECONDS = 15.0
"""A store that takes longer to answer is that of a process which is stopped."""
GRACE_SECONDS = 20.0
"""So long a process may go on by itself when another one has failed: torchrun kills it after 30."""

HANGING = 1
"""The exit code of a process that hangs, and ends itself."""


class Failure(NamedTuple):
    """What the process that failed first has told the others.

    Args:
        by: its rank.
        text: what has gone wrong, in words.
        hangs: the processes that do not go on, if it is that.
    """

    by: int
    text: str
    hangs: tuple[int, ...] = ()


class Standing:
    """Where this process stands, as far as its run knows.

    Attributes:
        at: after which event.
        leaves: its run is over, and it ends by itself, be it that it saves first.
        runs: how many have begun in this process: what one of them has told is nothing to the next.
        inside: it leaves word just now.
        last_words: called with why, before it is ended for hanging.
    """

    at = "before its first step"
    leaves = False
    runs = 0
    inside = False
    last_words: Callable[[str], object] | None = None


def claim(here: World, failure: Failure) -> Failure:
    """The failure that is told: this one, unless another process was first.

    Example:
        >>> claim(World(), Failure(0, "it is broken")).text
        'it is broken'
    """
    if not distributed.is_initialized():
        return failure
    try:
        told = _store().compare_set(_failed(), "", json.dumps(failure))
    except RuntimeError:  # the store has gone with its process
        return failure
    by, text, hangs = json.loads(told)
    if by == failure.by:
        for rank in failure.hangs:  # it may be in a loop of its own still that the others have left
            _store().set(_hanging(rank), "")
    return Failure(by, text, tuple(hangs))


def told() -> Failure | None:
    """The failure that a process has told, if one has."""
    with contextlib.suppress(RuntimeError, ValueError):
        if _store().check([_failed()]):
            by, text, hangs = json.loads(_store().get(_failed()))
            return Failure(by, text, tuple(hangs))
    return None


def answers() -> bool:
    """Whether the store answers, which rank 0 keeps where torchrun does not: all that is asked of it waits for ever.

    One that is gone does, too: whatever is asked of it is an error at once.
    """
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            _probe(_store()).check([_failed()])
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(ANSWER_SECONDS)


def places_of_all(here: World, own: str) -> list[str]:
    """Where each process stands, where they do not stand at one place: by the store, since no exchange would fit.

    Args:
        here: this process.
        own: its place.
    """
    store, places = _store(), ["elsewhere"] * here.size
    store.set(f"{_key(here.rank)}/place/{Standing.runs}", own)
    until = time.monotonic() + PATIENCE_SECONDS
    left = set(range(here.size))
    while left and time.monotonic() < until:
        for rank in [rank for rank in left if store.check([f"{_key(rank)}/place/{Standing.runs}"])]:
            places[rank] = store.get(f"{_key(rank)}/place/{Standing.runs}").decode()
            left.remove(rank)
        time.sleep(0.05)
    return places


def who_hangs(here: World, waited: str) -> Failure:
    """Who keeps the others waiting, by the words that all have left.

    Args:
        here: this process, which has waited too long.
        waited: how long, in words.

    Raises:
        PeerError: the process that keeps the words is gone: it was the first to give up, and has told.
    """
    try:
        before = _words(here)
        time.sleep(STALE_BEATS * BEAT_SECONDS)
        after = _words(here)
    except RuntimeError:
        gone = f"process {here.rank} has waited {waited} for the others, which have given up meanwhile"
        raise PeerError(gone) from None
    silent = [rank for rank, word in after.items() if word == before[rank]]
    _kill_here([after[rank] for rank in silent])
    culprits = silent or [rank for rank, word in after.items() if not word["waits"]] or list(after)
    lines = [_in_words(rank, here.size, after[rank], silent=rank in silent) for rank in culprits]
    return Failure(here.rank, f"{'; '.join(lines)} (process {here.rank} has waited {waited})", tuple(culprits))


@contextlib.contextmanager
def leaving_word(here: World) -> Iterator[None]:
    """Inside, this process leaves word of itself, and ends if it hangs and another one has found it out.

    Within another such block it is left already.
    """
    if here.alone or Standing.inside:
        yield
        return
    Standing.at, Standing.leaves, Standing.inside = "before its first step", False, True
    Standing.runs += 1
    beats = _Beats(here)
    beats.start()
    try:
        yield
    finally:
        Standing.inside = False
        beats.stop()


@contextlib.contextmanager
def last_words(tell: Callable[[str], object]) -> Iterator[None]:
    """Inside, ``tell`` is called with why, before this process is ended for hanging: nothing else is done then."""
    Standing.last_words = tell
    try:
        yield
    finally:
        Standing.last_words = None


class _Beats(threading.Thread):
    """Leaves word of the main thread, and looks whether another process has failed."""

    def __init__(self, here: World) -> None:
        super().__init__(name="trueloop word to the others", daemon=True)
        self._here, self._watched = here, threading.get_ident()
        self._over = threading.Event()
        self._parent = os.getppid()
        self._failed_at: float | None = None
        self._store: Any = _store().clone()  # a client of the store is for one thread
        _probe(_store())

    def run(self) -> None:
        beat = 0
        while not beat or not self._over.wait(BEAT_SECONDS):
            beat += 1
            try:
                self._store.set(_key(self._here.rank), json.dumps({"beat": beat, **self._word()}))
                failed = self._store.check([_failed()]) or self._hangs()
            except RuntimeError:  # the store's process is gone
                failed = True
            if failed and self._failed_at is None:
                self._failed_at = time.monotonic()
            if self._failed_at is not None and not Standing.leaves and not self._over.is_set():
                self._end_if_hanging(time.monotonic() - self._failed_at)
            if os.getppid() != self._parent and "TORCHELASTIC_RUN_ID" in os.environ:
                self._parent = os.getppid()
                os.kill(os.getpid(), signal.SIGTERM)  # the launcher was killed: save, and end

    def stop(self) -> None:
        """The run is over."""
        self._over.set()
        self.join(ANSWER_SECONDS)  # it may wait for a store that does not answer

    def _word(self) -> dict[str, Any]:
        where, waits = _where(self._watched)
        return {"pid": os.getpid(), "host": socket.gethostname(), "at": Standing.at, "where": where, "waits": waits}

    def _hangs(self) -> bool:
        """Whether another process has named this one."""
        return bool(self._store.check([_hanging(self._here.rank)]))

    def _end_if_hanging(self, seconds: float) -> None:
        named = False
        with contextlib.suppress(RuntimeError):
            named = self._hangs()
        if not named and seconds < GRACE_SECONDS:
            return
        print(f"process {self._here.rank} of {self._here.size} does not go on; all its threads:", file=sys.stderr)
        sys.stderr.flush()
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        if Standing.last_words is not None:
            with contextlib.suppress(Exception):  # the store may be gone, or the folder
                known = self._store.check([_failed()])  # to get what nobody has told would wait for it
                Standing.last_words(json.loads(self._store.get(_failed()))[1] if known else "it did not go on")
        os._exit(HANGING)


def _where(thread: int) -> tuple[str, bool]:
    """The innermost line of the user's that a thread is in, and whether it is in an exchange with other processes."""
    try:
        return _innermost(sys._current_frames().get(thread))
    except AttributeError:  # the thread runs on, and its frames with it; seen once, under great load (Python 3.11)
        return "somewhere", False


def _innermost(frame: FrameType | None) -> tuple[str, bool]:
    innermost, own, waits = "", "", False
    while frame is not None and not own:
        file = frame.f_code.co_filename
        line = f"{frame.f_code.co_name} ({file}:{frame.f_lineno})"
        innermost = innermost or line
        waits = waits or any(part in file for part in _EXCHANGES)
        own = "" if any(part in file for part in _LIBRARIES) or file.startswith("<") else line
        frame = frame.f_back
    if not own or own == innermost:
        return innermost, waits
    return f"{own}, in {innermost}", waits


_EXCHANGES = (
    os.path.join("torch", "distributed", ""),
    os.path.join("torch", "autograd", "graph.py"),  # backward, in which gradients are exchanged
    os.path.join("trueloop", "parallel", "reduce.py"),
)
_LIBRARIES = (
    os.path.join("site-packages", ""),
    os.path.join("trueloop", ""),
    os.path.dirname(threading.__file__),
)


def _in_words(rank: int, size: int, word: dict[str, Any], *, silent: bool) -> str:
    if not word["pid"]:
        return f"process {rank} of {size} has not come so far: it hangs, or is at work, in what comes before"
    does = "does not answer: it is stopped, or its machine is gone; it was" if silent else "hangs"
    return f"process {rank} of {size} {does} {word['at']}, at {word['where']}"


def _kill_here(words: list[dict[str, Any]]) -> None:
    """A stopped process does not end by itself, and torchrun would give it 30 seconds."""
    for word in words:
        if word["host"] == socket.gethostname() and word["pid"]:
            with contextlib.suppress(OSError):
                os.kill(word["pid"], signal.SIGKILL)


def _words(here: World) -> dict[int, dict[str, Any]]:
    """What the other processes have left last, by rank."""
    store, words = _store(), {}
    for rank in range(here.size):
        if rank != here.rank:
            never = {"beat": 0, "pid": 0, "host": "", "at": "", "where": "", "waits": False}
            words[rank] = json.loads(store.get(_key(rank))) if store.check([_key(rank)]) else never
    return words


def _failed() -> str:
    return f"trueloop/failed/{_run()}"


def _key(rank: int) -> str:
    return f"trueloop/word/{_start()}/{rank}"


def _hanging(rank: int) -> str:
    return f"trueloop/hangs/{_start()}/{rank}"


def _run() -> str:
    return f"{_start()}/{Standing.runs}"


def _start() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _store() -> Any:
    return distributed.distributed_c10d._get_default_store()


@cache
def _probe(store: Any) -> Any:
    return store.clone()
