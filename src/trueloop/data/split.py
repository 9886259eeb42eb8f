"""Parts of a data set that share no sample, and statistics that are taken from the training part only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from trueloop.data.arrays import as_tensors, is_arrays, length, taken
from trueloop.data.cursor import derive
from trueloop.data.nested import mapped
from trueloop.errors import ArgumentError, DataError

_SPLIT = 0x73706C6974  # "split" in ASCII: keeps this seed apart from those of orders and samples


def split(
    data: Any,
    fractions: Sequence[float] = (0.8, 0.2),
    *,
    seed: int = 0,
    stratify: Any = None,
    groups: Any = None,
) -> tuple[Any, ...]:
    """Parts of ``data`` at random, one for each fraction, each of the same kind as ``data`` and in its order.

    Args:
        data: tensors, numpy arrays, tuples or dicts of them, a ``TensorDataset``; or a dataset (its parts are torch's
            ``Subset``), or a list.
        fractions: shares of the samples, each above 0, at most 1 in all; what is left is in no part.
        seed: the same seed gives the same parts.
        stratify: labels (samples,): every part holds every class in its share, to within one sample.
        groups: of whom or of what each sample is (samples,): no group is on both sides. Sizes keep to their shares
            within the size of the largest group, where no share is smaller than that.

    Raises:
        ArgumentError: fractions out of range; ``stratify`` and ``groups`` at once.
        DataError: a part that would be empty; a class with fewer samples than there are parts; unequal lengths; data
            that cannot be split.

    Example:
        >>> X, y = torch.arange(10.0), torch.tensor([0, 1] * 5)
        >>> train, val = split((X, y), (0.6, 0.4), stratify=y)
        >>> len(train[0]), val[1].bincount().tolist()
        (6, [2, 2])
    """
    if isinstance(data, (IterableDataset, DataLoader)) or not hasattr(data, "__len__"):
        raise DataError(
            f"data must have a length and an index to be split, got {type(data).__name__}; "
            "split the dataset before a loader is made of it, or the files before a stream is"
        )
    arrays = is_arrays(data)
    samples = length(as_tensors(data)) if arrays else len(data)
    parts = split_indices(samples, fractions, seed=seed, stratify=stratify, groups=groups)
    if isinstance(data, TensorDataset):
        return tuple(TensorDataset(*(taken(part, tensor) for tensor in data.tensors)) for part in parts)
    if arrays:
        return tuple(mapped(partial(taken, part), data) for part in parts)
    if isinstance(data, (list, tuple)):
        return tuple([data[index] for index in part.tolist()] for part in parts)
    return tuple(Subset(data, part.tolist()) for part in parts)


def split_indices(
    samples: int,
    fractions: Sequence[float] = (0.8, 0.2),
    *,
    seed: int = 0,
    stratify: Any = None,
    groups: Any = None,
) -> tuple[Tensor, ...]:
    """The indices of each part, ascending, int64; see ``split``.

    Example:
        >>> [part.tolist() for part in split_indices(6, (0.5, 0.5), groups=list("aabbcc"), seed=1)]
        [[2, 3], [0, 1, 4, 5]]
        >>> [len(part) for part in split_indices(10, (0.7, 0.2, 0.1))]
        [7, 2, 1]
    """
    _check(samples, fractions, stratify, groups)
    generator = torch.Generator().manual_seed(derive(seed, _SPLIT))
    if groups is not None:
        parts = _by_groups(_codes("groups", groups, samples), fractions, generator)
    else:
        classes = torch.zeros(samples, dtype=torch.int64) if stratify is None else _codes("stratify", stratify, samples)
        parts = _by_classes(classes, fractions, generator)
    for fraction, part in zip(fractions, parts, strict=True):
        if len(part) == 0:
            raise DataError(
                f"every part must have at least 1 sample, but the one of fraction {fraction:g} is empty "
                f"({samples} samples, fractions={tuple(fractions)}); use a larger fraction, or fewer parts"
            )
    return tuple(part.sort().values for part in parts)


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Inputs with mean 0 and standard deviation 1, by statistics of the *training* part: ``(x - mean) / std``.

    Made by ``Normalizer.fit(train_x)``. Statistics of all samples would let the training see the validation part, which
    makes the validation look better than it is: split first.

    Args:
        mean: what to subtract; broadcasts to a sample and to a batch.
        std: what to divide by; 1 where all training values are the same.

    Example:
        >>> train, val = split(torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 9.0]]), (0.67, 0.33), seed=3)
        >>> normalize = Normalizer.fit(train)
        >>> normalize(train).mean(dim=0)
        tensor([0., 0.])
    """

    mean: Tensor
    std: Tensor

    @staticmethod
    def fit(train_x: Tensor | np.ndarray[Any, Any], dims: Sequence[int] = (0,)) -> Normalizer:
        """Statistics of the training inputs over the dimensions ``dims``, computed in float64, kept in float32 (in
        float64 for float64 inputs).

        Args:
            train_x: the inputs of the training part only, samples first.
            dims: the dimensions to average over, 0 among them: ``(0,)`` for columns, ``(0, 2, 3)`` for the channels of
                images (samples, channels, height, width).

        Raises:
            ArgumentError: 0 is not among ``dims``.
            DataError: no array, or one that holds NaN or Inf.

        Example:
            >>> images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
            >>> Normalizer.fit(images, dims=(0, 2, 3)).mean.shape
            torch.Size([3, 1, 1])
        """
        if not isinstance(train_x, (Tensor, np.ndarray)):
            raise DataError(f"train_x must be an array, got {type(train_x).__name__}; of a tuple (X, y), pass X")
        if 0 not in dims:
            raise ArgumentError(f"dims must hold 0, the dimension of the samples, got dims={tuple(dims)}")
        x: Tensor = as_tensors(train_x)
        wide = x.to(torch.float64)
        variance, mean = torch.var_mean(wide, dim=tuple(dims), correction=0, keepdim=True)
        if not bool(torch.isfinite(mean).all()):
            raise DataError(
                f"train_x must be finite, got NaN or Inf in an array of shape {tuple(x.shape)}; mend it first"
            )
        # Rounding gives equal values a variance that is not quite 0, and dividing by its root would blow up the rest.
        same = wide.amax(dim=tuple(dims), keepdim=True) == wide.amin(dim=tuple(dims), keepdim=True)
        std = variance.sqrt().masked_fill(same, 1.0)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return Normalizer(mean.squeeze(0).to(dtype), std.squeeze(0).to(dtype))

    def __call__(self, x: Any) -> Any:
        """The normalised inputs: a sample or a batch, a tensor for a tensor, a numpy array for a numpy array. Whole
        numbers become floats."""
        if isinstance(x, np.ndarray):
            return self(as_tensors(x)).numpy()
        normal = (x - self.mean.to(x.device)) / self.std.to(x.device)
        return normal.to(x.dtype) if x.is_floating_point() else normal


