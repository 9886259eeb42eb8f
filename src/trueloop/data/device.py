"""Which device a run uses, and why; how whole batches get there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from trueloop.data.nested import leaves, mapped
from trueloop.errors import ArgumentError, DataError


def choose_device(device: str | torch.device | None = None) -> tuple[torch.device, str]:
    """The device to run on, and the reason in words: the one asked for, else cuda, else mps, else cpu.

    Raises:
        ArgumentError: the device asked for is not on this machine, or is no device at all.

    Example:
        >>> choose_device("cpu")
        (device(type='cpu'), 'as asked')
    """
    if device is not None:
        return _present(device), "as asked"
    if torch.cuda.is_available():
        return torch.device("cuda"), f"a CUDA device is present ({torch.cuda.get_device_name()})"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "an Apple GPU is present"
    return torch.device("cpu"), "no CUDA device and no Apple GPU is present"


def move(batch: Any, device: torch.device) -> Any:
    """The batch on ``device``: every tensor in it, and everything else that has a ``to``; other leaves stay.

    What is there already is returned as it is, the containers too. Copies to CUDA do not wait: from pinned memory they
    overlap with computing, from other memory CUDA stages them first, so both are safe (copies *from* CUDA wait).

    Example:
        >>> batch = {"x": torch.zeros(2, 3), "name": "first"}
        >>> move(batch, torch.device("cpu")) is batch
        True
        >>> move(batch, torch.device("meta"))["x"].device, move(batch, torch.device("meta"))["name"]
        (device(type='meta'), 'first')
    """
    non_blocking = device.type == "cuda"

    def to_device(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.to(device, non_blocking=non_blocking)
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return mapped(to_device, batch)


def pin(batch: Any) -> Any:
    """The batch in pinned memory, from which copies to CUDA overlap with computing; as it is where there is no CUDA.

    Example:
        >>> batch = (torch.zeros(2), "name")
        >>> pin(batch)[1]
        'name'
    """
    if not torch.cuda.is_available():
        return batch
    return mapped(_pinned, batch)


def _pinned(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):  # only dense ones on the CPU can be
        return leaf.pin_memory() if leaf.device.type == "cpu" and leaf.layout is torch.strided else leaf
    return leaf.pin_memory() if hasattr(leaf, "pin_memory") and not getattr(leaf, "is_cuda", False) else leaf


def onto(device: torch.device, *, ahead: bool = True) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """A way to bring an epoch's batches to a device, the next one on its way while this one is worked on.

    Args:
        device: where to.
        ahead: whether the next one may be fetched meanwhile. Not from a loader that has state: what it remembers would
            be a batch ahead of what was trained on, and a checkpoint of it one batch off.

    Example:
        >>> batches = [torch.zeros(2), torch.ones(2)]
        >>> [batch.device.type for batch in onto(torch.device("meta"))(batches)]
        ['meta', 'meta']
    """
    if device.type == "cpu":
        return iter  # they are there, and the hot path is spared a call

    def moved(batches: Iterable[Any]) -> Iterator[Any]:
        there: list[Any] = []
        for batch in batches:
            there.append(move(pin(batch) if device.type == "cuda" else batch, device))
            if len(there) > ahead:
                yield there.pop(0)
        yield from there

    return moved


def first_tensor(batch: Any) -> Tensor | None:
    """The first tensor in the batch, depth first; None where there is none.

    Example:
        >>> first_tensor({"name": "a", "x": (torch.tensor([7]),)})
        tensor([7])
    """
    return next((leaf for leaf in leaves(batch) if isinstance(leaf, Tensor)), None)


def batch_length(batch: Any) -> int:
    """How many samples the batch holds: the length of the first dimension of the first tensor that has one.

    Raises:
        DataError: no tensor in the batch has a dimension.

    Example:
        >>> batch_length((torch.zeros(32, 10), torch.zeros(32)))
        32
    """
    first = batch[0] if type(batch) in (tuple, list) and batch else batch
    if isinstance(first, Tensor) and first.ndim:  # the usual batch, every step: no walk
        return first.shape[0]
    if isinstance(first, PackedSequence):
        return int(first.batch_sizes[0])
    for leaf in leaves(batch):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf.shape[0]
    raise DataError(
        f"a batch must hold a tensor whose first dimension counts its samples, got {type(batch).__name__} without one; "
        "let the dataset (or its collate function) return tensors"
    )


def _present(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"device must be cpu, cuda, cuda:0, mps, …, got device={device!r}") from error
    if chosen.type in ("cpu", "meta"):
        return chosen
    if not _available(chosen.type):
        raise ArgumentError(
            f"device={str(device)!r} is not available here (torch {torch.__version__}); "
            "pass device=None to use the best one that is, or install a torch built for it"
        )
    count = 1 if chosen.type == "mps" else torch.get_device_module(chosen.type).device_count()
    index: int | None = chosen.index  # torch's stub says int
    if index is not None and index >= count:
        raise ArgumentError(f"device={str(device)!r} does not exist: this machine has {count}, numbered from 0")
    return chosen


def _available(kind: str) -> bool:
    if kind == "mps":
        return torch.backends.mps.is_available()
    try:
        return bool(torch.get_device_module(kind).is_available())
    except (RuntimeError, AttributeError):
        return False
