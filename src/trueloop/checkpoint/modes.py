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


def captured(given: Modes, now: Modes) -> dict[str, Any]:
    """Modes as a checkpoint holds them.

    Args:
        given: those that the user gave; a run wakes a model that rests, with all that is in it.
        now: those that training goes on with. Where the whole model rests, nobody knows which of its modules would not:
            none is captured.
    """
    return {
        "given": [list(given.frozen), [] if "" in given.resting else list(given.resting)],
        "frozen": list(now.frozen),
        "resting": None if "" in now.resting else list(now.resting),
    }


def put_back(model: nn.Module, saved: Mapping[str, Any]) -> list[str]:
    """Does again what the run did to weights and modules; what the user has set since, the run did not touch.

    Returns:
        What the run had done, and what is not as it was in the run, a line each.
    """
    frozen_given, resting_given = saved["given"]
    frozen, resting = saved["frozen"], saved["resting"]
    if resting is None:
        resting_given = resting = modes_of(model).resting
    done = []
    for name, weight in model.named_parameters():
        if _moved(name, frozen_given, frozen):
            weight.requires_grad_(name not in frozen)
            done.append(f"{name} {'frozen' if name in frozen else 'thawed'}")
    for name, module in model.named_modules():
        if _moved(name, resting_given, resting):
            module.training = name not in resting
            done.append(f"{name} in {'eval' if name in resting else 'train'} mode")
    now = modes_of(model)
    return [
        *_line("as the run had done", done),
        *_line("frozen now, trained in the run", _without(now.frozen, frozen)),
        *_line("trained now, frozen in the run", _without(frozen, now.frozen)),
        *_line("in eval mode now, in train mode in the run", _without(now.resting, resting)),
        *_line("in train mode now, in eval mode in the run", _without(resting, now.resting)),
    ]


def _moved(name: str, before: Collection[str], after: Collection[str]) -> bool:
    return (name in before) != (name in after)


def _without(names: Collection[str], others: Collection[str]) -> list[str]:
    return [name or "the model" for name in names if name not in others]


def _line(what: str, names: list[str]) -> list[str]:
    more = f" … ({len(names)} in all)" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"] if names else []
