"""What holds state in a trainer's run, and how such a run goes on from a checkpoint.

``checkpoint/resume.py`` captures and restores ``Parts``; here is which parts a trainer has, and what is said when they
are not what they were.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics import Metric

from trueloop.checkpoint import store
from trueloop.checkpoint.find import Origin, has_checkpoints, leave_behind
from trueloop.checkpoint.finite import is_finite
from trueloop.checkpoint.layout import FOLDER
from trueloop.checkpoint.resume import Parts, Stateful, restore
from trueloop.checkpoint.rngs import set_rngs_to
from trueloop.checkpoint.saving import Saving
from trueloop.data.feed import Feed
from trueloop.data.generators import generators_in, put
from trueloop.data.given import LoaderFeed
from trueloop.errors import ArgumentError, RunFolderError, UnknownNameError
from trueloop.loop import Run
from trueloop.observers.run_folder import claim, claim_again
from trueloop.own_loop import OwnLoop
from trueloop.parallel.likeness import content, flat, likeness
from trueloop.planning import in_words
from trueloop.setup import Setup


def parts(
    setup: Setup, run: Run | None, own: OwnLoop, observers: Sequence[object], keep: Mapping[str, Stateful]
) -> Parts:
    """All that holds state: in ``run``, or in the loop of the user's own where there is none."""
    return Parts(
        model=setup.choices.model,
        optimizers=setup.optimizers,
        given=setup.given,
        modes=setup.modes,
        modes_to_come=own.modes_to_come,
        rituals=own.rituals if run is None else dict.fromkeys(setup.optimizers, run.ritual),
        place=own if run is None else run.place,
        loss=setup.loss,
        averaged=setup.averaged,
        metrics={name: metric for name, metric in setup.metrics.items() if isinstance(metric, Metric)},
        feed=own.feed if run is None else run.feed,
        generators=generators_of(setup) if run is None else run.generators,
        observers=observers,
        keep=keep,
        settings=fingerprint(setup) if run is None else run.settings,
    )


def generators_of(setup: Setup, held_out: object = None) -> dict[str, Any]:
    """Generators of random numbers that the user's own objects keep: those of the training data are its feed's."""
    choices = setup.choices
    roots = {
        "model": choices.model,
        "averaged": setup.averaged,  # a copy, with generators of its own
        "loss": choices.loss,
        "penalty": choices.settings.penalty,
        "schedule": choices.schedule,
        "optimizer": setup.optimizers,
        "metrics": choices.metrics,
        "val": held_out,
    }
    return {
        where: one
        for name, root in roots.items()
        if root is not None
        for where, one in generators_in(root, name).items()
    }


