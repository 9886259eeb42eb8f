"""Optimizers by factory: settings now, the model later, when it is on its device.

Each factory is a ``Callable[[nn.Module], Optimizer]`` that trains what wants a gradient, in groups (``groups.py``),
with torch's fused kernels where torch has them (``fused`` in ``param_groups`` says so). Settings and their defaults
are torch's own; all of them are passed on, also those that a signature here does not name (``maximize`` …).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.optim.groups import GroupRule, Terms, check_patterns, is_embedding, matches, no_decay, trainable
from trueloop.optim.momentum import beginning_late
from trueloop.optim.parts import lies_in_parts
from trueloop.optim.together import Together

OptimizerFactory = Callable[[nn.Module], Optimizer]


@dataclass(frozen=True)
class Factory:
    """Makes an optimizer for a model; made by ``factory``, ``adamw`` and the others.

    Args:
        kind: the class of the optimizer.
        settings: what it is given by keyword, but ``params`` and ``fused``.
        groups: the rule that gives each parameter its rate and decay.
        fused: True or False as torch takes it; None tries, and falls back to plain.
    """

    kind: type[Optimizer]
    settings: Mapping[str, Any]
    groups: GroupRule = no_decay
    fused: bool | None = None

    def __repr__(self) -> str:
        groups = getattr(self.groups, "__name__", repr(self.groups))
        given = [f"{name}={value!r}" for name, value in self.settings.items()]
        return f"{self.kind.__name__}({', '.join([*given, f'groups={groups}', f'fused={self.fused}'])})"

    def __call__(self, model: nn.Module) -> Optimizer:
        """The optimizer for ``model``; ArgumentError where the model has no trainable parameter."""
        return self.over(model, lambda name, parameter: True)

    def over(self, model: nn.Module, takes: Callable[[str, nn.Parameter], bool]) -> Optimizer:
        """The optimizer for those trainable parameters of ``model`` that ``takes(name, parameter)``."""
        parameters = {name: parameter for name, parameter in trainable(model) if takes(name, parameter)}
        if not parameters:
            raise ArgumentError(
                f"{self.kind.__name__} needs a parameter to train, got none: of the {len(list(model.parameters()))} "
                f"parameters of {type(model).__name__} none wants a gradient; "
                "call requires_grad_(True) on what is to train"
            )
        settings = dict(self.settings)
        if "fused" in _known(self.kind):
            settings["fused"] = self._fuses(model, parameters.values()) if self.fused is None else self.fused
        made = _make(self.kind, self._grouped(model, parameters), settings)
        is_sgd = type(made) is torch.optim.SGD and settings["fused"] and settings.get("momentum")
        return beginning_late(made) if is_sgd else made  # type: ignore[arg-type]

    def _grouped(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        lr, decay = (self.settings.get(name, _default(self.kind, name)) for name in ("lr", "weight_decay"))
        terms = self.groups(model)
        groups: dict[Terms, dict[str, Any]] = {}
        for name, parameter in parameters.items():
            term = terms[name] if decay else replace(terms[name], decays=True)  # no decay at all: nothing to spare
            if term not in groups:
                kind = ("decay" if term.decays else "no_decay") if decay else ""
                group: dict[str, Any] = {"name": f"{term.name} {kind}".strip() or "all", "params": []}
                if term.lr != 1:
                    group["lr"] = lr * term.lr
                if not term.decays:
                    group["weight_decay"] = 0.0
                groups[term] = group
            groups[term]["params"].append((name, parameter))
        return [groups[term] for term in sorted(groups, key=lambda term: not term.decays)]  # what decays goes first

    def _fuses(self, model: nn.Module, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether torch's fused kernel takes these settings and parameters: asked of one element of each sort, or of
        one tensor that is cut up among processes (DTensor).
        """
        if any(is_embedding(module) and module.sparse for module in model.modules()):
            return False  # no fused kernel takes sparse gradients, and says so only at the first step
        if self.settings.get("dampening"):
            return False  # the first momentum is not dampened, and the fused kernel dampens one that comes late
        sorts = {(parameter.device, parameter.dtype, lies_in_parts(parameter)): parameter for parameter in parameters}
        probes = [
            (torch.zeros_like(one) if is_cut_up else torch.zeros(1, device=device, dtype=dtype)).requires_grad_()
            for (device, dtype, is_cut_up), one in sorted(sorts.items(), key=lambda item: str(item[0]))
        ]
        for probe in probes:
            probe.grad = torch.zeros_like(probe)
        try:
            optimizer = self.kind(probes, **{**self.settings, "fused": True})
            with torch.no_grad():  # unwrapped, so that those who listen to all optimizers do not hear it
                inspect.unwrap(type(optimizer).step)(optimizer)
        except RuntimeError:
            return False
        return True


