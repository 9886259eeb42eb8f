"""Which parameters train at which rate and decay."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from trueloop import optim
from trueloop.errors import ArgumentError, UnknownNameError


class Everything(nn.Module):
    """One of each kind of layer; the output layer shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 3, 4))
        self.linear = nn.Linear(4, 4)
        self.conv = nn.Conv2d(1, 2, 3)
        self.batch_norm = nn.BatchNorm2d(2)
        self.layer_norm = nn.LayerNorm((3, 4))
        self.group_norm = nn.GroupNorm(2, 4)
        self.rms_norm = nn.RMSNorm(4)
        self.own_norm = OwnNorm()
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.scale = nn.Parameter(torch.ones(4))
        self.projection = nn.Parameter(torch.ones(4, 4))
        self.output = nn.Linear(4, 5)
        self.output.weight = self.embedding.weight


class OwnNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, 4))


def test_only_matrices_and_filters_decay() -> None:
    optimizer = optim.adamw(weight_decay=0.1)(Everything())
    decay, no_decay = optimizer.param_groups
    assert (decay["name"], decay["weight_decay"]) == ("decay", 0.1)
    assert decay["param_names"] == [
        "projection",
        "linear.weight",
        "conv.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]
    assert (no_decay["name"], no_decay["weight_decay"]) == ("no_decay", 0.0)


def test_every_trainable_parameter_is_in_one_group_once() -> None:
    model = Everything()
    model.conv.requires_grad_(False)
    for rule in (optim.no_decay, optim.one_group, optim.rates({"linear": 2.0}), optim.layer_wise()):
        groups = optim.sgd(lr=0.1, weight_decay=0.1, groups=rule)(model).param_groups
        held = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(held) == len(set(held))
        assert set(held) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_a_weight_tied_to_an_embedding_does_not_decay_whoever_comes_first() -> None:
    model = nn.ModuleDict({"output": nn.Linear(4, 5, bias=False), "embedding": nn.Embedding(5, 4)})
    model["embedding"].weight = model["output"].weight
    assert optim.no_decay(model) == {"output.weight": optim.Terms(decays=False)}


def test_without_weight_decay_there_is_one_group() -> None:
    (group,) = optim.adam()(Everything()).param_groups
    assert group["name"] == "all"
    (group,) = optim.adamw(weight_decay=0.1, groups=optim.one_group)(Everything()).param_groups
    assert (group["name"], group["weight_decay"]) == ("decay", 0.1)


def test_the_class_default_is_a_weight_decay_too() -> None:
    assert len(optim.factory(torch.optim.AdamW)(nn.Linear(2, 2)).param_groups) == 2  # torch's default is 0.01


def test_rates_refine_their_base() -> None:
    model = nn.ModuleDict({"backbone": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), "head": nn.Linear(2, 1)})
    rule = optim.rates({"head": 10.0, "backbone.*": 0.1, "backbone.1": 0.5})
    groups = optim.adamw(lr=1e-3, weight_decay=0.1, groups=rule)(model).param_groups
    got = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}
    assert got == {
        "backbone.0.weight": (1e-3 * 0.1, 0.1),
        "backbone.0.bias": (1e-3 * 0.1, 0.0),
        "backbone.1.weight": (1e-3 * 0.5, 0.1),
        "backbone.1.bias": (1e-3 * 0.5, 0.0),
        "head.weight": (1e-3 * 10, 0.1),
        "head.bias": (1e-3 * 10, 0.0),
    }
    assert [group["name"] for group in groups] == [
        *("backbone.* decay", "backbone.1 decay", "head decay"),
        *("backbone.* no_decay", "backbone.1 no_decay", "head no_decay"),
    ]


def test_an_unknown_submodule_gets_the_nearest_one() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    with pytest.raises(UnknownNameError, match="unknown submodule 'haed'; did you mean 'head'"):
        optim.adamw(groups=optim.rates({"haed": 10.0}))(model)


def test_a_frozen_submodule_may_be_named() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    model["backbone"].requires_grad_(False)
    assert set(optim.rates({"backbone": 0.1})(model)) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("multiplier", [-1.0, float("nan"), float("inf")])
def test_a_multiplier_out_of_range(multiplier: float) -> None:
    with pytest.raises(ArgumentError, match=f"got {multiplier} for 'head'"):
        optim.rates({"head": multiplier})


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8) for _ in range(2))
        self.norm = nn.LayerNorm(4)


def test_layer_wise_rates_fall_towards_the_input_and_a_block_is_one_layer() -> None:
    model = nn.Sequential(OrderedDict(backbone=Transformer(), head=nn.Linear(4, 2)))
    terms = optim.layer_wise(0.5)(model)
    rates = {name: term.lr for name, term in terms.items()}
    assert rates["backbone.class_token"] == rates["backbone.embed.weight"] == 0.125
    assert {rate for name, rate in rates.items() if "blocks.0." in name} == {0.25}
    assert {rate for name, rate in rates.items() if "blocks.1." in name} == {0.5}
    assert rates["backbone.norm.weight"] == 0.5
    assert rates["head.weight"] == rates["head.bias"] == 1.0
    assert terms["backbone.norm.weight"] == optim.Terms("layer 2", 0.5, decays=False)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))


def test_a_block_with_a_list_inside_is_one_layer() -> None:
    stages = nn.Sequential(nn.Sequential(Residual(), Residual()), nn.Sequential(Residual()))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), stages, nn.Flatten(), nn.Linear(4, 2))
    rates = {name: term.lr for name, term in optim.layer_wise(0.5)(model).items() if name.endswith("weight")}
    by_layer: dict[float, set[str]] = {}
    for name, rate in rates.items():
        by_layer.setdefault(rate, set()).add(name.split(".body")[0])
    assert by_layer == {
        0.0625: {"0.weight", "1.weight"},
        0.125: {"2.0.0"},
        0.25: {"2.0.1"},
        0.5: {"2.1.0"},
        1.0: {"4.weight"},
    }


@pytest.mark.parametrize("decay", [0.0, 1.1, float("nan")])
def test_layer_wise_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ArgumentError, match=f"got decay={decay}"):
        optim.layer_wise(decay)
