"""Accumulation: a step that comes once in several turns, and over how many."""

from __future__ import annotations

from typing import Any

from trueloop.doctor.source.events import Backward, Stepped, Zeroed
from trueloop.doctor.source.values import Branch
from trueloop.doctor.source.ways import Run

_SIGNS = ("==", "!=", "<", ">")


def window_of(step: Stepped, backward: Backward, run: Run) -> str:
    """The text of k where a step comes under ``… % k == …`` and backward comes every time; empty if it is not so.

    Args:
        step: the step.
        backward: a backward in the same turn.
        run: what happens: the gradients must be cleared under the same condition, or not in this loop at all.
    """
    return "" if cleared_each_turn(step, run) else count_of(step, backward)


def cleared_each_turn(step: Stepped, run: Run) -> list[Zeroed]:
    """Where gradients are cleared in the step's loop, in every turn and not once in several."""
    return [
        event
        for event in run.of(Zeroed)
        if event.at.loops == step.at.loops and not any("%" in branch.key for branch in event.at.branches)
    ]


def count_of(step: Stepped, backward: Backward) -> str:
    """The text of k where a step comes under ``… % k == …``, or ``not … % k``, and backward comes every time."""
    if step.at.loops != backward.at.loops or not step.at.loops:
        return ""
    if len(backward.at.branches) > len(step.at.branches):
        return ""
    more = [branch for branch in step.at.branches if branch not in backward.at.branches]
    return next((count for branch in more if (count := _count(branch))), "")


def nested_count(step: Stepped, backward: Backward, run: Run) -> str:
    """The text of k where backward comes in a ``for … in range(k)`` of microbatches by name, and the step after it."""
    outer = len(step.at.loops)
    if backward.at.loops[:outer] != step.at.loops or len(backward.at.loops) != outer + 1 or not outer:
        return ""
    inner = backward.at.loops[-1]
    over: Any = getattr(getattr(inner.node, "iter", None), "args", ())
    text = step.at.unit.text(over[0].value) if len(over) == 1 else ""
    named = any(word in text.lower() for word in ("accum", "micro"))
    cleared = any(turn.loop == inner.loop for event in run.of(Zeroed) for turn in event.at.loops)
    return text if named and not cleared else ""


def _count(branch: Branch) -> str:
    _, sign, after = branch.key.partition("%")
    for word in (" or ", " and "):
        after = after.partition(word)[0]
    compared = any(one in after for one in _SIGNS)
    if not sign or branch.arm != (0 if compared else 1):  # a remainder by itself is true between the steps
        return ""
    for one in _SIGNS:
        after = after.partition(one)[0]
    return after.strip(" ()")
