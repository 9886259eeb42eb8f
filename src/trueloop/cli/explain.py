"""``trueloop explain NAME|CODE``."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from trueloop.doctor.findings import plain
from trueloop.doctor.output import screen
from trueloop.doctor.pages import Page, page_of


def run(arguments: Sequence[str]) -> int:
    """Shows a rule's page."""
    parser = argparse.ArgumentParser(
        prog="trueloop explain", description="What a rule of the doctor sees, why it matters, and how to mend it."
    )
    parser.add_argument("rule", metavar="NAME|CODE", help="as a finding shows it: missing-zero-grad, or 101")
    given = parser.parse_args(arguments)
    colours, width = screen(sys.stdout)
    print(told(page_of(given.rule), colours=colours, width=width))
    return 0


def told(page: Page, *, colours: bool = False, width: int = 100) -> str:
    """A rule's page, for a terminal.

    Example:
        >>> print(told(page_of("missing-zero-grad")).splitlines()[0])
        missing-zero-grad (101) · error · seen by source, run
    """
    from trueloop.doctor.output.text import Paint

    paint = Paint(colours)
    title = paint(page.level, f"{page.name} ({page.code})")
    blocks = [f"{title} · {page.level} · seen by {', '.join(page.seen_by)}\n{_filled(page.summary, width)}"]
    for heading, text in page.about.items():
        if heading:
            blocks.append(f"{paint('bold', heading)}\n{_filled(text[:1].upper() + text[1:], width, '  ')}")
    for title, scripts in (("It speaks here", page.fires), ("It is silent here", page.silent)):
        for name, text in list(scripts.items())[:1]:
            blocks.append(f"{paint('bold', title)} ({name})\n{textwrap.indent(textwrap.dedent(text).strip(), '    ')}")
    blocks.append(f"{paint('bold', 'Where it is meant so')}\n  {page.way_out[1]}")
    return "\n\n".join(blocks)


def _filled(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(plain(text), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
