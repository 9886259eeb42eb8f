"""Every random number generator of the process: what it would draw next, and back to that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trueloop.data.randomness import get_rngs, put_rngs


def state_of_rngs() -> dict[str, Any]:
    """The states of python's ``random``, numpy's global generator, torch's on the CPU and on each accelerator.

    Example:
        >>> import random
        >>> state = state_of_rngs(); first = random.random()
        >>> set_rngs_to(state), first == random.random()
        ([], True)
    """
    state = get_rngs()
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rngs_to(state: Mapping[str, Any]) -> list[str]:
    """Puts every generator where ``state_of_rngs`` found it.

    Returns:
        What could not be put back, in words: generators of devices that are not here.
    """
    put_rngs(state)
    left = []
    devices = state.get("cuda", [])
    here = torch.cuda.device_count() if devices else 0
    for index, one in enumerate(devices[:here]):
        torch.cuda.set_rng_state(one, index)
    if len(devices) > here:
        left.append(f"the random numbers of {len(devices) - here} CUDA devices that are not here")
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    elif "mps" in state:
        left.append("the random numbers of an Apple GPU that is not here")
    return left
