"""Lightning: what its trainer does around a module's hooks, told as if its loop stood in the script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import libcst as cst

from trueloop.doctor.source.attributes import attribute
from trueloop.doctor.source.events import Backward, Clipped, Scheduled, Stepped, Zeroed
from trueloop.doctor.source.library import is_optimizer, is_scheduler
from trueloop.doctor.source.loops import loop, through
from trueloop.doctor.source.machine import End, Machine
from trueloop.doctor.source.modules import parts
from trueloop.doctor.source.values import (
    Args,
    At,
    Bound,
    Class,
    Constant,
    Function,
    Items,
    Kwargs,
    Object,
    Unknown,
    Value,
    constant,
)

TAKEN_OVER = ("backward", "optimizer_step", "optimizer_zero_grad")
"""Hooks by which a module does a part of the ritual itself: what it then does in all is not known."""


class Schedule(NamedTuple):
    """A schedule that ``configure_optimizers`` gives, and whether it is stepped with every batch."""

    of: Value
    every_step: bool


class Configured(NamedTuple):
    """What ``configure_optimizers`` gives; no optimizers if that is not known."""

    optimizers: tuple[Value, ...] = ()
    schedules: tuple[Schedule, ...] = ()


def is_lightning(value: Value | None) -> bool:
    """Whether a value is a LightningModule."""
    return isinstance(value, Object) and value.kind.rpartition(".")[2] == "LightningModule"


def is_data(value: Value | None) -> bool:
    """Whether a value is a LightningDataModule."""
    return isinstance(value, Object) and value.kind.rpartition(".")[2] == "LightningDataModule"


def of_trainer(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """``trainer.fit(model, …)``, ``validate`` and ``test``, of a module of the user's."""
    model = args[0] if args else kwargs.get("model")
    data = args[1] if len(args) > 1 else next((kwargs[one] for one in _DATA if one in kwargs), None)
    if not isinstance(model, Object) or not is_lightning(model):
        return Unknown(name, via="call")
    if name == "fit":
        held_out = args[2] if len(args) > 2 else kwargs.get("val_dataloaders", data if is_data(data) else None)
        fit(m, model, data, held_out, node)
    elif name in ("validate", "test"):
        kind = "val" if name == "validate" else "test"
        evaluate(m, model, _batches(m, model, data, kind, node), "validation" if kind == "val" else kind, node)
    return Unknown(name, via="call")


_DATA = ("train_dataloaders", "datamodule", "dataloaders")


def fit(m: Machine, model: Object, data: Value | None, held_out: Value | None, node: cst.CSTNode) -> None:
    """Trains a module: each batch through ``training_step``, the held-out ones through ``validation_step``.

    Args:
        m: the machine.
        model: the module.
        data: what it learns from: a loader, a data module, or None for what the module itself makes.
        held_out: the same for validation.
        node: where it is asked for.
    """
    _hook(m, model, "setup", Constant("fit"), node=node)
    train, others = _batches(m, model, data, "train", node), _batches(m, model, held_out, "val", node)
    schedules = configured(m, model, node).schedules

    def step(batch: Value) -> None:
        _learn(m, model, batch, node)
        _schedule(m, model, [one.of for one in schedules if one.every_step], node)

    def epoch() -> End:
        _hook(m, model, "on_train_epoch_start", node=node)
        _through(m, train, step, node)
        evaluate(m, model, others, "validation", node)
        _hook(m, model, "on_train_epoch_end", node=node)
        _schedule(m, model, [one.of for one in schedules if not one.every_step], node)
        return None

    loop(m, node, None, [_nothing], epoch)


def evaluate(m: Machine, model: Object, over: Value, kind: str, node: cst.CSTNode) -> None:
    """Goes through held-out batches in eval mode and without gradients; the module's modes come back after it."""
    grad = m.state["grad"]
    modes = [(one, one.attrs.get("training")) for one in parts(model)]
    m.write(m.state, "grad", False)
    for one, _ in modes:
        m.write(one.attrs, "training", False)
    _through(m, over, lambda batch: _hook(m, model, f"{kind}_step", batch, _number(), node=node), node)
    _hook(m, model, f"on_{kind}_epoch_end", node=node)
    for one, mode in modes:
        m.write(one.attrs, "training", mode)
    m.write(m.state, "grad", grad)


def alone(m: Machine, model: Object, node: cst.CSTNode) -> None:
    """A module that nothing in the file trains, as a trainer would."""
    fit(m, model, None, None, node)
    evaluate(m, model, _batches(m, model, None, "test", node), "test", node)


