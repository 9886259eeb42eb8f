"""ignite: a supervised trainer with no handlers, whose output is not read (by default it reads the loss each step)."""

from __future__ import annotations

import torch
from ignite.engine import create_supervised_trainer  # type: ignore[import-not-found]

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    model, loader = work.model(), work.loader()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    trainer = create_supervised_trainer(
        model, optimizer, work.make_loss(), device="cpu", output_transform=lambda x, y, output, loss: None
    )
    with Stopwatch() as watch:
        trainer.run(loader, max_epochs=epochs)
    return watch.trained(model)
