"""From a classifier's outputs to its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueloop.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from trueloop.trainer import Trainer


def count(trainer: Trainer, data: Any, batch_size: int | None, classes: int) -> list[list[int]]:
    """counts[true class][predicted class], in samples, over all of ``data``.

    Samples whose target is negative (torch's ``ignore_index``) do not count.

    Raises:
        ArgumentError: outputs or targets are not those of a classifier of so many classes.
    """
    import torch

    from trueloop.evaluate import resting
    from trueloop.objective import run_model

    model = trainer.evaluated_model
    with resting(model):  # outputs and targets of one pass: a loader may shuffle
        pairs = [run_model(model, batch) for batch in trainer.evaluating(data, batch_size=batch_size)]
    predicted = torch.cat([predict_classes(output) for output, _ in pairs]).cpu()
    true = torch.cat([torch.as_tensor(target).cpu() for _, target in pairs])
    if true.is_floating_point() and true.ndim == 2 and true.shape[1] == 1:
        true = true[:, 0]  # BCE's targets
    if true.shape != predicted.shape:
        raise ArgumentError(
            f"expected one class a sample as target, got targets {tuple(true.shape)} for {len(predicted)} samples"
        )
    true = true.long()
    most = int(torch.cat([true, predicted]).max())
    if most >= classes:
        raise ArgumentError(f"expected classes from 0 to {classes - 1}, as many as the recipe names, got class {most}")
    known = true >= 0
    flat = torch.bincount(true[known] * classes + predicted[known], minlength=classes * classes)
    counts: list[list[int]] = flat.reshape(classes, classes).tolist()
    return counts


def predict_classes(outputs: Any) -> Tensor:
    """The most likely class of each sample: the largest of (samples, classes); of one logit a sample, its sign.

    Raises:
        ArgumentError: the outputs are of another shape.

    Example:
        >>> import torch
        >>> predict_classes(torch.tensor([[0.1, 2.0], [3.0, 0.5]]))
        tensor([1, 0])
        >>> predict_classes(torch.tensor([[0.5], [-2.0]]))
        tensor([1, 0])
    """
    import torch

    if not isinstance(outputs, torch.Tensor) or outputs.ndim not in (1, 2):
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ArgumentError(f"expected outputs (samples, classes) of a classifier, got {shape}")
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return outputs.argmax(1)
    return (outputs.reshape(len(outputs)) > 0).long()
