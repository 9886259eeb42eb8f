"""What ``Trainer.train`` costs over the same arithmetic in a bare loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.machine import Disturbance
from benchmarks.rounds import Failed, How, Pool, Rounds, Variant, interleaved
from benchmarks.table import failures, table, verdict

TITLE = "3. Overhead of a step"
GOAL_MICROSECONDS = 15.0
GOAL_CALLS = 1.15

KINDS = {
    "bare loop": "bare",
    "Trainer.train, nobody watching": "stream",
    "… live progress, events.jsonl, run.json, early stop, checkpoints": "watched",
    "**… and TensorBoard: all observers**": "watched_with_tensorboard",
}
BARE, *_, ALL = KINDS


@dataclass
class Overhead:
    """Times in rounds, and calls counted once."""

    rounds: Rounds
    calls: dict[str, dict[str, Any]]


def measure(how: How, pool: Pool) -> Overhead:
    """All in one process: the same memory, the same allocator."""
    worker = how.variant("overhead", "bare:microseconds")
    blocks = 1 if how.quick else 2

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        return pool.ask(worker, watch, kind=variant.do, blocks=blocks)

    rounds = interleaved(
        [how.variant(name, kind) for name, kind in KINDS.items()],
        ask,
        how,
        f"overhead, {pool.threads} thread(s)",
        seconds=5.0 if how.quick else 60.0,  # a difference of two large figures wants many
    )
    calls = {}
    for name, kind in KINDS.items():
        try:
            calls[name] = pool.ask(how.variant("calls", "bare:calls"), kind=kind)
        except Failed as error:
            rounds.failed[f"calls of {name}"] = str(error)
    return Overhead(rounds, calls)


def section(results: Mapping[int, Overhead], how: How) -> str:
    rows, goals = [], []
    for threads, result in results.items():
        rounds, calls = result.rounds, result.calls
        for name in KINDS:
            if name not in rounds.figures or name not in calls or BARE not in calls:
                continue
            rows.append(
                [
                    f"{threads} thread(s): {name}",
                    f"{rounds.middle(name, 'wall'):.1f}",
                    f"{rounds.difference(name, BARE, 'wall'):+.1f}",
                    f"{rounds.difference(name, BARE, 'cpu'):+.1f}",
                    f"{calls[name]['python']:.1f}",
                    f"{calls[name]['python'] / calls[BARE]['python']:.2f}",
                    f"{calls[name]['c']:.1f}",
                ]
            )
        if ALL in rounds.figures and BARE in rounds.figures:
            over = rounds.difference(ALL, BARE, "wall")
            goals.append(verdict(f"time, {threads} thread(s), all observers", over, GOAL_MICROSECONDS, " µs", 1))
        else:
            goals.append(f"- **NOT MEASURED** time, {threads} thread(s), all observers: see what failed, below")
    one = next(iter(results.values()))
    if ALL in one.calls and BARE in one.calls:
        ratio = one.calls[ALL]["python"] / one.calls[BARE]["python"]
        goals.append(verdict("Python calls, all observers", ratio, GOAL_CALLS))
    head = ["loop", "µs a step", "µs over bare", "CPU µs over bare", "Python calls", "× bare", "C calls"]
    return f"""2-layer MLP 32 wide, batch 8, `torch.optim.SGD` and mean squared error in all, the same pre-gathered
batches. Calls are counted by `sys.setprofile`, with clocks that do not depend on the
machine, so their number has no noise.

{chr(10).join(goals)}

{table(head, rows)}
{failures({threads: result.rounds for threads, result in results.items()})}"""
