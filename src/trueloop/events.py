"""The vocabulary of a run: facts in the past tense, and the one reply to them.

``Trainer.train`` yields these; observers receive them. Each is a named tuple: immutable, cheap to make (the hot path
makes one a step), and made for ``match``. Tensors in them stay on the device: whoever prints, pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # events must not import torch, or anything of ours, when the program runs
    from torch import Tensor

    from trueloop.doctor.findings import Finding
    from trueloop.plan import Plan


Status = Literal["finished", "stopped", "interrupted", "preempted", "failed"]
"""How a run ended; what is still going on (or was killed) has none."""


class RunStarted(NamedTuple):
    """The run is set up, and its first step (or the first one after a resume) is next."""

    plan: Plan
    """What is going to happen, with the reason of each decision."""
    seed: int
    """The seed of the data's order (and of all else, if the user gave one)."""
    step: int
    """Optimizer steps taken before: 0, or those of the checkpoint that is gone on from."""
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
    """A checkpoint is on the disk, whole. It comes some steps after the one that it holds: writing goes on behind."""

    step: int
    """Optimizer steps that the checkpoint has."""
    path: Path
    why: str
    """What it was for: ``every 100 steps``, ``best loss``, ``SIGTERM``, ``the end`` …"""


class SaveFailed(NamedTuple):
    """A checkpoint could not be written; those before it are as they were."""

    step: int
    """Optimizer steps that it would have had."""
    reason: str


class Found(NamedTuple):
    """The doctor found a mistake in the training."""

    step: int
    """Optimizer steps taken when it was seen."""
    finding: Finding
    """What it is, how it is known, what it means, how to mend it, and the line of your code."""


class RunEnded(NamedTuple):
    """No more steps will be taken. The last event of every run, also of one that was stopped."""

    step: int
    epoch: int
    """Epochs ended; the last one may have been cut short by ``steps``."""
    reason: str
    """``finished``, the text of the ``Stop`` that ended it, ``interrupted``, ``preempted …``, or ``failed: …``."""
    seconds: float
    status: Status = "finished"
    """``stopped`` by an observer's reply, ``interrupted`` by Ctrl-C, ``preempted`` by SIGTERM or SIGUSR1."""


class Stop(NamedTuple):
    """The one reply to an event: end the run after this event, in good order.

    Example:
        >>> Stop("validation loss has not improved for 3 evaluations").reason
        'validation loss has not improved for 3 evaluations'
    """

    reason: str


Event = RunStarted | StepEnded | EvalEnded | EpochEnded | Saved | SaveFailed | Found | RunEnded
