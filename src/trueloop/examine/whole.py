"""All examinations, one after the other, each by itself: what one does or breaks, the next one does not see."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.data.feed import batch_size_for
from trueloop.doctor.pages import codes
from trueloop.doctor.settings import Rules
from trueloop.errors import ArgumentError
from trueloop.examine.aside import Aside, AsideError, can_fork
from trueloop.examine.gradients import gradients
from trueloop.examine.initial_loss import initial_loss
from trueloop.examine.inputs import inputs
from trueloop.examine.labels import labels
from trueloop.examine.loader_speed import loader_speed
from trueloop.examine.neighbours import neighbours
from trueloop.examine.one_batch import one_batch
from trueloop.examine.result import Examination, Examined
from trueloop.examine.same_evaluation import same_evaluation
from trueloop.examine.same_step import CODE, NAME, same_step
from trueloop.examine.splits import splits
from trueloop.examine.subject import Limits, Subject, begun, kernels

if TYPE_CHECKING:  # the trainer imports this
    from trueloop.trainer import Trainer


class _One(NamedTuple):
    examine: Callable[[Subject], Examination]
    rules: tuple[str, ...]
    """By whose names it speaks."""


EXAMINATIONS: dict[str, _One] = {
    "initial-loss": _One(initial_loss, ("initial-loss-off",)),
    "inputs": _One(inputs, ("inputs-not-scaled", "non-finite-input", "preprocessing-differs")),
    "labels": _One(labels, ("degenerate-targets",)),
    "splits": _One(splits, ("leak-between-splits",)),
    "gradients": _One(gradients, ("parameters-without-gradient", "detached-loss")),
    "neighbours": _One(neighbours, ("batch-samples-mix",)),
    "same-step": _One(same_step, (NAME,)),
    "same-evaluation": _One(same_evaluation, ("augmented-evaluation", "dropout-always-on")),
    "loader-speed": _One(loader_speed, ("loader-bound",)),
    "one-batch": _One(one_batch, ("not-learning", "loss-is-constant", "learning-rate-too-high")),
}
"""In the order in which they are made: the quick ones first."""

BATCH_SIZE = 32
"""Samples a batch where none was given."""
ASIDE = ("out", "saving", "save_every_steps", "resume", "about", "progress", "observers")
"""Arguments of ``fit`` that an examination has no use for."""


def examine(
    trainer: Trainer,
    train: Any,
    val: Any,
    how: Mapping[str, Any],
    *,
    limits: Limits | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    told: Callable[[Examination], None] | None = None,
) -> Examined:
    """Examines a trainer and its data; both stay as they are.

    Args:
        trainer: what the user has made.
        train: as for ``fit``.
        val: as for ``fit``.
        how: the arguments of ``fit``; without ``epochs`` or ``steps``, or ``batch_size``, one is chosen.
        limits: how long it may take.
        select: only these rules: names, codes or hundreds, as for the doctor; an examination without a rule left is
            not made.
        ignore: not these.
        told: called with each examination as it ends.

    Raises:
        TrueloopError: bad input, as ``fit`` would raise it.
    """
    inspect.signature(trainer.fit).bind(train, val, **how)  # a mistyped name is told here
    limits = limits or Limits()
    for name, value in (("steps", limits.steps), ("seconds", limits.seconds), ("timeout", limits.timeout)):
        if not value > 0:
            raise ArgumentError(f"the limit of {name} must be above 0, got {value!r}")
    speak = Rules.chosen({**codes(), NAME: CODE}, select, ignore).speak
    how = {name: value for name, value in how.items() if name not in ASIDE}
    if how.get("epochs") is None and how.get("steps") is None:
        how["steps"] = limits.steps
    if how.get("batch_size") is None:
        how["batch_size"] = batch_size_for(train, None, BATCH_SIZE)
    plan = trainer.plan(train, val, **how)  # raises what fit would raise
    aside = Aside(trainer, (train, val), can_fork(trainer.setup.device))
    made = []
    for name, one in EXAMINATIONS.items():
        if speak.isdisjoint(one.rules):
            continue

        def job(one: _One = one) -> Examination:
            with kernels(trainer):
                return one.examine(begun(trainer, train, val, how, limits, aside))

        began = time.monotonic()
        try:
            result = aside(job, limits.timeout)
        except AsideError as error:
            at = "" if error.place is None else f" ({error.place})"
            why = f"could not be judged: {error.text}{at}"
            result = Examination(name, "unknown", why, broke=f"{error.text}{at}")
        result = result._replace(name=name, seconds=time.monotonic() - began)
        made.append(result)
        if told is not None:
            told(result)
    data = "training data of unknown length" if plan.samples is None else f"{plan.samples:,} training samples"
    step = "" if plan.samples_per_step is None else f", {plan.samples_per_step} a step"
    return Examined(f"{type(trainer.model).__name__} on {data}{step}", tuple(made)).only(speak)
