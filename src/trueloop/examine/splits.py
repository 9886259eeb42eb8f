"""Do training and validation share samples?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from trueloop.data.feed import Feed
from trueloop.data.nested import leaves
from trueloop.doctor.findings import Finding
from trueloop.doctor.rows import rows_of
from trueloop.doctor.rules.leak_between_splits import BITS, BITS_PART, FEW, SHARE, WHOLE, LeakBetweenSplits
from trueloop.doctor.samples import fingerprints, variety
from trueloop.doctor.trace import SAMPLES_KEPT
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject, inputs_of

AT_ONCE = 2**22
"""So many values of arrays are compared before a run begins, each side: tens of milliseconds."""
MOSTLY = 0.5
"""Of pieces of text or the like, fewer may be found in training by nature: a text repeats itself."""


@dataclass
class _Read:
    """What was read of one side."""

    samples: set[tuple[int, ...]] = field(default_factory=set)
    """The different ones: a fingerprint of each input tensor."""
    count: int = 0
    whole: bool = False
    bits: float = 0.0
    """By how much samples differ."""
    tokens: bool = False
    """They are rows of whole numbers."""

    def __str__(self) -> str:
        return f"{'all' if self.whole else 'the first'} {self.count:,} samples"


def splits(subject: Subject) -> Examination:
    """Compares the rows that both read of one dataset, and then the values of the samples themselves."""
    held_out = subject.run.held_out
    if held_out is None:
        return unknown("there is no validation data")
    by_rows = _rows_shared(subject.train, subject.val)
    if by_rows is not None and by_rows[0]:
        return failed(_leak(*by_rows, _ROWS, certain=True))
    trained, evaluated = (_samples(feed, _batches(subject, feed)) for feed in (subject.run.feed, held_out))
    return _compared(trained, evaluated)


def leak_at_start(train: Any, val: Any, feed: Feed, held_out: Feed) -> tuple[Finding, ...]:
    """What can be told at once: that both read the same rows of one dataset, or the same samples of small arrays.

    Args:
        train: as for ``fit``: arrays, a dataset or a loader.
        val: the same.
        feed: what is made of ``train``.
        held_out: what is made of ``val``.

    Returns:
        A grave leak; nothing, if there is none, or it would take long to tell. Nor if both are one batch of the same
        size: a trial whether the model can learn that by heart.
    """
    if feed.batches == 1 and feed.samples == held_out.samples:
        return ()
    by_rows = _rows_shared(train, val)
    both = [getattr(one, "arrays", None) for one in (feed, held_out)]
    if by_rows is not None:
        leaks = [_leak(*by_rows, _ROWS, certain=True)] if by_rows[0] else []
    elif any(arrays is None or sum(leaf.numel() for leaf in leaves(arrays)) > AT_ONCE for arrays in both):
        leaks = []
    else:
        leaks = list(_compared(_samples(feed, [both[0]]), _samples(held_out, [both[1]])).findings)
    return tuple(one for one in leaks if one.level == "error")


_ROWS = "they read the same rows of one dataset"


def _compared(trained: _Read, evaluated: _Read) -> Examination:
    if not trained.samples or not evaluated.samples:
        return unknown("the samples cannot be told apart: no tensors that count them were found")
    shared, of = len(evaluated.samples & trained.samples), len(evaluated.samples)
    compared = f"{evaluated} of validation with {trained} of training"
    if not shared:
        return passed(f"no sample of one stands in the other: compared {compared}")
    if trained.bits < (BITS if shared >= WHOLE * of else BITS_PART):
        return unknown(f"{shared:,} samples are the same, but so small that they may be alike by chance ({compared})")
    how = f"compared by the values of their inputs: {compared}"
    return failed(_leak(shared, of, how, certain=False, natural=trained.tokens and shared < MOSTLY * of))


def _leak(shared: int, of: int, how: str, *, certain: bool, natural: bool = False) -> Finding:
    grave = shared >= FEW and shared >= SHARE * of and not natural
    return found(
        LeakBetweenSplits,
        f"{shared:,} of {of:,} validation samples stand in the training data too ({shared / of:.1%})",
        how,
        level="error" if grave else "note",
        certainty="certain" if certain else "measured",
    )


def _rows_shared(train: Any, val: Any) -> tuple[int, int] | None:
    """How many rows validation has in common with training, and how many it has; None where that is not known."""
    loaders = [one if isinstance(one, DataLoader) else _loader(one) for one in (train, val)]
    if loaders[0] is None or loaders[1] is None:
        return None
    shared = rows_of(loaders[1]).shared(rows_of(loaders[0]))
    return None if shared is None else shared[:2]


def _loader(data: Any) -> DataLoader[Any] | None:
    return DataLoader(data) if isinstance(data, Dataset) and hasattr(data, "__len__") else None


def _batches(subject: Subject, feed: Feed) -> Iterable[Any]:
    """All that is in memory, as one; or as many as can be read in the time that there is."""
    arrays = getattr(feed, "arrays", None)
    return subject.batches(feed, seconds=subject.limits.reading) if arrays is None else [arrays]


def _samples(feed: Feed, batches: Iterable[Any]) -> _Read:
    """The samples of a feed."""
    arrays = getattr(feed, "arrays", None)
    read = _Read()
    for batch in batches:
        tensors = [one for one in inputs_of(batch) if one.dim() > 0]
        tensors = [one for one in tensors if len(one) == len(tensors[0])]
        if not tensors:
            return _Read()
        if not read.count:
            read.bits = sum(variety(one[:_LOOKED_AT]) for one in tensors)
            read.tokens = all(one.dtype in (torch.int64, torch.int32) and one.dim() == 2 for one in tensors)
        size = min(len(tensors[0]), SAMPLES_KEPT - read.count)
        for start in range(0, size, _TOGETHER):
            parts = [fingerprints(one[start : min(start + _TOGETHER, size)]) for one in tensors]
            if not all(parts):
                return _Read()
            read.samples.update(zip(*parts, strict=True))
        read.samples.discard((0,) * len(tensors))  # blanks
        read.count += size
        if read.count >= SAMPLES_KEPT:
            break
    known = feed.samples if arrays is None else len(next(iter(leaves(arrays))))
    read.whole = known is not None and read.count >= known
    return read


_LOOKED_AT = 256
_TOGETHER = 4096
