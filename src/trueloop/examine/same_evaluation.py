"""Does validation give the same numbers twice?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from trueloop.doctor.findings import Finding
from trueloop.doctor.listen import listening
from trueloop.doctor.rules.augmented_evaluation import AugmentedEvaluation
from trueloop.doctor.rules.dropout_always_on import DropoutAlwaysOn
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject
from trueloop.verify_resume.record import bits_of_batch


def same_evaluation(subject: Subject) -> Examination:
    """Evaluates twice, one evaluation after the other, as a run does."""
    held_out = subject.run.held_out
    if held_out is None:
        return unknown("there is no validation data")
    batches: list[list[str]] = [[], []]

    def noted(source: Iterator[Any], digests: list[str]) -> Iterator[Any]:
        for batch in source:
            digests.append(bits_of_batch(batch))
            yield batch

    with listening([DropoutAlwaysOn]) as trace:
        first = subject.evaluated(noted(subject.batches(held_out, seconds=subject.limits.reading), batches[0]))
        number = len(batches[0])
        second = subject.evaluated(noted(islice(subject.batches(held_out), number), batches[1]))
    differing = [name for name in first if repr(first[name]) != repr(second.get(name))]
    over = f"{number} batch{'es' * (number != 1)}"
    if not differing:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in list(first.items())[:3])
        return passed(f"two evaluations over {over} give the same numbers: {shown}")
    told = [f"{name}: {first[name]:.6g}, then {second[name]:.6g}" for name in differing[:3] if name in second]
    if batches[0] != batches[1]:
        return failed(_of_data(told, over))
    by_dropout = [finding for finding in trace.findings if finding.name == DropoutAlwaysOn.name]
    if by_dropout:
        return failed(*by_dropout)
    return failed(
        found(
            DropoutAlwaysOn,
            "validation gives other numbers a second time: the model or the loss is random in eval mode",
            *told,
            f"over the same {over}, bit by bit",
            level="note",
            certainty="measured",
            meaning="figures of validation jump from one to the next by themselves, and so does what is chosen by them",
            help="where the noise is meant for training alone, ask for self.training; where it is meant "
            "(a sampled latent, Monte-Carlo dropout), average over several draws",
        )
    )


def _of_data(told: list[str], over: str) -> Finding:
    return found(
        AugmentedEvaluation,
        "validation gives other numbers a second time: its data is not the same",
        *told,
        f"over {over}, whose tensors differ",
    )
