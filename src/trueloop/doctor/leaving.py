"""The ways in which a process leaves, or is no longer the one that we listen to: signals, ``os._exit``, exec, forks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that end a process without a word, unless it asks to hear them."""


class Terminated(SystemExit):
    """The process was asked to end.

    Example:
        >>> str(Terminated(signal.SIGTERM))
        'SIGTERM'
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return signal.Signals(self.number).name


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Has the signals that would end the process without a word raise, so that what was found is told."""
    ours = [
        number
        for number in SIGNALS
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in ours:
        signal.signal(number, _terminated)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is _terminated:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, such a signal ends nothing: the process is ending already, and what it has to tell is on its way.

    torchrun sends one as soon as another of its processes has failed, and kills what has not gone 30 seconds later.
    """
    ours = [
        number
        for number in SIGNALS
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is _terminated
    ]
    for number in ours:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def told_before_leaving(tell: Callable[[str, int], int]) -> Iterator[None]:
    """``os._exit`` and the calls of exec end a program at once: what was found is told before.

    Args:
        tell: is given how it leaves and its exit code; returns the code that it is to leave with.
    """
    process = os.getpid()
    leave, replace, replace_with = os._exit, os.execv, os.execve

    def _exit(status: int) -> NoReturn:
        leave(tell(f"it left by os._exit({status})", status) if os.getpid() == process else status)

    def note() -> None:
        if os.getpid() == process:
            tell("it replaced itself by another program (exec), which was not heard", 0)

    def execv(path: Any, argv: Any, /) -> NoReturn:
        note()
        replace(path, argv)

    def execve(path: Any, argv: Any, env: Any) -> NoReturn:
        note()
        replace_with(path, argv, env)

    os._exit, os.execv, os.execve = _exit, execv, execve
    try:
        yield
    finally:
        os._exit, os.execv, os.execve = leave, replace, replace_with


def default_signals_in_forks() -> None:
    """In each process that is forked from now on, signals do what they would have done.

    Python drops what a new process was sent before it is ready, if a function of ours would hear it. So the kernel
    keeps such signals back until they have their old meaning.
    """
    of_thread = threading.local()

    def held_back() -> None:
        ours = [number for number in SIGNALS if signal.getsignal(number) is _terminated]
        of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)

    def released() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, of_thread.mask)

    def forked() -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is _terminated:
                    signal.signal(number, signal.SIG_DFL)
        released()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=held_back, after_in_parent=released, after_in_child=forked)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
