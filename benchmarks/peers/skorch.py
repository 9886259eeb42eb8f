"""skorch: no validation split, callbacks off, nothing printed."""

from __future__ import annotations

import torch
from skorch import NeuralNet  # type: ignore[import-not-found]
from torch import nn

from benchmarks.workloads import LR, Stopwatch, Trained, Work


def train(work: Work, epochs: int) -> Trained:
    net = NeuralNet(
        work.model(),
        criterion=type(work.make_loss()),
        optimizer=torch.optim.Adam,
        lr=LR,
        max_epochs=epochs,
        batch_size=work.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )
    with Stopwatch() as watch:
        net.fit(work.x, work.y)
    trained: nn.Module = net.module_
    return watch.trained(trained)
