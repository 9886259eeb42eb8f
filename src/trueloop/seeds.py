"""One seed for python, numpy and torch; and the same bits twice."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from trueloop.errors import ArgumentError


def seed_all(seed: int) -> None:
    """Seeds python's ``random``, numpy's global generator and torch on every device.

    Call it before the model is made, so that its first weights follow the seed as well.

    Args:
        seed: 0 to 2**63 - 1; numpy's old generator, which takes 32 bits, gets the lower half.

    Raises:
        ArgumentError: another number.

    Example:
        >>> seed_all(1); first = torch.rand(1); seed_all(1); bool(first == torch.rand(1))
        True
    """
    if not _is_seed(seed):
        raise ArgumentError(f"seed must be a whole number from 0 to 2**63 - 1, got seed={seed!r}")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch uses only kernels that give the same bits twice, and raises where there is none.

    Example:
        >>> with deterministic(True): torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # https://docs.nvidia.com/cuda/cublas/#reproducibility
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
