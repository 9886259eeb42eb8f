"""Tensors as a safetensors file, piece by piece.

The library's ``save_file`` gives no hash of what it writes, so the file would be read a second time for it, and
``save`` builds the file in memory, beside the tensors. The format is simple: eight bytes that say how long the header
is, the header in JSON, the bytes of the tensors. Here they are handed on as they lie in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Torch's dtypes that the safetensors library reads, from memory too, and their names in a file."""

FORMAT = {"format": "pt"}
"""Some libraries (transformers) read no safetensors file that does not say so."""


def chunks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = FORMAT) -> Iterator[memoryview | bytes]:
    """The bytes of a safetensors file, to be written one after the other.

    Args:
        tensors: by name, of the dtypes in ``DTYPES``. Those that lie contiguous on a little-endian CPU are not copied;
            the views that come out are valid as long as their tensor.
        metadata: texts by name, for the header.

    Example:
        >>> from safetensors.torch import load
        >>> load(b"".join(chunks({"weight": torch.ones(2)})))
        {'weight': tensor([1., 1.])}
    """
    # Large items first, so that each tensor is aligned to its items.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    yield _header({name: tensors[name] for name in names}, metadata)
    for name in names:
        if tensors[name].numel():
            yield _bytes(tensors[name])


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
