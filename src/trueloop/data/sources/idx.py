"""The format of MNIST and its kin: a magic number, the shape, the bytes.

Source: Y. LeCun's page of MNIST, "the IDX file format": two zero bytes, one for the type (8: unsigned byte), one for
the number of dimensions, then each dimension as a big-endian 32-bit number, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from trueloop.errors import DataError


def read_idx(path: Path) -> Tensor:
    """The array of unsigned bytes in the file (packed with gzip if its name ends in ``.gz``): uint8.

    Raises:
        DataError: the file is damaged, cut off, or of another format; it is named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read_idx(path)
        tensor([7, 8, 9], dtype=torch.uint8)
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"the file is damaged ({error}); delete it and get it again", file=path) from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"expected an IDX file of bytes, got one that begins with {content[:4]!r}", file=path)
    begin = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:begin]) if len(content) >= begin else ()
    if len(content) != begin + math.prod(shape):
        raise DataError(
            f"the file is damaged: expected {begin + math.prod(shape)} bytes for shape {shape}, got {len(content)}; "
            "delete it and get it again",
            file=path,
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=begin).view(shape)
