"""Data in memory: each sample once an epoch, in the order that seed and epoch give, and nothing converted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from trueloop.data.arrays import ArrayFeed
from trueloop.data.cursor import order
from trueloop.data.feed import feed
from trueloop.errors import DataError

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 9), st.booleans(), st.booleans(), st.integers(0, 45))
def test_batches_are_the_order_cut_in_pieces(
    samples: int, batch_size: int, epoch: int, shuffle: bool, drop_last: bool, start: int
) -> None:
    made = ArrayFeed(torch.arange(samples), batch_size=batch_size, seed=3, shuffle=shuffle, drop_last=drop_last)
    whole = list(made.epoch(epoch))
    assert len(whole) == made.batches
    assert sum(map(len, whole)) == made.samples
    assert all(len(batch) == batch_size for batch in whole[:-1])
    read = torch.cat(whole) if whole else torch.arange(0)
    expected = order(samples, 3, epoch, shuffle)
    assert torch.equal(read, expected[: samples // batch_size * batch_size] if drop_last else expected)
    tail = list(made.epoch(epoch, start=start))
    assert [batch.tolist() for batch in tail] == [batch.tolist() for batch in whole[start:]]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_structure_stays_what_it_is(shuffle: bool) -> None:
    def first(data: Any) -> Any:
        return next(feed(data, batch_size=4, shuffle=shuffle).epoch(0))

    rows = order(10, 0, 0, shuffle)[:4]
    x, y = first((X, Y))
    assert torch.equal(x, X[rows])
    assert torch.equal(y, Y[rows])
    assert type(first((X, Y))) is type(first(TensorDataset(X, Y))) is type(first((X, Y, X))) is tuple
    assert type(first([X, Y])) is list
    assert torch.equal(first(X), X[rows])
    deep = first({"in": (X, {"more": Y}), "y": Y.numpy()})
    assert torch.equal(deep["in"][1]["more"], Y[rows])
    assert torch.equal(deep["y"], Y[rows])


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "uint8", "uint16", "uint32", "uint64", "int32", "bool", "complex64"]
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_numpy_is_shared_and_keeps_its_dtype(dtype: str, shuffle: bool) -> None:
    array = np.arange(6).astype(dtype)
    made = ArrayFeed((array, array), batch_size=6, seed=0, shuffle=shuffle)
    assert made.arrays[0].data_ptr() == array.ctypes.data
    x, y = next(made.epoch(0))
    assert x.dtype == torch.from_numpy(array).dtype
    assert np.array_equal(x.numpy(), array[order(6, 0, 0, shuffle).numpy()])
    assert np.array_equal(x.numpy(), y.numpy())


def test_what_numpy_can_and_torch_cannot() -> None:
    frozen = np.arange(4)
    frozen.setflags(write=False)  # a memory map opened for reading; torch warns of it, and warnings are errors here
    assert next(feed(frozen, batch_size=4).epoch(0)).tolist() == [0, 1, 2, 3]
    assert next(feed(np.arange(4)[::-1], batch_size=4).epoch(0)).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("data", [X, (X, Y), {"x": X}])
def test_what_is_done_to_a_batch_is_not_done_to_the_data(data: Any, shuffle: bool) -> None:
    before = X.clone()
    for batch in feed(data, batch_size=4, shuffle=shuffle).epoch(0):
        x = (
            batch
            if isinstance(batch, torch.Tensor)
            else next(iter(batch.values() if isinstance(batch, dict) else batch))
        )
        x.zero_()
    assert torch.equal(X, before)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(feed((X, Y), batch_size=3, shuffle=True).epoch(1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((torch.zeros(100, 2), torch.zeros(90)), "X has 100 samples, y has 90"),
        ({"image": torch.zeros(3), "label": np.zeros(4)}, "image has 3 samples, label has 4"),
        ((torch.zeros(3), {"a": torch.zeros(3), "b": torch.zeros(2)}), "X has 3 samples, y.a has 3, y.b has 2"),
        (torch.zeros(0, 5), "the data is empty"),
        ((torch.zeros(3), torch.tensor(1.5)), r"y must have one row per sample, got a lone value \(1.5\)"),
        (np.array([[1], [1, 2]], dtype=object), "dtype object"),
        (np.array(["a", "b"]), r"dtype <U1"),
        (np.array([1.0], dtype=">f4"), r">f4"),
        ((torch.zeros(2), torch.zeros(2, device="meta")), "y is on meta"),
    ],
)
def test_bad_arrays(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        feed(data, batch_size=2)
