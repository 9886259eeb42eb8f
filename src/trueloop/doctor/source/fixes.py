"""How a mistake is mended in the text: edits that keep all else as it was, byte for byte.

A fix is *safe* if it cannot change what a right script means. Fixes of one text that would touch the same place are
applied one round after the other; a fix after which the text would not parse is left out.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.findings import Finding

if TYPE_CHECKING:
    from trueloop.doctor.source.read import Source

ROUNDS = 20
"""After so many a text that still changes is given back as it was: two fixes undo each other."""
CONTEXT = 3
"""Lines that a diff shows around what changes."""


class Edit(NamedTuple):
    """One piece of a text that is replaced.

    Args:
        start: line (from 1) and column (from 0, in code points) of its first letter.
        end: those after its last letter; the same as ``start`` inserts, and the line after the last one is the end.
        text: what stands there afterwards; a line break is ``\\n``, and is written as the file's own are.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


class Fix(NamedTuple):
    """A way to mend a mistake.

    Args:
        title: what it does, in a few words: "move ``zero_grad`` before ``backward``".
        safe: it cannot change what a right script means.
        edits: all or none are applied; they are edits of the text that was checked, no other file's.
    """

    title: str
    safe: bool
    edits: tuple[Edit, ...]


class Checked(NamedTuple):
    """What a rule has to say of a source: the finding, and how to mend it, if that is known."""

    finding: Finding
    fix: Fix | None = None


class Fixed(NamedTuple):
    """A source after its fixes.

    Args:
        source: as it is now.
        applied: the findings that were mended, in order, each with its fix.
        left: what is found in it now.
    """

    source: Source
    applied: list[Checked]
    left: list[Checked]


def fixed(
    source: Source,
    ask: Callable[[Source], list[Checked]],
    parses: Callable[[str], bool],
    *,
    unsafe: bool = False,
    found: list[Checked] | None = None,
) -> Fixed:
    """Applies fixes until nothing changes.

    Args:
        source: what is to be mended.
        ask: what is found in a source, in the order in which it is to be mended.
        parses: whether a text is Python; what does not parse is never given back.
        unsafe: also apply fixes that may change what the script does.
        found: what ``ask(source)`` said, if it has been asked already.

    Returns:
        The source as it is then, and asked again: it changes no more. If it never comes to rest, it is as it was.

    Example:
        >>> from trueloop.doctor.source.read import Source
        >>> finding = Finding("safe-load", 801, "warning", "certain", "runs code")
        >>> def ask(source):
        ...     fix = Fix("say weights_only", True, (Edit((1, 6), (1, 6), ", weights_only=True"),))
        ...     return [Checked(finding, fix)] if "weights_only" not in source.text else []
        >>> fixed(Source("a.py", "load(x)\\n"), ask, lambda text: True).source.text
        'load(x, weights_only=True)\\n'
    """
    first = list(ask(source) if found is None else found)
    now, left, applied = source, first, list[Checked]()
    texts = {source.text}
    for _ in range(ROUNDS):
        changed, those = _round(now, left, parses, unsafe)
        if not those:
            return Fixed(now, applied, left)
        if changed.text in texts:
            break
        texts.add(changed.text)
        now, left = changed, ask(changed)
        applied += those
    return Fixed(source, [], first)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """A text after edits that do not overlap.

    Raises:
        ValueError: an edit is outside the text, or two overlap.

    Example:
        >>> apply("a = 1\\r\\nb = 2\\r\\n", [Edit((2, 0), (2, 0), "c = 3\\n"), Edit((1, 4), (1, 5), "7")])
        'a = 7\\r\\nc = 3\\r\\nb = 2\\r\\n'
    """
    lines = lines_of(text)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    newline = newline_of(lines)
    unended = bool(text) and text[-1] not in "\r\n"
    spans = []
    for edit in edits:
        # what comes below a last line that has no end gives it one
        inserted = f"\n{edit.text}" if unended and edit.text and edit.start[0] > len(lines) else edit.text
        spans.append((_offset(edit.start, lines, starts), _offset(edit.end, lines, starts), inserted))
    parts, at = list[str](), 0
    for start, end, inserted in sorted(spans):
        if not at <= start <= end:
            raise ValueError(f"expected edits that do not overlap, got one of {start}:{end} after {at}")
        parts += [text[at:start], inserted.replace("\r\n", "\n").replace("\n", newline)]
        at = end
    whole = "".join([*parts, text[at:]])
    return whole.removesuffix(newline) if unended else whole


