"""Signals that ask a run to end: heard at once, obeyed at the end of the step; and what processes ask of each other."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from trueloop.checkpoint.rngs import set_rngs_to, state_of_rngs
from trueloop.errors import Preempted

ASKING = ("SIGTERM", "SIGUSR1")
"""What schedulers send before they take a machine away."""


class Asked:
    """What was asked for so far: the name of a signal, or None.

    Attributes:
        signal: its name.
        stands_whole: what ends the run came from another process, while an event was out: the run stands whole.
        is_void: what stands now is not to be saved: another process is gone and this one was in the middle of a step,
            or their weights have drifted apart. The newest checkpoint is exact.
        compares: there are other processes, and their weights are compared before they are saved.
        compare_every: steps between two checkpoints, where that is asked for and there are other processes.
        to_compare: a checkpoint is due by the clock, which is rank 0's alone: all are to compare their weights for it.
        compare: compares them after this event, when observers have seen it; None where that is not due.
        drift: what came of it, where they are not the same.

    Example:
        >>> asked = Asked()
        >>> with listening(asked): signal.raise_signal(signal.SIGTERM)
        >>> asked.signal
        'SIGTERM'
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self.stands_whole = False
        self.is_void = False
        self.compares = False
        self.compare_every: int | None = None
        self.to_compare = False
        self.compare: Callable[[], None] | None = None
        self.drift: BaseException | None = None

    def are_alike(self) -> bool:
        """Whether all processes have the same weights, if that is to be known now; they are compared once."""
        if self.compare is not None:
            compare, self.compare = self.compare, None
            try:
                compare()
            except BaseException as drift:  # to be raised by the run, on all processes at the same place
                self.drift = drift
        return self.drift is None


@contextlib.contextmanager
def listening(asked: Asked) -> Iterator[None]:
    """Inside, SIGTERM, SIGUSR1 and Ctrl-C are noted in ``asked`` and end nothing; a second Ctrl-C ends at once.

    A signal that the user handles is left to the user; so are all of them in another thread than the main one, where
    Python cannot listen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    process = os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a loader's worker, which a terminal's Ctrl-C reaches too: the step needs it
            return
        name = signal.Signals(number).name
        if name == "SIGINT":
            if asked.signal == "SIGINT":
                raise KeyboardInterrupt
            if os.environ.get("RANK", "0") == "0":  # of several processes, the first prints
                with contextlib.suppress(OSError):  # not print(), which the signal may have interrupted
                    os.write(2, b"\nending after this step; Ctrl-C again ends at once, without saving\n")
        asked.signal = name

    before = {}
    for name in (*ASKING, "SIGINT"):
        number = getattr(signal, name, None)  # Windows has no SIGUSR1
        usual = (signal.default_int_handler, signal.SIG_DFL) if name == "SIGINT" else (signal.SIG_DFL,)
        if number is not None and signal.getsignal(number) in usual:
            before[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ending(name: str) -> KeyboardInterrupt | Preempted:
    """What a signal ends a run with, once its state is saved.

    Example:
        >>> ending("SIGTERM"), ending("SIGINT")
        (Preempted(75), KeyboardInterrupt())
    """
    return KeyboardInterrupt() if name == "SIGINT" else Preempted(f"preempted by {name}")


def until_asked(batches: Iterator[Any], asked: Asked) -> Iterator[Any]:
    """An evaluation's batches; one that is asked for by a scheduler meanwhile is broken off, and made again later.

    A scheduler gives seconds, and an evaluation may take minutes. The random numbers are as they were before it.

    Raises:
        Preempted: the run is asked to end.
    """
    rngs = state_of_rngs()
    for batch in batches:
        if asked.signal in ASKING:
            set_rngs_to(rngs)
            raise ending(asked.signal)
        yield batch
