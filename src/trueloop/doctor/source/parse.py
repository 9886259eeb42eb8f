"""Whether a text is Python, and if not, why not. Python's own parser is asked first: it is fast."""

from __future__ import annotations

import ast
import warnings
from typing import NamedTuple

TOO_DEEP = {"too many nested parentheses", "too many statically nested blocks"}
"""What LibCST must not be asked about: its parser, in Rust, ends the process where its stack ends."""


class Trouble(NamedTuple):
    """Where a text stops being Python."""

    line: int
    message: str


def trouble(text: str) -> Trouble | None:
    """Why a text does not parse; None if it does.

    What is new in a later Python than the one that runs is asked of LibCST, which knows it.

    Example:
        >>> trouble("x = 1"), trouble("x = (1")
        (None, Trouble(line=1, message="'(' was never closed"))
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the text's own: an invalid escape
            flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as notebooks have it
            compile(text, "<text>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        told = Trouble(error.lineno or 1, str(error.msg))
        if error.msg in TOO_DEEP:
            return told
    except (ValueError, RecursionError, MemoryError) as error:
        return Trouble(1, str(error) or "it is nested too deeply")
    else:
        return None
    import libcst

    try:
        libcst.parse_module(text)
    except Exception:  # its own errors, and those of its parser's in Rust
        return told
    return None
