"""Are the labels balanced, and do they say anything?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trueloop.data.nested import leaves
from trueloop.doctor.facts import LossCalled
from trueloop.doctor.findings import Finding
from trueloop.doctor.rules.degenerate_targets import HEAVY, MISSED, MOST, OFTEN, DegenerateTargets
from trueloop.examine.heard import BINARY, CLASSES, NUMBERS, classes_of, counted, losses_heard
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject

FEWEST = 8


def labels(subject: Subject) -> Examination:
    """Counts the targets that the loss is given, over an epoch or as much of it as can be read."""
    batch = next(iter(subject.batches()), None)
    if batch is None:
        return unknown("no batch came")
    with losses_heard() as calls:
        subject.objective.compute(subject.model, batch)
    if not calls:
        return unknown("no loss function of torch's was heard, so what the targets are is not known")
    call = calls[0]
    if call.kind in CLASSES and not call.target.is_floating_point():
        return _classes(call, torch.cat([*_targets(subject, call)]))
    if call.kind in BINARY:
        targets = torch.cat([*_targets(subject, call)])
        if bool(((targets == 0) | (targets == 1)).all()):
            return _binary(call, targets)
        return _numbers(call, targets)
    if call.kind in NUMBERS:
        return _numbers(call, torch.cat([*_targets(subject, call)]))
    return unknown(f"targets of {call.kind} are not counted")


def _targets(subject: Subject, call: LossCalled) -> Iterator[Tensor]:
    """The targets of the training data: read where they stand in the batch, else heard in forward passes."""
    batch = next(iter(subject.batches()))
    where = next((n for n, leaf in enumerate(leaves(batch)) if _is(leaf, call.target)), None)
    arrays = getattr(subject.run.feed, "arrays", None)
    if where is not None and arrays is not None:
        yield list(leaves(arrays))[where].detach()
        return
    if where is not None:
        for batch in subject.batches(seconds=subject.limits.reading):
            yield list(leaves(batch))[where].detach()
        return
    with losses_heard() as calls, torch.no_grad():
        for batch in subject.batches(seconds=subject.limits.reading):
            subject.objective.compute(subject.model, batch)
            if calls:
                yield calls[0].target.detach().flatten() if call.kind in CLASSES else calls[0].target.detach()
            calls.clear()


def _is(leaf: object, target: Tensor) -> bool:
    return (
        isinstance(leaf, Tensor)
        and leaf.numel() == target.numel()
        and bool(torch.equal(leaf.flatten().double(), target.flatten().double()))
    )


def _classes(call: LossCalled, targets: Tensor) -> Examination:
    number = classes_of(call)
    kept = counted(call._replace(target=targets))
    kept = kept[kept < number]
    if len(kept) < FEWEST:
        return unknown(f"{len(kept)} targets are too few to judge")
    shares = kept.bincount(minlength=number)
    common, most = int(shares.argmax()), int(shares.max())
    absent = torch.nonzero(shares == 0).flatten().tolist()
    of = f"{len(kept):,} targets of {call.kind}"
    if most == len(kept):
        return failed(_found(f"every target of {call.kind} is the same class, {common}", of, call))
    if absent and number <= MOST and len(kept) >= OFTEN * number:
        shown = ", ".join(map(str, absent[:5])) + (" …" if len(absent) > 5 else "")
        message = f"the model has {number} outputs, and class {shown} never comes as a target"
        grave = call.target.dim() == 1 and len(absent) >= max(2, MISSED * number)
        return failed(_found(message, of, call, note=not grave))
    if most >= HEAVY * len(kept) and call.options.get("weight") is None:
        message = f"{most / len(kept):.0%} of the targets are class {common}, and no weights are given"
        return failed(_found(message, of, call, note=True))
    if number > MOST:
        return passed(f"{of}: {number - len(absent)} of {number} classes come, the commonest {most / len(kept):.1%}")
    least = int(shares.min())
    return passed(f"{of}: {number} classes, each with {least / len(kept):.1%} to {most / len(kept):.1%} of them")


def _binary(call: LossCalled, targets: Tensor) -> Examination:
    """Each place of a sample is a question of its own, answered with 0 or 1."""
    columns = targets.double().reshape(len(targets), -1).mean(0)
    of = f"{len(targets):,} targets of {call.kind}"
    if targets.numel() < FEWEST:
        return unknown(f"{targets.numel()} targets are too few to judge")
    low, high = float(columns.min()), float(columns.max())
    if low == high and low in (0.0, 1.0):
        return failed(_found(f"every target of {call.kind} is the same class, {low:g}", of, call))
    still = int(((columns == 0) | (columns == 1)).sum())
    if len(columns) == 1:
        if max(low, 1 - low) >= HEAVY and call.options.get("pos_weight") is None:
            message = f"{max(low, 1 - low):.0%} of the targets are class {int(low >= 0.5)}, and no weights are given"
            return failed(_found(message, of, call, note=True))
        return passed(f"{of}: {low:.1%} are 1")
    if 1 < len(columns) <= MOST and still and len(targets) >= OFTEN:
        return failed(_found(f"{still} of {len(columns)} labels have one value only", of, call, note=True))
    return passed(f"{of}: of {len(columns)} labels each, {low:.1%} to {high:.1%} are 1")


def _numbers(call: LossCalled, targets: Tensor) -> Examination:
    values = targets.double()
    if values.numel() < FEWEST:
        return unknown(f"{values.numel()} targets are too few to judge")
    low, high, of = float(values.min()), float(values.max()), f"{len(targets):,} targets of {call.kind}"
    if low == high:
        return failed(_found(f"every target of {call.kind} is the same number, {low:g}", of, call))
    spread = float(values.std(correction=0))
    return passed(f"{of}: from {low:.4g} to {high:.4g}, mean {float(values.mean()):.4g}, deviation {spread:.4g}")


def _found(message: str, of: str, call: LossCalled, *, note: bool = False) -> Finding:
    return found(DegenerateTargets, message, of, level="note" if note else None, place=call.place)
