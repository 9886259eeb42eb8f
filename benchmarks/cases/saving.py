"""What checkpoints cost: the wait, the writing behind, the place."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.machine import Disturbance
from benchmarks.rounds import How, Pool, Rounds, Variant, interleaved
from benchmarks.table import failures, table, verdict

TITLE = "5. Checkpoints"
GOAL_COPIES = 1.2
GOAL_MICROSECONDS = 1.0
MEGABYTES = {"100 MB": 100, "1 GB": 1000}
PLACE = "place"


def measure(how: How, pool: Pool) -> Rounds:
    """All in one process: the same state, the same disk."""

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        if variant.name == PLACE:
            return pool.ask(how.variant("saves", "saves:place"), watch, steps=20_000 if how.quick else 200_000)
        return pool.ask(how.variant("saves", "saves:save"), watch, megabytes=MEGABYTES[variant.name])

    names = [PLACE, *(["100 MB"] if how.quick else MEGABYTES)]
    return interleaved([how.variant(name, name) for name in names], ask, how, f"saving, {pool.threads} thread(s)")


def section(results: Mapping[int, Rounds], how: How) -> str:
    goals, rows = [], []
    for threads, rounds in results.items():
        for name in MEGABYTES:
            if name in rounds.figures:
                ratio = rounds.middle(name, "× a copy")
                goals.append(
                    verdict(f"{name} of state, {threads} thread(s): a save holds a step up", ratio, GOAL_COPIES)
                )
                figures = ("copy ms", "held up ms", "× a copy", "MB/s", "torch MB/s")
                row = [f"{rounds.middle(name, figure):,.{2 if figure == '× a copy' else 0}f}" for figure in figures]
                rows.append([f"{name}, {threads} thread(s)", *row])
        if PLACE in rounds.figures:
            kept = rounds.middle(PLACE, "place µs")
            goals.append(verdict(f"keeping the place, {threads} thread(s)", kept, GOAL_MICROSECONDS, " µs"))
            due = rounds.middle(PLACE, "due µs")
            goals.append(f"- asking whether a checkpoint is due, {threads} thread(s): {due:.2f} µs a step")
    head = [
        "state (weights and Adam's moments)",
        "plain copy, ms",
        "held up, ms",
        "× a copy",
        "behind, MB/s",
        "torch.save, MB/s",
    ]
    return f"""A plain copy is a clone of every tensor. "Behind" is all from the copy on: hashing, writing, syncing and
renaming by a thread, with nothing else to do; `torch.save` is followed by a sync as well, and hashes nothing. A
run's first save takes new memory, and as long as a plain copy into such.

{chr(10).join(goals)}

{table(head, rows)}
{failures(results)}"""
