"""The vocabulary of a run: facts in the past tense, and the one reply to them.

``Trainer.train`` yields these; observers receive them. Each is a named tuple: immutable, cheap to make (the hot path
makes one a step), and made for ``match``. Tensors in them stay on the device: whoever prints, pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # events must not import torch, or anything of ours, when the program runs
    from torch import Tensor

    from trueloop.plan import Plan


class RunStarted(NamedTuple):
    """The run is set up and no step was taken yet."""

    plan: Plan
    """What is going to happen, with the reason of each decision."""
    seed: int
    """The seed of the data's order (and of all else, if the user gave one)."""
    step: int
    """Optimizer steps taken before: 0."""
    epoch: int
    """The epoch (0-based) in which it starts."""


class StepEnded(NamedTuple):
    """One optimizer step was taken: one window of ``accumulate`` microbatches."""

    step: int
    """Optimizer steps taken so far, this one included: 1 after the first."""
    epoch: int
    """The epoch (0-based) that it belongs to."""
    loss: Tensor
    """The window's mean loss, without penalties: a scalar on the device, with no graph."""
    samples: int
    """How many samples the window had."""
    lr: float
    """The rate that this step used, of the first parameter group."""
    grad_norm: Tensor | None
    """The gradients' norm before clipping; None where nothing is clipped by norm."""
    terms: Mapping[str, Tensor]
    """The other entries of a loss that returns a dict (of the window's last microbatch)."""
    skipped: bool
    """The gradient scaler found Inf or NaN (fp16): weights, schedule and averages did not move."""


class EvalEnded(NamedTuple):
    """An evaluation ended; the modes of all modules are as they were."""

    step: int
    epoch: int
    metrics: Mapping[str, float]
    """Exact over all samples; ``loss`` is always among them."""
    samples: int
    seconds: float


class EpochEnded(NamedTuple):
    """An epoch ended (its evaluation, if one was due, came before)."""

    epoch: int
    """0-based."""
    step: int
    """Optimizer steps taken so far."""
    loss: float
    """The mean training loss over the epoch's samples, measured while the weights moved."""
    samples: int
    seconds: float


class Saved(NamedTuple):
    """Something was written whole to the disk. (Checkpoints, which are to come, send it; nothing else does.)"""

    step: int
    path: Path


class RunEnded(NamedTuple):
    """No more steps will be taken. The last event of every run, also of one that was stopped."""

    step: int
    epoch: int
    """Epochs ended; the last one may have been cut short by ``steps``."""
    reason: str
    """``finished``, the text of the ``Stop`` that ended it, ``interrupted``, or ``failed: …``."""
    seconds: float


class Stop(NamedTuple):
    """The one reply to an event: end the run after this event, in good order.

    Example:
        >>> Stop("validation loss has not improved for 3 evaluations").reason
        'validation loss has not improved for 3 evaluations'
    """

    reason: str


Event = RunStarted | StepEnded | EvalEnded | EpochEnded | Saved | RunEnded
