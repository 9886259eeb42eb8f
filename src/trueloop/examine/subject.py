"""What examinations are given: the trainer's own objective, batches and step, as ``fit`` would use them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trueloop.data.feed import Feed
from trueloop.data.nested import leaves
from trueloop.errors import LossError
from trueloop.evaluate import evaluate, wake
from trueloop.finite import NotFinite
from trueloop.loop import Run
from trueloop.objective import Batch, Objective, split_batch
from trueloop.precision import gradient_scaler
from trueloop.seeds import deterministic, seed_all
from trueloop.step import Ritual

if TYPE_CHECKING:  # the trainer imports this
    from trueloop.examine.aside import Aside
    from trueloop.trainer import Trainer


@dataclass(frozen=True)
class Limits:
    """How long examinations may take.

    Args:
        steps: of learning one batch by heart, in each of its tries.
        seconds: of the same.
        timeout: seconds for one examination in all; it is then ended, and could not be judged.
        reading: seconds of going through data, of training or of validation.
    """

    steps: int = 200
    seconds: float = 10.0
    timeout: float = 120.0
    reading: float = 3.0


@dataclass(frozen=True)
class Subject:
    """A run that was set up and has not begun: the model in train mode, on its device."""

    trainer: Trainer
    run: Run
    limits: Limits
    aside: Aside
    train: Any
    val: Any

    @property
    def model(self) -> nn.Module:
        """The model that is examined: the user's own, in a process or a moment of its own."""
        return self.trainer.model

    @property
    def objective(self) -> Objective:
        """The loss, in the precision of the run."""
        return self.run.objective

    def batches(self, feed: Feed | None = None, epoch: int = 0, seconds: float | None = None) -> Iterator[Batch]:
        """Batches on the device: all of an epoch, or as many as can be had in so many seconds."""
        source = self.run.feed if feed is None else feed
        began = time.monotonic()
        try:
            for batch in self.run.onto_device(source.epoch(epoch)):
                yield batch
                if seconds is not None and time.monotonic() - began > seconds:
                    return
        finally:
            source.close()

    def first(self, number: int = 1) -> list[Batch]:
        """The first batches of training."""
        return list(islice(self.batches(), number))

    def ritual(self, optimizer: torch.optim.Optimizer | None = None) -> Ritual:
        """The update of the run, without its schedule: at the rates that a schedule would multiply.

        Args:
            optimizer: another one than the trainer's, at its own rates.
        """
        setup = self.trainer.setup
        if optimizer is None:
            ((name, optimizer),) = setup.optimizers.items()
            for group, rate in zip(optimizer.param_groups, setup.base_rates[name], strict=True):
                group["lr"] = rate
        return Ritual(
            self.model,
            optimizer,
            replace(self.trainer.choices.settings, is_sum=self.objective.is_sum),
            scaler=gradient_scaler(setup.precision, setup.device, optimizer),
            base_rates=[float(group["lr"]) for group in optimizer.param_groups],
            guard=_guard,
        )

    def evaluated(self, batches: Iterator[Batch]) -> Mapping[str, float]:
        """The loss and the metrics over these batches, as the run's evaluations give them."""
        return evaluate(self.model, self.objective, batches, self.trainer.setup.metrics).metrics


def begun(trainer: Trainer, train: Any, val: Any, how: Mapping[str, Any], limits: Limits, aside: Aside) -> Subject:
    """Sets up a run as ``fit`` does, and stops there."""
    if how.get("seed") is not None:
        seed_all(how["seed"])
    run = trainer._run(train, val, **how)
    wake(trainer.model)
    return Subject(trainer, run, limits, aside, train, val)


def kernels(trainer: Trainer) -> Any:
    """Around an examination: the kernels that the run would use."""
    return deterministic(trainer.choices.deterministic)


def inputs_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch that are its inputs; all of them where no target can be told.

    Example:
        >>> [len(tensor) for tensor in inputs_of((torch.zeros(3, 2), torch.zeros(3)))]
        [3]
    """
    try:
        positional, named, _ = split_batch(batch)
    except LossError:
        return [leaf for leaf in leaves(batch) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves([positional, named]) if isinstance(leaf, Tensor)]


def _guard(loss: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        raise NotFinite