def fingerprint(setup: Setup) -> dict[str, Any]:
    """What the bits depend on beside data and seed, in plain values; a resume says what of it has changed."""
    choices = setup.choices
    kind = type(choices.model)
    if setup.is_cut_up:  # fully_shard has made a class of its own, of torch's and the model's
        kind = kind.__bases__[-1]
    return {
        "model": kind.__name__,
        "loss": in_words(choices.loss),
        "clip_norm": choices.settings.clip_norm,
        "clip_value": choices.settings.clip_value,
        "penalty": in_words(choices.settings.penalty),
        "accumulate": choices.accumulate,
        "precision": choices.precision,
        "memory_format": choices.memory_format,
        "compile": choices.compile,
        "average": None if choices.average is None else repr(choices.average),
        "deterministic": choices.deterministic,
        "device": setup.device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def same_on_all(setup: Setup, train: Any, val: Any) -> dict[str, Any]:
    """What all processes must have been given alike, by the names that an error calls it, in plain values."""
    own = {"model", "device", "optimizer", "metrics", "doctor", "process_timeout"}
    settings = {name: value for name, value in vars(setup.choices).items() if name not in own}
    groups = {
        name: [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        for name, optimizer in setup.optimizers.items()
    }
    alike = likeness({**settings, "model": setup.choices.model, "optimizer": groups, "torch": str(torch.__version__)})
    return flat({**alike, "the data's array": content(train), "the validation data's array": content(val)}, "")


def keeping_on_all(out: Path | None, saving: Saving, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What all processes must have been given alike, of what a run leaves; the folder's name is rank 0's to give."""
    folder = None if out is None else "a folder"  # its name may have the time in it
    return flat({"out": folder, "saving": likeness(saving), "metrics": [*metrics]}, "")


def data_on_all(data: Any, source: Feed) -> dict[str, Any]:
    """What all processes must have been given alike, of data to evaluate on: as far as it is known beforehand."""
    return flat({**sizes({"data": source}), "the data's array": content(data)}, "")


def sizes(feeds: Mapping[str, Feed | None]) -> dict[str, Any]:
    """How much data there is, as far as it says, by the names that an error calls it."""
    return {
        f"the {name}'s number of {what}": size
        for name, feed in feeds.items()
        if feed is not None
        for what, size in (("samples", feed.samples), ("batches", feed.batches), ("samples a batch", feed.batch_size))
    }


def go_on(run: Run, parts: Parts, at: Origin) -> None:
    """Puts a run that was set up anew where the checkpoint stands; its plan says so, and what differs."""
    lines = restore(parts, at.trees)
    if at.entry.exact is not None:
        lines.append(f"the checkpoint is not exact: {at.entry.exact}")
    then, size = at.state["settings"].get("batch_size"), run.feed.batch_size
    if run.place.batch and then and size and then != size:
        run.place.batch = run.place.batch * then // size
        lines.append(f"the epoch goes on at its sample {run.place.batch * size:,}")
    if run.place.stop is not None:
        lines.append(f"it was stopped: {run.place.stop}; to go on beyond that, resume from an earlier step")
    resumed = f"goes on after step {run.ritual.step:,}, from {at.entry.path}"
    run.plan = replace(run.plan, notes=(resumed, *at.passed, *lines, *run.plan.notes))
    run.resumed = lambda: last_act(at, run.generators)


def last_act(at: Origin, generators: Mapping[str, Any]) -> None:
    """The RNGs, once all else is in place and the loader stands where it stood."""
    missing = put(generators, at.state["generators"])
    for line in [*set_rngs_to(at.state["rngs"]), *(f"the generator {name}, which is not there" for name in missing)]:
        warnings.warn(f"resumed without {line}", stacklevel=2)


def unfit(model: nn.Module, run: Run | None) -> str | None:
    """Why the state is not fit to be saved when an exception leaves a step; None if it is."""
    if run is not None and run.ritual.stepping:
        return "the optimizer was in the middle of its step"
    if not all(is_finite(p) for p in model.parameters()):
        return "the weights hold NaN or Inf"
    return None


def why_inexact(setup: Setup, feed: Feed, held_out: Feed | None) -> str | None:
    """Why a resume cannot be promised to give the same bits; None if it can."""
    # Evaluations are whole, so of validation data only a loader of the user's own can carry state from one to the next.
    validation = held_out.inexact if isinstance(held_out, LoaderFeed) else None
    if feed.inexact is not None or validation is not None:
        return feed.inexact or f"validation: {validation}"
    if setup.device.type == "cpu" or setup.choices.deterministic:
        return None
    return "kernels of this device may differ in their last bits from run to run; deterministic=True"


def chosen(
    saving: Saving | None, every_steps: int | None, out: Path | None, val: Any, metrics: Iterable[str]
) -> Saving:
    """What was asked for of checkpoints, in one; it is looked at before the run begins."""
    if out is None and (saving is not None or every_steps is not None):
        raise ArgumentError("checkpoints are made in the run's folder: give out=…")
    if saving is not None and every_steps is not None:
        raise ArgumentError(f"give save_every_steps={every_steps} or saving=Saving(every_steps=…), not both")
    saving = saving or Saving(every_steps=every_steps)
    if saving.best is not None:
        if val is None:
            raise ArgumentError(f"Saving(best={saving.best!r}) looks at evaluations, and there is no validation data")
        known = ["loss", *metrics]
        if saving.best.partition("/")[0] not in known:
            raise UnknownNameError("metric", saving.best, known)
    return saving


def take_folder(out: Path, at: Origin | None, settings: Mapping[str, Any]) -> None:
    """Makes the run's folder, or goes on in it."""
    if at is None or not out.exists() or not at.run.samefile(out):
        if out.is_dir() and has_checkpoints(out) and not (out / "run.json").exists():
            raise RunFolderError(
                "the folder holds checkpoints of another run; choose another folder for this one, or go on from them: "
                "fit(…, resume='auto')",
                file=out,
            )
        claim(out, settings)
        if at is not None:  # what this run begins with
            store.copy(at.entry.path, out / FOLDER)
        return
    leave_behind(at)
    claim_again(out, settings, at.entry.step)
