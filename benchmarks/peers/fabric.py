"""Lightning Fabric: one's own loop, model, optimizer and loader set up by it."""

from __future__ import annotations

import lightning  # type: ignore[import-not-found]
import torch

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    plain, criterion = work.model(), work.make_loss()
    model, optimizer = fabric.setup(plain, torch.optim.Adam(plain.parameters(), lr=LR))
    loader = fabric.setup_dataloaders(work.loader())
    with Stopwatch() as watch:
        model.train()
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                fabric.backward(criterion(model(x), y))
                optimizer.step()
    return watch.trained(plain)
