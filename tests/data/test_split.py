"""Parts share nothing, keep to their shares, and the normaliser sees one of them only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from trueloop.data import Normalizer, feed, split, split_indices
from trueloop.errors import ArgumentError, DataError

FRACTIONS = st.lists(st.integers(1, 10), min_size=1, max_size=4).flatmap(
    lambda weights: st.integers(0, 5).map(lambda rest: [weight / (sum(weights) + rest) for weight in weights])
)


def check_disjoint(parts: tuple[Tensor, ...], samples: int) -> None:
    everything = torch.cat(parts)
    assert len(set(everything.tolist())) == len(everything)
    assert bool(((everything >= 0) & (everything < samples)).all())
    assert all(torch.equal(part, part.sort().values) for part in parts)
    assert all(len(part) for part in parts)


@given(st.integers(50, 300), FRACTIONS, st.integers(0, 2**64))
def test_shares_are_kept_to_within_one_sample(samples: int, fractions: list[float], seed: int) -> None:
    parts = split_indices(samples, fractions, seed=seed)
    check_disjoint(parts, samples)
    for fraction, part in zip(fractions, parts, strict=True):
        assert abs(len(part) - fraction * samples) < 1
    if math.isclose(sum(fractions), 1):
        assert sum(map(len, parts)) == samples
    again = split_indices(samples, fractions, seed=seed)
    assert all(torch.equal(one, other) for one, other in zip(parts, again, strict=True))


@given(st.lists(st.integers(5, 60), min_size=1, max_size=12), FRACTIONS, st.randoms(use_true_random=False))
def test_every_class_keeps_its_share_to_within_one_sample(counts: list[int], fractions: list[float], rng: Any) -> None:
    labels = [f"class {name}" for name, count in enumerate(counts) for _ in range(count)]
    rng.shuffle(labels)
    exact = [fraction * len(labels) for fraction in fractions]
    assume(min(exact) > len(counts))  # else a part may come out empty, which is an error
    parts = split_indices(len(labels), fractions, stratify=labels)
    check_disjoint(parts, len(labels))
    for fraction, part in zip(fractions, parts, strict=True):
        for name in set(labels):
            found = sum(labels[index] == name for index in part.tolist())
            assert abs(found - fraction * labels.count(name)) < 1


def test_many_small_classes_do_not_add_up_their_roundings() -> None:
    labels = torch.arange(100).repeat_interleave(5)
    train, val = split_indices(500, (0.9, 0.1), stratify=labels)  # 4.5 and 0.5 of each class
    assert (len(train), len(val)) == (450, 50)


@given(st.lists(st.integers(1, 20), min_size=4, max_size=30), FRACTIONS, st.integers(0, 1000))
def test_no_group_is_on_both_sides(sizes: list[int], fractions: list[float], seed: int) -> None:
    groups = np.array([f"patient {name}" for name, size in enumerate(sizes) for _ in range(size)])
    groups = groups[np.random.default_rng(seed).permutation(len(groups))]
    parts = split_indices(len(groups), fractions, seed=seed, groups=groups)
    check_disjoint(parts, len(groups))
    names = [set(groups[part.numpy()]) for part in parts]
    assert sum(map(len, names)) == len(set().union(*names))
    if min(fractions) * len(groups) >= max(sizes):
        for fraction, part in zip(fractions, parts, strict=True):
            assert abs(len(part) - fraction * len(groups)) <= max(sizes) + 1e-6


class Squares(Dataset[int]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index * index


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_each_part_is_of_the_kind_of_the_whole() -> None:
    x, y = torch.arange(10), np.arange(10).astype("uint16")
    train, val = split((x, y), (0.7, 0.3))
    assert type(train) is tuple
    assert isinstance(val[1], np.ndarray)
    assert val[1].dtype == np.uint16
    assert val[0].tolist() == val[1].tolist()
    assert sorted([*train[0].tolist(), *val[0].tolist()]) == list(range(10))
    assert type(split({"x": x})[0]) is dict
    assert type(split(TensorDataset(x))[0]) is TensorDataset
    assert type(split([(1, 2)] * 5)[1]) is list
    part = split(Squares(), (0.5, 0.5))[0]
    assert isinstance(part, Subset)
    assert len(next(feed(part, batch_size=5).epoch(0))) == 5


@pytest.mark.parametrize(
    ("data", "settings", "error", "words"),
    [
        (torch.zeros(9), {"fractions": (0.8, 0.3)}, ArgumentError, r"fractions=\(0.8, 0.3\) \(sum 1.1\)"),
        (torch.zeros(9), {"fractions": (1.0, 0.0)}, ArgumentError, "above 0"),
        (torch.zeros(9), {"fractions": ()}, ArgumentError, "above 0"),
        (torch.zeros(9), {"fractions": (0.99, 0.01)}, DataError, "the one of fraction 0.01 is empty"),
        (torch.zeros(0), {}, DataError, "empty"),
        ((torch.zeros(3), torch.zeros(2)), {}, DataError, "X has 3 samples, y has 2"),
        (torch.zeros(3), {"stratify": [0, 0, 1]}, DataError, "class 1 has 1"),
        (torch.zeros(3), {"stratify": [0, 0]}, DataError, r"each of the 3 samples, got shape \(2,\)"),
        (torch.zeros(3), {"groups": torch.zeros(3, 1)}, DataError, r"got shape \(3, 1\)"),
        (torch.zeros(3), {"groups": "aaa"}, DataError, "got shape"),
        (torch.zeros(3), {"groups": list("aaa")}, DataError, "a group for each of the 2 parts, got 1"),
        (torch.zeros(3), {"groups": [1, 2, 3], "stratify": [1, 1, 1]}, ArgumentError, "got both"),
        (Stream(), {}, DataError, "got Stream"),
        (DataLoader(Squares()), {}, DataError, "got DataLoader"),
    ],
)
def test_what_cannot_be_split(data: Any, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        split(data, **settings)


def test_normalised_columns() -> None:
    train = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) * 7 + 1000
    train[:, 1] = 0.1  # equal values: their computed variance need not be exactly 0
    normalize = Normalizer.fit(train)
    torch.testing.assert_close(normalize(train).mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalize(train).std(0, correction=0), torch.tensor([1.0, 0.0, 1.0]), atol=1e-4, rtol=0)
    assert float(normalize.std[1]) == 1.0
    torch.testing.assert_close(normalize(train[3]), normalize(train)[3])  # a sample alone
    as_array = normalize(train.numpy())
    assert isinstance(as_array, np.ndarray)
    np.testing.assert_array_equal(as_array, normalize(train).numpy())


def test_normalised_images() -> None:
    images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    normalize = Normalizer.fit(images, dims=(0, 2, 3))
    assert normalize.mean.shape == (3, 1, 1)
    assert normalize(images.numpy()).dtype == np.float32
    assert normalize(images).dtype == torch.float32
    assert normalize(images[0]).shape == (3, 4, 4)
    torch.testing.assert_close(normalize.mean.flatten(), images.double().mean(dim=(0, 2, 3)).float())


@pytest.mark.parametrize(
    ("data", "dims", "error", "words"),
    [
        ((torch.zeros(3, 2), torch.zeros(3)), (0,), DataError, "of a tuple"),
        (torch.zeros(3, 2), (1,), ArgumentError, r"dims=\(1,\)"),
        (torch.tensor([[1.0], [math.nan]]), (0,), DataError, "NaN or Inf"),
        (torch.zeros(0, 2), (0,), DataError, "empty"),
    ],
)
def test_what_cannot_be_fitted(data: Any, dims: tuple[int, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Normalizer.fit(data, dims)
