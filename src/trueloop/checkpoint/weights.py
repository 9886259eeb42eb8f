"""A model's weights in one safetensors file: written aside, synced, renamed; read without running code."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from trueloop.errors import DataError

NAME = "model.safetensors"


def save_weights(model: nn.Module, file: Path) -> Path:
    """Writes all weights and buffers; the file is there whole, or as it was before.

    Args:
        model: tied weights are written once.
        file: its folder must exist.

    Example:
        >>> import tempfile
        >>> file = save_weights(nn.Linear(2, 1), Path(tempfile.mkdtemp(), "model.safetensors"))
        >>> load_weights(nn.Linear(2, 1), file)
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_model(model, str(aside))
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.rename(file)
    finally:
        aside.unlink(missing_ok=True)
    return file


def load_weights(model: nn.Module, file: Path | str) -> None:
    """Reads weights into a model of the same architecture.

    Raises:
        DataError: no such file, a damaged one, or another architecture, with the names that differ.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError("expected a file of weights, found none", file=file)
    try:
        load_model(model, str(file))
    except SafetensorError as error:
        raise DataError(f"the file of weights is damaged or none at all: {error}", file=file) from error
    except RuntimeError as error:
        raise DataError(f"the weights are of another architecture: {error}", file=file) from error
