"""Does every trainable parameter get a gradient?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from torch import nn

from trueloop.doctor.rules.detached_loss import DetachedLoss
from trueloop.doctor.rules.parameters_without_gradient import ParametersWithoutGradient
from trueloop.examine.result import Examination, failed, found, passed, unknown
from trueloop.examine.subject import Subject

BATCHES = 8
"""So many may it take, until each part was used: an expert, a rare branch."""
NAMED = 4


def gradients(subject: Subject) -> Examination:
    """Goes backward through the first batches, and asks which parameters have no ``grad`` after them."""
    wanted = {
        name: parameter
        for root in (subject.model, subject.trainer.setup.loss)
        if root is not None
        for name, parameter in root.named_parameters()
        if parameter.requires_grad
    }
    for parameter in wanted.values():
        parameter.grad = None
    seen = 0
    for batch in islice(subject.batches(seconds=subject.limits.reading), BATCHES):
        seen += 1
        loss = subject.objective.compute(subject.model, batch).loss
        if not loss.requires_grad:
            message = "the loss has no graph: no parameter gets a gradient"
            return failed(found(DetachedLoss, message, f"{len(wanted)} parameters are trainable"))
        loss.backward()  # type: ignore[no-untyped-call]
        if all(parameter.grad is not None for parameter in wanted.values()):
            break
    if not seen:
        return unknown("no batch came")
    left = [name for name, parameter in wanted.items() if parameter.grad is None]
    after = "1 batch" if seen == 1 else f"{seen} batches"
    if not left:
        return passed(f"all {len(wanted)} trainable parameters have a gradient after {after}")
    spare = _of_several(subject.model, left)
    numbers = sum(wanted[name].numel() for name in left)
    return failed(
        found(
            ParametersWithoutGradient,
            f"{len(left)} of {len(wanted)} trainable parameters get no gradient: {_listed(left)}",
            f"after {after} their grad is None: {numbers:,} numbers that stay as they are",
            *(["they belong to parts of which others of their kind do learn"] if spare else []),
            level="note" if spare else None,
        )
    )


def _of_several(model: nn.Module, left: Iterable[str]) -> bool:
    """Whether each is of a part of a ModuleList or ModuleDict of which another of its kind learns: experts, heads."""
    modules = dict(model.named_modules())

    def spare(name: str) -> bool:
        parts = name.split(".")
        for depth in range(len(parts) - 1):
            holder, mine = modules.get(".".join(parts[:depth])), modules.get(".".join(parts[: depth + 1]))
            if isinstance(holder, (nn.ModuleList, nn.ModuleDict)) and any(
                type(other) is type(mine) and any(p.grad is not None for p in other.parameters())
                for other in holder.children()
            ):
                return True
        return False

    return all(map(spare, left))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
