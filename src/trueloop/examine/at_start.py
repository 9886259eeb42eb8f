"""What is wrong with a run before its first step, as far as it can be told in milliseconds: no batch is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from trueloop.doctor.rules.batch_of_one_with_batchnorm import BatchOfOneWithBatchnorm
from trueloop.doctor.rules.degenerate_targets import HEAVY, DegenerateTargets
from trueloop.doctor.rules.duplicate_worker_rng import DuplicateWorkerRng
from trueloop.doctor.rules.parameters_not_optimized import ParametersNotOptimized
from trueloop.doctor.rules.training_data_not_shuffled import BATCHES, TrainingDataNotShuffled, runs_of
from trueloop.doctor.trace import Trace
from trueloop.errors import LossError
from trueloop.examine.result import found
from trueloop.examine.splits import leak_at_start
from trueloop.objective import split_batch

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding
    from trueloop.loop import Run

FEWEST = 32
"""Targets; fewer may be alike by chance."""
AT_ONCE = 2**22
"""So many targets are looked at before a run begins: some ten milliseconds."""


def at_start(model: nn.Module, run: Run, train: Any, val: Any) -> Iterator[Finding]:
    """What can be told of a run that is set up.

    Args:
        model: the trainer's.
        run: as ``fit`` has set it up.
        train: as ``fit`` was given it.
        val: the same.
    """
    yield from _left_out(model, run)
    yield from _one_over(model, run)
    yield from _reseeded(train)
    if run.objective.criterion is not None and (targets := _targets(run, train)) is not None:
        yield from _alike(run.objective.criterion, targets)
        yield from _sorted(run, train, targets)
    if run.held_out is not None:
        yield from leak_at_start(train, val, run.feed, run.held_out)


def _left_out(model: nn.Module, run: Run) -> Iterator[Finding]:
    """A note: it may be meant to rest, and only its freezing was forgotten."""
    held = {id(parameter) for parameter in run.ritual.parameters}
    idle = [name for name, one in model.named_parameters() if one.requires_grad and id(one) not in held]
    if idle:
        shown = ", ".join(idle[:5]) + (" …" if len(idle) > 5 else "")
        yield found(
            ParametersNotOptimized,
            f"{len(idle)} trainable tensors of {type(model).__name__} are in no optimizer and will not move: {shown}",
            help="give them to the optimizer; if they are meant to rest, say so: requires_grad_(False)",
            level="note",
        )


def _one_over(model: nn.Module, run: Run) -> Iterator[Finding]:
    """The last batch of an epoch has one sample, and a layer wants statistics of it."""
    samples, size = run.feed.samples, run.feed.batch_size
    if samples is None or size is None or samples <= size or samples % size != 1:
        return
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            yield found(
                BatchOfOneWithBatchnorm,
                f"the last batch of an epoch has one sample, and {name} ({type(layer).__name__}) takes its statistics",
                f"{samples:,} samples in batches of {size} leave one for the last",
                help="another batch size, or a DataLoader with drop_last=True",
                level="error" if isinstance(layer, nn.BatchNorm1d) else "note",
            )
            return


def _reseeded(train: Any) -> Iterator[Finding]:
    """Random numbers that are the same for each sample, or in each worker of a loader of the user's."""
    plain = isinstance(train, Dataset) and not isinstance(train, (IterableDataset, TensorDataset))
    loader = train if isinstance(train, DataLoader) else DataLoader(train) if plain else None
    finding = None if loader is None else DuplicateWorkerRng(Trace()).look(loader, None)
    if finding is not None:
        yield finding


def _targets(run: Run, train: Any) -> Tensor | None:
    """All targets in the order in which they stand, where they are in memory."""
    arrays = getattr(run.feed, "arrays", None)
    if arrays is None and isinstance(train, DataLoader) and isinstance(train.dataset, TensorDataset):
        arrays = train.dataset.tensors
    try:
        target = None if arrays is None else split_batch(arrays)[2]
    except LossError:
        return None
    if not isinstance(target, Tensor) or target.device.type != "cpu" or target.is_complex():
        return None
    return target if FEWEST <= target.numel() <= AT_ONCE else None


def _alike(criterion: Any, targets: Tensor) -> Iterator[Finding]:
    """Every target is the same, or nine in ten are."""
    low, high = targets.min(), targets.max()
    what = "number" if targets.is_floating_point() else "class"
    if bool(low == high):
        message = f"every target is the same {what}, {low.item():g}"
        yield found(DegenerateTargets, message, f"all of {targets.numel():,} training targets")
    elif what == "class" and targets.dim() == 1 and low >= 0 and getattr(criterion, "weight", None) is None:
        shares = targets.bincount()
        common, most = int(shares.argmax()), int(shares.max())
        if most >= HEAVY * len(targets):
            message = f"{most / len(targets):.0%} of the targets are class {common}, and no weights are given"
            yield found(DegenerateTargets, message, f"{len(targets):,} training targets", level="note")


def _sorted(run: Run, train: Any, targets: Tensor) -> Iterator[Finding]:
    """Labels in long runs, which are read in the order in which they stand."""
    in_order = type(train.sampler) is SequentialSampler if isinstance(train, DataLoader) else not run.feed.shuffled
    if not in_order or run.feed.batches is None or run.feed.batches < BATCHES or targets.numel() != len(targets):
        return
    labels = targets.reshape(-1)
    counts = labels.unique(return_counts=True)[1].tolist()  # type: ignore[no-untyped-call]
    runs = runs_of(int((labels[1:] != labels[:-1]).sum()), counts, run.feed.batches)
    if runs is not None:
        yield found(
            TrainingDataNotShuffled,
            "the training data come sorted by label and are not shuffled",
            f"the label changes {runs[0]} times over {len(labels):,} samples; in a random order it would about "
            f"{runs[1]:.0f} times",
            help="leave shuffle=False out of fit(), or give the DataLoader shuffle=True",
        )