def _by_classes(classes: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    shares = [*fractions, max(0.0, 1.0 - math.fsum(fractions))]  # the last: what is in no part
    parts: list[list[Tensor]] = [[] for _ in shares]
    debts = [0.0] * len(shares)  # samples that a part has too few of, from rounding in the classes before
    for number in range(int(classes.max()) + 1):
        members = (classes == number).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        sizes = _sizes(len(members), shares, debts)
        for part, piece in zip(parts, torch.split(members, sizes), strict=True):
            part.append(piece)
    return [torch.cat(part) for part in parts[: len(fractions)]]


def _sizes(samples: int, shares: Sequence[float], debts: list[float]) -> list[int]:
    """Whole sizes, each the floor or the ceiling of its exact share; the largest debts are rounded up."""
    exact = [round(share * samples, 9) for share in shares]  # 0.8 * 10 is 8, not 8.000000000000002
    sizes = [math.floor(size) for size in exact]
    for part, size in enumerate(exact):
        debts[part] += size - sizes[part]
    uneven = sorted((part for part, size in enumerate(exact) if size != sizes[part]), key=lambda part: -debts[part])
    for part in uneven[: samples - sum(sizes)]:
        sizes[part] += 1
        debts[part] -= 1
    return sizes


def _by_groups(groups: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    number = int(groups.max()) + 1
    if number < len(fractions):
        raise DataError(f"there must be a group for each of the {len(fractions)} parts, got {number}; use fewer parts")
    shuffled = torch.randperm(number, generator=generator)
    ends = torch.bincount(groups)[shuffled].cumsum(0)
    cuts = [0]
    for part in range(len(fractions)):
        wanted = math.fsum(fractions[: part + 1]) * len(groups)
        nearest = int((ends - wanted).abs().argmin()) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), number - (len(fractions) - 1 - part)))
    return [torch.isin(groups, shuffled[first:last]).nonzero().flatten() for first, last in pairwise(cuts)]


def _codes(name: str, values: Any, samples: int) -> Tensor:
    """Labels of any kind as whole numbers from 0, in the order of the labels."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.shape != (samples,):
        raise DataError(f"{name} must have one label for each of the {samples} samples, got shape {array.shape}")
    return torch.from_numpy(np.unique(array, return_inverse=True)[1])


def _check(samples: int, fractions: Sequence[float], stratify: Any, groups: Any) -> None:
    if samples < 1:
        raise DataError(f"the data is empty: it has {samples} samples; at least 1 is needed for each part")
    if not fractions or not all(fraction > 0 for fraction in fractions) or math.fsum(fractions) > 1 + 1e-9:
        raise ArgumentError(
            f"fractions must each be above 0 and at most 1 in all, got fractions={tuple(fractions)} (sum "
            f"{math.fsum(fractions):g})"
        )
    if stratify is not None and groups is not None:
        raise ArgumentError("pass stratify or groups, got both; whole groups cannot also keep to the shares of classes")
    if stratify is not None:
        codes = _codes("stratify", stratify, samples)
        counts = torch.bincount(codes)
        if int(counts.min()) < len(fractions):
            rare = np.asarray(stratify)[int((codes == counts.argmin()).nonzero()[0])]
            raise DataError(
                f"every class must have a sample for each of the {len(fractions)} parts, but class {rare} has "
                f"{int(counts.min())}; drop the class, use fewer parts, or do not stratify"
            )
