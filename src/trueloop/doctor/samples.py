"""Fingerprints of samples: the same sample has the same number in every batch, on every run.

Whole-number arithmetic over the bits of a sample, so that neither the batch's size nor the order of a sum matters.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = 256
"""Values of a sample that are looked at, spread evenly over it: enough to tell samples apart, cheap for images."""

_factors: dict[int, Any] = {}
_last: tuple[weakref.ref[Tensor], int | None, tuple[int, ...]] | None = None  # whoever asks next, asks of the same


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
    global _last
    if batch.dim() == 0 or batch.numel() == 0 or batch.is_quantized:
        return ()
    version = None if batch.is_inference() else batch._version
    if _last is not None and _last[0]() is batch and _last[1] == version is not None:
        return _last[2]
    found = _fingerprints(batch)
    _last = weakref.ref(batch), version, found
    return found


def _fingerprints(batch: Tensor) -> tuple[int, ...]:
    import numpy as np
    import torch

    if batch.layout != torch.strided:
        return ()
    flat = batch.detach().reshape(len(batch), -1)
    if flat.shape[1] > FEATURES:
        stride = flat.shape[1] // FEATURES
        flat = flat[:, ::stride][:, :FEATURES]
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj()).flatten(1)
    if flat.is_floating_point() and flat.dtype != torch.float32:
        flat = flat.to(torch.float32)
    rows: Any = flat.numpy(force=True)  # numpy's operations cost a tenth of torch's where they are this small
    if rows.dtype == np.float32:  # -0.0 + 0.0 is 0.0: the two zeros are one value
        rows = (rows + np.float32(0)).view(np.int32)
    whole = rows.astype(np.int64)
    factors = _factors.get(whole.shape[1])
    if factors is None:  # odd numbers that differ in all their bits: multiples of the golden ratio's (Knuth's hash)
        factors = (np.arange(1, whole.shape[1] + 1, dtype=np.int64) * 2 + 1) * np.int64(-7046029254386353131)
        _factors[whole.shape[1]] = factors
    mixed = whole * np.int64(6364136223846793005)
    mixed = (mixed ^ (mixed >> 29)) * factors
    mixed ^= mixed >> 31
    return tuple(np.where(whole.any(1), mixed.sum(1), 0).tolist())


def tensors_in(structure: Any, limit: int = 8, depth: int = 3) -> list[Tensor]:
    """The tensors in a batch or an output: of lists, tuples, dicts, dataclasses; at most ``limit``.

    Example:
        >>> import torch
        >>> [len(tensor) for tensor in tensors_in({"x": torch.zeros(3), "more": [torch.zeros(5), "text"]})]
        [3, 5]
    """
    from torch import Tensor

    if isinstance(structure, Tensor):
        return [structure]
    found: list[Tensor] = []
    rest = [(structure, depth)]
    for thing, left in rest:  # the list grows while it is read
        if isinstance(thing, Tensor):
            found.append(thing)
            if len(found) == limit:
                break
        elif not left:
            continue
        elif isinstance(thing, dict):
            rest.extend((value, left - 1) for value in list(thing.values())[:32])
        elif isinstance(thing, (list, tuple)):
            rest.extend((value, left - 1) for value in thing[:32])
        elif hasattr(thing, "__dataclass_fields__"):
            rest.extend((getattr(thing, key, None), left - 1) for key in thing.__dataclass_fields__)
    return found


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


def surprise(batch: Tensor) -> list[float]:
    """By how many bits each sample stands out from its batch: how unlikely it is that another one is like it by chance.

    Args:
        batch: (samples, …).

    Returns:
        For each sample the sum over its values of the logarithm (base 2) of how rare the value is at its place: a
        short text among others, or a row of the commonest answers, has few; a picture has hundreds.

    Example:
        >>> import torch
        >>> surprise(torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0], [5.0, 3.0]]))[1::2]
        [1.4150375127792358, 4.0]
    """
    import torch

    flat = batch.detach().reshape(len(batch), -1)
    if flat.shape[1] > FEATURES:
        flat = flat[:, :: flat.shape[1] // FEATURES][:, :FEATURES]
    others = flat[:FEATURES]
    bits = []
    for start in range(0, len(flat), FEATURES):
        rows = flat[start : start + FEATURES]
        alike = (rows.unsqueeze(1) == others).sum(1).clamp(min=1)  # (rows, values)
        bits.append((len(others) / alike).log2().sum(1))
    return [float(one) for one in torch.cat(bits)]
