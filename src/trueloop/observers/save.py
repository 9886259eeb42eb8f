"""Keeps the weights that a run ends with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trueloop.events import Event, RunEnded


class SaveAtEnd:
    """Writes something when the run ends, unless it failed.

    Args:
        write: ``write(file)`` writes it whole; for weights, ``checkpoint.weights.save_weights`` of a model.
        file: where to.

    Example:
        >>> SaveAtEnd(print, Path("model.safetensors"))(RunEnded(step=5, epoch=1, reason="finished", seconds=1.0))
        model.safetensors
    """

    def __init__(self, write: Callable[[Path], Any], file: Path) -> None:
        self._write = write
        self._file = file

    def __call__(self, event: Event) -> None:
        match event:
            case RunEnded() if event.status != "failed":
                self._write(self._file)
