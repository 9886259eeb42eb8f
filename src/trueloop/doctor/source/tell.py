"""What ``trueloop check`` says: the doctor's report, with the fixes, and with places in notebooks by cell and line."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trueloop.doctor.findings import Finding, Place, plain
from trueloop.doctor.output import Format, Report, shown_path, text, written
from trueloop.doctor.source.fixes import Checked, Fix, diff, lines_of, newline_of, same_at_start
from trueloop.doctor.source.read import Source
from trueloop.doctor.suppress import UNREADABLE

COMMAND = "trueloop check"


@dataclass(frozen=True)
class Reading:
    """All that there is to say of the files that were read.

    Args:
        left: what was found, by file and line, each with its fix, if there is one.
        sources: what was read, by path.
        files: how many files that were.
        kept_back: what comments kept back.
        applied: what was mended: the file's path, and each finding with its fix.
    """

    left: Sequence[Checked]
    sources: Mapping[str, Source]
    files: int
    kept_back: Sequence[Finding] = ()
    applied: Sequence[tuple[str, Checked]] = ()

    def report(self, form: Format = "text") -> Report:
        """As the doctor's outputs take it."""
        placed = _in_file if form in ("sarif", "github") else _in_cell
        files = f"{self.files} file{'s' * (self.files != 1)} read"
        return Report(
            [placed(checked.finding, self.sources) for checked in self.left],
            COMMAND,
            kept_back=[placed(finding, self.sources) for finding in self.kept_back],
            ended=files,
        )


def told(reading: Reading, form: Format = "text", *, colours: bool = False, width: int = text.WIDTH) -> str:
    """The whole of it, in a format.

    Args:
        reading: what there is to say.
        form: text, json, sarif or github.
        colours: for a terminal.
        width: where long sentences are broken.

    Example:
        >>> print(told(Reading([], {}, 3)), end="")
        trueloop check: nothing wrong was found; 3 files read
    """
    for checked in reading.left:
        for place in (checked.finding.place, *(place for place, _ in checked.finding.related)):
            if place is not None and place.file in reading.sources:
                reading.sources[place.file].show()
            elif place is not None and checked.finding.name == UNREADABLE[0]:
                Source(place.file, "").show()  # nobody is to try again: it may be a pipe
    if form == "text":
        return _text(reading, colours, width)
    if form == "json":
        return _json(reading)
    if form == "sarif":
        return _sarif(reading)
    return written(reading.report(form), form)


def changes(before: Source, after: Source) -> str:
    """What a fix changes, as a diff; of a notebook, cell by cell.

    Example:
        >>> print(changes(Source("a.py", "x = 1\\n"), Source("a.py", "x = 2\\n")), end="")
        --- a.py
        +++ a.py
        @@ -1 +1 @@
        -x = 1
        +x = 2
    """
    both = zip(before.parts(), after.parts(), strict=True)
    shown = shown_path if before.cells else _for_patch  # no patch is applied to a cell
    return "".join(diff(old, new, shown(name)) for (name, old), (_, new) in both if old != new)


def statistics(reading: Reading, form: Format = "text") -> str:
    """How often each rule spoke, the most frequent first.

    Example:
        >>> found = Checked(Finding("broadcast-loss", 304, "error", "certain", "shapes differ"))
        >>> print(statistics(Reading([found] * 2, {}, 1)), end="")
            2  304  broadcast-loss
    """
    counts = Counter((checked.finding.code, checked.finding.name) for checked in reading.left)
    fixable = {checked.finding.name for checked in reading.left if checked.fix is not None}
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    if form == "json":
        told = [
            {"code": code, "name": name, "count": count, "fixable": name in fixable} for (code, name), count in rows
        ]
        return json.dumps(told, indent=2) + "\n"
    if not rows:
        return "trueloop check: nothing wrong was found\n"
    return "".join(
        f"{count:>5}  {code}  {name}{'  (has fixes)' if name in fixable else ''}\n" for (code, name), count in rows
    )


def _for_patch(file: str) -> str:
    """A file's name as `patch` reads it: with blanks it ends in a tab, with line breaks it stands in quotes."""
    name = shown_path(file)
    if any(letter < " " for letter in name):
        return json.dumps(name, ensure_ascii=False)
    return f"{name}\t" if " " in name else name


def _text(reading: Reading, colours: bool, width: int) -> str:
    paint = text.Paint(colours)
    whole = text.write(reading.report(), colours=colours, width=width).rstrip("\n")
    head, _, summary = whole.rpartition("\n\n")
    blocks = [head] if head else []
    for checked in reading.left:
        if (shown := _shown_fix(checked, reading.sources)) is not None:
            title, lines = shown
            blocks.append("\n".join([paint("bold", title), *(_painted(line, paint) for line in lines.splitlines())]))
    if reading.applied:
        blocks.append("\n".join([paint("good", "fixed:"), *(f"  {_applied(*one)}" for one in reading.applied)]))
        if any(not checked.fix.safe for _, checked in reading.applied if checked.fix is not None):
            blocks.append("Unsafe fixes change what the script does: read the diff, and train again.")
    return "\n\n".join([*blocks, summary + _fixable(reading)]) + "\n"


def _shown_fix(checked: Checked, sources: Mapping[str, Source]) -> tuple[str, str] | None:
    """A fix's title and diff."""
    fix, finding = checked.fix, checked.finding
    source = sources.get(finding.file or "")
    if fix is None or source is None:
        return None
    try:
        lines = changes(source, source.edited(fix.edits))
    except ValueError:
        return None
    place = _in_cell(finding, sources).place
    where = f" of {shown_path(str(place))}" if place is not None else ""
    flag = "--fix" if fix.safe else "--unsafe-fixes: it changes what the script does"
    return f"fix[{finding.name}]{where}: {plain(fix.title)} ({flag})", lines


