"""The first run on a new machine: real handwriting, in seconds, with nothing to download."""

from __future__ import annotations

from torch import nn
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.data.sources.digits import CLASSES
from trueloop.data.sources.digits import digits as load


def digits(epochs: int = 15, lr: float = 3e-3, batch_size: int = 64, seed: int = 0) -> tl.Recipe:
    """A small CNN on scikit-learn's 1,797 handwritten digits.

    A fifth of them, stratified, is held out. Needs the extra: pip install 'trueloop[digits]'.

    Args:
        epochs: passes over the training part.
        lr: the peak of the learning rate.
        batch_size: images a step.
        seed: of the first weights, the held-out part and the order of the images.

    Example:
        >>> digits(epochs=1).fit(progress=False).steps
        23
    """
    tl.seed_all(seed)
    images, labels = load()
    train, val = tl.split((images, labels), (0.8, 0.2), stratify=labels, seed=seed)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),  # the norm after it has a bias of its own
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (64, 4, 4)
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    trainer = tl.Trainer(
        model,
        nn.CrossEntropyLoss(),
        tl.optim.adamw(lr=lr, weight_decay=0.05),
        schedule=tl.schedules.one_cycle(),
        metrics={"accuracy": MulticlassAccuracy(10, average="micro")},
    )
    return tl.Recipe(trainer, train, val, epochs=epochs, batch_size=batch_size, seed=seed, classes=CLASSES)
