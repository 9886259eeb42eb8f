"""What a setting or a set of data is, in plain values, so that processes can tell whether theirs are alike.

Where something lies in memory is no part of it. What is a process's own on purpose (its device, attributes of the
user's objects, what their functions have closed over) is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from itertools import islice
from types import CodeType, FunctionType
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trueloop.data.nested import leaves

_BYTES = 2**26
"""Of an array that is larger, evenly spaced rows are looked at: as many as this holds. It takes 20 ms."""
_MOST = 1000
"""So many arrays are looked at."""
_DEEPEST = 6


def likeness(value: Any, depth: int = _DEEPEST) -> Any:
    """A setting in values that are the same on processes that were given the same.

    Example:
        >>> likeness(partial(nn.functional.cross_entropy, label_smoothing=0.1))[1:]
        ([], {'label_smoothing': 0.1})
        >>> likeness(nn.Dropout(0.2))
        {'': 'Dropout(p=0.2, inplace=False)'}
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes)) or depth == 0:
        return value if depth else None
    inner = partial(likeness, depth=depth - 1)
    if isinstance(value, Mapping):
        return {str(name): inner(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [inner(part) for part in value]
    if isinstance(value, (Tensor, np.ndarray)):
        return content(value)
    if isinstance(value, nn.Module):
        return {name: _of_module(module) for name, module in value.named_modules()}
    if isinstance(value, partial):
        return inner(value.func), inner(value.args), inner(value.keywords)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__qualname__, **{name: inner(part) for name, part in vars(value).items()}}
    if isinstance(value, FunctionType):
        ours = value.__module__.startswith("trueloop.")
        held = [inner(cell.cell_contents) for cell in value.__closure__ or ()] if ours else []
        return value.__qualname__, _of_code(value.__code__), held, inner(value.__defaults__)
    return getattr(value, "__qualname__", type(value).__qualname__)


def content(data: Any) -> list[dict[str, Any]]:
    """Of each array of samples that a data set holds in memory: shape, dtype and a checksum.

    Args:
        data: arrays, or a data set with an index, a row of whose attributes is a sample's, or a loader of one.

    Example:
        >>> content(torch.zeros(2, 3)) == content((torch.zeros(2, 3),)), content(range(3))
        (True, [])
    """
    of = data.dataset if isinstance(data, DataLoader) else data
    if isinstance(of, IterableDataset):
        return []  # each process may well hold another shard
    held = of if isinstance(of, (Tensor, np.ndarray, Mapping, list, tuple)) else getattr(of, "__dict__", {})
    arrays = [leaf for leaf in islice(leaves(held), _MOST) if isinstance(leaf, (Tensor, np.ndarray))]
    if isinstance(of, Dataset):
        arrays = [one for one in arrays if one.ndim and len(one) == len(of)]  # type: ignore[arg-type]
    return [
        {"shape": tuple(one.shape), "dtype": str(one.dtype).removeprefix("torch."), "checksum": _checksum(one)}
        for one in arrays
    ]


def flat(tree: Any, name: str) -> dict[str, Any]:
    """A tree of plain values as one dict, each by the way that leads to it.

    Example:
        >>> flat({"groups": [{"lr": 0.1}]}, "optimizer")
        {'optimizer groups 0 lr': 0.1}
    """
    if isinstance(tree, dict):
        parts = [(" ".join(filter(None, (name, str(key)))), part) for key, part in tree.items()]
    elif isinstance(tree, (list, tuple)) and any(isinstance(part, (dict, list, tuple)) for part in tree):
        parts = [(f"{name} {number}", part) for number, part in enumerate(tree)]
    else:
        return {name: tree}
    return {key: value for inner, part in parts for key, value in flat(part, inner).items()}


def checksum(array: Tensor | np.ndarray[Any, Any]) -> int:
    """Of all bytes of a strided tensor, or of an array of numbers.

    Example:
        >>> checksum(torch.ones(2)) == checksum(np.ones(2, "float32"))
        True
    """
    if isinstance(array, Tensor):
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return crc32(np.ascontiguousarray(array).tobytes())


def _checksum(array: Tensor | np.ndarray[Any, Any]) -> int | None:
    """Of some rows of a large one; None of what has no bytes of its own in a row."""
    if array.layout is not torch.strided if isinstance(array, Tensor) else array.dtype.hasobject:
        return None
    return checksum(array[:: -(-array.nbytes // _BYTES)] if array.nbytes > _BYTES else array)


def _of_module(module: nn.Module) -> Any:
    own = f"{type(module).__qualname__}({module.extra_repr()})"
    if not type(module).__module__.startswith("torch.nn.modules.loss"):
        return own
    plain = {key: value for key, value in vars(module).items() if isinstance(value, (bool, int, float, str))}
    return {"": own, **plain, **{name: content(buffer) for name, buffer in module.named_buffers(recurse=False)}}


def _of_code(code: CodeType) -> int:
    known = [one for one in code.co_consts if isinstance(one, (int, float, str, bytes, type(None)))]
    return crc32(code.co_code + repr((known, code.co_names)).encode())
