"""The ten-feature regression: ours with everything on, the loop by hand, and the peers at their leanest."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.cases.peers import peers
from benchmarks.machine import Disturbance
from benchmarks.rounds import How, Pool, Rounds, Variant, interleaved
from benchmarks.table import compared, failures, table, verdict

TITLE = "1. Ten-feature regression"
GOAL = 0.55
STEPS_AN_EPOCH = 32
SHORT = 2  # epochs

BY_HAND, OURS = "by hand, DataLoader(shuffle), no evaluation", "**trueloop, all on**, evaluating each epoch"
ALONE = "trueloop, all on, no evaluation"


def variants(how: How) -> list[Variant]:
    return [
        how.variant(BY_HAND, "peers.plain:train"),
        how.variant("by hand, with evaluation each epoch", "peers.plain:train_and_evaluate"),
        how.variant("by hand, tuned (gathers, fused Adam)", "peers.plain:train_tuned"),
        how.variant(OURS, "peers.trueloop:train"),
        how.variant(ALONE, "peers.trueloop:train_alone"),
        how.variant("trueloop, stream of events, nobody watching", "peers.trueloop:train_stream"),
        *peers(how),
    ]


def measure(how: How, pool: Pool) -> Rounds:
    """Each variant trains twice a round, shortly and long: the difference is what steps cost, the rest is set-up."""
    long = SHORT + (4 if how.quick else 60)
    steps = (long - SHORT) * STEPS_AN_EPOCH

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        few, many = (pool.ask(variant, watch, work="regression", epochs=epochs) for epochs in (SHORT, long))
        a_step = (many["wall"] - few["wall"]) / steps
        return {
            "µs": a_step * 1e6,
            "cpu µs": (many["cpu"] - few["cpu"]) / steps * 1e6,
            "set-up ms": (few["wall"] - a_step * SHORT * STEPS_AN_EPOCH) * 1e3,
            "whole µs": many["wall"] / (long * STEPS_AN_EPOCH) * 1e6,
            "loss": many["loss"],
        }

    return interleaved(variants(how), ask, how, f"regression, {pool.threads} thread(s)")


def section(results: Mapping[int, Rounds], how: How) -> str:
    names = [variant.name for variant in variants(how)]
    goals = [
        verdict(f"all on, {threads} thread(s), against the loop by hand without evaluation", ratio, GOAL)
        for threads, rounds in results.items()
        if OURS in rounds.figures and BY_HAND in rounds.figures
        for ratio in [rounds.ratio(OURS, BY_HAND, "µs")]
    ]
    one = next(iter(results.values()))
    also = table(
        ["loop", "set-up of the call, ms", "whole call, µs a step", "loss after"],
        [
            [name, f"{one.middle(name, 'set-up ms'):.0f}", f"{one.middle(name, 'whole µs'):.0f}", _loss(one, name)]
            for name in names
            if name in one.figures
        ],
    )
    return f"""1000 samples, batch 32, MLP 10-5-1, mean squared error, Adam 1e-3. Wall time of one step: a long run less
a short one, divided by the steps between them. "All on": a torchmetrics metric, live progress (drawn in full, to
/dev/null), `run.json`, `events.jsonl`, weights saved at the end, and, where it says so, an evaluation on 200 samples
each epoch. The loop by hand does none of this; peers neither log, save nor evaluate.

{chr(10).join(goals)}

{compared(results, names, BY_HAND, "µs", "µs a step", 0)}
{failures(results)}
What a call costs once, however long it trains, and whether all have learned the same (1 thread, {_epochs(how)} epochs):

{also}"""


def _epochs(how: How) -> int:
    return SHORT + (4 if how.quick else 20)


def _loss(rounds: Rounds, name: str) -> str:
    return f"{rounds.middle(name, 'loss'):.4f}"