def _painted(line: str, paint: text.Paint) -> str:
    kind = {"+": "good", "-": "error", "@": "frame"}.get(line[:1])
    return paint(kind, line) if kind else line


def _applied(path: str, checked: Checked) -> str:
    fix = checked.fix or Fix("", True, ())
    unsafe = "" if fix.safe else " (unsafe)"
    return f"{shown_path(path)}: {checked.finding.name}: {plain(fix.title)}{unsafe}"


def _fixable(reading: Reading) -> str:
    fixes = [checked.fix for checked in reading.left if checked.fix is not None]
    safe = sum(fix.safe for fix in fixes)
    ways = [f"{safe} by --fix"] * (safe > 0) + [f"{len(fixes) - safe} by --unsafe-fixes"] * (len(fixes) > safe)
    return f"; can be mended: {', '.join(ways)}" if ways else ""


def _json(reading: Reading) -> str:
    whole = json.loads(written(reading.report("json"), "json"))
    for told, checked in zip(whole["findings"], reading.left, strict=True):
        told |= _cell(checked.finding.place, reading.sources)
        shown = _shown_fix(checked, reading.sources)
        told["fix"] = None
        if shown is not None and checked.fix is not None:
            told["fix"] = {"title": plain(checked.fix.title), "safe": checked.fix.safe, "diff": shown[1]}
    for told, finding in zip(whole["ignored"], reading.kept_back, strict=True):
        told |= _cell(finding.place, reading.sources)
    whole["files"] = reading.files
    whole["fixed"] = [
        {"file": path, "name": checked.finding.name, "title": plain(checked.fix.title), "safe": checked.fix.safe}
        for path, checked in reading.applied
        if checked.fix is not None
    ]
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _cell(place: Place | None, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The keys ``file`` and ``cell`` of a place; ``line`` is one of the cell's."""
    source = sources.get(place.file) if place is not None else None
    if place is None or source is None or not source.cells:
        return {}
    return {"file": place.file, "cell": int(source.place(place.line).file.rpartition(" ")[2])}


def _sarif(reading: Reading) -> str:
    whole = json.loads(written(reading.report("sarif"), "sarif"))
    for result, checked in zip(whole["runs"][0]["results"], reading.left, strict=True):
        source = reading.sources.get(checked.finding.file or "")
        if checked.fix is None or source is None or _shown_fix(checked, reading.sources) is None:
            continue
        replacements = _in_json(source, checked.fix) if source.cells else _in_text(source, checked.fix)
        artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
        change = {"artifactLocation": artifact, "replacements": replacements}
        result["fixes"] = [{"description": {"text": plain(checked.fix.title)}, "artifactChanges": [change]}]
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _in_text(source: Source, fix: Fix) -> list[dict[str, Any]]:
    """A fix as SARIF has it; columns are counted in code points, as the log says."""
    newline = newline_of(lines_of(source.text))
    return [_replacement(edit.start, edit.end, edit.text.replace("\n", newline), source.text) for edit in fix.edits]


def _in_json(source: Source, fix: Fix) -> list[dict[str, Any]]:
    """The same in a notebook: the lines of its JSON that change."""
    before, after = (lines_of(one.raw) for one in (source, source.edited(fix.edits)))
    same = same_at_start(before, after)  # most of a notebook, and the matcher takes its time
    changes = difflib.SequenceMatcher(None, before[same:], after[same:]).get_opcodes()
    return [
        _replacement((same + first + 1, 0), (same + last + 1, 0), "".join(after[same + start : same + end]), source.raw)
        for kind, first, last, start, end in changes
        if kind != "equal"
    ]


def _replacement(start: tuple[int, int], end: tuple[int, int], text: str, whole: str) -> dict[str, Any]:
    lines = lines_of(whole)
    last = len(lines), len(lines[-1]) if lines else 0
    if whole and whole[-1] not in "\r\n" and end >= last:  # below the last line there is none to begin at
        newline = newline_of(lines)
        text = text.removesuffix(newline) if start <= last else newline + text.removesuffix(newline)
        start, end = min(start, last), last
    return {
        "deletedRegion": {
            "startLine": start[0],
            "startColumn": start[1] + 1,
            "endLine": end[0],
            "endColumn": end[1] + 1,
        },
        "insertedContent": {"text": text},
    }


def _in_cell(finding: Finding, sources: Mapping[str, Source]) -> Finding:
    def placed(place: Place) -> Place:
        return sources[place.file].place(place.line) if place.file in sources else place

    return _moved(finding, placed)


def _in_file(finding: Finding, sources: Mapping[str, Source]) -> Finding:
    def placed(place: Place) -> Place:
        return sources[place.file].place_in_file(place.line) if place.file in sources else place

    source = sources.get(finding.file or "")
    if source is not None and source.cells and finding.place is not None:
        place = source.place(finding.place.line)
        cell = place.file.rpartition(":")[2]
        finding = replace(finding, message=f"{cell}, line {place.line}: {finding.message}")
    return _moved(finding, placed)


def _moved(finding: Finding, placed: Any) -> Finding:
    place = None if finding.place is None else placed(finding.place)
    return replace(finding, place=place, related=tuple((placed(where), label) for where, label in finding.related))
