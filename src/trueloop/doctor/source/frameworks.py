"""Frameworks do a part of the ritual themselves: which of them knows what a thing of theirs does."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from trueloop.doctor.source import accelerators, engines, lightning
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.values import Args, Class, Function, Kwargs, Object, Value

if TYPE_CHECKING:
    import libcst as cst

_LIGHTNING = frozenset(
    [
        "lightning.Trainer",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.trainer.Trainer",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.trainer.Trainer",
    ]
)


def of_object(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value | None:
    """What ``of.name(…)`` does, where ``of`` is a framework's; None if it is none's."""
    kind = of.kind
    if accelerators.is_accelerator(kind):
        return accelerators.of_accelerator(m, name, args, kwargs, node)
    if kind == accelerators.ENGINE:
        return accelerators.of_engine(m, of, name, args, kwargs, node)
    if kind == engines.ENGINE:
        return engines.of_engine(m, of, name, args, kwargs, node)
    if kind == engines.OURS:
        return engines.of_ours(m, of, name, args, kwargs, node)
    if engines.is_transformers(of):
        return engines.of_transformers(m, of, name, node)
    if kind in _LIGHTNING:
        return lightning.of_trainer(m, name, args, kwargs, node)
    return None


def trains(of: Object, entered: Container[int]) -> bool:
    """Whether it has a hook with which its framework trains, and nothing has called that yet."""
    hook = "training_step" if lightning.is_lightning(of) else "compute_loss" if engines.is_transformers(of) else ""
    found = of.cls.find(hook) if hook and isinstance(of.cls, Class) else None
    return isinstance(found, Function) and id(found.node) not in entered


def alone(m: Machine, of: Object, node: cst.CSTNode) -> None:
    """Has its framework use an object that nothing in the file hands to it."""
    if lightning.is_lightning(of):
        lightning.alone(m, of, node)
    elif engines.is_transformers(of):
        engines.alone(m, of, node)


def made(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value | None:
    """What a framework's function or class of this name gives, if more is to be known of it than its name."""
    if name == "deepspeed.initialize":
        return accelerators.engine(m, args, kwargs, node)
    last = name.rpartition(".")[2]
    if name.startswith("ignite.engine.") and last in engines.MAKERS:
        return engines.engine(m, last, args, kwargs, node)
    return args[0] if name == "accelerate.skip_first_batches" and args else None
