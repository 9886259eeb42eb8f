"""``--format text``: findings in the manner of a good compiler, the gravest first."""

from __future__ import annotations

import linecache
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from trueloop.doctor.findings import Finding, Place, plain
from trueloop.doctor.output import Report, counted, shown_path

WIDTH = 100
LONGEST = 140  # of a line of code, in columns; the rest of it is cut off
_COLOURS = {
    "error": "1;31",
    "warning": "1;33",
    "note": "1;36",
    "frame": "1;34",
    "bold": "1",
    "dim": "2",
    "good": "1;32",
}


class Paint:
    """Colours, or none.

    Example:
        >>> Paint(False)("error", "no"), Paint(True)("error", "no")
        ('no', '\\x1b[1;31mno\\x1b[0m')
    """

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, kind: str, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self._colours and text else text


def write(report: Report, *, colours: bool = False, width: int = WIDTH, show_passed: bool = False) -> str:
    """All findings, then what was checked (if asked for) and what was not seen, and a last line that sums it up.

    Args:
        report: what there is to say.
        colours: for a terminal.
        width: where long sentences are broken.
        show_passed: what was checked and found right, and each rule that saw too little.

    Example:
        >>> print(write(Report(steps=120)), end="")
        trueloop doctor: nothing wrong was found in 120 steps
    """
    paint = Paint(colours)
    known = {""}  # what has been said of a rule in general is said once
    blocks = ["\n".join(_finding(finding, known, paint, width)) for finding in report.findings]
    if show_passed and report.passed:
        blocks.append(_listed("checked and found right", report.passed, "good", paint, width))
    unseen = [one for one in report.unseen if show_passed or one.name is None]
    if unseen:
        blocks.append(_listed("not seen", unseen, "note", paint, width))
    blocks.append(_summary(report, paint, show_passed))
    return "\n\n".join(blocks) + "\n"


def _finding(finding: Finding, known: set[str], paint: Paint, width: int) -> Iterator[str]:
    yield f"{paint(finding.level, f'{finding.level}[{finding.name}]')} ({finding.code})" + paint(
        "bold", f": {plain(finding.message)}"
    )
    places = [(finding.place, "")] if finding.place is not None else []
    places += [(place, label) for place, label in finding.related if place != finding.place]
    gutter = max((len(str(place.line)) for place, _ in places), default=1)
    for number, file in enumerate(dict.fromkeys(place.file for place, _ in places)):
        yield from _excerpt(file, [one for one in places if one[0].file == file], finding, number == 0, gutter, paint)
    seen = [f"seen at step {finding.step}"] if finding.step is not None else []
    seen += [f"epoch {finding.epoch + 1}"] if finding.epoch is not None else []
    told = [("evidence", one) for one in finding.evidence]
    told += [("certainty", ", ".join([finding.certainty, *seen]))]
    told += [("explains", ", ".join(finding.explains))] if finding.explains else []
    told += [(kind, text) for kind, text in (("meaning", finding.meaning), ("help", finding.help)) if text not in known]
    known |= {finding.meaning, finding.help}
    for label, text in told:
        start = f"{' ' * gutter} = {label}: "
        lines = textwrap.wrap(plain(text), max(40, width - len(start)), break_long_words=False, break_on_hyphens=False)
        yield f"{' ' * gutter} {paint('frame', '=')} {paint('bold', f'{label}:')} {(lines or [''])[0]}"
        yield from (" " * len(start) + line for line in lines[1:])


def _excerpt(
    file: str, places: Sequence[tuple[Place, str]], finding: Finding, first: bool, gutter: int, paint: Paint
) -> Iterator[str]:
    """The lines of one file that belong to a finding, in the file's order, each with its mark."""
    bar = paint("frame", "|")
    head = places[0][0]
    yield f"{' ' * gutter}{paint('frame', '-->' if first else ':::')} {shown_path(file)}:{head.line}"
    by_line: dict[int, list[str]] = {}
    for place, label in places:
        by_line.setdefault(place.line, []).append(label)
    shown = [(line, labels) for line, labels in sorted(by_line.items()) if linecache.getline(file, line).strip()]
    if not shown:
        return
    yield f"{' ' * gutter} {bar}"
    before = None
    for line, labels in shown:
        if before is not None and line > before + 1:
            yield paint("frame", "...")
        before = line
        code = linecache.getline(file, line).rstrip().expandtabs(4)
        code = code if len(code) <= LONGEST else f"{code[: LONGEST - 1]}…"
        is_place = finding.place is not None and finding.place == Place(file, line)
        mark = ("^" if is_place else "-") * max(1, _columns(_without_comment(code).strip()))
        indent = " " * (len(code) - len(code.lstrip()))
        label = "; ".join(label for label in labels if label)
        yield f"{paint('frame', f'{line:>{gutter}}')} {bar} {code}"
        mark = paint(finding.level if is_place else "frame", f"{mark} {label}".rstrip())
        yield f"{' ' * gutter} {bar} {indent}{mark}"
    yield f"{' ' * gutter} {bar}"


def _listed(title: str, sentences: Sequence[tuple[str | None, str]], kind: str, paint: Paint, width: int) -> str:
    lines = [paint(kind, f"{title}:")]
    for name, text in sentences:
        whole = f"{name}: {text}" if name else text
        lines.append(
            textwrap.fill(
                plain(whole),
                width,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def _summary(report: Report, paint: Paint, show_passed: bool) -> str:
    grave = next(
        (level for level in ("error", "warning", "note") if any(f.level == level for f in report.findings)), None
    )
    found = f"found {counted(report)}" if grave else "nothing wrong was found"
    if report.steps:
        found += f" in {report.steps} step{'s' * (report.steps != 1)}"
    elif report.steps == 0:
        found = "no training was seen" + (f"; {found}" if grave else "")
    more = []
    if report.ended:
        more.append(report.ended)
    if report.kept_back:
        more.append(f"{len(report.kept_back)} kept back by comments")
    short = sum(one.name is not None for one in report.unseen)
    if not show_passed and report.passed:
        more.append(
            f"{len(report.passed)} check{'s' * (len(report.passed) != 1)} passed"
            + (f", {short} saw too little" if short else "")
            + " (--show-passed)"
        )
    text = f"{report.command}: {found}"
    return paint(grave or "good" if report.steps else grave or "note", text) + "".join(f"; {one}" for one in more)


def _without_comment(code: str) -> str:
    """A line without its trailing comment; a ``#`` within a text is one only if the text is not closed before it."""
    quote = ""
    for position, letter in enumerate(code):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and code[:position].strip():
            return code[:position]
    return code


def _columns(text: str) -> int:
    """How wide a text is on a terminal."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
