"""Data that is in memory: a batch is one gather per tensor, never a thousand small samples glued together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from trueloop.data.cursor import order
from trueloop.data.nested import leaves, mapped
from trueloop.data.part import WHOLE, Idle, Part
from trueloop.errors import DataError


class ArrayFeed:
    """Batches out of tensors in memory: gathered by index when shuffled, copies of slices when not:
    a model that works in place must not change the user's data.

    Args:
        data: what ``is_arrays`` accepts. numpy arrays are shared, not copied, and no dtype is changed.
        batch_size: samples a batch, at least 1.
        seed: of the order.
        shuffle: a new order each epoch, a function of (seed, epoch).
        drop_last: leave out a last batch that is short.
        part: this process's part of each batch.

    Raises:
        DataError: no samples; lengths that differ; arrays without a dimension, or of a dtype that no tensor has.

    Example:
        >>> feed = ArrayFeed((torch.arange(5.0), torch.arange(5)), batch_size=2, seed=0, shuffle=False)
        >>> [y.tolist() for x, y in feed.epoch(0)]
        [[0, 1], [2, 3], [4]]
        >>> [y.tolist() for x, y in feed.epoch(0, start=2)]
        [[4]]
    """

    def __init__(
        self, data: Any, *, batch_size: int, seed: int, shuffle: bool, drop_last: bool = False, part: Part = WHOLE
    ) -> None:
        self.arrays = as_tensors(data)
        self._rows = length(self.arrays)
        self.batch_size = batch_size
        self.batches = self._rows // batch_size if drop_last else -(-self._rows // batch_size)
        self.samples = min(self.batches * batch_size, self._rows)
        self.shuffled = shuffle
        self.reason = "in memory: " + ("one gather by index per batch" if shuffle else "copies of slices, in order")
        self.resumes, self.inexact = "by index: nothing is read twice", None
        self._seed, self._part = seed, part

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of epoch ``number`` from batch ``start`` on; nothing before it is touched."""
        first, last = start * self.batch_size, self.samples
        if first >= last:
            return iter(())
        tensors: list[Tensor] = list(leaves(self.arrays))
        if self._part.of > 1:
            return self._parts(order(self._rows, self._seed, number, shuffle=self.shuffled)[first:last])
        usual = type(self.arrays) is tuple and len(self.arrays) == len(tensors) == 2  # (X, y): no walk for each batch
        if not self.shuffled:
            if usual:
                x, y = (map(torch.clone, torch.split(tensor[first:last], self.batch_size)) for tensor in tensors)
                return zip(x, y, strict=True)
            return _slices(self.arrays, first, last, self.batch_size)
        index = order(self._rows, self._seed, number, shuffle=True)[first:last].to(tensors[0].device)
        rows = torch.split(index, self.batch_size)
        if usual and not any(tensor.dtype in _SIGNED for tensor in tensors):
            return _gathered_pairs(tensors[0], tensors[1], rows)
        return _gathered(self.arrays, rows)

    def _parts(self, index: Tensor) -> Iterator[Any]:
        """Of each batch, only this process's samples are gathered; of one that has none for it, all."""
        rows = torch.split(index.to(next(leaves(self.arrays)).device), self.batch_size)
        if self._part.in_turn:
            yield from _gathered(self.arrays, rows[self._part.rank :: self._part.of])
            return
        own = [one[self._part.rows(len(one))] for one in rows]
        gathered = _gathered(
            self.arrays, tuple(part if len(part) else one for part, one in zip(own, rows, strict=True))
        )
        for part, batch in zip(own, gathered, strict=True):
            yield batch if len(part) else Idle(batch)

    def close(self) -> None:
        """Nothing to end: there are no workers."""

    def state(self) -> dict[str, Any]:
        """Nothing: an epoch is a function of (seed, number)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


def is_arrays(data: Any) -> bool:
    """Whether this is data in memory: a tensor or numpy array, a ``TensorDataset``, a tuple or dict of such (as deep as
    one likes), or a flat list of tensors or arrays.

    A list of anything else is not: it is a list of samples, or of batches.

    Example:
        >>> is_arrays((torch.zeros(3), {"y": np.zeros(3)})), is_arrays([(torch.zeros(3), 0)]), is_arrays([1, 2])
        (True, False, False)
    """
    if isinstance(data, (Tensor, np.ndarray, TensorDataset)):
        return True
    if isinstance(data, list):
        return bool(data) and all(isinstance(item, (Tensor, np.ndarray)) for item in data)
    if isinstance(data, (tuple, dict)):
        found = list(leaves(data))
        return bool(found) and all(isinstance(leaf, (Tensor, np.ndarray)) for leaf in found)
    return False


def as_tensors(data: Any) -> Any:
    """The same structure with tensors for numpy arrays (memory shared, dtype kept), checked to be of one length.

    Raises:
        DataError: see ``ArrayFeed``.

    Example:
        >>> as_tensors({"x": np.zeros((2, 3), dtype=np.float32)})["x"].shape
        torch.Size([2, 3])
    """
    structure = tuple(data.tensors) if isinstance(data, TensorDataset) else data
    tensors = mapped(_as_tensor, structure)
    length(tensors)
    return tensors


def length(arrays: Any) -> int:
    """How many samples the arrays hold, each along its first dimension.

    Raises:
        DataError: none; lengths or devices that differ; an array without a dimension.

    Example:
        >>> length((torch.zeros(7, 2), torch.zeros(7)))
        7
    """
    names = _names(arrays)
    tensors: list[Tensor] = list(leaves(arrays))
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.ndim == 0:
            raise DataError(f"{name} must have one row per sample, got a lone value ({tensor.item()}); add a dimension")
    if len({tensor.shape[0] for tensor in tensors}) > 1:
        lengths = [f"{name} has {tensor.shape[0]}" for name, tensor in zip(names, tensors, strict=True)]
        lengths[0] += " samples"
        raise DataError(
            f"every array must have one row per sample, but {', '.join(lengths)}; mend the one that is wrong"
        )
    if len({tensor.device for tensor in tensors}) > 1:
        devices = ", ".join(f"{name} is on {tensor.device}" for name, tensor in zip(names, tensors, strict=True))
        raise DataError(f"the arrays must be on one device, but {devices}; the trainer moves batches by itself")
    if tensors[0].shape[0] == 0:
        raise DataError(
            f"the data is empty: {names[0]} has shape {tuple(tensors[0].shape)}, and must have a row or more"
        )
    return tensors[0].shape[0]


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def taken(rows: Tensor, array: Any) -> Any:
    """The rows of a tensor or a numpy array, copied.

    Example:
        >>> taken(torch.tensor([2, 0]), torch.tensor([10, 20, 30]))
        tensor([30, 10])
    """
    if isinstance(array, np.ndarray):
        return array[rows.numpy()]
    rows = rows.to(array.device)
    signed = _SIGNED.get(array.dtype)  # torch 2.13 cannot index_select these three; the bits are the same
    if signed is not None:
        return array.view(signed).index_select(0, rows).view(array.dtype)
    return array.index_select(0, rows)


def _gathered_pairs(x: Tensor, y: Tensor, rows: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    for row in rows:
        yield x.index_select(0, row), y.index_select(0, row)


def _gathered(arrays: Any, rows: tuple[Tensor, ...]) -> Iterator[Any]:
    for row in rows:
        yield mapped(partial(taken, row), arrays)


def _slices(arrays: Any, first: int, last: int, batch_size: int) -> Iterator[Any]:
    for begin in range(first, last, batch_size):
        yield mapped(partial(_copied, slice(begin, min(begin + batch_size, last))), arrays)


def _copied(rows: slice, array: Tensor) -> Tensor:
    return array[rows].clone()


def _as_tensor(leaf: Any) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf
    array: np.ndarray[Any, Any] = leaf
    if array.dtype == object:
        raise DataError(
            f"arrays must hold numbers, got dtype object, shape {array.shape}: rows of unequal length, strings, None; "
            "pad them or write a torch Dataset"
        )
    if any(stride < 0 for stride in array.strides):  # a[::-1]: torch has no negative strides
        array = array.copy()
    try:
        with warnings.catch_warnings():
            # A memory map opened for reading is shared like any other array; batches are written to by nobody here.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"arrays must hold numbers that torch knows, got dtype {array.dtype} ({array.dtype.str}), "
            f"shape {array.shape}; convert it first, with .astype(...)"
        ) from error


def _names(arrays: Any) -> list[str]:
    """What to call each array in an error: X and y, a dict's keys, or a number."""
    if isinstance(arrays, Mapping):
        return [key if inner == "X" else f"{key}.{inner}" for key, value in arrays.items() for inner in _names(value)]
    if isinstance(arrays, (tuple, list)):
        outer = ["X", "y"] if len(arrays) == 2 else [f"array {i}" for i in range(len(arrays))]
        return _names(dict(zip(outer, arrays, strict=True)))
    return ["X"]
