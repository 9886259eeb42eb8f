"""The global random numbers that datasets draw from: set for each sample, remembered, and given back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


def get_rngs() -> dict[str, Any]:
    """The states of the three generators, in plain values, tensors and arrays.

    Example:
        >>> state = get_rngs(); first = random.random(); put_rngs(state); random.random() == first
        True
    """
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.default_generator.get_state(),
    }


def put_rngs(state: Mapping[str, Any]) -> None:
    """Puts the three generators where ``get_rngs`` found them."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.default_generator.set_state(state["torch"])


@contextmanager
def kept_rngs() -> Iterator[None]:
    """As ``borrowed_rngs``, with as many threads as there are: for what the training itself would have done."""
    state = get_rngs()
    try:
        yield
    finally:
        put_rngs(state)
