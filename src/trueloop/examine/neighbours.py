"""Does the output of a sample depend on its neighbours in the batch? (In eval mode: BatchNorm may, in training.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from trueloop.doctor.neighbours import ask, askable
from trueloop.doctor.places import forward_of
from trueloop.doctor.rules.batch_samples_mix import BatchSamplesMix
from trueloop.doctor.samples import tensors_in, variety
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject


def neighbours(subject: Subject) -> Examination:
    """Asks a copy of the model twice about one batch, the second time with half of its samples replaced."""
    batches = subject.first()
    if not batches:
        return unknown("no batch came")
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = subject.model.register_forward_pre_hook(
        lambda _, positional, named: given.append((positional, named)), with_kwargs=True
    )
    try:
        subject.objective.compute(subject.model, batches[0])
    finally:
        hook.remove()
    if not given:
        return unknown("the loss does not call the model itself, but a part of it")
    if not askable(subject.model):
        return unknown("the model cannot be copied to be asked, or normalises over the batch on purpose")
    positional, named = given[0]
    inputs = (*positional, *named.values())
    first = next(iter(tensors_in(inputs)), None)
    if first is None or first.dim() < 1 or len(first) < 2:
        return unknown("a batch of one sample has no neighbours")
    mixing = ask(subject.model, SimpleNamespace(inputs=inputs, keywords=tuple(named)))  # type: ignore[arg-type]
    if mixing is None:
        bits = variety(first)
        why = "samples are too alike" if bits < 16 else "its inputs are not all samples, or the batch is one on purpose"
        return unknown(f"the model was not asked: {why}")
    if not mixing.change:
        return passed(f"in eval mode, replacing half of a batch of {len(first)} changes no output of the other half")
    kind = type(subject.model).__name__
    at = "" if mixing.module is None else f": in {mixing.layer} ({type(mixing.module).__name__})"
    return failed(
        found(
            BatchSamplesMix,
            f"what {kind} says of a sample depends on the other samples of its batch{at}",
            f"in eval mode, replacing half of a batch of {len(first)} changes the other half's outputs by up to "
            f"{mixing.change:.0%} of the largest",
            place=forward_of(mixing.module) or forward_of(subject.model),
        )
    )
