"""Where a run stands in its data, and every seed that data needs, as functions of a few integers.

Nothing here is a state that has to be replayed: the order of an epoch is a function of (seed, epoch), the random
numbers of a sample are one of (seed, epoch, sample index). So a run's place is three integers, and is reached at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ORDER = 0x6F72646572  # "order" in ASCII: keeps the order's seed apart from those of the samples


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: ``batch`` microbatches of epoch ``epoch`` (0-based) have been *trained*, not merely fetched.

    Example:
        >>> Cursor(seed=0, epoch=2, batch=10)
        Cursor(seed=0, epoch=2, batch=10)
    """

    seed: int
    epoch: int = 0
    batch: int = 0


def derive(*parts: int) -> int:
    """A 64-bit seed from any integers, in their order; neighbouring integers give unrelated seeds.

    Each part is xored into the state, which then takes one step of splitmix64 (Steele, Lea and Flood, *Fast splittable
    pseudorandom number generators*, OOPSLA 2014; constants of Vigna's reference, https://prng.di.unimi.it/splitmix64.c).
    For a fixed number of parts it is one-to-one in each of them (modulo 2**64), so two samples never share a seed.

    Example:
        >>> derive(0) == 0xE220A8397B1DCDAF  # the first output of Vigna's splitmix64 for seed 0
        True
        >>> derive(1, 2) == derive(2, 1)
        False
    """
    state = 0
    for part in parts:
        state = ((state ^ (part & _MASK)) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def order(samples: int, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """The order in which an epoch reads its samples: int64 (samples,) on the CPU.

    A function of (seed, epoch) only: it draws from a generator of its own and leaves torch's global one alone.

    Example:
        >>> order(4, seed=0, epoch=0, shuffle=False)
        tensor([0, 1, 2, 3])
        >>> bool((order(9, seed=0, epoch=1, shuffle=True).sort().values == torch.arange(9)).all())
        True
    """
    if not shuffle:
        return torch.arange(samples)
    generator = torch.Generator().manual_seed(derive(seed, epoch, _ORDER))
    return torch.randperm(samples, generator=generator)
