"""Which parameters train at which rate, and which decay: rules that give each parameter its terms.

A ``GroupRule`` looks at a model and gives ``{parameter name: Terms}`` for the trainable ones. Rules are combined by
wrapping: ``rates({"head": 10.0}, base=no_decay)`` refines what ``no_decay`` says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeGuard

from torch import nn

from trueloop.errors import ArgumentError, UnknownNameError


@dataclass(frozen=True)
class Terms:
    """How one parameter is trained, relative to the optimizer's settings.

    Args:
        name: what its group is called; parameters with equal terms share a group.
        lr: multiplier of the optimizer's rate.
        decays: whether the optimizer's weight decay holds for it.
    """

    name: str = ""
    lr: float = 1.0
    decays: bool = True


GroupRule = Callable[[nn.Module], Mapping[str, Terms]]

_NORM = re.compile(r"Norm(\dd)?$")  # BatchNorm2d, LayerNorm, RMSNorm, and those that people write themselves
_VECTOR = re.compile(r"bias|embed|(cls|class)_token")  # of a parameter: in_proj_bias, pos_embedding, class_token


def no_decay(model: nn.Module) -> dict[str, Terms]:
    """No weight decay on norms, biases, embeddings, and whatever has fewer than two dimensions.

    A weight that is tied does not decay if any of its owners is an embedding or a norm.

    Example:
        >>> {name: terms.decays for name, terms in no_decay(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))).items()}
        {'0.weight': True, '0.bias': False, '1.weight': False, '1.bias': False}
    """
    spared = {
        id(parameter)
        for module in model.modules()
        for leaf, parameter in module.named_parameters(recurse=False)
        if parameter.ndim < 2 or _VECTOR.search(leaf) or _is_norm(module) or is_embedding(module)
    }
    return {name: Terms(decays=id(parameter) not in spared) for name, parameter in trainable(model)}


def one_group(model: nn.Module) -> dict[str, Terms]:
    """Every parameter alike, as torch's optimizers do by themselves.

    Example:
        >>> set(one_group(nn.Linear(2, 2)).values()) == {Terms()}
        True
    """
    return {name: Terms() for name, _ in trainable(model)}


def rates(multipliers: Mapping[str, float], base: GroupRule = no_decay) -> GroupRule:
    """Other rates for some submodules.

    Args:
        multipliers: of the optimizer's rate, by name of a submodule or parameter (``"head"``) or a pattern over
            parameter names (``"backbone.*"``, ``"*.bias"``). Of several that match, the last one holds.
        base: the rule for all else; the multipliers are multiplied with its own.

    Errors (when the optimizer is made): UnknownNameError for a name that matches no parameter.

    Example:
        >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> {name: terms.lr for name, terms in rates({"head": 10.0})(model).items()}
        {'backbone.weight': 1.0, 'backbone.bias': 1.0, 'head.weight': 10.0, 'head.bias': 10.0}
    """
    for pattern, multiplier in multipliers.items():
        if not 0 <= multiplier < math.inf:
            raise ArgumentError(
                f"a rate's multiplier must be finite and 0 or more, got {multiplier} for {pattern!r}; "
                "1.0 leaves the rate as it is"
            )

    def rule(model: nn.Module) -> dict[str, Terms]:
        check_patterns(model, multipliers)
        terms = dict(base(model))
        for name, term in terms.items():
            for pattern, multiplier in multipliers.items():
                if matches(name, pattern):
                    terms[name] = replace(term, name=_join(term.name, pattern), lr=term.lr * multiplier)
        return terms

    return rule


def layer_wise(decay: float = 0.75, base: GroupRule = no_decay) -> GroupRule:
    """Rates that fall from the last layer to the first: ``decay`` times less a layer (BEiT, ELECTRA; for fine-tuning).

    Layers are counted in order of definition: the items of each ``Sequential`` and ``ModuleList``, and the modules
    beside them. A module whose class occurs several times is a block: one layer, whatever is in it. What has no matrix
    (a norm) belongs to the layer before it; parameters beside the layers (a class token) to the first one.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> terms = layer_wise(0.5)(model)
        >>> [terms[f"{layer}.weight"].lr for layer in range(4)]
        [0.25, 0.25, 0.5, 1.0]
    """
    if not 0 < decay <= 1:
        raise ArgumentError(f"decay must be more than 0 and at most 1, got {decay=}; 1 gives all layers the same rate")

    def rule(model: nn.Module) -> dict[str, Terms]:
        depth: dict[int, int] = {}
        last = -1
        for module in _layers(model):
            parameters = list(module.parameters())
            last += any(parameter.ndim > 1 for parameter in parameters) and not _is_norm(module)
            for parameter in parameters:
                depth.setdefault(id(parameter), max(last, 0))  # a tied weight belongs to its first layer
        last = max(last, 0)
        terms = dict(base(model))
        for name, parameter in trainable(model):
            layer, term = depth.get(id(parameter), 0), terms[name]
            terms[name] = replace(term, name=_join(term.name, f"layer {layer}"), lr=term.lr * decay ** (last - layer))
        return terms

    return rule


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that want a gradient, each once, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter's name is meant by a pattern: its own name, a submodule's that it is in, or ``*`` for any."""
    return name == pattern or name.startswith(pattern + ".") or fnmatchcase(name, pattern)


def check_patterns(model: nn.Module, patterns: Iterable[str]) -> None:
    """UnknownNameError for a pattern that means none of the model's parameters (frozen ones count)."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise UnknownNameError("submodule", pattern, {prefix for name in names for prefix in _prefixes(name)})


def is_embedding(module: nn.Module) -> TypeGuard[nn.Embedding | nn.EmbeddingBag]:
    """Whether the module is one of torch's lookup tables."""
    return isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _is_norm(module: nn.Module) -> bool:
    return any(_NORM.search(kind.__name__) for kind in type(module).__mro__)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that count as layers: lists are opened, and what holds a list unless its class comes again."""
    kinds = Counter(type(module) for module in model.modules())

    def inside(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            holds_list = any(_is_list(inner) for inner in child.modules())
            if _is_list(child) or (holds_list and kinds[type(child)] == 1):
                yield from inside(child)
            else:
                yield child

    return inside(model)


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _join(first: str, second: str) -> str:
    return f"{first} {second}".strip()
