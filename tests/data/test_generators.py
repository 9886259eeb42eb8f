"""Generators that data keeps for itself are found wherever people keep them, and put back to the bit."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset, TensorDataset

from trueloop.data.generators import generators_in, put, states

OF_THE_MODULE = np.random.default_rng(0)
ONE = TensorDataset(torch.zeros(1))


class Slotted:
    __slots__ = ("empty", "rng")

    def __init__(self) -> None:
        self.rng = random.Random(0)


class OfItsClass:
    rng = random.Random(0)


class OfItsModule:
    def __getitem__(self, index: int) -> float:
        return float(OF_THE_MODULE.random())


class Hostile:
    """Whoever asks it for anything gets an error."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    @property
    def expensive(self) -> Any:
        raise RuntimeError("expensive")


class Transform(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.RandomState(0)


class Circle:
    def __init__(self) -> None:
        self.me = [self]
        self.rng = random.Random(0)


class With:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class OfItsOwn(Dataset[float]):
    def __init__(self) -> None:
        self.rng = random.Random(0)

    def __len__(self) -> int:
        return 1


def closed_over() -> Any:
    rng = random.Random(0)
    return lambda value: value + rng.random()


@pytest.mark.parametrize(
    ("root", "names"),
    [
        (With(rng=torch.Generator()), ["rng"]),
        (With(dataset=Subset(ConcatDataset([OfItsOwn()]), [0])), ["dataset.dataset.datasets[0].rng"]),
        (With(transform=nn.Sequential(Transform())), ["transform._modules['0'].rng"]),
        (With(transform=partial(max, key=closed_over())), ["transform.keywords['key'].<lambda>:rng"]),
        (With(transforms=({"noise": np.random.PCG64(0)}, Slotted())), ["transforms[0]['noise']", "transforms[1].rng"]),
        (OfItsClass(), ["rng"]),
        (OfItsModule(), ["__getitem__:OF_THE_MODULE"]),
        (Hostile(), ["rng"]),
        (Circle(), ["rng"]),
        (With(python=random.random, inside=With(of=Slotted().rng.random)), ["inside.of.__self__"]),
        (With(system=random.SystemRandom()), []),
        (With(numpy=np.random.mtrand._rand, torch=torch.default_generator, python=random._inst), []),
        (DataLoader(ONE, sampler=RandomSampler(ONE, generator=torch.Generator())), ["sampler.generator"]),
        (DataLoader(ONE, shuffle=True, generator=torch.Generator()), ["generator"]),
        (TensorDataset(torch.zeros(3)), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_where_generators_are_found(root: Any, names: list[str]) -> None:
    assert list(generators_in(root)) == names


@pytest.mark.parametrize("kind", ["torch", "python", "numpy", "mt19937", "legacy", "bits"])
def test_each_kind_goes_back_to_the_bit(kind: str) -> None:
    generators: dict[str, tuple[Any, Any]] = {
        "torch": (one := torch.Generator(), lambda: torch.randn(5, generator=one).tolist()),
        "python": (two := random.Random(), lambda: [two.gauss(0, 1) for _ in range(5)]),
        "numpy": (three := np.random.default_rng(), lambda: three.integers(0, 9, 5, dtype=np.int32).tolist()),
        "mt19937": (four := np.random.Generator(np.random.MT19937()), lambda: four.random(5).tolist()),
        "legacy": (five := np.random.RandomState(), lambda: five.randn(5).tolist()),
        "bits": (six := np.random.PCG64(), lambda: six.random_raw(5).tolist()),
    }
    generator, draw = generators[kind]
    draw()
    before = states({"it": generator})
    drawn = draw()
    assert draw() != drawn
    assert put({"it": generator}, before) == []
    assert draw() == drawn


def test_what_is_missing_or_of_another_kind_is_named() -> None:
    saved = states({"a": random.Random(1), "b": np.random.default_rng(1), "c": torch.Generator()})
    now: dict[str, Any] = {"a": torch.Generator(), "b": np.random.Generator(np.random.MT19937(1))}
    assert put(now, saved) == ["a", "b", "c"]


def test_a_million_samples_are_not_walked_through() -> None:
    assert generators_in([random.Random(0)] * 3 + [object() for _ in range(1_000_000)] + [random.Random(1)]).keys() == {
        "[0]"
    }
