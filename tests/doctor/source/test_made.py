"""What the reader knows of things that are made in parts: by a comprehension, by ``match``, of lists that grow."""

from __future__ import annotations

import textwrap

import pytest

from trueloop.doctor.source.checks import check
from trueloop.doctor.source.read import Source

HEAD = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
"""
TAUGHT = """
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in loader:
    opt.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    opt.step()
"""
PHASES = """
net = nn.Linear(4, 3)
loaders = {phase: DataLoader(sets[phase], batch_size=8, shuffle=phase == "train") for phase in KEYS}
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(3):
    for x, y in loaders["train"]:
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    with torch.no_grad():
        right = sum((net(x).argmax(1) == y).sum().item() for x, y in loaders["val"])
"""


def found(text: str) -> list[str]:
    source = Source("script.py", HEAD + textwrap.dedent(text))
    return [one.finding.name for one in check(source) if one.finding.level != "note"]


@pytest.mark.parametrize("keys", ["('train', 'val')", "sets", "os.listdir(folder)"])
def test_each_key_of_a_comprehension_has_a_loader_of_its_own(keys: str) -> None:
    assert found(PHASES.replace("KEYS", keys)) == []


def test_a_dict_of_pairs_keeps_its_keys() -> None:
    pairs = 'sets = dict(zip(("train", "val"), random_split(TensorDataset(x, y), [80, 20])))\n'
    assert found(pairs + PHASES.replace("KEYS", "sets").replace('loaders["val"]', 'loaders["train"]')) == [
        "evaluation-on-training-data"
    ]


@pytest.mark.parametrize(
    "made",
    [
        "net = nn.Sequential(*blocks(), nn.Softmax(1))",
        (
            "layers = []\nfor n in sizes:\n    layers += [nn.Linear(n, n), nn.ReLU()]\n"
            "layers.append(nn.Softmax(1))\nnet = nn.Sequential(*layers)"
        ),
        (
            'kind = "a"\nmatch kind:\n    case "b" | "c":\n        net = nn.Linear(4, 3)\n'
            "    case _:\n        net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))"
        ),
    ],
)
def test_what_comes_last_is_known_though_the_rest_is_not(made: str) -> None:
    assert found(made + TAUGHT) == ["softmax-before-cross-entropy"]


@pytest.mark.parametrize(
    "made",
    [
        "net = nn.Sequential(nn.Softmax(1), *blocks())",
        "layers = [nn.Softmax(1), *blocks()]\nnet = nn.Sequential(*layers)",
        (
            "match kind:\n    case 'a':\n        net = nn.Linear(4, 3)\n"
            "    case _:\n        net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))"
        ),
    ],
)
def test_what_may_not_come_last_is_not(made: str) -> None:
    assert found(made + TAUGHT) == []


def test_a_function_that_is_applied_sees_each_layer() -> None:
    text = """
    def rest(m):
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            m.eval()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    """
    train = """
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for x, y in loader:
        net.train()
        net.apply(rest)
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    """
    assert found(text + train) == []