def factory(
    kind: type[Optimizer], *, groups: GroupRule = no_decay, fused: bool | None = None, **settings: Any
) -> Factory:
    """A factory for any optimizer class.

    Args:
        kind: a class whose objects are made as torch's are: ``kind(parameters, **settings)``.
        groups: the rule for rates and decay by parameter. The default, ``no_decay``, spares norms, biases and
            embeddings where there is a weight decay, and makes one group where there is none.
        fused: None takes torch's fused kernel where there is one for the model's dtype and device.
        **settings: those of ``kind``; what is not given keeps the class's default.

    Raises: UnknownNameError for a setting that the class does not have, ArgumentError for a value that it refuses,
    both at once; ArgumentError for a model with nothing to train when the optimizer is made.

    Example:
        >>> optimizer = factory(torch.optim.NAdam, lr=1e-3)(nn.Linear(3, 1))
        >>> type(optimizer).__name__, optimizer.param_groups[0]["name"]
        ('NAdam', 'all')
    """
    known = _known(kind)
    for name in settings:
        if name not in known and "**" not in known:
            raise UnknownNameError(f"setting of {kind.__name__}", name, known)
    if fused is not None and "fused" not in known:
        raise ArgumentError(f"torch has no fused {kind.__name__}, got fused={fused}; leave it out")
    for name in ("lr", "weight_decay"):
        value = settings.get(name, 0.0)
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ArgumentError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
        if not 0 <= float(value) < math.inf:
            raise ArgumentError(f"{name} must be finite and 0 or more, got {name}={float(value)}; {_ADVICE[name]}")
    momentum = settings.get("momentum", 0.0)
    if not 0 <= momentum < 1:
        raise ArgumentError(f"momentum must be from 0 to less than 1, got momentum={momentum}; 0.9 is usual")
    if getattr(torch.optim, kind.__name__, None) is kind:  # torch's own checks, now and not when the run starts
        _make(kind, [{"params": [torch.zeros(1, 1, requires_grad=True)]}], settings)
    return Factory(kind, settings, groups, fused)


def sgd(
    lr: float | Tensor = 1e-3,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    groups: GroupRule = no_decay,
    fused: bool | None = None,
    **settings: Any,
) -> Factory:
    """Stochastic gradient descent, with momentum on request. Its weight decay is L2, added to the gradient.

    Example:
        >>> sgd(lr=0.1, momentum=0.9, nesterov=True)(nn.Linear(3, 1)).param_groups[0]["momentum"]
        0.9
    """
    given: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return factory(torch.optim.SGD, groups=groups, fused=fused, **given, **settings)


def adam(
    lr: float | Tensor = 1e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    groups: GroupRule = no_decay,
    fused: bool | None = None,
    **settings: Any,
) -> Factory:
    """Adam (Kingma & Ba 2015). Its weight decay is L2, added to the gradient: ``adamw`` has the decoupled one.

    Example:
        >>> adam(lr=1e-3)(nn.Linear(3, 1)).param_groups[0]["fused"]
        True
    """
    given: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    return factory(torch.optim.Adam, groups=groups, fused=fused, **given, **settings)


