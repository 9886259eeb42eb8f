"""Tables of Markdown, and the file that holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.rounds import Rounds


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures.

    Example:
        >>> print(table(["loop", "µs"], [["by hand", "280"]]))
        | loop | µs |
        |---|--:|
        | by hand | 280 |
    """
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(
        "|" + "|".join(line) + "|" if line[0] == "---" else "| " + " | ".join(line) + " |" for line in lines
    )


def compared(
    by_threads: Mapping[int, Rounds], names: Sequence[str], base: str, figure: str, unit: str, places: int
) -> str:
    """Each variant at each number of threads: time, its ratio to ``base``, and that of CPU time."""
    head = ["loop"]
    for threads in by_threads:
        some = f"{threads} thread{'s' * (threads > 1)}"
        head += [f"{some}: {unit}", "× by hand", "CPU × by hand"]
    rows = []
    for name in names:
        row = [name]
        for rounds in by_threads.values():
            if name in rounds.figures and base in rounds.figures:
                row += [
                    f"{rounds.middle(name, figure):,.{places}f}",
                    f"**{rounds.ratio(name, base, figure):.2f}**",
                    f"{rounds.ratio(name, base, f'cpu {figure}'):.2f}",
                ]
            else:
                row += ["failed", "", ""]
        rows.append(row)
    return table(head, rows)


def failures(by_threads: Mapping[int, Rounds]) -> str:
    """Why something is not in the table; empty if all is."""
    told = {name: reason for rounds in by_threads.values() for name, reason in rounds.failed.items()}
    return "".join(f"\n- {name} failed: {reason}" for name, reason in told.items())


def verdict(text: str, value: float, goal: float, unit: str = "×", places: int = 2) -> str:
    """A line that says whether a goal is reached.

    Example:
        >>> verdict("a step", 0.5, 0.55)
        '- **reached** a step: 0.50× (goal ≤ 0.55×)'
    """
    word = "**reached**" if value <= goal else "**MISSED**"
    return f"- {word} {text}: {value:.{places}f}{unit} (goal ≤ {goal:g}{unit})"


def replace_sections(path: Path, top: str, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """Writes the file: new sections in place of the old ones of the same title, others as they were."""
    old: dict[str, str] = {}
    if path.exists():
        for part in re.split(r"(?m)^(?=## )", path.read_text())[1:]:
            title, _, body = part.partition("\n")
            old[title.removeprefix("## ").strip()] = body.strip()
    merged = old | dict(sections)
    known = [title for title in order if title in merged]
    path.write_text("\n\n".join([top, *(f"## {title}\n\n{merged[title]}" for title in known)]) + "\n")
