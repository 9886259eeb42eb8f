"""Metrics of your own: a plain function sees all samples at once; a torchmetrics.Metric is updated batch by batch."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric

import trueloop as tl


def worst_class(logits: Tensor, labels: Tensor) -> float:
    """The accuracy of the class that does worst: a mean over batches would be wrong."""
    right = logits.argmax(1) == labels
    return min(right[labels == label].float().mean().item() for label in range(3))


class Confidence(Metric):
    """How sure the model is of its answers, whether right or wrong; keeps two numbers, however many samples."""

    total: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.total += logits.softmax(1).amax(1).sum()
        self.samples += len(labels)

    def compute(self) -> Tensor:
        return self.total / self.samples


tl.seed_all(0)
labels = torch.arange(600) % 3
train, val = tl.split((torch.randn(600, 2) + 2.0 * torch.eye(3)[labels, :2], labels), stratify=labels)
model, loss, sgd = nn.Linear(2, 3), nn.CrossEntropyLoss(), tl.optim.sgd(lr=0.1)
trainer = tl.Trainer(model, loss, sgd, metrics={"worst_class": worst_class, "confidence": Confidence()})
trainer.fit(train, val, epochs=10, batch_size=32)
