from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trueloop.errors import ArgumentError
from trueloop.report.confusion import Confused, Counts, confusion, most_confused, recall


def printed(counts: Counts, classes: list[str], **settings: bool) -> str:
    file = io.StringIO()
    Console(file=file, width=120, **settings).print(confusion(counts, classes))  # type: ignore[arg-type]
    return file.getvalue()


def test_rows_are_true_classes_with_their_recall() -> None:
    lines = printed([[8, 2, 0], [1, 5, 0], [0, 0, 0]], ["cat", "dog", "eel"]).splitlines()
    rows = [line.split() for line in lines if line.strip()]
    assert rows[0] == ["true", "↓", "cat", "dog", "eel", "recall"]
    assert rows[1:4] == [
        ["cat", "8", "2", "0", "80.0%"],
        ["dog", "1", "5", "0", "83.3%"],
        ["eel", "0", "0", "0", "–"],
    ]
    assert "accuracy 81.25 % of 16 samples" in lines
    assert lines[-1] == (
        "most confused: 'cat' taken for 'dog' 2 times (20 % of 'cat'); 'dog' taken for 'cat' 1 time (17 % of 'dog')"
    )


def test_long_names_stand_once_and_columns_are_numbered() -> None:
    text = printed([[1, 0], [0, 1]], ["T-shirt/top", "Trouser"])
    assert text.count("T-shirt/top") == 1
    assert ["true", "↓", "0", "1", "recall"] in [line.split() for line in text.splitlines()]
    assert "1 Trouser" in text


def test_names_are_no_markup() -> None:
    assert "[red]" in printed([[1, 0], [0, 1]], ["[red]", "b"])


def test_right_is_green_and_wrong_is_red_at_a_terminal() -> None:
    text = printed([[9, 1], [0, 10]], ["a", "b"], force_terminal=True, legacy_windows=False)
    assert "\x1b[" in text
    plain = printed([[9, 1], [0, 10]], ["a", "b"])
    assert "\x1b[" not in plain


def test_many_classes_are_told_by_their_pairs() -> None:
    classes = [f"c{i}" for i in range(30)]
    counts = [[10 if i == j else int(j == i + 1) for j in range(30)] for i in range(30)]
    lines = printed(counts, classes).splitlines()
    assert lines[0] == "accuracy 91.19 % of 329 samples"
    assert lines[1].startswith("most confused: 'c0' taken for 'c1' 1 time")


def test_the_most_confused_pairs_come_first() -> None:
    pairs = most_confused([[5, 1, 4], [0, 9, 1], [3, 0, 7]], ["a", "b", "c"], top=2)
    assert pairs == [Confused("a", "c", 4, 0.4), Confused("c", "a", 3, 0.3)]


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 99), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_any_square_of_counts_is_printed(counts: list[list[int]]) -> None:
    classes = [str(i) for i in range(len(counts))]
    text = printed(counts, classes)
    assert ("accuracy" in text) == (sum(map(sum, counts)) > 0)
    assert all(found is None or 0 <= found <= 1 for found in recall(counts))


@pytest.mark.parametrize(
    ("counts", "classes", "message"),
    [
        ([[1, 0]], ["a"], "1 rows of 2 columns"),
        ([[1, 0], [0, 1]], ["a"], "each of 1 classes, got 2 rows of 2 columns"),
        ([[1], [0, 1]], ["a", "b"], "2 rows of 1 and 2 columns"),
        ([[-1]], ["a"], "negative"),
    ],
)
def test_what_is_no_confusion_matrix(counts: Counts, classes: list[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        confusion(counts, classes)
