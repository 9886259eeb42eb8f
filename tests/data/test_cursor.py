"""Order and seeds: functions of a few integers, and of nothing else."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trueloop.data.cursor import derive, order

INTEGERS = st.integers(-(2**70), 2**70)


@given(st.lists(INTEGERS, max_size=5))
def test_a_seed_has_64_bits_and_is_always_the_same(parts: list[int]) -> None:
    assert 0 <= derive(*parts) < 2**64
    assert derive(*parts) == derive(*parts)


def test_the_mixing_is_splitmix64() -> None:
    # The first outputs of Vigna's reference splitmix64.c for the states 0 and 1.
    assert derive(0) == 0xE220A8397B1DCDAF
    assert derive(1) == 0x910A2DEC89025CC1


def test_neighbours_do_not_share_a_seed() -> None:
    seeds = {derive(seed, epoch, sample) for seed in range(5) for epoch in range(10) for sample in range(1000)}
    assert len(seeds) == 5 * 10 * 1000


@given(st.integers(0, 200), INTEGERS, st.integers(0, 1000), st.booleans())
def test_an_order_is_a_permutation(samples: int, seed: int, epoch: int, shuffle: bool) -> None:
    found = order(samples, seed, epoch, shuffle)
    assert found.dtype == torch.int64
    assert torch.equal(found.sort().values, torch.arange(samples))
    assert shuffle or torch.equal(found, torch.arange(samples))


@given(st.integers(-(2**70), 2**70), st.integers(0, 1000))
def test_an_order_depends_on_seed_and_epoch_only(seed: int, epoch: int) -> None:
    first = order(50, seed, epoch, shuffle=True)
    before = torch.get_rng_state()
    order(50, seed + 1, epoch, shuffle=True)
    assert torch.equal(first, order(50, seed, epoch, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, order(50, seed, epoch + 1, shuffle=True))
    assert not torch.equal(first, order(50, seed + 1, epoch, shuffle=True))
