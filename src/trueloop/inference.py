"""A trainer's model in use: evaluations and predictions, by which weights, of which data, on how many processes.

``evaluate.py`` goes through batches with a model; here is decided which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from trueloop.checkpoint.signals import Asked, until_asked
from trueloop.data.arrays import is_arrays
from trueloop.data.device import onto
from trueloop.data.feed import Feed, batch_size_for
from trueloop.data.given import in_order
from trueloop.data.part import Part
from trueloop.data.randomness import borrowed_rngs
from trueloop.evaluate import evaluate, predict
from trueloop.events import EvalEnded
from trueloop.objective import Batch, Objective
from trueloop.optim import recompute_batchnorm
from trueloop.parallel.alike import check_alike
from trueloop.parallel.deal import in_order as dealt_in_order
from trueloop.parallel.deal import same_buffers
from trueloop.parallel.failing import telling
from trueloop.parallel.reading import ReadByAll, shared_feed
from trueloop.parallel.tally import SharedTally
from trueloop.parallel.world import World
from trueloop.setup import Setup
from trueloop.state import data_on_all
from trueloop.tally import Tally

BATCH_SIZE = 256
"""Samples a batch in ``evaluate`` and ``predict``, where none was given: it changes no result."""

WIDER = 4
"""Evaluation batches are so many times those of training, for a loss that does not depend on the batch: they keep no
activations for a backward pass. A guess that is safe in memory; a DataLoader of your own sets another size."""


def averaged_model(setup: Setup) -> nn.Module | None:
    """The model with averaged weights, if an average is kept and has begun."""
    return None if setup.averaged is None or not setup.averaged.taken else setup.averaged.module


def evaluated_model(setup: Setup) -> nn.Module:
    """What evaluations and predictions use: the averaged weights where asked for and begun, else the model."""
    averaged, average = averaged_model(setup), setup.choices.average
    return averaged if averaged is not None and average is not None and average.evaluate else setup.choices.model


def evaluated(
    setup: Setup, form: Objective, source: Feed, *, step: int = 0, epoch: int = 0, asked: Asked | None = None
) -> EvalEnded:
    """The loss and all metrics over all samples that the processes read of ``source`` together.

    Args:
        setup: the trainer's.
        form: gives the loss.
        source: of each process's part, in turn.
        step: for the record.
        epoch: for the record.
        asked: a signal breaks it off, on one process; several could not break off together.

    Raises:
        ProcessError: the processes have not read the same.
    """
    batches = onto(setup.device)(source.epoch(0))
    if asked is not None and setup.world.alone:
        batches = until_asked(batches, asked)
    tally = Tally if setup.world.alone else SharedTally
    batches, model = _in_step(setup, batches), evaluated_model(setup)
    ended = evaluate(model, form, batches, setup.metrics, step=step, epoch=epoch, tally=tally)
    _check_read(source, step)
    return ended


def evaluated_data(setup: Setup, data: Any, *, batch_size: int | None, workers: int, step: int) -> EvalEnded:
    """See ``Trainer.evaluate``."""
    form = setup.training_objective
    size = batch_size_for(data, batch_size, BATCH_SIZE)
    source = shared_feed(data, batch_size=size, workers=workers, part=in_turn(setup.world))
    with telling(setup.world), contextlib.closing(source):
        _check_same(setup, data, source)
        return evaluated(setup, form, source, step=step)


def predicted_data(
    setup: Setup, data: Any, *, batch_size: int | None, workers: int, has_target: bool | None, step: int
) -> Any:
    """See ``Trainer.predict``."""
    size = batch_size_for(data, batch_size, BATCH_SIZE)
    how: dict[str, Any] = {"batch_size": size, "workers": workers, "part": in_turn(setup.world)}
    source = shared_feed(data, **how)
    if source.shuffled:  # a DataLoader of the user's: the order of its input is that of its dataset
        source = shared_feed(in_order(data, BATCH_SIZE), **how)
    gather = list if setup.world.alone else dealt_in_order
    with telling(setup.world), contextlib.closing(source), setup.precision.autocast(setup.device):
        _check_same(setup, data, source)
        batches = _in_step(setup, onto(setup.device)(source.epoch(0)))
        outputs = predict(evaluated_model(setup), batches, has_target=has_target, gather=gather)
        _check_read(source, step)
        return outputs


def held_out_feed(
    setup: Setup, train: Any, val: Any, form: Objective, *, batch_size: int | None, how: Mapping[str, Any]
) -> Feed:
    """Validation data, in larger batches than training's where that changes nothing: no graph is kept."""
    if isinstance(val, list) and not is_arrays(val) and not isinstance(train, list):
        batch_size = None  # batches as they are; a list of samples goes with one to train on
    elif batch_size is not None and form.criterion is not None:
        batch_size *= WIDER
    return shared_feed(val, batch_size=batch_size_for(val, batch_size, BATCH_SIZE), part=in_turn(setup.world), **how)


def recompute_average(setup: Setup, form: Objective, again: Callable[[], Feed]) -> None:
    """Makes the BatchNorm statistics of averaged weights anew, if the average asks for it and has moved since.

    Args:
        setup: the trainer's.
        form: makes the forward pass.
        again: gives the training data once more.
    """
    averaged, average, model = setup.averaged, setup.choices.average, setup.choices.model
    if averaged is None or average is None or not average.recompute or averaged.taken == averaged.recomputed_at:
        return
    averaged.recomputed_at = averaged.taken
    frozen = {name for name, module in model.named_modules() if not module.training}
    with borrowed_rngs(), contextlib.closing(again()) as train:
        batches = onto(setup.device)(train.epoch(0))
        recompute_batchnorm(averaged.module, batches, forward=form.compute, keep=frozen)


def in_turn(world: World) -> Part:
    """This process's batches in an evaluation."""
    return Part(world.rank, world.size, in_turn=True)


def _in_step(setup: Setup, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches of an evaluation, of one model; as many on each process where all go through it together."""
    if not setup.world.alone:
        same_buffers(evaluated_model(setup))
    if not setup.is_cut_up:
        return batches
    from trueloop.parallel.shard import in_step

    return in_step(batches)


def _check_same(setup: Setup, data: Any, source: Feed) -> None:
    """Data to evaluate on, of which this process takes its part, is the same on all of them."""
    if not setup.world.alone:
        check_alike(data_on_all(data, source))


def _check_read(source: Feed, step: int) -> None:
    """What each process has read for itself, to take its part of it, was the same on all of them to the end."""
    if isinstance(source, ReadByAll):
        source.check_alike(step)
