"""What of a model is gathered and freed as one, where it is cut up among the processes (``shard``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from trueloop.errors import ArgumentError, UnknownNameError


@dataclass(frozen=True)
class FSDP:
    """How a model is cut up; all of it torch's.

    The curve is one process's, to rounding. Muon, which computes in bf16, is apart by as much. LBFGS, Rprop and
    Adafactor do not take weights in parts.

    Args:
        wrap: what is gathered and freed as one unit: modules of these classes (or of classes of these names); or each
            module that has so many parameters that are in no smaller unit. None takes the children of the outermost
            ``ModuleList`` or ``Sequential``: the blocks of most models. What is in no unit is gathered with the whole.
        mixed_precision: ``bf16`` gathers weights and computes in bf16, half the bytes; gradients are summed, and
            weights updated, in their own precision.
        reshard_after_forward: a unit is freed after its forward pass and gathered again for backward. False keeps it:
            a third less to communicate, and the whole model in memory.
        cpu_offload: weights, gradients and the optimizer's state are kept in the host's memory.
        checkpoint_activations: a unit's activations are computed again for backward, and not kept.
    """

    wrap: Sequence[type[nn.Module] | str] | int | None = None
    mixed_precision: Literal["bf16"] | None = None
    reshard_after_forward: bool = True
    cpu_offload: bool = False
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        if self.mixed_precision not in (None, "bf16"):
            raise ArgumentError(f"mixed_precision must be 'bf16' or None, got {self.mixed_precision!r}")
        if isinstance(self.wrap, int) and (self.wrap < 1 or isinstance(self.wrap, bool)):
            raise ArgumentError(f"wrap must be a number of parameters of at least 1, got wrap={self.wrap!r}")
        if isinstance(self.wrap, (str, type)):
            raise ArgumentError(f"wrap must be a sequence of classes or their names, got {self.wrap!r}; write a tuple")


def units_of(model: nn.Module, wrap: Sequence[type[nn.Module] | str] | int | None) -> list[nn.Module]:
    """The modules that are each gathered and freed as one; the whole model, which always is one, is not among them.

    A module that shares a weight with what is outside of it is none: the weight would come apart.

    Args:
        model: not cut up yet.
        wrap: see ``FSDP``.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> [unit.out_features for unit in units_of(model, None)], units_of(model, 6), units_of(model, ["Linear"])
        ([2, 1], [Linear(in_features=2, out_features=2, bias=True)], [Linear(...), Linear(...)])
    """
    if wrap is None:
        found = list(_blocks(model))
    elif isinstance(wrap, int):
        found = list(_large(model, wrap))
    else:
        known = sorted({type(module).__name__ for module in model.modules()})
        for one in wrap:
            name = one if isinstance(one, str) else one.__name__
            if not any(_is_of(module, one) for module in model.modules()):
                raise UnknownNameError("class of a module to wrap", name, known)
        found = [module for module in model.modules() if any(_is_of(module, one) for one in wrap)]
    owners = _owners(model)
    has_forward = [unit for unit in found if unit is not model and not isinstance(unit, (nn.ModuleList, nn.ModuleDict))]
    return [unit for unit in has_forward if (inside := _owners(unit)) and inside.items() <= owners.items()]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    is_container = isinstance(module, (nn.ModuleList, nn.Sequential))
    for child in module.children():
        if is_container and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield child
        else:
            yield from _blocks(child)


def _large(model: nn.Module, size: int) -> Iterator[nn.Module]:
    taken: set[nn.Parameter] = set()
    for module in reversed(list(model.modules())):
        left = [parameter for parameter in module.parameters() if parameter not in taken]
        if sum(parameter.numel() for parameter in left) >= size:
            taken.update(left)
            yield module


def _is_of(module: nn.Module, kind: type[nn.Module] | str) -> bool:
    return type(module).__name__ == kind if isinstance(kind, str) else isinstance(module, kind)


def _owners(model: nn.Module) -> Counter[nn.Parameter]:
    """In how many places each parameter stands."""
    return Counter(p for module in model.modules() for p in module._parameters.values() if p is not None)
