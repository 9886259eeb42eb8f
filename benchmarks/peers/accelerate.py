"""accelerate: one's own loop, model, optimizer and loader prepared by it."""

from __future__ import annotations

import accelerate  # type: ignore[import-not-found]
import torch

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    accelerator = accelerate.Accelerator(cpu=True)
    plain, criterion = work.model(), work.make_loss()
    model, optimizer, loader = accelerator.prepare(plain, torch.optim.Adam(plain.parameters(), lr=LR), work.loader())
    with Stopwatch() as watch:
        model.train()
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                accelerator.backward(criterion(model(x), y))
                optimizer.step()
    return watch.trained(plain)
