"""``trueloop rules``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from trueloop.doctor.findings import plain
from trueloop.doctor.output import screen
from trueloop.doctor.pages import HUNDREDS, pages


def run(arguments: Sequence[str]) -> int:
    """Lists the catalogue."""
    parser = argparse.ArgumentParser(prog="trueloop rules", description="Lists the mistakes that the doctor knows.")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    given = parser.parse_args(arguments)
    print(_as_json() if given.format == "json" else _as_text())
    return 0


def _as_json() -> str:
    rows = [
        {
            "name": page.name,
            "code": page.code,
            "level": page.level,
            "certainty": page.certainty,
            "seen_by": list(page.seen_by),
            "summary": plain(page.summary),
        }
        for page in pages()
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def _as_text() -> str:
    from trueloop.doctor.output.text import Paint

    colours, width = screen(sys.stdout)
    paint = Paint(colours)
    name_width = max(len(page.name) for page in pages())
    lines = []
    for hundred, title in HUNDREDS.items():
        those = [page for page in pages() if page.code // 100 == hundred]
        if those:
            lines += ["", paint("bold", f"{hundred}xx  {title}")]
        for page in those:
            seen = ",".join(page.seen_by)
            start = f"{page.code}  {page.name:<{name_width}}  {page.level:<7}  {seen:<10}  "
            summary = plain(page.summary)
            room = max(20, width - len(start))
            summary = summary if len(summary) <= room else f"{summary[: room - 1]}…"
            lines.append(start.replace(page.level, paint(page.level, page.level), 1) + summary)
    return "\n".join(lines[1:])
