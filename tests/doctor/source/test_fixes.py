"""Edits keep all else as it was, fixes come to rest, and none breaks the text."""

from __future__ import annotations

from collections.abc import Callable

import libcst
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueloop.doctor.findings import Finding
from trueloop.doctor.source.fixes import Checked, Edit, Fix, apply, diff, fixed, lines_of, overlap
from trueloop.doctor.source.parse import trouble
from trueloop.doctor.source.read import Source

FINDING = Finding("missing-zero-grad", 101, "error", "certain", "gradients add up")


def parses(text: str) -> bool:
    return trouble(text) is None


def replacing(old: str, new: str, *, safe: bool = True) -> Callable[[Source], list[Checked]]:
    """A check that finds each line which is ``old``, and would write ``new`` in its place."""

    def ask(source: Source) -> list[Checked]:
        found = []
        for number, line in enumerate(lines_of(source.text), 1):
            code = line.rstrip("\r\n")
            if code == old:
                found.append(Checked(FINDING, Fix("…", safe, (Edit((number, 0), (number, len(code)), new),))))
        return found

    return ask


@pytest.mark.parametrize(
    ("text", "edits", "after"),
    [
        ("a\nb\n", [Edit((2, 0), (3, 0), "")], "a\n"),
        ("a\nb\n", [Edit((3, 0), (3, 0), "c\n")], "a\nb\nc\n"),
        ("a\nb", [Edit((3, 0), (3, 0), "c\n")], "a\nb\nc"),
        ("a\nb", [Edit((2, 1), (2, 1), "c")], "a\nbc"),
        ("a\nb", [Edit((2, 0), (3, 0), "")], "a"),
        ("a\r\nb\r\n", [Edit((1, 1), (1, 1), "\nc")], "a\r\nc\r\nb\r\n"),
        ("a\rb\r", [Edit((2, 0), (2, 0), "c\n")], "a\rc\rb\r"),
        ("a\x0c\u2028b\nc\n", [Edit((2, 0), (2, 1), "d")], "a\x0c\u2028b\nd\n"),
        ("é = '値'\n", [Edit((1, 5), (1, 6), "x")], "é = 'x'\n"),
        ("", [Edit((1, 0), (1, 0), "x\n")], "x\n"),
    ],
)
def test_edits(text: str, edits: list[Edit], after: str) -> None:
    assert apply(text, edits) == after


@pytest.mark.parametrize(
    "edits",
    [
        [Edit((1, 0), (1, 3), "x"), Edit((1, 2), (1, 4), "y")],
        [Edit((9, 0), (9, 0), "x")],
        [Edit((1, 3), (1, 1), "x")],
        [Edit((1, 0), (1, 99), "x")],
    ],
)
def test_edits_that_cannot_be(edits: list[Edit]) -> None:
    with pytest.raises(ValueError, match="expected"):
        apply("abcdef\n", edits)


@given(st.text(alphabet="ab\n\r\x0c\u2028é", max_size=30), st.data())
def test_an_edit_that_changes_nothing_keeps_every_byte(text: str, data: st.DataObject) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    places = [
        (number, column) for number, line in enumerate(lines, 1) for column in range(len(line.rstrip("\r\n")) + 1)
    ]
    chosen = data.draw(st.lists(st.sampled_from(places), max_size=3)) if places else []
    assert apply(text, [Edit(place, place, "") for place in chosen]) == text


def test_safe_fixes_only_unless_asked() -> None:
    source = Source("a.py", "print(1)\n")
    ask = replacing("print(1)", "pass", safe=False)
    assert fixed(source, ask, parses).source.text == "print(1)\n"
    done = fixed(source, ask, parses, unsafe=True)
    assert (done.source.text, len(done.applied), done.left) == ("pass\n", 1, [])


def test_what_does_not_parse_is_left_out_and_the_rest_is_done() -> None:
    source = Source("a.py", "x = 1\ny = 1\n")

    def ask(source: Source) -> list[Checked]:
        return replacing("x = 1", "x = (")(source) + replacing("y = 1", "y = 2")(source)

    done = fixed(source, ask, parses)
    assert done.source.text == "x = 1\ny = 2\n"
    assert [checked.fix.edits[0].text for checked in done.left if checked.fix] == ["x = ("]


