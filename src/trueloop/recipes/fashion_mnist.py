"""A small CNN on 70,000 real images: large enough that speed matters, small enough for a CPU."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

import trueloop as tl
from trueloop.data.sources.fashion_mnist import CLASSES
from trueloop.data.sources.fashion_mnist import fashion_mnist as load


def fashion_mnist(
    epochs: int = 5,
    lr: float = 3e-3,
    batch_size: int = 128,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    seed: int = 0,
) -> tl.Recipe:
    """A small CNN on Fashion-MNIST: 60,000 grey images of clothes, 10,000 more for the test.

    A twelfth of the 60,000, stratified, is held out for validation; the test images are looked at by
    ``trueloop evaluate`` only.

    Args:
        epochs: passes over the training part.
        lr: the peak of the learning rate.
        batch_size: images a step.
        precision: what the forward pass computes in; bf16 halves the time on a CPU with AVX512-BF16 or AMX.
        seed: of the first weights, the held-out part and the order of the images.
    """
    tl.seed_all(seed)
    images, labels = load(train=True)
    train, val = tl.split((images, labels), (11 / 12, 1 / 12), stratify=labels, seed=seed)
    pixels = tl.Normalizer.fit(train[0], dims=(0, 1, 2))  # of the training part only

    def prepared(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels(images).unsqueeze(1), labels  # uint8 (n, 28, 28) -> float32 (n, 1, 28, 28)

    trainer = tl.Trainer(
        cnn(),
        nn.CrossEntropyLoss(),
        tl.optim.adamw(lr=lr, weight_decay=0.05),
        schedule=tl.schedules.one_cycle(),
        metrics={"accuracy": MulticlassAccuracy(10, average="micro")},
        precision=precision,
        memory_format="channels_last",
    )
    return tl.Recipe(
        trainer,
        train=prepared(*train),
        val=prepared(*val),
        test=prepared(*load(train=False)),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        classes=CLASSES,
    )


def cnn() -> nn.Sequential:
    """421,738 weights: images (n, 1, 28, 28) -> logits (n, 10).

    Example:
        >>> sum(weights.numel() for weights in cnn().parameters())
        421738
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),  # the norm after it has a bias of its own
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (64, 7, 7)
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
