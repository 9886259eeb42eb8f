"""Which tensors of a file fit a model by name and shape, and what is to be said of those that do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from trueloop.optim.parts import own_part

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel and DDP, torch.compile and Lightning put before every name."""

SHOWN = 20
"""Rows of a kind in a table."""

MISSING = "in the model, not in the file"
UNEXPECTED = "in the file, not in the model"
SHAPE = "of another shape"
KIND = "of a kind of number that does not go into the model's"
TIED = "one tensor in the model, but two that differ in the file"


class Misfit(NamedTuple):
    """A name that does not fit."""

    what: str
    """``MISSING``, ``UNEXPECTED``, ``SHAPE``, ``KIND`` or ``TIED``."""
    name: str
    detail: str
    """Shape, or both shapes, in words."""


class Fit(NamedTuple):
    """What of a file goes into a model."""

    tensors: dict[str, Tensor]
    """Those that do, by the model's names."""
    misfits: list[Misfit]
    lines: list[str]
    """What was decided: prefixes, rounding."""


def fit(model: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> Fit:
    """Puts a file's tensors beside a model's; nothing is changed.

    A prefix that all names of one side have (``WRAPPERS``) is taken off, or put on, where more names fit then. Of tied
    weights one name in the file is enough.

    Args:
        model: its state dict; with tied weights as they are, sharing their memory.
        file: by the names in the file.

    Example:
        >>> found = fit({"weight": torch.ones(2)}, {"module.weight": torch.zeros(2), "module.bias": torch.zeros(3)})
        >>> found.tensors, found.misfits
        ({'weight': tensor([0., 0.])}, [Misfit(what='in the file, not in the model', name='bias', detail='(3,)')])
        >>> found.lines
        ["names in the file without their prefix 'module.': so they are the model's"]
    """
    file, lines = _renamed(model, file)
    parts = {name: own_part(tensor) for name, tensor in model.items()}
    tied = _tied(parts)
    present = [name for name in model if name in file]
    covered = {other for name in present for other in tied[name]}
    misfits = [
        Misfit(MISSING, name, _shape(tensor))
        for name, tensor in model.items()
        if name not in file and name not in covered
    ]
    misfits += [Misfit(UNEXPECTED, name, _shape(tensor)) for name, tensor in file.items() if name not in model]
    fitting: dict[str, Tensor] = {}
    rounded: dict[str, list[str]] = {}
    for name in present:
        own, theirs = model[name], file[name]
        if own.shape != theirs.shape:
            misfits.append(Misfit(SHAPE, name, f"{_shape(own)} in the model, {_shape(theirs)} in the file"))
            continue
        if not torch.can_cast(theirs.dtype, own.dtype):
            misfits.append(Misfit(KIND, name, f"{_dtype(own)} in the model, {_dtype(theirs)} in the file"))
            continue
        twin = next((other for other in tied[name] if other in fitting and _is_same(parts[other], parts[name])), None)
        if twin is not None and not _are_equal(fitting[twin].to(own.dtype), theirs.to(own.dtype)):
            misfits.append(Misfit(TIED, name, f"is {twin} in the model"))  # torch would let the last one win
            continue
        fitting[name] = theirs
        if not _goes_in_whole(theirs, own.dtype):
            rounded.setdefault(f"from {_dtype(theirs)} in the file to {_dtype(own)} in the model", []).append(name)
    lines += [f"rounded {how}: {_some(names)}" for how, names in rounded.items()]
    return Fit(fitting, misfits, lines)


def table(misfits: Sequence[Misfit]) -> list[str]:
    """The misfits in words, kind by kind, a line each, with the nearest name where one may be meant.

    Example:
        >>> found = fit({"head.weight": torch.ones(2, 3)}, {"heads.weight": torch.ones(2, 3)})
        >>> print("\\n".join(table(found.misfits)))
        in the model, not in the file: 1
          head.weight  (2, 3)  did you mean heads.weight in the file?
        in the file, not in the model: 1
          heads.weight  (2, 3)  did you mean head.weight in the model?
    """
    kinds: dict[str, list[Misfit]] = {}
    for misfit in misfits:
        kinds.setdefault(misfit.what, []).append(misfit)
    others = {MISSING: (kinds.get(UNEXPECTED, []), "file"), UNEXPECTED: (kinds.get(MISSING, []), "model")}
    lines = []
    for what, group in kinds.items():
        lines.append(f"{what}: {len(group):,}")
        candidates, side = others.get(what, ([], ""))
        rows = []
        for misfit in group[:SHOWN]:
            near = _nearest(misfit, candidates)
            if near is not None and _nearest(near, group) != misfit:
                near = None  # it must be so both ways, or most hints are noise
            rows.append((misfit.name, misfit.detail, f"did you mean {near.name} in the {side}?" if near else ""))
        lines += _columns(rows)
        if len(group) > SHOWN:
            lines.append(f"  … and {len(group) - SHOWN:,} more")
    return lines


def _renamed(model: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], list[str]]:
    """The file's tensors by the names under which most of them are the model's, and what was done for that."""
    best, taken, given = sum(name in model for name in file), "", ""
    for off in _prefixes(file):
        for on in _prefixes(model):
            count = sum(on + name.removeprefix(off) in model for name in file)
            if count > best:
                best, taken, given = count, off, on
    if not taken and not given:
        return file, []
    with_out = [f"without their prefix {taken!r}"] * bool(taken) + [f"with the prefix {given!r}"] * bool(given)
    line = f"names in the file {', and '.join(with_out)}: so they are the model's"
    return {given + name.removeprefix(taken): tensor for name, tensor in file.items()}, [line]