def adamw(
    lr: float | Tensor = 1e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    groups: GroupRule = no_decay,
    fused: bool | None = None,
    **settings: Any,
) -> Factory:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Example:
        >>> optimizer = adamw(lr=1e-3, weight_decay=0.05)(nn.Linear(3, 1))
        >>> [(group["name"], group["weight_decay"]) for group in optimizer.param_groups]
        [('decay', 0.05), ('no_decay', 0.0)]
    """
    given: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    return factory(torch.optim.AdamW, groups=groups, fused=fused, **given, **settings)


def rmsprop(
    lr: float | Tensor = 1e-2,
    *,
    alpha: float = 0.99,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    groups: GroupRule = no_decay,
    **settings: Any,
) -> Factory:
    """RMSprop (Hinton's lecture 6e).

    Example:
        >>> rmsprop(lr=1e-2)(nn.Linear(3, 1)).param_groups[0]["alpha"]
        0.99
    """
    given: dict[str, Any] = {"lr": lr, "alpha": alpha, "momentum": momentum, "weight_decay": weight_decay}
    return factory(torch.optim.RMSprop, groups=groups, **given, **settings)


def muon(
    lr: float = 0.02,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.1,
    rest: Factory | None = None,
    skip: Sequence[str] | None = None,
    groups: GroupRule = no_decay,
    **settings: Any,
) -> OptimizerFactory:
    """Muon (Jordan 2024) for the hidden layers' matrices, another optimizer for all the rest, as one optimizer.

    Muon takes matrices only. Embeddings, norms, biases, convolutions and the output layer go to ``rest``.

    Args:
        lr: of Muon. torch's default (1e-3) is for ``adjust_lr_fn="match_rms_adamw"``; this one is Jordan's.
        rest: the factory for what Muon does not take; ``adamw(lr=3e-4)`` if None.
        skip: names or patterns (as in ``rates``) of matrices that go to ``rest`` too; None is the output layer, taken
            to be the last matrix in order of definition; ``()`` skips nothing.

    Errors (when the optimizer is made): ArgumentError for a model without a hidden matrix, UnknownNameError for a
    name in ``skip`` that matches nothing.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [(group["name"], group["param_names"]) for group in muon(rest=adam())(model).param_groups]
        [('Muon decay', ['0.weight', '2.weight']), ('Adam all', ['0.bias', '2.bias', '4.weight', '4.bias'])]
    """
    given: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    first = factory(torch.optim.Muon, groups=groups, **given, **settings)
    second = adamw(lr=3e-4) if rest is None else rest

    def make(model: nn.Module) -> Optimizer:
        hidden = _hidden_matrices(model, skip)
        if not hidden:
            raise ArgumentError(
                f"Muon trains the matrices of hidden layers, and {type(model).__name__} has none; use adamw, or skip=()"
            )
        parts = [first.over(model, lambda name, parameter: name in hidden)]
        if any(name not in hidden for name, _ in trainable(model)):
            parts.append(second.over(model, lambda name, parameter: name not in hidden))
        for part in parts:
            for group in part.param_groups:
                group["name"] = f"{type(part).__name__} {group['name']}"
        return Together(*parts)

    return make


def adagrad(
    lr: float | Tensor = 1e-2, *, groups: GroupRule = no_decay, fused: bool | None = None, **settings: Any
) -> Factory:
    """Adagrad (Duchi et al. 2011).

    Example:
        >>> adagrad(lr=0.1)(nn.Linear(3, 1)).param_groups[0]["fused"]
        True
    """
    return factory(torch.optim.Adagrad, groups=groups, fused=fused, lr=lr, **settings)


def adadelta(lr: float | Tensor = 1.0, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Adadelta (Zeiler 2012).

    Example:
        >>> adadelta(rho=0.95)(nn.Linear(3, 1)).param_groups[0]["rho"]
        0.95
    """
    return factory(torch.optim.Adadelta, groups=groups, lr=lr, **settings)


def adafactor(lr: float | Tensor = 1e-2, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Adafactor (Shazeer & Stern 2018): Adam with a factored second moment, so that it needs little memory.

    Example:
        >>> adafactor(lr=1e-3)(nn.Linear(3, 1)).param_groups[0]["lr"]
        0.001
    """
    return factory(torch.optim.Adafactor, groups=groups, lr=lr, **settings)


def adamax(lr: float | Tensor = 2e-3, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Adamax: Adam with the infinity norm (Kingma & Ba 2015).

    Example:
        >>> adamax(lr=1e-3)(nn.Linear(3, 1)).param_groups[0]["lr"]
        0.001
    """
    return factory(torch.optim.Adamax, groups=groups, lr=lr, **settings)


def nadam(lr: float | Tensor = 2e-3, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Adam with Nesterov momentum (Dozat 2016).

    Example:
        >>> nadam(momentum_decay=0.01)(nn.Linear(3, 1)).param_groups[0]["momentum_decay"]
        0.01
    """
    return factory(torch.optim.NAdam, groups=groups, lr=lr, **settings)


def radam(lr: float | Tensor = 1e-3, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Adam with a rectified variance (Liu et al. 2020).

    Example:
        >>> len(radam(weight_decay=0.1, decoupled_weight_decay=True)(nn.Linear(3, 1)).param_groups)
        2
    """
    return factory(torch.optim.RAdam, groups=groups, lr=lr, **settings)


def asgd(lr: float | Tensor = 1e-2, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Averaged stochastic gradient descent (Polyak & Juditsky 1992).

    Example:
        >>> asgd(alpha=0.5)(nn.Linear(3, 1)).param_groups[0]["alpha"]
        0.5
    """
    return factory(torch.optim.ASGD, groups=groups, lr=lr, **settings)


def rprop(lr: float | Tensor = 1e-2, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Resilient backpropagation (Riedmiller & Braun 1993), for whole-data batches.

    Example:
        >>> rprop(etas=(0.5, 1.1))(nn.Linear(3, 1)).param_groups[0]["etas"]
        (0.5, 1.1)
    """
    return factory(torch.optim.Rprop, groups=groups, lr=lr, **settings)


def lbfgs(lr: float | Tensor = 1.0, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """L-BFGS (Liu & Nocedal 1989): its ``step`` needs a closure, and its parameters one group.

    Example:
        >>> lbfgs(line_search_fn="strong_wolfe")(nn.Linear(3, 1)).param_groups[0]["max_iter"]
        20
    """
    return factory(torch.optim.LBFGS, groups=groups, lr=lr, **settings)


def sparse_adam(lr: float | Tensor = 1e-3, *, groups: GroupRule = no_decay, **settings: Any) -> Factory:
    """Adam for the sparse gradients of ``Embedding(sparse=True)``.

    Example:
        >>> sparse_adam()(nn.Embedding(9, 2, sparse=True)).param_groups[0]["param_names"]
        ['weight']
    """
    return factory(torch.optim.SparseAdam, groups=groups, lr=lr, **settings)


_ADVICE = {"lr": "1e-3 is usual for Adam, 0.1 for SGD", "weight_decay": "0 turns it off"}


def _make(kind: type[Optimizer], groups: list[dict[str, Any]], settings: Mapping[str, Any]) -> Optimizer:
    try:
        return kind(groups, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{kind.__name__} refuses its settings {dict(settings)}: {error}") from error


def _known(kind: type[Optimizer]) -> set[str]:
    """The settings of an optimizer class; ``**`` among them if it takes any."""
    parameters = list(inspect.signature(kind).parameters.values())[1:]
    return {"**" if parameter.kind is parameter.VAR_KEYWORD else parameter.name for parameter in parameters}


def _default(kind: type[Optimizer], name: str) -> Any:
    parameter = inspect.signature(kind).parameters.get(name)
    return 0.0 if parameter is None or parameter.default is parameter.empty else parameter.default


def _hidden_matrices(model: nn.Module, skip: Sequence[str] | None) -> set[str]:
    named = model.named_parameters(remove_duplicate=False)
    every = [(name, parameter) for name, parameter in named if parameter.ndim > 1]
    if skip is None:  # a tied output layer is found under its own name, and is known by what it is
        skipped = {id(parameter) for _, parameter in every[-1:]}
    else:
        check_patterns(model, skip)
        skipped = {id(parameter) for name, parameter in every if any(matches(name, pattern) for pattern in skip)}
    plain = no_decay(model)
    return {
        name
        for name, parameter in trainable(model)
        if parameter.ndim == 2 and plain[name].decays and id(parameter) not in skipped
    }
