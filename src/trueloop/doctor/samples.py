"""Fingerprints of samples: the same sample has the same number in every batch, on every run.

Whole-number arithmetic over the bits of a sample, so that neither the batch's size nor the order of a sum matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = 256
"""Values of a sample that are looked at, spread evenly over it: enough to tell samples apart, cheap for images."""

_factors: dict[tuple[int, str], Tensor] = {}


def fingerprints(batch: Tensor) -> tuple[int, ...]:
    """A number for each sample.

    Args:
        batch: (samples, …), of any dtype.

    Returns:
        As many whole numbers; 0 for a sample that is all zeros (a blank says nothing of where it comes from).

    Example:
        >>> import torch
        >>> batch = torch.arange(6.0).view(3, 2)
        >>> fingerprints(batch)[1] == fingerprints(batch[1:2])[0], len(set(fingerprints(batch)))
        (True, 3)
    """
    import torch

    if batch.dim() == 0 or batch.numel() == 0 or batch.layout != torch.strided or batch.is_quantized:
        return ()
    flat = batch.detach().reshape(len(batch), -1)
    if flat.shape[1] > FEATURES:
        stride = flat.shape[1] // FEATURES
        flat = flat[:, ::stride][:, :FEATURES]
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten(1)
    if flat.is_floating_point():  # -0.0 + 0.0 is 0.0: the two zeros are one value
        flat = (flat.to(torch.float32) + 0.0).contiguous().view(torch.int32)
    whole = flat.to(torch.int64)
    key = (whole.shape[1], str(whole.device))
    if (
        key not in _factors
    ):  # odd numbers that differ in all their bits: multiples of the golden ratio's, as in Knuth's hash
        powers = torch.arange(1, key[0] + 1, dtype=torch.int64, device=whole.device) * 2 + 1
        _factors[key] = powers * -7046029254386353131
    mixed = whole * 6364136223846793005
    mixed = (mixed ^ (mixed >> 29)) * _factors[key]
    mixed = mixed ^ (mixed >> 31)
    return tuple(torch.where((whole != 0).any(1), mixed.sum(1), 0).tolist())


def tensors_in(structure: Any, limit: int = 8, depth: int = 3) -> Iterator[Tensor]:
    """The tensors in a batch or an output: of lists, tuples, dicts, dataclasses; at most ``limit``.

    Example:
        >>> import torch
        >>> [len(tensor) for tensor in tensors_in({"x": torch.zeros(3), "more": [torch.zeros(5), "text"]})]
        [3, 5]
    """
    import torch

    found = 0
    rest = [(structure, depth)]
    while rest and found < limit:
        thing, left = rest.pop(0)
        if isinstance(thing, torch.Tensor):
            found += 1
            yield thing
        elif left and isinstance(thing, dict):
            rest.extend((value, left - 1) for value in list(thing.values())[:32])
        elif left and isinstance(thing, (list, tuple)):
            rest.extend((value, left - 1) for value in thing[:32])
        elif left and hasattr(thing, "__dataclass_fields__"):
            rest.extend((getattr(thing, key, None), left - 1) for key in thing.__dataclass_fields__)


def variety(batch: Tensor) -> float:
    """By how many bits samples differ, as far as a batch shows: how unlikely it is that two are alike by chance.

    Args:
        batch: (samples, …).

    Returns:
        The sum over a sample's values of the logarithm (base 2) of how many different ones the batch has; 0 for one
        sample. A state of six switches has 6, an iris flower some 16, a picture hundreds.

    Example:
        >>> import torch
        >>> variety(torch.eye(2)), variety(torch.zeros(8, 100)), variety(torch.arange(8).view(8, 1)) > 2.9
        (2.0, 0.0, True)
    """
    import torch

    if batch.dim() == 0 or len(batch) < 2 or batch.layout != torch.strided or batch.is_quantized or batch.is_complex():
        return 0.0
    flat = batch.detach()[:FEATURES].reshape(min(len(batch), FEATURES), -1)
    if flat.shape[1] > FEATURES:
        flat = flat[:, :: flat.shape[1] // FEATURES][:, :FEATURES]
    ordered = flat.float().sort(0).values
    different = (ordered[1:] != ordered[:-1]).sum(0) + 1
    return float(different.double().log2().sum())