def _prefixes(names: Iterable[str]) -> list[str]:
    """Of none, one, two … wrappers, as far as all names have them."""
    names = list(names)
    found = [""]
    while names:
        longer = [found[-1] + wrapper for wrapper in WRAPPERS]
        shared = next((prefix for prefix in longer if all(name.startswith(prefix) for name in names)), None)
        if shared is None:
            break
        found.append(shared)
    return found


def _tied(model: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """For each name, the others whose memory is its own or a part of it."""
    storages: dict[tuple[torch.device, int], list[str]] = {}
    for name, tensor in model.items():
        if pointer := tensor.untyped_storage().data_ptr():
            storages.setdefault((tensor.device, pointer), []).append(name)
    tied: dict[str, list[str]] = {name: [] for name in model}
    for names in storages.values():
        for name in names:
            start, stop = _span(model[name])
            if stop - start != model[name].nbytes:  # it has holes
                continue
            spans = ((other, _span(model[other])) for other in names if other != name)
            tied[name] = [other for other, (first, last) in spans if start <= first and last <= stop]
    return tied


def _span(tensor: Tensor) -> tuple[int, int]:
    if not tensor.numel():
        return tensor.data_ptr(), tensor.data_ptr()
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (1 + steps) * tensor.itemsize


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether they are one tensor: the same numbers in the same memory."""
    return (one.data_ptr(), one.shape, one.stride(), one.dtype) == (
        other.data_ptr(),
        other.shape,
        other.stride(),
        other.dtype,
    )


def _goes_in_whole(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether each of its numbers comes back from ``dtype`` as it was."""
    if tensor.dtype == dtype:
        return True
    tensor = own_part(tensor)
    back = tensor.to(dtype).to(tensor.dtype)
    if _are_equal(back, tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
        return _are_equal(back, tensor)
    # A NaN that became another NaN is no loss. In float64, since not every small dtype can be compared.
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    one, other = back.to(wide), tensor.to(wide)
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, so that a NaN equals itself; of tensors in parts, this process's."""
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return own_part(tensor).contiguous().reshape(-1).view(torch.uint8)


def _nearest(misfit: Misfit, candidates: Sequence[Misfit]) -> Misfit | None:
    """By shape and name; by shape alone if no other has it; by name alone if it is nearly the same."""
    shaped = {other.name: other for other in candidates if other.detail == misfit.detail}
    if near := get_close_matches(misfit.name, islice(shaped, 300), n=1, cutoff=0.6):
        return shaped[near[0]]
    if len(shaped) == 1:
        return next(iter(shaped.values()))
    named = {other.name: other for other in candidates[:300]}
    near = get_close_matches(misfit.name, named, n=1, cutoff=0.9)
    return named[near[0]] if near else None


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _some(names: Sequence[str], at_most: int = 3) -> str:
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more:,} more" if more > 0 else "")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
