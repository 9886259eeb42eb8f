"""Comments that keep a finding back: ``# trueloop: ignore[rule-name]`` on the line, ``ignore-file[…]`` for the file.

Knows nothing of how a finding was made: reading and running use it alike. A comment on any line of the statement
counts, and so does one on a line of its own right above it. A rule must be named (its code or hundred, ``3xx``, will
do); a comment that names none, or that keeps nothing back, is told in a note.
"""

from __future__ import annotations

import ast
import difflib
import io
import re
import tokenize
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.settings import stands_for

UNUSED = ("unused-ignore", 901)
NAMELESS = ("ignore-without-name", 902)
UNREADABLE = ("does-not-parse", 903)
_COMMENT = re.compile(r"#\s*trueloop:\s*(ignore-file|ignore)\b(?:\s*\[([^\]]*)\])?")


@dataclass
class Comment:
    """One comment that keeps findings back.

    Args:
        line: where it stands.
        names: the rules as they are written there; empty if none is named.
        lines: the lines that it speaks for; None for the whole file.
        used: which of the names kept something back.
    """

    line: int
    names: tuple[str, ...]
    lines: range | None
    used: set[str] = field(default_factory=set)

    def keeps_back(self, finding: Finding) -> bool:
        """Whether it speaks for the finding's line and names its rule."""
        if self.lines is not None and (finding.line is None or finding.line not in self.lines):
            return False
        names = {name for name in self.names if stands_for(name, finding.name, finding.code)}
        self.used |= names
        return bool(names)


class Kept(NamedTuple):
    """What is left, and what was kept back."""

    findings: list[Finding]
    kept_back: list[Finding]


def apply(
    findings: Iterable[Finding],
    files: Iterable[str] = (),
    *,
    known: Mapping[str, int],
    judged: Collection[str] = (),
    sources: Mapping[str, str] | None = None,
    also: Callable[[str], Iterable[Finding]] = lambda file: (),
) -> Kept:
    """Keeps findings back as the comments in their files say, and adds notes on comments that do nothing.

    Args:
        findings: those that were made.
        files: further files, whose comments are to be judged too.
        known: each rule's code by its name.
        judged: the rules that looked, so that a comment that names one of them and keeps nothing back is of no use.
            Empty if nothing can be said of that (a script that was ended early).
        sources: the text of files that are not on the disk, or not as they were read.
        also: what another way of looking finds in a file, so that a comment that is for that is not called useless;
            asked only of files with comments that would be.

    Returns:
        The findings that are left, notes on comments among them, and those kept back.

    Example:
        >>> text = "loss.backward()  # trueloop: ignore[missing-zero-grad]"
        >>> found = Finding("missing-zero-grad", 101, "error", "certain", "they add up", place=Place("<t>", 1))
        >>> left, back = apply([found], known={"missing-zero-grad": 101}, sources={"<t>": text})
        >>> left, [finding.name for finding in back]
        ([], ['missing-zero-grad'])
    """
    findings = list(findings)
    named = dict.fromkeys([*files, *(finding.file for finding in findings if finding.file is not None)])
    comments = {file: read((sources or {}).get(file) or _text(file)) for file in named}
    left: list[Finding] = []
    back: list[Finding] = []
    for finding in findings:
        # every comment is asked, so that each one that has a use is known to have it
        asked = [comment.keeps_back(finding) for comment in comments.get(finding.file or "", ())]
        (back if any(asked) else left).append(finding)
    explained = {name for finding in findings for name in finding.explains}
    for file, those in comments.items():
        if judged and not all(comment.used.issuperset(comment.names) for comment in those):
            for finding in also(file):
                for comment in those:
                    comment.keeps_back(finding)
        for comment in those:
            left += _notes(file, comment, known, set(judged) - explained)
    return Kept(left, back)


def read(text: str) -> list[Comment]:
    """The comments in a text.

    Example:
        >>> [(comment.names, comment.lines) for comment in read("f(\\n  x,  # trueloop: ignore[a, b] as meant\\n)")]
        [(('a', 'b'), range(1, 4))]
    """
    if "trueloop:" not in text:
        return []
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    statements, lines = _statements(text), text.split("\n")
    found = []
    for number, column, comment in _comments(text):
        match = _COMMENT.match(comment)
        if match is None:
            continue
        names = tuple(name.strip() for name in (match[2] or "").split(",") if name.strip())
        whole = match[1] == "ignore-file"
        found.append(Comment(number, names, None if whole else _spoken_for(number, lines, column, statements)))
    return found


