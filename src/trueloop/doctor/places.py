"""Which line of the user's code is running: the innermost frame that is neither a library's nor ours."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from trueloop.doctor.findings import Place

_OURS = str(Path(__file__).resolve().parent.parent)
_RECIPES = str(Path(_OURS) / "recipes")  # code that a user could have written, and is told of in the same way
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
_FRAME = re.compile(r'File "(.*)", line (\d+)')
_known: dict[CodeType, bool] = {}


def here(depth: int = 1) -> Place | None:
    """The user's line that led here; None where only libraries are on the stack.

    Args:
        depth: how many frames to leave out, this function's caller being the first.

    Example:
        >>> here() is None or here().line > 0
        True
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        theirs = _known.get(code)
        if theirs is None:
            theirs = _known[code] = is_users(code.co_filename)
        if theirs:
            return Place(code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def users_frame(depth: int = 1) -> FrameType | None:
    """The user's frame that led here, to read what its variables hold."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def forward_of(module: Any) -> Place | None:
    """Where the user's own module says what it does; None for a library's.

    Example:
        >>> import torch
        >>> forward_of(torch.nn.Linear(2, 1)) is None
        True
    """
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code is not None and is_users(code.co_filename) else None


@cache
def is_users(file: str) -> bool:
    """Whether a file is the user's own code: not installed, not Python's, not ours (our recipes count as the user's).

    Example:
        >>> import torch
        >>> is_users("/home/someone/train.py"), is_users(torch.nn.__file__)
        (True, False)
    """
    if file.startswith("<") and not file.startswith("<ipython"):
        return file in ("<stdin>", "<string>", "<__main__>")
    if file.startswith(_RECIPES):
        return True
    return not (file.startswith((_OURS, *_LIBRARIES)) or "site-packages" in file or "dist-packages" in file)


def in_traceback(lines: Sequence[str]) -> Place | None:
    """The innermost line of the user's in a formatted traceback (that of a graph's node in anomaly mode)."""
    for text in reversed(lines):
        if (match := _FRAME.search(text)) and is_users(match[1]):
            return Place(match[1], int(match[2]))
    return None


def raised_at(error: BaseException | None) -> Place | None:
    """The user's line nearest to where an error was raised; None if it has passed none.

    Example:
        >>> raised_at(ValueError("never raised")) is None
        True
    """
    place = None
    trail = None if error is None else error.__traceback__
    while trail is not None:
        if is_users(trail.tb_frame.f_code.co_filename):
            place = Place(trail.tb_frame.f_code.co_filename, trail.tb_lineno)
        trail = trail.tb_next
    return place
