"""Whether bf16 costs accuracy: seeds in turn, equal epochs, all of Fashion-MNIST. Slow: only on request."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

from benchmarks.rounds import Failed, How, Pool, say
from benchmarks.table import table, verdict

TITLE = "6. Accuracy after equal epochs"
GOAL_POINTS = 0.3

BY_HAND, BF16 = "by hand, fp32", "trueloop, bf16, channels_last"
LOOPS = {BY_HAND: "by_hand", BF16: "ours_bf16"}


@dataclass
class Accuracies:
    """By loop, one answer a seed."""

    answers: dict[str, list[dict[str, float]]]
    epochs: int


def measure(how: How, pool: Pool, seeds: int, epochs: int) -> Accuracies:
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in LOOPS}
    for seed in range(seeds):
        for name, function in LOOPS.items():
            try:
                answer = pool.ask(how.variant(name, f"accuracy:{function}"), patience=3600.0, seed=seed, epochs=epochs)
            except Failed as error:
                say(f"accuracy: {name} FAILED: {error}")
                continue
            answers[name].append(answer)
            say(f"accuracy: seed {seed}, {name}: {answer['accuracy']:.2f} % in {answer['seconds']:.0f} s")
    return Accuracies(answers, epochs)


def section(result: Accuracies) -> str:
    rows = []
    for name, answers in result.answers.items():
        if not answers:
            rows.append([name, "failed", "", "", ""])
            continue
        accuracies = [answer["accuracy"] for answer in answers]
        rows.append(
            [
                name,
                f"{mean(accuracies):.2f}",
                f"{stdev(accuracies):.2f}" if len(accuracies) > 1 else "–",
                ", ".join(f"{accuracy:.2f}" for accuracy in accuracies),
                f"{mean(answer['seconds'] for answer in answers):.0f}",
            ]
        )
    goal = ""
    if result.answers[BY_HAND] and result.answers[BF16]:
        lost = mean(a["accuracy"] for a in result.answers[BY_HAND]) - mean(a["accuracy"] for a in result.answers[BF16])
        goal = verdict("accuracy lost by bf16 and channels_last", lost, GOAL_POINTS, " points")
    return f"""All 60,000 images, {result.epochs} epoch(s), test accuracy in percent on 10,000, judged in fp32; the
same first weights for the same seed, AdamW with one cycle to 3e-3 in both, each loop's own order of the data.

{goal}

{table(["loop", "mean", "standard deviation", "by seed", "seconds of training"], rows)}"""
