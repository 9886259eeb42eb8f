"""Is the loader fast enough for the step?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from statistics import median

import torch

from trueloop.doctor.rules.loader_bound import IN_ALL, SHARE, STEP, LoaderBound
from trueloop.errors import DataError
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject
from trueloop.objective import Batch

WARM_UP = 2
BATCHES = 40
FEWEST = 4


def loader_speed(subject: Subject) -> Examination:
    """Trains for some batches, and compares how long it waited for them with how long the steps took."""
    ritual, source = subject.ritual(), _epochs(subject)
    waits, steps = [], []
    until = time.monotonic() + subject.limits.reading
    before = time.perf_counter()
    for number, (begins, batch) in enumerate(source):
        fetched = time.perf_counter()
        loss = ritual.take(subject.objective, [batch], 0).loss
        float(loss)  # an accelerator is waited for
        ended = time.perf_counter()
        if number >= WARM_UP and not begins:
            waits.append(fetched - before)
            steps.append(ended - fetched)
        if len(waits) >= BATCHES or time.monotonic() > until:
            break
        before = time.perf_counter()
    return judged(waits, steps)


def judged(waits: list[float], steps: list[float]) -> Examination:
    """What the times say: a share counts for nothing where little is lost in all.

    Args:
        waits: how long each batch was waited for, in seconds.
        steps: how long each step took.

    Example:
        >>> judged([0.001] * 8, [0.009] * 8).verdict, judged([0.1] * 8, [0.1] * 8).verdict, judged([], []).verdict
        ('passed', 'failed', 'unknown')
    """
    if len(waits) < FEWEST:
        return unknown(f"too few batches to measure: {len(waits)} that neither warm up nor begin an epoch")
    wait, step = median(waits), median(steps)
    share = wait / (wait + step)
    times = f"a batch comes after {1000 * wait:.2f} ms, a step takes {1000 * step:.2f} ms"
    measured = f"medians of {len(waits)}" + (", on one thread" if torch.get_num_threads() == 1 else "")
    told = f"{times} ({measured}): {share:.0%} of the time is spent waiting"
    if share < SHARE:
        return passed(told)
    if sum(waits) < IN_ALL:
        return passed(f"{told}, but that is {sum(waits):.2g} s in all, and less than {IN_ALL:g} s is not worth a word")
    tiny = min(steps) < STEP and not torch.accelerator.is_available()
    return failed(
        found(
            LoaderBound,
            f"the loop waits for data {share:.0%} of the time",
            f"{times} ({measured})",
            level="note" if tiny else None,
            help="workers=2 or more makes samples beside the training; data that fits into memory is best given as "
            "tensors, which are gathered by index; augment whole batches",
        )
    )


def _epochs(subject: Subject) -> Iterator[tuple[bool, Batch]]:
    """Batches of one epoch after the other, and whether an epoch begins with it: its workers are waited for then."""
    for epoch in count():
        seen = False
        try:
            for batch in subject.batches(epoch=epoch):
                yield not seen, batch
                seen = True
        except DataError:  # it gives its batches only once
            return
        if not seen:
            return
