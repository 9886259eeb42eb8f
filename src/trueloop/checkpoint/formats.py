"""Named tensors from a file, whoever wrote it: safetensors, or what ``torch.save`` writes; its code is never run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trueloop.errors import DataError

TORCH = (".pt", ".pth", ".bin", ".ckpt")
"""What files of ``torch.save`` are called."""

PLACES = ("state_dict", "model_state_dict", "model", "module")
"""Where checkpoints of others keep the weights, the likeliest first."""


class Tensors(NamedTuple):
    """What a file holds."""

    by_name: dict[str, Tensor]
    """On the CPU; tied weights of a torch file share their memory."""
    lines: list[str]
    """What was decided on the way, for whoever asks: which part was taken, what was left out."""


def read_tensors(file: Path | str) -> Tensors:
    """The tensors of a file, by name.

    The content decides about the format, but a file called ``.safetensors`` is never read as anything else. torch's
    formats are read with ``weights_only=True`` alone; in a checkpoint of somebody else the weights are looked for under
    the usual keys.

    Raises:
        DataError: no such file; an empty, damaged or unknown one; one that holds more than weights, with their names.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "theirs.pt")
        >>> torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(2)}}, file)
        >>> read_tensors(file).by_name
        {'weight': tensor([1., 1.])}
        >>> read_tensors(file).lines
        ["the weights are those under 'state_dict'; also in the file, and not read: 'epoch' (int)"]
    """
    file = Path(file)
    if not file.is_file():
        raise DataError("expected a file of weights, found none", file=file)
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise DataError(f"the file of weights cannot be read: {error.strerror or error}", file=file) from error
    if not start:
        raise DataError("expected a file of weights, got an empty one (0 bytes); copy or write it anew", file=file)
    if file.suffix == ".safetensors" or _is_safetensors(start):
        return Tensors(_safetensors(file, start), [])
    if file.suffix in TORCH or _is_torch(start):
        return _taken(_torch(file), file)
    raise DataError(
        f"expected a file of weights, safetensors or what torch.save writes ({' '.join(TORCH)}), got one that starts "
        f"with {start!r}",
        file=file,
    )


def _is_safetensors(start: bytes) -> bool:
    # The length of the header (below 100 MB) in 8 bytes, and the header, which is JSON. Asked first: a header of 640
    # bytes begins as a pickle does.
    return start[4:] == b"\0\0\0\0{"


def _is_torch(start: bytes) -> bool:
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"))


def _safetensors(file: Path, start: bytes) -> dict[str, Tensor]:
    try:
        return load_file(str(file))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        hint = "; its content looks like torch's: call it .pt" if _is_torch(start) else "; copy or write it anew"
        raise DataError(
            f"the file of weights is damaged, or no safetensors file at all: {error}{hint}", file=file
        ) from error


def _torch(file: Path) -> Any:
    try:
        return torch.load(str(file), map_location="cpu", weights_only=True)
    except Exception as error:  # from damaged bytes torch raises nearly anything
        raise DataError(_refusal(file, error), file=file) from error


def _refusal(file: Path, error: Exception) -> str:
    if strangers := _strangers(file, error):
        return (
            f"the file holds more than weights, and was not read: {', '.join(strangers)}; such a file runs what it is "
            "told. If you trust who made it, keep its weights alone, on a machine where it can do no harm: found = "
            "torch.load(file, weights_only=False); torch.save(found['state_dict'], 'weights.pt'), or "
            "found.state_dict() if it is a whole model"
        )
    if "TorchScript" in str(error):
        return (
            "expected weights, got a TorchScript archive, which is a program; if you trust who made it, keep its "
            "weights alone: torch.save(torch.jit.load(file).state_dict(), 'weights.pt')"
        )
    told = re.search(r"WeightsUnpickler error: *(.+)", str(error)) or re.search(r"(.+)", str(error))
    what = f"{type(error).__name__}: {told[1][:200]}" if told else type(error).__name__
    return f"the file is damaged, or was not written by torch.save: {what}; copy or write it anew"


def _strangers(file: Path, error: Exception) -> list[str]:
    """What the file would have called, found by reading its pickle, not by running it."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # torch's older format, or a damaged file
        found = []
    return sorted(set(found) | set(re.findall(r"GLOBAL ([\w.]+\w)", str(error))))


def _taken(found: Any, file: Path) -> Tensors:
    """The state dict in what torch read."""
    path: list[str] = []
    beside: dict[Any, Any] = {}
    while (place := _place(found)) and len(path) < 4:  # a dict may hold itself
        beside |= {key: value for key, value in found.items() if key != place}
        path.append(place)
        found = found[place]
    if not isinstance(found, Mapping):
        raise DataError(
            f"expected tensors by name, got {_kind(found)}; torch.save(model.state_dict(), file)", file=file
        )
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and _is_plain(value)}
    others = {name: value for name, value in found.items() if name not in tensors}
    if others and not tensors:
        raise DataError(
            f"expected tensors by name, got {_listed(others)}; keep the weights alone: "
            "torch.save(found[…], 'weights.pt')",
            file=file,
        )
    lines = []
    if path:
        rest = f"; also in the file, and not read: {_listed(beside)}" if beside else ""
        lines.append(f"the weights are those under {'.'.join(path)!r}{rest}")
    if others:
        lines.append(f"left out, for they are no plain tensors: {_listed(others)}")
    return Tensors(tensors, lines)


def _place(found: Any) -> str | None:
    if not isinstance(found, Mapping):
        return None
    return next((key for key in PLACES if key in found and _holds_tensors(found[key])), None)


def _holds_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(item, Tensor) for item in value.values()) or any(key in value for key in PLACES)


def _is_plain(value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"


def _listed(items: Mapping[Any, Any], at_most: int = 10) -> str:
    shown = [f"{key!r} ({_kind(value)})" for key, value in list(items.items())[:at_most]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor) or _is_plain(value):
        return type(value).__name__
    if value.device.type != "cpu":
        return f"a tensor on the {value.device.type} device"
    return "a quantized tensor" if value.is_quantized else f"a {str(value.layout).removeprefix('torch.')} tensor"
