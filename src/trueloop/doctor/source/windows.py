"""Accumulation: a step that comes once in several turns, and over how many."""

from __future__ import annotations

from typing import Any

from trueloop.doctor.source import blocks
from trueloop.doctor.source.blocks import kind
from trueloop.doctor.source.events import Backward, Kept, Stepped, Zeroed
from trueloop.doctor.source.values import Branch, constant
from trueloop.doctor.source.ways import Run

_SIGNS = ("==", "!=", "<", ">")


def window_of(step: Stepped, backward: Backward, run: Run) -> str:
    """The text of k where a step comes once in k turns, and backward every time; empty if it is not so.

    By ``… % k == …``, or by a count of one's own that begins anew at the step.

    Args:
        step: the step.
        backward: a backward in the same turn.
        run: what happens: the gradients must be cleared under the same condition, or not in this loop at all.
    """
    found = "" if cleared_each_turn(step, run) else count_of(step, backward)
    return found or _counted_by_hand(step, backward, run)


def cleared_each_turn(step: Stepped, run: Run) -> list[Zeroed]:
    """Where gradients are cleared in the step's loop, in every turn and not once in several."""
    return [
        event
        for event in run.of(Zeroed)
        if event.at.loops == step.at.loops and not any("%" in branch.key for branch in event.at.branches)
    ]


def count_of(step: Stepped, backward: Backward) -> str:
    """The text of k where a step comes under ``… % k == …``, or ``not … % k``, and backward comes every time."""
    return next((count for branch in _conditions(step, backward) if (count := _count(branch))), "")


def _conditions(step: Stepped, backward: Backward) -> list[Branch]:
    """Those on which the step hangs, and the backward of the same turn does not."""
    if step.at.loops != backward.at.loops or not step.at.loops:
        return []
    if len(backward.at.branches) > len(step.at.branches):
        return []
    return [branch for branch in step.at.branches if branch not in backward.at.branches]


def _counted_by_hand(step: Stepped, backward: Backward, run: Run) -> str:
    """The text of k in ``count += 1``, ``if count == k:`` and there the step and ``count = 0``."""
    for branch in _conditions(step, backward):
        sign = next(
            (one for one, arm in ((" == ", 0), (" >= ", 0), (" < ", 1)) if one in branch.key and arm == branch.arm), ""
        )
        count, _, limit = branch.key.partition(sign or "\n")
        added = any(
            kind(kept.node) == "AugAssign"
            and kept.how == "+="
            and constant(kept.value) == 1
            and kept.at.loops == step.at.loops
            and all(one in backward.at.branches for one in kept.at.branches)
            and kept.at.unit.text(kept.node.target) == count  # type: ignore[attr-defined]
            for kept in run.of(Kept)
        )
        zeros = [event for event in run.of(Zeroed) if event.at.loops == step.at.loops]
        if (
            sign
            and limit
            and added
            and _begins_anew(step, count)
            and all(branch in event.at.branches for event in zeros)
        ):
            return limit
    return ""


def _begins_anew(step: Stepped, count: str) -> bool:
    """Whether ``count = 0`` stands beside a step."""
    unit = step.at.unit
    block: Any = next((one for one in blocks.around(unit, step.node) if kind(one) == "IndentedBlock"), None)
    lines = [line for line in getattr(block, "body", ()) if kind(line) == "SimpleStatementLine"]
    sets = [one for line in lines for one in line.body if kind(one) == "Assign" and unit.text(one.value) == "0"]
    return any(unit.text(target.target) == count for one in sets for target in one.targets)


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
