"""Do two runs of one step from the same state give the same bits?"""

from __future__ import annotations

from itertools import islice

from trueloop.doctor.findings import Finding
from trueloop.examine.result import Examination, failed, passed, unknown
from trueloop.examine.subject import Subject
from trueloop.verify_resume.record import bits, bits_of_batch

NAME, CODE = "not-seeded", 803
"""The rule that knows random sources that no seed reaches (RULES.md)."""

Step = dict[str, str]
"""What came of a step, in the order in which it was made, each as a digest of its bits."""


def same_step(subject: Subject) -> Examination:
    """Takes the run's first step twice: the same weights, the same random numbers, the same data."""

    def step() -> Step:
        return _step(subject)

    first, second = (subject.aside(step, subject.limits.timeout / 2) for _ in range(2))
    if not first:
        return unknown("no batch came")
    differing = [what for what in first if first[what] != second.get(what)]
    if not differing:
        return passed("the first step, taken twice from the same state, gives the same bits in data, loss and weights")
    data = differing[0] == "the batch"
    return failed(
        Finding(
            NAME,
            CODE,
            "note",
            "measured",
            f"the first step, taken twice from the same state, differs: first in {differing[0]}",
            ("python's, numpy's and torch's random numbers were the same for both",),
            "the run cannot be repeated, nor resumed exactly",
            "something draws from a source that no seed reaches: a generator that is made anew without a seed, the "
            "time, the system's randomness" + (", in the dataset or its transforms" if data else "")
            + ("" if data or subject.run.ritual.parameters[0].device.type == "cpu" else "; or kernels of this device "
               "sum in no fixed order: Trainer(deterministic=True)"),
        )
    )  # fmt: skip


def _step(subject: Subject) -> Step:
    window = list(islice(subject.batches(), subject.run.accumulate))
    if not window:
        return {}
    ended = subject.ritual().take(subject.objective, window, 0)
    named = list(subject.model.named_parameters())
    return {
        "the batch": " ".join(map(bits_of_batch, window)),
        "the loss": bits(ended.loss),
        "the gradients": " ".join(bits(p.grad) for _, p in named if p.grad is not None),
        "the weights": " ".join(bits(p) for _, p in named),
    }