def overlap(one: Fix, other: Fix) -> bool:
    """Whether two fixes touch the same place: then they are not applied in one round.

    Two insertions at one place do: their order would be chance.
    """
    return any(
        max(mine.start, its.start) < min(mine.end, its.end) or mine.start == its.start or _inside(mine, its)
        for mine in one.edits
        for its in other.edits
    )


def diff(before: str, after: str, name: str, to: str | None = None) -> str:
    """A unified diff, as ``patch`` takes it; empty if nothing changed.

    Example:
        >>> print(diff("a\\n", "b\\n", "x.py"), end="")
        --- x.py
        +++ x.py
        @@ -1 +1 @@
        -a
        +b
    """
    old, new = (list(io.StringIO(text, newline="\n")) for text in (before, after))  # lines as `patch` counts them
    # a long file is the same but for a few lines, and to match all of it takes its time
    skipped = max(0, same_at_start(old, new) - CONTEXT)
    left = max(0, same_at_start(old[skipped:][::-1], new[skipped:][::-1]) - CONTEXT)
    old, new = old[skipped : len(old) - left], new[skipped : len(new) - left]
    told = [f"--- {name}\n", f"+++ {to or name}\n"] if old != new else []
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT):
        (_, first, _, start, _), (_, _, last, _, end) = group[0], group[-1]
        told.append(f"@@ -{_range(skipped + first, last - first)} +{_range(skipped + start, end - start)} @@\n")
        for kind, first, last, start, end in group:
            told += [f" {line}" for line in old[first:last] if kind == "equal"]
            told += [f"-{line}" for line in old[first:last] if kind in ("replace", "delete")]
            told += [f"+{line}" for line in new[start:end] if kind in ("replace", "insert")]
    return "".join(line if line[-1:] == "\n" else f"{line}\n\\ No newline at end of file\n" for line in told)


def lines_of(text: str) -> list[str]:
    """The lines as Python counts them, each with its end: a form feed ends none, as it does for ``splitlines``."""
    return list(io.StringIO(text, newline=""))


def newline_of(lines: Sequence[str]) -> str:
    """How the first line ends."""
    first = lines[0] if lines else ""
    return "\r\n" if first.endswith("\r\n") else "\r" if first.endswith("\r") else "\n"


def same_at_start(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines two texts share at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (mine, its) in pairs if mine != its), min(len(one), len(other)))


def _range(start: int, length: int) -> str:
    """The lines of a hunk as POSIX writes them: from 1; a length of 1 is left out; of none, the line before."""
    return f"{start + 1}" if length == 1 else f"{start + (length > 0)},{length}"


def _round(
    source: Source, found: Sequence[Checked], parses: Callable[[str], bool], unsafe: bool
) -> tuple[Source, list[Checked]]:
    """Applies as many fixes at once as do not touch each other, and of them only what leaves Python."""
    chosen = list[Checked]()
    for checked in found:
        fix = checked.fix
        if fix is None or not fix.edits or not (fix.safe or unsafe):
            continue
        if not any(overlap(fix, other.fix) for other in chosen if other.fix is not None):
            chosen.append(checked)
    changed = _edited(source, chosen, parses)
    if changed is not None:
        return changed, chosen
    now, those = source, list[Checked]()  # one of them breaks the text: each is tried
    for checked in chosen:
        changed = _edited(source, [*those, checked], parses)
        if changed is not None:
            now, those = changed, [*those, checked]
    return now, those


def _edited(source: Source, chosen: Sequence[Checked], parses: Callable[[str], bool]) -> Source | None:
    """The source after these fixes; None if it cannot be, or nothing changes."""
    edits = [edit for checked in chosen if checked.fix is not None for edit in checked.fix.edits]
    try:
        changed = source.edited(edits)
    except ValueError:
        return None
    return changed if changed.text != source.text and parses(changed.text) else None


def _offset(position: tuple[int, int], lines: Sequence[str], starts: Sequence[int]) -> int:
    line, column = position
    if line == len(lines) + 1 and column == 0:
        return starts[-1]
    if not (1 <= line <= len(lines) and 0 <= column <= len(lines[line - 1])):
        raise ValueError(f"expected a place within the {len(lines)} lines of the text, got {line}:{column}")
    return starts[line - 1] + column


def _inside(one: Edit, other: Edit) -> bool:
    """An insertion right within what the other replaces."""
    return one.start < other.start < one.end or other.start < one.start < other.end
