"""What one process does for all, and what one process's failure is to the others: an error is told once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import TypeVar

from torch import distributed

from trueloop.errors import PeerError, Preempted, ProcessError, TrueloopError
from trueloop.parallel.reduce import of_the_first
from trueloop.parallel.waiting import Failure, Standing, answers, claim, leaving_word, told, who_hangs
from trueloop.parallel.world import World, world

T = TypeVar("T")
S = TypeVar("S")


def by_the_first(do: Callable[[], T], here: World | None = None) -> T | None:
    """Has rank 0 do something while the others wait; None for them.

    Args:
        do: what is to be done.
        here: this process; one that is alone does it by itself.

    Raises:
        PeerError: on the others, if it failed.

    Example:
        >>> by_the_first(lambda: 3)
        3
    """
    here = here or world()
    if here.alone:
        return do()
    result, error = None, None
    if here.first:
        try:
            result = do()
        except BaseException as raised:
            error = raised
    failed = of_the_first(None if error is None else in_words(error))
    if error is not None:
        raise error
    if failed is not None:
        raise PeerError(f"process 0 has failed: {failed}")
    return result


@contextlib.contextmanager
def told_once(here: World) -> Iterator[None]:
    """Inside, the process that fails first raises its own error, with its number; the others a ``PeerError``.

    Whoever waits for a process that is gone fails as well, with an error of the network's that says nothing of the
    cause. A process that keeps the others waiting is found and ended (``waiting``), and warnings are the first's.
    """
    if here.alone:
        yield
        return
    with telling(here), warnings.catch_warnings():
        if not here.first:
            warnings.simplefilter("ignore")
        yield


def each_told_once(items: Generator[T, S, None], here: World) -> Generator[T, S, None]:
    """The same items; ``told_once`` from the first one to the last, and so also while somebody works on one.

    Args:
        items: of a loop that other processes go through as well.
        here: this process.

    Example:
        >>> list(each_told_once((number for number in (1, 2)), World()))
        [1, 2]
    """
    with telling(here):
        yield from items


@contextlib.contextmanager
def telling(here: World) -> Iterator[None]:
    """``told_once``, where warnings are left alone: around what somebody else works in as well.

    Args:
        here: this process.
    """
    if here.alone:
        yield
        return
    _show_no_peers_error()
    _hear_again()
    with leaving_word(here), naming(here):
        yield


@contextlib.contextmanager
def naming(here: World) -> Iterator[None]:
    """Raises what is raised inside as this process is to raise it: see ``named``.

    Args:
        here: this process, which is not alone.
    """
    try:
        yield
    except PeerError:
        Standing.leaves = True
        _wait_until_told()
        raise
    except (Preempted, KeyboardInterrupt):
        Standing.leaves = True
        raise
    except GeneratorExit:  # nobody wants more of it
        raise
    except BaseException as error:
        Standing.leaves = True
        known = named(here, error)
        if not isinstance(known, PeerError):
            _end_in_peace()
        if known is not error:
            raise known from None
        raise


def named(here: World, error: BaseException) -> BaseException:
    """An error as this process is to raise it: its own, with its number; or why it could not go on without another one.

    Args:
        here: this process.
        error: what it has met.
    """
    if isinstance(error, PeerError) or _NUMBERED in getattr(error, "__dict__", ()):
        return error
    if is_of_the_network(str(error)):
        return lost(here, str(error))
    own = Failure(here.rank, f"process {here.rank} has failed: {in_words(error)}")
    first = claim(here, own)
    if first != own:
        return PeerError(first.text)
    setattr(error, _NUMBERED, True)
    number = f"process {here.rank} of {here.size}"
    if isinstance(error, TrueloopError):
        error.args = (f"{error} ({number})", *error.args[1:])
    else:
        error.add_note(f"in {number}")
    if isinstance(error, SystemExit):  # which nobody would hear of
        print(f"{number} has left by {in_words(error)}", file=sys.stderr)
    return error


def lost(here: World, text: str) -> TrueloopError:
    """What an error of the network's comes from: another process has failed, hangs, or is gone.

    Args:
        here: this process.
        text: of the error.
    """
    if not answers():
        stopped = "process 0, which keeps the word of all, does not answer: it is stopped, or its machine is gone"
        silent = ProcessError(f"{stopped} (process {here.rank} has waited for it)", ranks=(0,))
        setattr(silent, _NUMBERED, True)
        return silent
    first = told()
    if first is None and (late := _timed_out(text)):
        try:
            own = who_hangs(here, late)
        except PeerError as given_up:
            return given_up
        first = claim(here, own)
        if first == own:
            error = ProcessError(first.text, ranks=first.hangs)
            setattr(error, _NUMBERED, True)
            return error
    if first is not None:
        return PeerError(first.text)
    gone = f"process {here.rank} waited for another process, which is gone: killed, or out of memory"
    first = claim(here, Failure(here.rank, gone))  # nobody else is going to
    if first.by != here.rank:
        return PeerError(first.text)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # the launcher knows which one, and says so
        return PeerError(gone)
    error = ProcessError(f"{gone} ({text})")
    setattr(error, _NUMBERED, True)
    return error


def is_of_the_network(text: str) -> bool:
    """Whether an error's text is what a process reads whose exchange with another one has failed.

    Example:
        >>> is_of_the_network("[…/gloo/transport/tcp/pair.cc:553] Connection closed by peer"), is_of_the_network("no")
        (True, False)
    """
    return any(word in text for word in ("gloo", _LATE, "Connection closed", "Connection reset", "NCCL"))


def tells(error: BaseException) -> bool:
    """Whether it is this process that tells the user of an error that leaves the program."""
    if isinstance(error, PeerError):
        return False
    if not distributed.is_available() or not distributed.is_initialized():
        return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"
    return named(world(), error) is error


def _wait_until_told() -> None:
    """A process that ends has torchrun end the others: whoever has met the error comes first."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while told() is None and time.monotonic() < until:
        time.sleep(0.05)


