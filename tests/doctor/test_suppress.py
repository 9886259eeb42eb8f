"""Comments that keep findings back."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from trueloop.doctor import suppress
from trueloop.doctor.findings import Finding, Place

KNOWN = {"missing-zero-grad": 101, "broadcast-loss": 304, "overfitting": 601}


def found(name: str, line: int, file: str = "<t>") -> Finding:
    return Finding(name, KNOWN[name], "error", "certain", "…", place=Place(file, line))


def left(text: str, *findings: Finding, judged: Sequence[str] = tuple(KNOWN)) -> list[tuple[str, int | None]]:
    """Names and lines of what is left."""
    text = textwrap.dedent(text).lstrip()
    kept = suppress.apply(findings, ["<t>"], known=KNOWN, judged=judged, sources={"<t>": text})
    return [(finding.name, finding.line) for finding in kept.findings]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("loss.backward()  # trueloop: ignore[missing-zero-grad]", 1),
        ("loss.backward()  # trueloop: ignore[101]", 1),
        ("loss.backward()  # trueloop: ignore[1xx]", 1),
        ("# trueloop: ignore-file[1xx]\nloss.backward()", 2),
        ("loss.backward()  #trueloop:ignore[ broadcast-loss , missing-zero-grad ] meant so", 1),
        ("loss.backward()  # noqa: F821  # trueloop: ignore[missing-zero-grad]", 1),
        ("# trueloop: ignore[missing-zero-grad]\nloss.backward()", 2),
        ("# trueloop: ignore[missing-zero-grad]\n# because it is meant\nloss.backward()", 3),
        ("f(\n    x,  # trueloop: ignore[missing-zero-grad]\n)", 1),
        ("f(\n    # trueloop: ignore[missing-zero-grad]\n    x,\n)", 3),
        ("f(\n    x,\n)  # trueloop: ignore[missing-zero-grad]", 2),
        ("for x in y:\n    # trueloop: ignore[missing-zero-grad]\n    f(x)", 3),
        ("for x in g(\n    y\n):  # trueloop: ignore[missing-zero-grad]\n    f(x)", 1),
        ("a = 1\n# trueloop: ignore-file[missing-zero-grad]\nloss.backward()", 3),
    ],
)
def test_a_comment_speaks_for_its_statement(text: str, line: int) -> None:
    assert left(text, found("missing-zero-grad", line), judged=["missing-zero-grad"]) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("loss.backward()  # trueloop: ignore[broadcast-loss]", 1),
        ("a = 1  # trueloop: ignore[missing-zero-grad]\nloss.backward()", 2),
        ("# trueloop: ignore[missing-zero-grad]\n\nloss.backward()", 3),
        ("for x in y:  # trueloop: ignore[missing-zero-grad]\n    f(x)", 2),
        ("'# trueloop: ignore[missing-zero-grad]'; loss.backward()", 1),
        ("loss.backward()  # trueloop: ignore[3xx]", 1),
        ("loss.backward()  # trueloop: ignore", 1),
        ("loss.backward()  # trueloop: ignored[missing-zero-grad]", 1),
    ],
)
def test_and_for_no_other(text: str, line: int) -> None:
    assert ("missing-zero-grad", line) in left(text, found("missing-zero-grad", line))


def test_a_comment_of_no_use_is_a_note() -> None:
    text = """
        a = 1  # trueloop: ignore[missing-zero-grad, overfitting]
        # trueloop: ignore-file[304]
    """
    assert left(text, found("missing-zero-grad", 1)) == [("unused-ignore", 1), ("unused-ignore", 2)]
    assert left(text, judged=[]) == [], "nothing looked, so nothing is said"
    assert left(text, judged=["overfitting"]) == [("unused-ignore", 1)]


def test_a_hundred_is_of_no_use_only_if_all_of_its_rules_looked() -> None:
    text = "f()  # trueloop: ignore[3xx]"
    known = KNOWN | {"softmax-before-cross-entropy": 301}
    for judged, names in ((("broadcast-loss",), []), (tuple(known), ["unused-ignore"])):
        kept = suppress.apply([], ["<t>"], known=known, judged=judged, sources={"<t>": text})
        assert [finding.name for finding in kept.findings] == names
    assert kept.findings[0].message == "nothing is kept back by ignore[3xx]: none of these rules was found here"
    kept = suppress.apply([], ["<t>"], known=KNOWN, sources={"<t>": "f()  # trueloop: ignore[9xx]"})
    assert kept.findings[0].message == "no rule is called '9xx'"


def test_what_another_finding_explains_has_been_there() -> None:
    cause = found("missing-zero-grad", 1).explaining(("overfitting",))
    assert left("f()\ng()  # trueloop: ignore[overfitting]", cause) == [("missing-zero-grad", 1)]


def test_a_misspelt_name_gets_the_nearest_and_a_bare_comment_is_asked_for_one() -> None:
    sources = {"<t>": "f()  # trueloop: ignore[missing-zerograd]\ng()  # trueloop: ignore\n# trueloop: ignore-file[]"}
    kept = suppress.apply([], ["<t>"], known=KNOWN, sources=sources)
    assert [(finding.name, finding.level, finding.message) for finding in kept.findings] == [
        ("unused-ignore", "note", "no rule is called 'missing-zerograd'; did you mean 'missing-zero-grad'?"),
        (
            "ignore-without-name",
            "note",
            "this comment names no rule, and keeps nothing back: write # trueloop: ignore[rule-name]",
        ),
        (
            "ignore-without-name",
            "note",
            "this comment names no rule, and keeps nothing back: write # trueloop: ignore-file[rule-name]",
        ),
    ]
    assert all(finding.meaning and finding.help for finding in kept.findings)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"f()  # trueloop: ignore[overfitting]\nx = (  # not Python any more", 1),
        ("# coding: latin-1\nä = 1  # trueloop: ignore[overfitting]".encode("latin-1"), 2),
        ("\ufefff()  # trueloop: ignore[overfitting]".encode(), 1),
        (b"f()\r\n# trueloop: ignore[overfitting]\r\ng()\r\n", 3),
        (b"f()\r# trueloop: ignore[overfitting]\rg()\r", 3),
        (b"f()\n\x0c\n# trueloop: ignore[overfitting]\ng()\n", 4),
        ("x = '\u2028'\n# trueloop: ignore[overfitting]\ng()\n".encode(), 3),
        (b"await f()\n# trueloop: ignore[overfitting]\ng(\n1)\n", 4),
    ],
)
def test_files_as_they_come(tmp_path: Path, content: bytes, line: int) -> None:
    file = tmp_path / "train.py"
    file.write_bytes(content)
    assert suppress.apply([found("overfitting", line, str(file))], known=KNOWN).findings == []


def test_a_file_that_cannot_be_read_keeps_nothing_back(tmp_path: Path) -> None:
    gone = found("overfitting", 1, str(tmp_path / "gone.py"))
    assert suppress.apply([gone], known=KNOWN).findings == [gone]


def test_what_another_way_of_looking_finds_makes_a_comment_useful() -> None:
    text = "f()  # trueloop: ignore[missing-zero-grad]\ng()  # trueloop: ignore[overfitting]"
    asked = []

    def also(file: str) -> list[Finding]:
        asked.append(file)
        return [found("missing-zero-grad", 1)]

    kept = suppress.apply([], ["<t>"], known=KNOWN, judged=list(KNOWN), sources={"<t>": text}, also=also)
    assert [(finding.name, finding.line) for finding in kept.findings] == [("unused-ignore", 2)]
    assert kept.kept_back == []
    used = found("missing-zero-grad", 1), found("overfitting", 2)
    suppress.apply(used, ["<t>"], known=KNOWN, judged=list(KNOWN), sources={"<t>": text}, also=also)
    assert asked == ["<t>"], "it is asked only of files with a comment that would be of no use"


def test_an_invalid_escape_is_the_texts_own_affair() -> None:
    assert left("x = '\\d'\nf()  # trueloop: ignore[overfitting]", found("overfitting", 2)) == []
