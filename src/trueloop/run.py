"""A run, from what ``Trainer.train`` is asked for: all is checked, set up and said before the first event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from trueloop import state
from trueloop.checkpoint.find import Origin
from trueloop.checkpoint.signals import Asked
from trueloop.checks import check_count
from trueloop.data.device import onto
from trueloop.data.feed import Feed
from trueloop.data.given import in_order
from trueloop.data.part import Part
from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.events import EvalEnded
from trueloop.inference import BATCH_SIZE, evaluated, evaluated_model, held_out_feed, recompute_average
from trueloop.loop import Evaluation, Run
from trueloop.objective import Batch, Objective
from trueloop.parallel.alike import check_alike, until_all_end
from trueloop.parallel.reading import shared_feed
from trueloop.planning import describe_evaluation, make_plan
from trueloop.setup import Setup, begin_average, length, make_ritual


def make_run(
    setup: Setup,
    train: Any,
    val: Any = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    shuffle: bool = True,
    workers: int = 0,
    worker_timeout: float = 300.0,
    evaluate_every: int | None = 1,
    evaluate_every_steps: int | None = None,
    saves: str | None = None,
    found: Origin | None = None,
    asked: Asked | None = None,
) -> Run:
    """A run that stands at its beginning.

    Args:
        setup: the trainer's.
        train: this, and all that is not named here, as for ``Trainer.fit``.
        saves: where checkpoints go and when, in words; None where there are none.
        found: a checkpoint that it is to go on from: its seed holds, where none is given.
        asked: what signals ask of it; an evaluation on one process breaks off then.
    """
    if found is not None and seed is None:
        seed = found.state["settings"].get("seed")
    for name, value in (("evaluate_every", evaluate_every), ("evaluate_every_steps", evaluate_every_steps)):
        if value is not None:
            check_count(name, value, hint="None for none")
    form = setup.training_objective
    if len(setup.optimizers) > 1:
        raise ArgumentError(
            f"fit and train have one loss and one optimizer, got optimizers {', '.join(setup.optimizers)}; write a "
            "loop of your own: trainer.batches(…), trainer.update(loss, optimizer=…)"
        )
    how: dict[str, Any] = {"workers": workers, "worker_timeout": worker_timeout, "seed": seed}
    part = Part(setup.world.rank, setup.world.size)
    source = shared_feed(train, batch_size=batch_size, shuffle=shuffle, part=part, **how)
    held_out = None if val is None else held_out_feed(setup, train, val, form, batch_size=batch_size, how=how)

    def again() -> Feed:
        return shared_feed(in_order(train, BATCH_SIZE), batch_size=batch_size, **how)

    begin_average(setup)
    notes: list[str] = []
    run_length = length(source, setup.choices.accumulate, epochs, steps)
    (optimizer,) = setup.optimizers
    run_seed = torch.initial_seed() if seed is None else seed
    if not setup.world.alone:
        asked_for = {"epochs": epochs, "steps": steps, "seed": run_seed, "shuffle": source.shuffled}
        asked_for |= {"evaluate_every": evaluate_every, "evaluate_every_steps": evaluate_every_steps}
        asked_for |= state.sizes({"data": source, "validation data": held_out})
        check_alike({**asked_for, **state.same_on_all(setup, train, val)}, setup.choices.model)
    ritual, schedule, schedule_text, latch = make_ritual(setup, optimizer, run_length, notes, run_seed)
    watched = None if ritual.scheduler is None else ritual.scheduler.metric
    if held_out is not None and watched is not None and watched.partition("/")[0] not in ("loss", *setup.metrics):
        raise UnknownNameError("metric", watched, ["loss", *setup.metrics])
    if held_out is None and ritual.scheduler is not None and ritual.scheduler.every == "evaluation":
        notes.append("the schedule moves after evaluations, and there is no validation data: it never will")
    if saves is not None:
        inexact = state.why_inexact(setup, source, held_out)
        saves += f"; a resume is exact, {source.resumes}" if inexact is None else f"; a resume is NOT exact: {inexact}"
    if setup.choices.deterministic and seed is None:
        notes.append("deterministic=True without a seed: the same bits twice need seed=… as well")
    plan = make_plan(
        setup,
        ritual,
        run_length,
        source,
        schedule,
        schedule_text,
        evaluates=describe_evaluation(held_out, evaluate_every, evaluate_every_steps, setup.choices.metrics),
        saves=saves,
        notes=notes,
    )
    return Run(
        ritual=ritual,
        objective=form,
        feed=source,
        plan=plan,
        seed=run_seed,
        accumulate=setup.choices.accumulate,
        epochs=epochs,
        steps=steps,
        evaluate=None if held_out is None else _evaluation(setup, form, held_out, again, asked),
        evaluate_every=evaluate_every,
        evaluate_every_steps=evaluate_every_steps,
        onto_device=_onto_device(setup, source),
        latch=latch,
        held_out=held_out,
        generators=state.generators_of(setup, val),
        settings={
            "seed": run_seed,
            "epochs": epochs,
            "steps": steps,
            "batch_size": source.batch_size,
            "shuffle": source.shuffled,
            "samples": source.samples,
            "evaluate_every": evaluate_every,
            "evaluate_every_steps": evaluate_every_steps,
            "schedule": schedule_text,
            **state.fingerprint(setup),
        },
        at_end=lambda: recompute_average(setup, form, again),
    )


def _onto_device(setup: Setup, source: Feed) -> Callable[[Iterator[Batch]], Iterator[Batch]]:
    """Brings the batches of training to the device; where there are other processes, to one end."""
    move = onto(setup.device, ahead=not source.state())
    return move if setup.world.alone else lambda batches: until_all_end(move(batches))


def _evaluation(
    setup: Setup, form: Objective, held_out: Feed, again: Callable[[], Feed], asked: Asked | None
) -> Evaluation:
    """An evaluation on ``held_out``; ``again`` gives the training data, for BatchNorm's statistics."""

    def evaluation(step: int, epoch: int) -> EvalEnded:
        if evaluated_model(setup) is not setup.choices.model:
            recompute_average(setup, form, again)
        try:
            return evaluated(setup, form, held_out, step=step, epoch=epoch, asked=asked)
        finally:
            held_out.close()  # its workers, if it was left in the middle

    return evaluation
