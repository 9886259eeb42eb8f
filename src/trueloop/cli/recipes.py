"""``trueloop recipes``."""

from __future__ import annotations

from collections.abc import Sequence

from trueloop.cli.find import bundled
from trueloop.errors import ArgumentError


def run(arguments: Sequence[str]) -> int:
    """Lists the bundled recipes."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: trueloop recipes\n\nLists the recipes that come with trueloop.")
        return 0
    if arguments:
        raise ArgumentError(f"recipes takes no arguments, got {' '.join(arguments)!r}")
    known = bundled()
    width = max(map(len, known), default=0)
    for name, summary in known.items():
        print(f"{name:<{width}}  {summary}")
    return 0
