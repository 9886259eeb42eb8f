"""A recipe is a function that returns this: a trainer, its data, and how long to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trueloop.checkpoint.saving import Saving
from trueloop.loop import Observer
from trueloop.result import Result
from trueloop.trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """What ``Trainer.fit`` takes, with the trainer itself. The command line is made from the recipe's signature.

    Attributes:
        trainer: the trainer.
        train: see ``Trainer.fit`` for this and the others that it takes.
        test: data that nothing is chosen on; ``trueloop evaluate`` reports it.
        classes: names of the classes; a confusion matrix is printed at the end.

    Example:
        >>> import torch, trueloop as tl
        >>> def tiny(epochs: int = 1) -> Recipe:
        ...     x = torch.randn(8, 2)
        ...     trainer = tl.Trainer(torch.nn.Linear(2, 1), torch.nn.MSELoss(), tl.optim.sgd(lr=0.1))
        ...     return Recipe(trainer, train=(x, x.sum(1, keepdim=True)), epochs=epochs, batch_size=4)
        >>> tiny().fit(progress=False).steps
        2
    """

    trainer: Trainer
    train: Any
    val: Any = None
    test: Any = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    shuffle: bool = True
    workers: int = 0
    evaluate_every: int | None = 1
    evaluate_every_steps: int | None = None
    saving: Saving | None = None
    observers: Sequence[Observer] = ()
    classes: Sequence[str] | None = field(default=None, kw_only=True)

    def fit(self, *, out: Path | str | None = None, progress: bool = True, **more: Any) -> Result:
        """Trains; what is given here goes before the recipe's own, and observers are added to its own."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("trainer", "test", "classes")}
        if out is None or "save_every_steps" in more:
            own.pop("saving")
        own["observers"] = (*self.observers, *more.pop("observers", ()))
        return self.trainer.fit(**{**own, **more}, out=out, progress=progress)
