"""Accumulation: a step that comes once in several turns, and over how many."""

from __future__ import annotations

from trueloop.doctor.source.events import Backward, Stepped, Zeroed
from trueloop.doctor.source.values import Branch
from trueloop.doctor.source.ways import Run


def window_of(step: Stepped, backward: Backward, run: Run) -> str:
    """The text of k where a step comes under ``… % k == …`` and backward comes every time; empty if it is not so.

    Args:
        step: the step.
        backward: a backward in the same turn.
        run: what happens: the gradients must be cleared under the same condition, or not in this loop at all.
    """
    if step.at.loops != backward.at.loops or not step.at.loops:
        return ""
    more = [branch for branch in step.at.branches if branch not in backward.at.branches]
    key = next((branch.key for branch in more if "%" in branch.key and branch.arm == 0), "")
    if not key or len(backward.at.branches) > len(step.at.branches):
        return ""
    each_time = [
        event for event in run.of(Zeroed) if event.at.loops == step.at.loops and not _has(event.at.branches, "%")
    ]
    if each_time:
        return ""
    after = key.partition("%")[2]
    for sign in ("==", "!=", "<", ">", " or ", " and "):
        after = after.partition(sign)[0]
    return after.strip(" ()")


def _has(branches: tuple[Branch, ...], sign: str) -> bool:
    return any(sign in branch.key for branch in branches)
