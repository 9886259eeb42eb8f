"""What each pass was for, told from what followed: a backward went through its output, or none did.

Names and modes are not asked: a pass in eval mode that is trained on is a training pass, and that is what a rule wants
to know.
"""

from __future__ import annotations

from trueloop.doctor.facts import Settled
from trueloop.doctor.seen import Pass
from trueloop.doctor.trace import SAMPLES_KEPT, Trace

PATIENCE = 2
"""A pass with a graph may be reached by a later backward (a GAN's fakes, summed losses); after so many it is not."""


def settle(trace: Trace, *, last: bool = False) -> tuple[Pass, ...]:
    """Settles the open passes, now that a backward has ended.

    Args:
        trace: whose ``open`` passes are settled as far as can be, and whose ``reached`` is emptied.
        last: nothing more will come: all are settled.

    Returns:
        The passes that the backward went through.
    """
    reached = tuple(trace.reached[number] for number in sorted(trace.reached))
    trace.reached.clear()
    fresh = [current for current in reached if current.phase == "open"]
    for current in fresh:
        current.phase = "training"
        current.model.trained += 1
        _keep(trace.training_samples, current)
    waiting: list[Pass] = []
    unused: list[Pass] = []
    for current in trace.open:
        if current.phase == "open":
            current.waited += 1
            patient = current.needs_grad and current.waited <= PATIENCE and not last
            (waiting if patient else unused).append(current)
    for current in unused:
        current.phase = "unused"
        current.model.unused += 1
        _keep(trace.unused_samples, current)
    for model in {current.model for current in reached}:
        model.segments += 1
    for model in {current.model for current in unused}:
        model.segments_with_unused += 1
    trace.open[:] = waiting
    for current in [*fresh, *unused]:
        trace.tell(Settled(current))
    return reached


def _keep(samples: dict[int, int], current: Pass) -> None:
    if len(samples) < SAMPLES_KEPT:
        for sample in current.samples:
            samples.setdefault(sample, current.step)
