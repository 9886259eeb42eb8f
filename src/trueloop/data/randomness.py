"""The global random numbers that datasets draw from: set for each sample, and given back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def set_rngs(seed: int) -> None:
    """Set python's ``random``, numpy's global generator and torch's CPU generator from a 64-bit seed.

    Example:
        >>> set_rngs(7); first = random.random(); set_rngs(7); first == random.random()
        True
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # all 64 bits, as an array, would cost five times as much
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that would reseed every device too


@contextmanager
def borrowed_rngs() -> Iterator[None]:
    """Whatever is drawn or set inside, the three generators are afterwards as they were before.

    Inside, torch uses one thread, as it does in a worker process: a sum over many numbers differs in its last bits
    between one thread and two, and the same sample must be the same wherever it is made.

    Example:
        >>> random.seed(1); before = random.getstate()
        >>> with borrowed_rngs(): set_rngs(2)
        >>> random.getstate() == before
        True
    """
    python, legacy, default = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.default_generator.set_state(default)
        if threads != 1:
            torch.set_num_threads(threads)