def test_fixes_of_one_place_come_one_after_the_other() -> None:
    def ask(source: Source) -> list[Checked]:
        return [*replacing("a", "b")(source), *replacing("a", "c")(source), *replacing("b", "d")(source)]

    done = fixed(Source("a.py", "a\n"), ask, parses)
    assert (done.source.text, len(done.applied)) == ("d\n", 2)
    assert fixed(done.source, ask, parses).source == done.source


def test_fixes_that_undo_each_other_change_nothing() -> None:
    def ask(source: Source) -> list[Checked]:
        return [*replacing("a", "b")(source), *replacing("b", "a")(source)]

    assert fixed(Source("a.py", "a\n"), ask, parses).source.text == "a\n"


def test_a_fix_that_never_ends_changes_nothing() -> None:
    def ask(source: Source) -> list[Checked]:
        return [Checked(FINDING, Fix("…", True, (Edit((1, 0), (1, 0), "a\n"),)))]

    done = fixed(Source("a.py", "x\n"), ask, parses)
    assert (done.source.text, done.applied, len(done.left)) == ("x\n", [], 1)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Edit((1, 0), (1, 3), ""), Edit((1, 3), (1, 5), ""), False),
        (Edit((1, 0), (1, 3), ""), Edit((1, 2), (1, 5), ""), True),
        (Edit((1, 2), (1, 2), "a"), Edit((1, 2), (1, 2), "b"), True),
        (Edit((1, 2), (1, 2), "a"), Edit((1, 0), (2, 0), ""), True),
        (Edit((1, 0), (1, 0), "a"), Edit((2, 0), (2, 0), "b"), False),
    ],
)
def test_overlap(one: Edit, other: Edit, expected: bool) -> None:
    assert overlap(Fix("", True, (one,)), Fix("", True, (other,))) is expected
    assert overlap(Fix("", True, (other,)), Fix("", True, (one,))) is expected


def test_a_diff_tells_a_missing_last_line_end() -> None:
    assert diff("a\nb", "a\nc", "x.py").splitlines()[-4:] == [
        "-b",
        "\\ No newline at end of file",
        "+c",
        "\\ No newline at end of file",
    ]
    assert diff("a", "a", "x.py") == ""


def test_trouble_knows_what_is_newer_than_this_python() -> None:
    newer = "def f[T](x: T) -> T: ...\n"
    libcst.parse_module(newer)
    assert trouble(newer) is None
    assert trouble("await x\n") is None
    assert trouble("x = '\\d'\n") is None
    found = trouble("x = 1\ndef f(:\n")
    assert found is not None
    assert found.line == 2
    assert trouble("(" * 10_000 + ")" * 10_000) is not None


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12), st.booleans())
def test_a_diff_is_that_of_the_library(old: list[str], new: list[str], ended: bool) -> None:
    """Ours leaves out of the matching what is the same at both ends, which may choose other pairs of equal lines."""
    before, after = ("\n".join([*"xyz" * 9, *lines, *"xyz" * 9]) + "\n" * ended for lines in (old, new))
    told = diff(before, after, "a.py")
    assert bool(told) == (before != after)
    again = patched(before, told)
    assert again == after


def patched(text: str, told: str) -> str:
    """The text after a diff, by the meaning of its lines."""
    lines, at, made = lines_of(text), 0, list[str]()
    told = told.replace("\n\\ No newline at end of file", "")
    for line in told.splitlines(keepends=True)[2:]:
        if line.startswith("@@"):
            first, _, length = line.split()[1][1:].partition(",")
            start = int(first) - (length != "0")
            assert at <= start
            made += lines[at:start]
            at = start
        elif line[0] in " -":
            assert lines[at].rstrip("\n") == line[1:].rstrip("\n")
            made += [lines[at]] * (line[0] == " ")
            at += 1
        else:
            made.append(line[1:])
    whole = "".join(made + lines[at:])
    return whole if text.endswith("\n") or not text else whole.removesuffix("\n")