@lru_cache(maxsize=256)
def _text(file: str) -> str:
    try:
        with tokenize.open(file) as stream:  # in the encoding that the file declares
            return stream.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _comments(text: str) -> list[tuple[int, int, str]]:
    """Line, column and text of each comment; those before the place where a text stops being Python, if it does."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                at = token.string.find("trueloop:")
                start = token.string.rfind("#", 0, at) if at >= 0 else 0  # it may stand behind another
                found.append((token.start[0], token.start[1], token.string[max(start, 0) :]))
    except (tokenize.TokenError, SyntaxError):
        pass
    return found


class _Statement(NamedTuple):
    """The lines of a statement; of one that has a body, those of its head."""

    lines: range
    has_body: bool


def _statements(text: str) -> list[_Statement]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the text's own: an invalid escape
            flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as notebooks have it
            tree: ast.Module = compile(text, "<text>", "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.stmt, ast.ExceptHandler)):
            continue
        body: list[ast.stmt] = getattr(node, "body", [])
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        found.append(_Statement(range(first, max(first, last) + 1), bool(body)))
    return found


def _spoken_for(number: int, lines: Sequence[str], column: int, statements: Sequence[_Statement]) -> range:
    """The lines that a comment on this line speaks for: its statement's, or those of the one right below."""
    inside = min((one for one in statements if number in one.lines), key=lambda one: len(one.lines), default=None)
    alone = not lines[number - 1][:column].strip()
    if alone and (inside is None or inside.has_body):
        below = number + 1
        while below <= len(lines) and lines[below - 1].lstrip().startswith("#"):
            below += 1
        inside = next((one for one in statements if one.lines.start == below), None)
    return inside.lines if inside is not None else range(number, number + 1)


def _notes(file: str, comment: Comment, known: Mapping[str, int], judged: set[str]) -> list[Finding]:
    place = Place(file, comment.line)
    whole = "ignore" if comment.lines is not None else "ignore-file"
    if not comment.names:
        return [
            Finding(
                *NAMELESS,
                "note",
                "certain",
                f"this comment names no rule, and keeps nothing back: write # trueloop: {whole}[rule-name]",
                meaning=ABOUT[NAMELESS[0]]["Why it matters"],
                help=ABOUT[NAMELESS[0]]["Fix"],
                place=place,
            )
        ]
    found = []
    for name in comment.names:
        rules = [rule for rule, code in known.items() if stands_for(name, rule, code)]
        if not rules:
            near = difflib.get_close_matches(name, known, n=1)
            message = f"no rule is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        elif judged.issuperset(rules) and name not in comment.used:
            what = f"{rules[0]} was not" if len(rules) == 1 else "none of these rules was"
            message = f"nothing is kept back by {whole}[{name}]: {what} found here"
        else:
            continue
        about = ABOUT[UNUSED[0]]
        found.append(
            Finding(
                *UNUSED, "note", "certain", message, meaning=about["Why it matters"], help=about["Fix"], place=place
            )
        )
    return found


ABOUT = {
    UNUSED[0]: {
        "": "A comment that is to keep a finding back keeps none back.",
        "Sees": "``# trueloop: ignore[name]`` or ``ignore-file[name]`` where the rule found nothing, or that names no "
        "rule of the catalogue. Nothing is said of rules that did not look (another command's, or a script that was "
        "ended early).",
        "Why it matters": "it says that something is wrong here, which is no longer so; and it would hide the mistake "
        "if it came back.",
        "Usual causes": "the mistake was mended; the statement was moved away from its comment; the name is misspelt.",
        "Fix": "remove the comment, or the name from its brackets.",
    },
    NAMELESS[0]: {
        "": "A comment that is to keep findings back does not say which.",
        "Sees": "``# trueloop: ignore`` without brackets.",
        "Why it matters": "it would hide every mistake on the line, also those that come later; so it hides none.",
        "Usual causes": "habit: other tools take a bare comment for all of their rules.",
        "Fix": "name the rule, as the finding shows it: ``# trueloop: ignore[rule-name]``.",
    },
    UNREADABLE[0]: {
        "": "A file could not be read as Python, so nothing is known of it.",
        "Sees": "A file or a notebook whose text Python would refuse, that is not in the encoding that it declares, or "
        "that cannot be opened; a folder that cannot be listed.",
        "Why it matters": "nothing is known of this file: silence would look as if it were right.",
        "Usual causes": "a merge that left its marks; a cell that was never run; Python 2; a template that only looks "
        "like Python; a file that belongs to somebody else.",
        "Fix": "mend it, or leave it out: ``exclude`` in ``pyproject.toml``, ``[tool.trueloop]``.",
    },
}
"""What ``trueloop explain`` tells of what is no rule's."""
