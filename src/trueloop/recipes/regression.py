"""The smallest honest run: 61 weights, where a step is all overhead, and a framework's cost cannot hide."""

from __future__ import annotations

import torch
from torch import nn
from torchmetrics import R2Score

import trueloop as tl


def regression(epochs: int = 100, lr: float = 1e-3, batch_size: int = 32, seed: int = 0) -> tl.Recipe:
    """An MLP 10-5-1 on 1,000 synthetic samples of ten features, with Adam.

    The target is linear in the features, with noise of standard deviation 0.1; 200 further samples are held out.

    Args:
        epochs: passes over the 1,000 samples.
        lr: the learning rate.
        batch_size: samples a step.
        seed: of the first weights, the data and its order.

    Example:
        >>> regression(epochs=2).fit(progress=False).steps
        64
    """
    tl.seed_all(seed)
    x = torch.randn(1_200, 10)
    y = x @ torch.randn(10, 1) + 0.1 * torch.randn(1_200, 1)
    trainer = tl.Trainer(
        nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1)),
        nn.MSELoss(),
        tl.optim.adam(lr=lr),
        metrics={"r2": R2Score()},
    )
    train, val = (x[:1_000], y[:1_000]), (x[1_000:], y[1_000:])
    return tl.Recipe(trainer, train, val, epochs=epochs, batch_size=batch_size, seed=seed)
