"""Finding a line in the user's source near one that is known: where a variable was given its value.

What runs tells the line that runs (``loss.backward()``); the mistake often stands some lines above it.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable

from trueloop.doctor.findings import Place

REACH = 60
"""So many lines above are searched; a guess: a training loop's body."""
_CALLED_ON = re.compile(r"([A-Za-z_][\w.]*)\s*\.\s*backward\s*\(|\bbackward\s*\(\s*([A-Za-z_][\w.]*)\s*[,)]")


def backwarded(place: Place | None) -> str | None:
    """The name on which the line calls ``backward``; None if it is an expression.

    Example:
        >>> linecache.cache["<t>"] = (1, None, ["loss = f(x)\\n", "scaler.scale(loss).backward()\\n"], "<t>")
        >>> backwarded(Place("<t>", 2)), assigned(Place("<t>", 2), "loss")
        ('loss', Place(file='<t>', line=1))
    """
    if place is None:
        return None
    line = re.sub(r"\w+\.scale\(([\w.]+)\)", r"\1", place.source)
    match = _CALLED_ON.search(line)
    return next((name for name in match.groups() if name), None) if match else None


def assigned(place: Place | None, name: str | None, containing: str = "") -> Place | None:
    """The nearest line above that gives a variable its value.

    Args:
        place: the line from which to look upwards.
        name: the variable.
        containing: a pattern that the line must match as well.
    """
    if place is None or name is None:
        return None
    pattern = re.compile(rf"^\s*(?:[\w.]+\s*,\s*)*{re.escape(name)}\s*(?:,[\w.,\s]+|:[^=]+)?[-+*/]?=(?!=)")
    needs = re.compile(containing)
    for number in range(place.line - 1, max(0, place.line - REACH), -1):
        line = linecache.getline(place.file, number)
        if pattern.match(line) and needs.search(line):
            return Place(place.file, number)
    return None


def kept(place: Place | None, names: Iterable[str]) -> Place | None:
    """The line nearest to a known one that adds to one of these variables (``total += …``, ``history.append(…)``)."""
    if place is None:
        return None
    either = "|".join(re.escape(name) for name in names)
    if not either:
        return None
    pattern = re.compile(
        rf"(?:^|[^\w.])(?:{either})(?:\[[^\]]*\])*\s*(?:\+=|\.\s*(?:append|extend|add|update|insert|put)\s*\()"
        rf"|^\s*({either})\s*=\s*\1\b|^\s*(?:{either})\[[^\]]*\]\s*="
    )
    found = [
        number
        for number in range(max(1, place.line - REACH), place.line + REACH)
        if pattern.search(linecache.getline(place.file, number))
    ]
    return Place(place.file, min(found, key=lambda number: abs(number - place.line))) if found else None


def says(place: Place | None, words: Iterable[str], above: int = 12, below: int = 3) -> bool:
    """Whether one of the words stands near a line: what a name or a comment says was meant."""
    if place is None:
        return False
    lines = (linecache.getline(place.file, number) for number in range(max(1, place.line - above), place.line + below))
    text = " ".join(lines).lower()
    return any(word in text for word in words)


def says_around(place: Place | None, words: Iterable[str], above: int = 12, below: int = 2) -> bool:
    """Whether one of the words stands beside a line, or in the heads of the blocks that it is in.

    Not in other blocks above it: another function, the fields of a class.

    Example:
        >>> text = ["class Options:\\n", "    rounds = 8\\n", "def fit(task):\\n", "    opt = Adam(task)\\n"]
        >>> linecache.cache["<t>"] = (1, None, text, "<t>")
        >>> says_around(Place("<t>", 4), ["round"]), says_around(Place("<t>", 4), ["task"])
        (False, True)
    """
    if place is None:
        return False
    depth = _depth(linecache.getline(place.file, place.line))
    found = [linecache.getline(place.file, number) for number in range(place.line, place.line + below + 1)]
    found = [line for line in found if _depth(line) >= depth]
    for number in range(place.line - 1, max(0, place.line - above - 1), -1):
        line = linecache.getline(place.file, number)
        if not line.strip() or _depth(line) > depth:
            continue
        if _depth(line) == depth and line.lstrip().startswith(("def ", "async def ", "class ")):
            break  # above it is another one
        depth = _depth(line)
        found.append(line)
    text = " ".join(found).lower()
    return any(word in text for word in words)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
