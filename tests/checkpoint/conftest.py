from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trueloop as tl
from trueloop.checkpoint.rngs import state_of_rngs

Bits = Callable[[Any], Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: hundreds of runs are saved here, and what is tested is no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def bits() -> Bits:
    """Any state as what ``==`` compares to the bit: tensors and arrays by their bytes, floats by their digits."""
    return _bits


@pytest.fixture
def everything() -> Callable[[tl.Trainer], dict[str, Any]]:
    """All that a run has moved, by name, as ``bits`` gives it."""

    def everything(trainer: tl.Trainer) -> dict[str, Any]:
        loss = trainer.choices.loss
        return {
            "model": _bits(trainer.model.state_dict()),
            "buffers": _bits(dict(trainer.model.named_buffers())),
            "loss": _bits(loss.state_dict() if isinstance(loss, nn.Module) else None),
            "averaged": _bits(None if trainer.averaged is None else trainer.averaged.state_dict()),
            **{f"optimizer {name}": _bits(one.state_dict()) for name, one in trainer.setup.optimizers.items()},
            **{f"keep {name}": _bits(kept.state_dict()) for name, kept in trainer.keep.items()},
            **{f"rng {name}": _bits(state) for name, state in state_of_rngs().items()},
            "step": trainer.step,
        }

    return everything


def _bits(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return str(tree.dtype), tuple(tree.shape), _bytes(tree)
    if isinstance(tree, np.ndarray):
        return str(tree.dtype), tree.shape, tree.tobytes()
    if isinstance(tree, dict):
        return {name: _bits(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_bits(value) for value in tree]
    return repr(tree) if isinstance(tree, float) else tree


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
