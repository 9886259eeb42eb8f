"""What a run was, written down to be compared: each batch, each loss and the whole state, as digests of their bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueloop.checkpoint.encode import pack
from trueloop.data.nested import leaves

Entries = dict[str, str]
"""What there is, by name, and a digest of its bits; short values stand as they are."""


@dataclass
class Window:
    """What one optimizer step was made of; in a loop of one's own, one microbatch."""

    step: int
    """Counted from 1: the step that was taken, or that it went into."""
    epoch: int
    batches: list[str]
    loss: str


@dataclass
class Record:
    """A run, or the part of it that one process saw."""

    halfway: int
    """The optimizer step after which one run is killed."""
    last: int
    """The optimizer step with which all end."""
    per_epoch: int | None
    """Steps an epoch, where that is known."""
    accumulate: int
    inexact: str | None
    """Why the data cannot promise an exact resume; None if it can."""
    data: str | None
    """Data in memory."""
    left_aside: list[str] = field(default_factory=list)
    """Observers that took no part."""
    windows: list[Window] = field(default_factory=list)
    saved_after: int | None = None
    """How many windows came before the place of the checkpoint."""
    refused: str | None = None
    """Why this way of training cannot be tried."""
    moments: dict[str, Entries] = field(default_factory=dict)
    """The state when this process ``began``, ``halfway`` and when it ``ended``; the first two with a batch in hand."""
    unsaved: dict[str, Entries] = field(default_factory=dict)
    """What no ``state_dict`` gives, at the first two of these."""

    def write(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(file: Path) -> Record:
        """What ``write`` wrote."""
        fields = json.loads(file.read_text(encoding="utf-8"))
        return Record(**{**fields, "windows": [Window(**window) for window in fields["windows"]]})


def entries(trees: Mapping[str, Mapping[str, Any]]) -> Entries:
    """What ``checkpoint.resume.capture`` gave, by path.

    Example:
        >>> entries({"model": {"weight": torch.ones(1)}, "state": {"place": {"epoch": 1}}})
        {'model/weight': 'dd2af658ee76b804', 'state/place/epoch': '1'}
    """
    found: Entries = {}
    for name, tree in trees.items():
        packed, tensors = pack(tree, lambda _, tensor: tensor)
        found.update(_flat(_with_bits(packed, {at: bits(tensor) for at, tensor in tensors.items()}), name))
    return found


def bits_of_batch(batch: Any) -> str:
    """A digest of all tensors and plain values of a batch.

    Example:
        >>> bits_of_batch((torch.zeros(2), 1)) == bits_of_batch((torch.zeros(2), 2))
        False
    """
    return _digest("\n".join(_leaf(leaf) for leaf in leaves(batch)))


def bits(tensor: Tensor) -> str:
    """A digest of a tensor: of its dtype, shape and values.

    Example:
        >>> bits(torch.tensor(0.0)) == bits(torch.tensor(-0.0)), bits(torch.zeros(2)) == bits(torch.zeros(2))
        (False, True)
    """
    values = tensor.detach().cpu()
    if values.layout is not torch.strided or values.is_quantized or values.is_nested:
        return _digest(f"{values!r}")
    values = values.resolve_conj().resolve_neg().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {list(values.shape)} ".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:_DIGITS]


def short(text: str) -> str:
    """The text; a digest of it where it is long.

    Example:
        >>> short("0.5"), short("0.5" * 20)
        ('0.5', '76b009543d625948')
    """
    return text if len(text) <= _READABLE else _digest(text)


_DIGITS = 16
_READABLE = 40
"""Values whose text is no longer stand as they are."""


def _leaf(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return bits(leaf)
    if isinstance(leaf, np.ndarray):
        return _digest(f"{leaf.dtype} {leaf.shape} {leaf.tobytes().hex()}")
    return repr(leaf) if isinstance(leaf, (str, bytes, int, float, complex, type(None))) else type(leaf).__name__


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGITS]


def _with_bits(packed: Any, digests: Mapping[str, str]) -> Any:
    """The JSON with a digest in place of each tensor's name."""
    if isinstance(packed, list):
        return [_with_bits(item, digests) for item in packed]
    if not isinstance(packed, dict):
        return packed
    for tag in ("$tensor", "$array"):
        if tag in packed:
            return digests[packed[tag]]
    return {key: _with_bits(value, digests) for key, value in packed.items()}


def _flat(tree: Any, at: str) -> Iterator[tuple[str, str]]:
    match tree:
        case {"$dict": [*pairs]}:
            for key, value in pairs:
                yield from _flat(value, f"{at}/{key}")
        case {"$OrderedDict": inner}:
            yield from _flat(inner, at)
        case dict() if tree and not any(key.startswith("$") for key in tree):
            for key, value in tree.items():
                yield from _flat(value, f"{at}/{key}")
        case list() if any(isinstance(item, dict) for item in tree):
            for index, item in enumerate(tree):
                yield from _flat(item, f"{at}/{index}")
        case _:
            yield at, short(tree if isinstance(tree, str) else json.dumps(tree))