def _end_in_peace() -> None:
    """A process that is about to tell its error does not end by torchrun's SIGTERM, when another is gone."""
    main = threading.current_thread() is threading.main_thread()
    if main and "TORCHELASTIC_RUN_ID" in os.environ and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _in_peace.append(True)


def _hear_again() -> None:
    """The error was not the end of the program."""
    if _in_peace and threading.current_thread() is threading.main_thread():
        _in_peace.clear()
        if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


_in_peace: list[bool] = []


def _timed_out(text: str) -> str | None:
    """How long a process has waited, in words; None if it was not the time that ended it."""
    _, found, rest = text.partition("Timed out waiting ")
    milliseconds = rest.partition("ms")[0]
    if _LATE in text:
        return "too long"
    return f"{int(milliseconds) / 1000:g} s" if found and milliseconds.isdecimal() else None


def _show_no_peers_error() -> None:
    """A program that ends by the failure of another process ends without a traceback of its own."""
    if getattr(sys.excepthook, "__name__", "") == _hook.__name__:
        return
    _shown.append(sys.excepthook)
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, PeerError) or (issubclass(kind, KeyboardInterrupt) and not world().first):
        return
    _shown[-1](kind, error, traceback)


_shown: list[Callable[[type[BaseException], BaseException, TracebackType | None], object]] = []

_LATE = "Application timeout"
"""What gloo says where another exchange of the same two processes was the one that took too long."""

_PATIENCE_SECONDS = 10

_NUMBERED = "_trueloop_process"


def in_words(error: BaseException) -> str:
    """An error, as the other processes tell of it.

    Example:
        >>> in_words(ValueError("no")), in_words(KeyboardInterrupt())
        ('ValueError: no', 'KeyboardInterrupt')
    """
    return f"{type(error).__name__}: {error}".removesuffix(": ")
