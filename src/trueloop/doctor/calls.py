"""How the user wrote a call: the text of its arguments, which tells what a number was meant as."""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache

from trueloop.doctor.findings import Place


def arguments_at(place: Place | None, *names: str) -> dict[str, str]:
    """The arguments of a call that stands on a line, as they are written.

    Args:
        place: any line of the call.
        names: what is called (``StepLR``): its last name; the innermost such call is taken.

    Returns:
        The text of each argument, by keyword, or by position (``"0"``, ``"1"`` …); empty where no such call is found.

    Example:
        >>> linecache.cache["<ipython-a>"] = (1, None, ["s = StepLR(opt, step_size=epochs // 3)"], "<ipython-a>")
        >>> arguments_at(Place("<ipython-a>", 1), "StepLR")
        {'0': 'opt', 'step_size': 'epochs // 3'}
    """
    if place is None:
        return {}
    found = [
        call
        for call in _calls(place.file, len(linecache.getlines(place.file)))
        if call.lineno <= place.line <= (call.end_lineno or call.lineno) and _name(call) in names
    ]
    if not found:
        return {}
    call = min(found, key=lambda call: (call.end_lineno or call.lineno) - call.lineno)
    given = {str(index): ast.unparse(argument) for index, argument in enumerate(call.args)}
    return given | {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}


@lru_cache(maxsize=16)
def _calls(file: str, lines: int) -> tuple[ast.Call, ...]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""
