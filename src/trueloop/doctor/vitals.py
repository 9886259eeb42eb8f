"""The norms around one optimizer step: of weights, of gradients, of what the step changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.parts import holds_none_of, own_part

if TYPE_CHECKING:
    from torch import Tensor


class Vitals(NamedTuple):
    """One entry a parameter, in the optimizer's order; parameters without a gradient have ``None`` as theirs."""

    parameters: tuple[Tensor, ...]
    weights: tuple[float, ...]
    """Euclidean norms before the step."""
    gradients: tuple[float | None, ...]
    updates: tuple[float, ...]
    """Norms of what the step changed."""
    lrs: tuple[float, ...]
    """The rate of each parameter's group."""


class Before(NamedTuple):
    """The weights before a step, kept until it has been taken."""

    parameters: tuple[Tensor, ...]
    copies: tuple[Tensor, ...]
    weights: tuple[float, ...]
    gradients: tuple[float | None, ...]
    lrs: tuple[float, ...]


def before_step(groups: list[tuple[list[Tensor], float]]) -> Before:
    """Copies the weights and reads the gradients, which some optimizers change.

    Args:
        groups: the parameters of each group, and its rate.
    """
    import torch

    held = [(p, lr) for ps, lr in groups for p in ps if not holds_none_of(p)]
    parameters, lrs = tuple(p for p, _ in held), tuple(lr for _, lr in held)
    if not parameters:
        return Before((), (), (), (), ())
    plain = [_normed(p) for p in parameters]
    weights = torch.stack([norm.float() for norm in torch._foreach_norm(plain)]).tolist()
    with_gradient = [_normed(p.grad) for p in parameters if p.grad is not None and not p.grad.is_sparse]
    norms = iter(torch.stack([n.float() for n in torch._foreach_norm(with_gradient)]).tolist() if with_gradient else ())
    gradients = tuple(None if p.grad is None or p.grad.is_sparse else next(norms) for p in parameters)
    return Before(parameters, tuple(p.clone() for p in plain), tuple(weights), gradients, lrs)


def after_step(before: Before) -> Vitals:
    """What the step did.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(4))
        >>> before = before_step([([weight], 0.1)])
        >>> weight.data += 3
        >>> vitals = after_step(before)
        >>> vitals.weights, vitals.gradients, vitals.updates
        ((2.0,), (None,), (6.0,))
    """
    import torch

    if not before.parameters:
        return Vitals((), (), (), (), ())
    moved = torch._foreach_sub([_normed(p) for p in before.parameters], list(before.copies))
    updates = torch.stack([norm.float() for norm in torch._foreach_norm(moved)]).tolist()
    return Vitals(before.parameters, before.weights, before.gradients, tuple(updates), before.lrs)


def _normed(tensor: Tensor) -> Tensor:
    """The values in a type that torch can take norms of: float8 and whole numbers are not."""
    values = own_part(tensor)
    has_norm = values.is_complex() or (values.is_floating_point() and values.element_size() > 1)
    return values if has_norm else values.float()
