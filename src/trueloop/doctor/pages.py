"""The catalogue as it is read by people: a page a rule, made from the rule's file. Nothing here imports torch.

``python -m trueloop.doctor.pages docs/rules`` writes them all.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trueloop.doctor import suppress
from trueloop.doctor.catalogue import rules_by_code
from trueloop.doctor.findings import Level
from trueloop.doctor.rule import about_of
from trueloop.doctor.settings import named

HUNDREDS = {
    1: "The order of the ritual",
    2: "Modes and evaluation",
    3: "The objective",
    4: "Dynamics",
    5: "Data",
    6: "Generalisation",
    7: "Cost",
    8: "Safety and repetition",
    9: "Comments to the doctor, and files that cannot be read",
}
BAR = "\\|"  # a bar within a table
_WAYS = {"run": "`trueloop doctor` (running)", "source": "`trueloop check` (reading)"}


class Page(NamedTuple):
    """What there is to say of a rule."""

    name: str
    code: int
    level: Level
    certainty: str
    seen_by: tuple[str, ...]
    about: dict[str, str]
    """The parts of its file's docstring; the first line under ``""``."""
    fires: dict[str, str]
    """Small scripts that have the mistake, by what is special about each."""
    silent: dict[str, str]
    """Small scripts that look like it and are right."""

    @property
    def summary(self) -> str:
        """What is wrong, in a line."""
        return self.about.get("", "")

    @property
    def way_out(self) -> tuple[str, str]:
        """Where it may be meant so, and what to write there."""
        if self.name == suppress.UNREADABLE[0]:  # no comment can be read in such a file
            return "in `pyproject.toml`, `[tool.trueloop]`", 'exclude = ["FILE"]'
        return "on a line that is meant so", f"# trueloop: ignore[{self.name}]"


@cache
def pages() -> tuple[Page, ...]:
    """All of them, by code.

    Example:
        >>> next(page.summary for page in pages() if page.name == "missing-zero-grad")
        'Gradients are never cleared: each step uses the sum of all gradients so far.'
    """
    found = []
    for rule in rules_by_code():
        file = sys.modules[rule.__module__]
        fires = getattr(file, "FIRES", None) or getattr(file, "READ_FIRES", {})
        silent = getattr(file, "SILENT", None) or getattr(file, "READ_SILENT", {})
        found.append(
            Page(rule.name, rule.code, rule.level, rule.certainty, rule.seen_by, about_of(rule), fires, silent)
        )
    for name, code in (suppress.UNUSED, suppress.NAMELESS):
        found.append(Page(name, code, "note", "certain", ("source", "run"), suppress.ABOUT[name], {}, {}))
    name, code = suppress.UNREADABLE
    found.append(Page(name, code, "error", "certain", ("source",), suppress.ABOUT[name], {}, {}))
    return tuple(sorted(found, key=lambda page: (page.code, page.name)))


def codes() -> dict[str, int]:
    """Each rule's code by its name."""
    return {page.name: page.code for page in pages()}


def page_of(entry: str) -> Page:
    """The page of a name or a code.

    Raises:
        ArgumentError: there is none; the nearest is offered.

    Example:
        >>> page_of("101").name
        'missing-zero-grad'
    """
    name = named(codes(), entry)[0]
    return next(page for page in pages() if page.name == name)


def markdown(page: Page) -> str:
    """The page, in Markdown."""
    ways = " and ".join(_WAYS[way] for way in page.seen_by)
    if "run" not in page.seen_by:
        ways += "; the doctor reads what it has run, and tells it as well"
    parts = [
        f"# {page.name} ({page.code})",
        _plain(page.summary),
        f"Level: **{page.level}** · known as: {page.certainty} · seen by {ways}",
    ]
    for heading, text in page.about.items():
        if heading:
            parts += [f"## {heading}", _plain(_sentence(text))]
    for title, scripts in (("It speaks here", page.fires), ("It is silent here", page.silent)):
        if scripts:
            parts.append(f"## {title}")
            for name, text in scripts.items():
                parts.append(f"{_plain(_sentence(name))}:\n\n```py\n{textwrap.dedent(text).strip()}\n```")
    parts.append(f"To keep it back {page.way_out[0]}: `{page.way_out[1]}`")
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The list of all pages, in Markdown."""
    lines = ["# The catalogue", "", "One mistake, one rule. `trueloop explain NAME` shows a page in the terminal."]
    for hundred, title in HUNDREDS.items():
        those = [page for page in pages() if page.code // 100 == hundred]
        if those:
            lines += [
                "",
                f"## {hundred}xx · {title}",
                "| code | name | level | seen by | what is wrong |",
                "|---|---|---|---|---|",
            ]
            lines += [
                f"| {page.code} | [{page.name}]({page.name}.md) | {page.level} | {', '.join(page.seen_by)} | "
                f"{_plain(page.summary).replace('|', BAR)} |"
                for page in those
            ]
    return "\n".join(lines) + "\n"


def written() -> dict[str, str]:
    """Every file of ``docs/rules`` by its name."""
    return {"README.md": index()} | {f"{page.name}.md": markdown(page) for page in pages()}


def write(folder: Path) -> None:
    """Writes every file, and removes pages of rules that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    files = written()
    for old in folder.glob("*.md"):
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    """Code between two backquotes, as docstrings have it, is between one in Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", text)


def main(arguments: Sequence[str]) -> int:
    """``python -m trueloop.doctor.pages FOLDER``."""
    write(Path(arguments[0] if arguments else "docs/rules"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
