"""What is frozen and what rests in a model: not in any state dict, and changed by observers in the middle of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import nn


class Modes(NamedTuple):
    """Names of weights that want no gradient, and of modules in eval mode."""

    frozen: tuple[str, ...]
    resting: tuple[str, ...]


def modes_of(model: nn.Module) -> Modes:
    """As they are now.

    Example:
        >>> modes_of(nn.Sequential(nn.Linear(1, 1).requires_grad_(False), nn.Dropout().eval()))
        Modes(frozen=('0.weight', '0.bias'), resting=('1',))
    """
    return Modes(
        tuple(name for name, weight in model.named_parameters() if not weight.requires_grad),
        tuple(name for name, module in model.named_modules() if not module.training),
    )


def captured(model: nn.Module, given: Modes) -> dict[str, Any]:
    """The modes now, and those that the run began with; not of the modules while the whole model is evaluated."""
    now = modes_of(model)
    return {
        "given": [list(names) for names in given],
        "frozen": list(now.frozen),
        "resting": list(now.resting) if model.training else None,
    }


def put_back(model: nn.Module, saved: Mapping[str, Any]) -> list[str]:
    """Does again what the run did to weights and modules; what the user has set since, the run did not touch.

    Returns:
        What was changed, a line each.
    """
    frozen_then, resting_then = saved["given"]
    changed = []
    for name, weight in model.named_parameters():
        frozen = name in saved["frozen"]
        if _moved(name, frozen_then, saved["frozen"]) and weight.requires_grad == frozen:
            weight.requires_grad_(not frozen)
            changed.append(f"{name} {'frozen' if frozen else 'thawed'}")
    for name, module in model.named_modules():
        if saved["resting"] is not None and _moved(name, resting_then, saved["resting"]):
            rests = name in saved["resting"]
            if module.training == rests:
                module.training = not rests
                changed.append(f"{name or 'the model'} in {'eval' if rests else 'train'} mode")
    if not changed:
        return []
    return [f"as the run had done: {', '.join(changed[:3])}{f' … ({len(changed)} in all)' if len(changed) > 3 else ''}"]


def _moved(name: str, before: Collection[str], after: Collection[str]) -> bool:
    return (name in before) != (name in after)
