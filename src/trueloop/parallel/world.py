"""The processes of a run: those that torchrun has started, or this one alone."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
from torch import distributed

TIMEOUT = timedelta(minutes=10)
"""A process that waits longer for another one gives up: torch's own 30 minutes are half an hour of a cluster."""


@dataclass(frozen=True)
class World:
    """Where this process stands among the others.

    Args:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine: the device that is its own.

    Example:
        >>> World().alone, World(rank=1, size=2).first
        (True, False)
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0


@cache
def world() -> World:
    """The processes of this run; joins them at the first call, if torchrun has started several.

    Example:
        >>> world()
        World(rank=0, size=1, local_rank=0)
    """
    if not distributed.is_available():
        return World()
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
            return World()
        _join()
    local = os.environ.get("LOCAL_RANK", str(distributed.get_rank()))
    return World(distributed.get_rank(), distributed.get_world_size(), int(local))


def _join() -> None:
    """Gloo carries what is on the CPU, also between processes that have GPUs: what is agreed on waits for no device."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    atexit.register(_leave)


def _leave() -> None:
    """Its threads must not outlive the interpreter."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
