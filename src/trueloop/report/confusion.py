"""Which class is taken for which: a confusion matrix for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trueloop.errors import ArgumentError

Counts = Sequence[Sequence[int]]
"""counts[true class][predicted class], in samples."""

_WIDEST_TABLE = 20  # classes; a wider one does not fit a terminal, the pairs below it do
_WIDEST_NAME = 6  # characters; longer ones make room for numbers above the columns


class Confused(NamedTuple):
    """A pair of classes, and how often the first is taken for the second."""

    true: str
    predicted: str
    samples: int
    share: float
    """Of the true class's samples, 0 to 1."""


def confusion(counts: Counts, classes: Sequence[str]) -> RenderableType:
    """The matrix with its recall, the accuracy, and the pairs that are confused most; ready for rich to print.

    Rows are true classes, columns predicted ones. Colours are by the share of the row: green where it is right, red
    where not. Of more than 20 classes, only the figures below the table are shown.

    Args:
        counts: counts[true][predicted], in samples; a torch matrix gives it by ``.tolist()``.
        classes: the classes' names, in the order of the rows.

    Raises:
        ArgumentError: the matrix is not square, holds a negative number, or has not as many rows as there are names.

    Example:
        >>> from rich.console import Console
        >>> Console(width=60).print(confusion([[8, 2], [0, 5]], ["cat", "dog"]))  # doctest: +NORMALIZE_WHITESPACE
         true ↓  cat  dog  recall
         cat       8    2   80.0%
         dog       0    5  100.0%
        accuracy 86.67 % of 15 samples
        most confused: 'cat' taken for 'dog' 2 times (20 % of 'cat')
    """
    _check(counts, classes)
    total = sum(map(sum, counts))
    right = sum(counts[i][i] for i in range(len(counts)))
    parts: list[RenderableType] = [_table(counts, classes)] if len(classes) <= _WIDEST_TABLE else []
    if total:
        parts.append(Text(f"accuracy {right / total:.2%} of {total:,} samples".replace("%", " %")))
    pairs = [
        f"{pair.true!r} taken for {pair.predicted!r} {pair.samples:,} time{'s' * (pair.samples != 1)} "
        f"({100 * pair.share:.2g} % of {pair.true!r})"
        for pair in most_confused(counts, classes)
    ]
    if pairs:
        parts.append(Text("most confused: " + "; ".join(pairs)))
    return Group(*parts)


def recall(counts: Counts) -> list[float | None]:
    """Each class's share of samples that were found, 0 to 1; None for a class without samples.

    Example:
        >>> recall([[8, 2], [0, 0]])
        [0.8, None]
    """
    return [row[i] / sum(row) if sum(row) else None for i, row in enumerate(counts)]


def most_confused(counts: Counts, classes: Sequence[str], top: int = 3) -> list[Confused]:
    """The ``top`` pairs with the most samples; equals in the order of the classes.

    Example:
        >>> most_confused([[8, 2], [0, 5]], ["cat", "dog"])
        [Confused(true='cat', predicted='dog', samples=2, share=0.2)]
    """
    _check(counts, classes)
    pairs = [
        Confused(classes[i], classes[j], samples, samples / sum(row))
        for i, row in enumerate(counts)
        for j, samples in enumerate(row)
        if i != j and samples > 0
    ]
    return sorted(pairs, key=lambda pair: -pair.samples)[:top]


def _table(counts: Counts, classes: Sequence[str]) -> Table:
    numbered = max(map(len, classes), default=0) > _WIDEST_NAME
    heads = [str(i) for i in range(len(classes))] if numbered else list(classes)
    table = Table(box=None, padding=(0, 1))
    table.add_column(Text("true ↓"), no_wrap=True)
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    table.add_column(Text("recall"), justify="right", no_wrap=True)
    for i, (row, found) in enumerate(zip(counts, recall(counts), strict=True)):
        name = Text(f"{i} {classes[i]}" if numbered else classes[i])
        cells = [_cell(samples, sum(row), i == j) for j, samples in enumerate(row)]
        table.add_row(name, *cells, Text("–" if found is None else f"{found:.1%}"))
    return table


def _cell(samples: int, row: int, right: bool) -> Text:
    share = samples / row if row else 0.0
    if not samples:
        return Text("0", style="dim")
    # A square root, for what is worth seeing off the diagonal is a few per cent; on dark ground with white letters.
    depth = int(30 + 120 * share**0.5)
    return Text(f"{samples}", style=f"white on rgb(0,{depth},40)" if right else f"white on rgb({depth},20,20)")


def _check(counts: Counts, classes: Sequence[str]) -> None:
    widths = {len(row) for row in counts}
    if len(counts) != len(classes) or not widths <= {len(classes)}:
        raise ArgumentError(
            f"expected one row and one column for each of {len(classes)} classes, got {len(counts)} rows of "
            f"{' and '.join(map(str, sorted(widths))) or 'no'} columns; name every class that the model can predict"
        )
    if any(samples < 0 for row in counts for samples in row):
        raise ArgumentError("expected counts of samples, got a negative number")
