"""The CNN of fashion_mnist: the same numerics, and bf16 with channels_last."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.cases.peers import peers
from benchmarks.machine import Disturbance
from benchmarks.rounds import How, Pool, Rounds, Variant, interleaved
from benchmarks.table import compared, failures, verdict

TITLE = "2. CNN on Fashion-MNIST"
STEPS = 16  # an epoch of 2048 samples

BY_HAND = "by hand, fp32"
OURS, LAID_OUT, BF16 = "**trueloop, fp32**", "trueloop, fp32, channels_last", "**trueloop, bf16, channels_last**"
GOALS = {OURS: 0.90, LAID_OUT: 0.90, BF16: 0.50}


def variants(how: How) -> list[Variant]:
    return [
        how.variant(BY_HAND, "peers.plain:train"),
        how.variant("by hand, bf16, channels_last", "peers.plain:train_bf16"),
        how.variant(OURS, "peers.trueloop:train_alone"),
        how.variant(LAID_OUT, "peers.trueloop:train_channels_last"),
        how.variant(BF16, "peers.trueloop:train_bf16"),
        *peers(how),
    ]


def measure(how: How, pool: Pool) -> Rounds:
    """One epoch each a round."""

    def ask(variant: Variant, watch: Disturbance | None) -> dict[str, float]:
        answer = pool.ask(variant, watch, work="cnn", epochs=1)
        return {"ms": answer["wall"] / STEPS * 1e3, "cpu ms": answer["cpu"] / STEPS * 1e3, "loss": answer["loss"]}

    return interleaved(variants(how), ask, how, f"cnn, {pool.threads} thread(s)")


def section(results: Mapping[int, Rounds], how: How) -> str:
    goals = [
        verdict(f"{name.strip('*')}, {threads} thread(s)", rounds.ratio(name, BY_HAND, "ms"), goal)
        for name, goal in GOALS.items()
        for threads, rounds in results.items()
        if name in rounds.figures and BY_HAND in rounds.figures
    ]
    return f"""conv32-BN-conv64-BN-fc128, batch 128, cross-entropy, Adam 1e-3, 2,048 images, an epoch a round.
trueloop with a metric, live progress, `run.json`, `events.jsonl` and saved weights, whose set-up is
in its figures; nobody evaluates.

{chr(10).join(goals)}

{compared(results, [variant.name for variant in variants(how)], BY_HAND, "ms", "ms a step", 1)}
{failures(results)}"""
