"""Keeps us out of what a script shows: its tracebacks and its warnings are those of a run without the doctor."""

from __future__ import annotations

import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

OF_OURS = (
    "Using `torch.compile(module)` when there are global hooks",
    "Dynamo does not know how to trace the builtin `<unknown module>._thread.get_ident",
    "Dynamo does not know how to trace the builtin `_thread.get_ident",
)
"""Warnings that torch would not give without the doctor."""
_OURS = tuple(f"{Path(__file__).resolve().parents[1] / room}/" for room in ("doctor", "cli"))


def show(error: BaseException) -> None:
    """The script's own traceback, as Python would print it."""
    _without_us(error)
    flush()
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:
        sys.__excepthook__(type(error), error, error.__traceback__)


def raised_by_us(error: BaseException) -> bool:
    """Whether no line of the script's ran: the error is about what we were asked."""
    return _trimmed(error.__traceback__) is None


@contextmanager
def warnings_from_their_lines() -> Iterator[None]:
    """A warning that is raised through a function that we wrapped names the line that it would name without us."""
    original = warnings.showwarning

    def showwarning(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if str(message).startswith(OF_OURS):
            return
        if filename.startswith(_OURS):
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and not (frame.f_code.co_filename == filename and frame.f_lineno == lineno):
                frame = frame.f_back
            while frame is not None and _is_ours(frame):
                frame = frame.f_back
            if frame is not None:
                filename, lineno = frame.f_code.co_filename, frame.f_lineno
        original(message, category, filename, lineno, file, line)

    warnings.showwarning = showwarning
    try:
        yield
    finally:
        if warnings.showwarning is showwarning:
            warnings.showwarning = original


def flush() -> None:
    """What the script has printed so far comes before what we print."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or something else
            stream.flush()


def _without_us(error: BaseException) -> None:
    """Takes our frames out of the tracebacks of an error and of those that it came of."""
    known: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and id(one) not in known:
            known.add(id(one))
            one.__traceback__ = _trimmed(one.__traceback__)
            rest += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _trimmed(trail: TracebackType | None) -> TracebackType | None:
    kept = []
    loading = trail is not None and _is_ours(trail.tb_frame)
    while trail is not None:
        file = trail.tb_frame.f_code.co_filename
        loading = loading and (
            _is_ours(trail.tb_frame) or file.startswith("<frozen importlib") or file == runpy.__file__
        )
        if not loading and not _is_ours(trail.tb_frame):
            kept.append(trail)
        trail = trail.tb_next
    shown: TracebackType | None = None
    for one in reversed(kept):
        shown = TracebackType(shown, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return shown


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)