def of_module(m: Machine, model: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value | None:
    """The methods that a LightningModule brings; None for others."""
    if name == "manual_backward" and args:
        m.tell(Backward(node, m.at, args[0], kwargs, False, m.state["grad"]))
        return Constant(None)
    if name == "optimizers":
        return _one_or_all(m, model, configured(m, model, node).optimizers, name, node)
    if name == "lr_schedulers":
        return _one_or_all(m, model, tuple(one.of for one in configured(m, model, node).schedules), name, node)
    if name == "clip_gradients":
        of = args[0] if args else kwargs.get("optimizer", Unknown())
        limit = args[1] if len(args) > 1 else kwargs.get("gradient_clip_val", Unknown())
        held = of.option("params", 0) if isinstance(of, Object) else None
        m.tell(Clipped(node, m.at, held or Unknown("parameter", of, "parameters"), name, limit))
        return Constant(None)
    return Unknown(name, model, "call", args) if name in _TALK else None


_TALK = frozenset(["log", "log_dict", "print", "save_hyperparameters", "toggle_optimizer", "untoggle_optimizer"])
"""What these do changes no gradient that a rule asks for."""


def configured(m: Machine, model: Object, node: cst.CSTNode) -> Configured:
    """The optimizers and schedules of a module; asked of it once, as Lightning does."""
    found = model.attrs.get(_CONFIGURED)
    if not isinstance(found, Configured):
        m.write(model.attrs, _CONFIGURED, Configured())  # for one that asks for its optimizers where it makes them
        value = _hook(m, model, "configure_optimizers", node=node)
        found = _read(value) if value is not None else Configured()
        m.write(model.attrs, _CONFIGURED, found)
    return found


_CONFIGURED = ("configured",)


def _read(value: Value) -> Configured:
    if isinstance(value, Items) and value.pairs is not None:
        return Configured((value.pairs.get("optimizer", Unknown()),), _schedules(value.pairs.get("lr_scheduler")))
    those = value.items if isinstance(value, Items) and value.attrs.get("each") is None else (value,)
    if those is not None and len(those) == 2 and all(isinstance(one, Items) and one.pairs is None for one in those):
        optimizers, schedules = ((one.items or ()) if isinstance(one, Items) else () for one in those)
        return Configured(optimizers, tuple(found for one in schedules for found in _schedules(one)))
    each = [_read(one) if isinstance(one, Items) else Configured((one,)) for one in those or ()]
    optimizers = tuple(found for one in each for found in one.optimizers)
    if not all(isinstance(one, Object) and is_optimizer(one.kind) for one in optimizers):
        return Configured()
    return Configured(optimizers, tuple(found for one in each for found in one.schedules))


def _schedules(value: Value | None) -> tuple[Schedule, ...]:
    every_step = False
    if isinstance(value, Items) and value.pairs is not None:
        every_step = constant(value.pairs.get("interval"), "epoch") == "step"
        value = value.pairs.get("scheduler")
    return (Schedule(value, every_step),) if isinstance(value, Object) and is_scheduler(value.kind) else ()


def _one_or_all(m: Machine, model: Object, those: tuple[Value, ...], name: str, node: cst.CSTNode) -> Value:
    if not those:  # the same unknown each time: it is the same optimizer
        return attribute(m, _shadow(m, model), name, node)
    return those[0] if len(those) == 1 else Items("list", node, m.at, {"items": those})


def _shadow(m: Machine, model: Object) -> Unknown:
    found = model.attrs.get(_SHADOW)
    if not isinstance(found, Unknown):
        found = Unknown("self")
        m.write(model.attrs, _SHADOW, found)
    return found


_SHADOW = ("shadow",)


def _learn(m: Machine, model: Object, batch: Value, node: cst.CSTNode) -> None:
    value = _hook(m, model, "training_step", batch, _number(), node=node)
    if isinstance(value, Items) and value.pairs is not None:
        value = value.pairs.get("loss")
    optimizers = configured(m, model, node).optimizers
    by_hand = constant(attribute(m, model, "automatic_optimization", node)) is False
    own = isinstance(model.cls, Class) and any(model.cls.find(hook) is not None for hook in TAKEN_OVER)
    if value is None or by_hand or own or len(optimizers) != 1:
        return
    where, at = _end_of(m, model, "training_step", node)
    m.tell(Zeroed(where, at, optimizers[0]))
    m.tell(Backward(where, at, value, {}, False, m.state["grad"]))
    m.tell(Stepped(where, at, optimizers[0], None, False))


def _schedule(m: Machine, model: Object, schedules: Sequence[Value], node: cst.CSTNode) -> None:
    by_hand = constant(attribute(m, model, "automatic_optimization", node)) is False
    where, at = _end_of(m, model, "configure_optimizers", node)
    for one in schedules if not by_hand else ():
        m.tell(Scheduled(where, at, one, (Unknown("metric"),)))


def _through(m: Machine, over: Value, step: Callable[[Value], object], node: cst.CSTNode) -> None:
    """Batches, one after the other; of several loaders, those of the first."""
    if isinstance(over, Items):
        over = over.all()[0] if over.pairs is None and over.all() else Unknown("batches")
    through(m, node, over, step)


def _batches(m: Machine, model: Object, given: Value | None, kind: str, node: cst.CSTNode) -> Value:
    """A loader that was given, or what a data module or the module itself makes."""
    of = model if given is None else given
    if given is not None and not is_data(given):
        return given
    if isinstance(of, Object) and is_data(of):
        _hook(m, of, "setup", Constant("test" if kind == "test" else "fit"), node=node)
    found = _hook(m, of, f"{kind}_dataloader", node=node) if isinstance(of, Object) else None
    return found or Unknown("batches")


def _hook(m: Machine, of: Object, name: str, *args: Value, node: cst.CSTNode) -> Value | None:
    """Calls a method of the user's class; None if it has none of this name."""
    found = of.cls.find(name) if isinstance(of.cls, Class) else None
    return m.invoke(m, Bound(found, of), args, {}, node) if isinstance(found, Function) else None


def _end_of(m: Machine, of: Object, name: str, node: cst.CSTNode) -> tuple[cst.CSTNode, At]:
    """Where a method of the user's hands over: its last ``return``."""
    found = of.cls.find(name) if isinstance(of.cls, Class) else None
    if not isinstance(found, Function):
        return node, m.at
    return _last_return(found.node.body) or found.node, m.at._replace(unit=found.unit)


def _last_return(node: cst.CSTNode) -> cst.Return | None:
    for one in reversed(node.children):
        inside = one if isinstance(one, cst.Return) else _last_return(one) if isinstance(one, _BLOCKS) else None
        if inside is not None:
            return inside
    return None


_BLOCKS = (cst.IndentedBlock, cst.SimpleStatementLine, cst.SimpleStatementSuite, cst.If, cst.Else, cst.With, cst.For)


def _number() -> Value:
    return Unknown("batch_idx", kind="int")


def _nothing() -> None:
    return None
