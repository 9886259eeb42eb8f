"""Lightning's Trainer, in its barebones mode: no logging, no checkpoints, no progress, no sanity checks."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning  # type: ignore[import-not-found]
import torch

from benchmarks.workloads import LR, Stopwatch, Trained, Work


class _Lit(lightning.LightningModule):  # type: ignore[misc]  # untyped where it is not installed
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model, self.criterion = work.model(), work.make_loss()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        loss: torch.Tensor = self.criterion(self.model(x), y)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=LR)


def train(work: Work, epochs: int) -> Trained:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    module, loader = _Lit(work), work.loader()
    trainer = lightning.Trainer(max_epochs=epochs, barebones=True, accelerator="cpu")
    with Stopwatch() as watch:
        trainer.fit(module, loader)
    return watch.trained(module.model)
