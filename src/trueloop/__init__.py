"""trueloop: a PyTorch training loop that is correct, fast, and tells you what is wrong with your training.

The front door. Nothing is computed here, and nothing heavy is imported before it is asked for (PEP 562), so that
``import trueloop`` and ``trueloop --help`` do not wait for torch.

Example:
    >>> import trueloop as tl
    >>> tl.schedules.constant()(0)
    1.0
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trueloop import data, doctor, errors, events, objective, observers, optim, precision, schedules
    from trueloop.checkpoint.saving import Saving
    from trueloop.data.split import Normalizer, split
    from trueloop.events import (
        EpochEnded,
        EvalEnded,
        Event,
        Found,
        RunEnded,
        RunStarted,
        Saved,
        SaveFailed,
        StepEnded,
        Stop,
    )
    from trueloop.loop import watch
    from trueloop.parallel.replicate import DDP
    from trueloop.parallel.units import FSDP
    from trueloop.plan import Plan
    from trueloop.recipe import Recipe
    from trueloop.result import Result
    from trueloop.seeds import seed_all
    from trueloop.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "DDP",
    "FSDP",
    "EpochEnded",
    "EvalEnded",
    "Event",
    "Found",
    "Normalizer",
    "Plan",
    "Recipe",
    "Result",
    "RunEnded",
    "RunStarted",
    "SaveFailed",
    "Saved",
    "Saving",
    "StepEnded",
    "Stop",
    "Trainer",
    "data",
    "doctor",
    "errors",
    "events",
    "objective",
    "observers",
    "optim",
    "precision",
    "schedules",
    "seed_all",
    "split",
    "watch",
]

_ROOMS = {"data", "doctor", "errors", "events", "objective", "observers", "optim", "precision", "schedules"}
_HOMES = {
    **dict.fromkeys(
        ("EpochEnded", "EvalEnded", "Event", "Found", "RunEnded", "RunStarted", "SaveFailed", "Saved"), "events"
    ),
    **dict.fromkeys(("StepEnded", "Stop"), "events"),
    "Saving": "checkpoint.saving",
    "DDP": "parallel.replicate",
    "FSDP": "parallel.units",
    "Result": "result",
    "Trainer": "trainer",
    "Recipe": "recipe",
    "Plan": "plan",
    "seed_all": "seeds",
    "watch": "loop",
    **dict.fromkeys(("Normalizer", "split"), "data.split"),
}


if not TYPE_CHECKING:  # a type checker knows all names from above, and is to say which are none

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            return import_module(f"trueloop.{name}")
        if name in _HOMES:
            found: object = getattr(import_module(f"trueloop.{_HOMES[name]}"), name)
            globals()[name] = found  # so that `case tl.StepEnded()` in somebody's loop comes here only once
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
