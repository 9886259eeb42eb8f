"""What a run is: all that must be saved for a resume that changes nothing, and how it is put back.

``capture`` reads the parts of a run into three trees of plain values and tensors (``model``, ``optimizer``, ``state``:
a file each), ``restore`` puts them back in the one right order: model, optimizers, averages, counters, loader. The RNGs
come last, before the first batch is fetched: ``loop.train`` calls ``Run.resumed`` there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from trueloop.checkpoint.modes import Modes, captured, modes_of, put_back
from trueloop.checkpoint.rngs import state_of_rngs
from trueloop.checkpoint.weights import fitting
from trueloop.data.generators import generators_in, put, states
from trueloop.errors import ArgumentError, CheckpointError, DataError
from trueloop.optim.parts import cut_as
from trueloop.step import laid_out_as

FILES = {"model": "model.safetensors", "optimizer": "optimizer.safetensors", "state": "state.safetensors"}
"""The trees of ``capture``, and the files that their tensors go to."""


@runtime_checkable
class Stateful(Protocol):
    """Whatever can be saved: torch's convention."""

    def state_dict(self) -> Any:
        """All of its state: numbers, strings, tensors, arrays; lists, tuples and dicts of them."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Goes on from what ``state_dict`` gave."""


class Positioned(Protocol):
    """A feed, as far as a resume is concerned."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: Mapping[str, Any], /) -> None: ...


@dataclass
class Parts:
    """All that holds state in a run."""

    model: nn.Module
    optimizers: Mapping[str, torch.optim.Optimizer]
    given: Mapping[str, Sequence[Mapping[str, Any]]]
    """The settings of each optimizer's groups as the user gave them, before any schedule moved them."""
    modes: Modes
    """What was frozen, and what was in eval mode, when the user gave the model."""
    rituals: Mapping[str, Stateful]
    place: Stateful
    modes_to_come: Modes | None = None
    """Those that the model gets back when it has been evaluated; None while it is not."""
    loss: nn.Module | None = None
    averaged: nn.Module | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    feed: Positioned | None = None
    generators: Mapping[str, Any] = field(default_factory=dict)
    """Of random numbers, kept by the user's own objects."""
    observers: Sequence[object] = ()
    keep: Mapping[str, Stateful] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the run was asked for, in plain values: compared when it is gone on with."""


def capture(parts: Parts) -> dict[str, dict[str, Any]]:
    """The state of a run, not copied: trees by the names of ``FILES``."""
    return {
        "model": dict(parts.model.state_dict()),
        "optimizer": {name: optimizer.state_dict() for name, optimizer in parts.optimizers.items()},
        "state": {
            "kinds": {name: type(optimizer).__name__ for name, optimizer in parts.optimizers.items()},
            "given": {name: [dict(group) for group in groups] for name, groups in parts.given.items()},
            "rituals": {name: _without_functions(ritual.state_dict()) for name, ritual in parts.rituals.items()},
            "place": parts.place.state_dict(),
            "buffers": {
                "model": _passing_buffers(parts.model),
                "loss": {} if parts.loss is None else _passing_buffers(parts.loss),
                "averaged": {} if parts.averaged is None else _passing_buffers(parts.averaged),
            },
            "modes": captured(parts.modes, parts.modes_to_come or modes_of(parts.model)),
            "loss": None if parts.loss is None else dict(parts.loss.state_dict()),
            "averaged": None if parts.averaged is None else dict(parts.averaged.state_dict()),
            "metrics": {name: _state_of_metric(metric) for name, metric in parts.metrics.items()},
            "feed": None if parts.feed is None else parts.feed.state(),
            "observers": {name: observer.state_dict() for name, observer in _stateful(parts.observers)},
            "keep": {name: kept.state_dict() for name, kept in parts.keep.items()},
            "settings": dict(parts.settings),
            "generators": states(parts.generators),
            "rngs": state_of_rngs(),
        },
    }


def restore(parts: Parts, trees: Mapping[str, Mapping[str, Any]], *, weights: bool = True) -> list[str]:
    """Puts a captured state back into parts that were set up anew; the RNGs are left to the caller.

    Args:
        parts: the run's.
        trees: as ``capture`` gave them.
        weights: whether to put back the model as well, or to leave it as it is.

    Returns:
        What differs between the run that was saved and the one that goes on, a line each.

    Raises:
        DataError: the model is of another architecture, with a table of the names that differ.
        CheckpointError: an optimizer is another one, or the state of something kept has nobody to go to. In each case
            nothing was changed.
    """
    check(parts.model, parts.loss, parts.optimizers, parts.keep, trees)
    state = trees["state"]
    if weights:
        restore_model(parts.model, trees)
        if not parts.model.training:
            parts.model.train()  # as at a run's beginning, and not after the modes that the run had set
    lines = differences(state["settings"], parts.settings)
    if any(ritual.get("scheduler") for ritual in state["rituals"].values()):
        old = ": the old one is used, as torch's scheduler keeps its settings"
        lines = [line + old if line.startswith("schedule was ") else line for line in lines]
    lines += put_back(parts.model, state["modes"])
    for name, optimizer in parts.optimizers.items():
        _load_optimizer(optimizer, trees["optimizer"][name])
        lines += _settings_given_now(
            name, optimizer, state["given"][name], parts.given[name], state["rituals"].get(name, {}).get("scheduler")
        )
    for name, ritual in parts.rituals.items():
        ritual.load_state_dict(state["rituals"][name])
    if parts.loss is not None:
        if state["loss"]:
            parts.loss.load_state_dict(state["loss"])
        _put_passing_buffers(parts.loss, state["buffers"]["loss"])
    if parts.averaged is not None and state["averaged"] is not None:
        parts.averaged.load_state_dict(state["averaged"])
        _put_passing_buffers(parts.averaged, state["buffers"]["averaged"])
    for name, metric in parts.metrics.items():
        if name in state["metrics"]:
            _load_metric(metric, state["metrics"][name])
    parts.place.load_state_dict(state["place"])
    if parts.feed is not None and state["feed"] is not None:
        parts.feed.load_state(state["feed"])
    saved = dict(state["observers"])
    for name, observer in _stateful(parts.observers):
        if name in saved:
            observer.load_state_dict(saved.pop(name))
        else:
            lines.append(f"observer {name} was not there when the checkpoint was saved: it begins anew")
    lines += [f"observer {name} is not there any more: its state is left aside" for name in saved]
    for name, kept in parts.keep.items():
        if name in state["keep"]:
            kept.load_state_dict(state["keep"][name])
        else:
            lines.append(f"keep[{name!r}] was not there when the checkpoint was saved: it begins anew")
    return lines


def check(
    model: nn.Module,
    loss: nn.Module | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
    keep: Mapping[str, object],
    trees: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raises, before anything is changed, where a checkpoint is of another model or optimizer, or has more.

    Raises:
        DataError: the model, or a loss with weights, is of another architecture, with a table of the names that differ.
        CheckpointError: an optimizer is another one, or the state of something kept has nobody to go to.
    """
    fitting(model, trees["model"])
    if loss is not None and trees["state"]["loss"]:
        try:
            fitting(loss, trees["state"]["loss"])
        except DataError as error:
            raise DataError(f"the loss is not the one of the checkpoint: {error}") from None
    for name, optimizer in optimizers.items():
        _check_optimizer(name, optimizer, trees["optimizer"], trees["state"]["kinds"])
    for name in trees["state"]["keep"].keys() - keep.keys():
        raise CheckpointError(
            f"the checkpoint holds the state of keep[{name!r}], and nothing of that name is kept now; "
            f"before resuming: trainer.keep[{name!r}] = …"
        )


def restore_model(model: nn.Module, trees: Mapping[str, Mapping[str, Any]]) -> None:
    """What a forward pass depends on: weights; buffers, also those that ``state_dict`` leaves out; its generators."""
    tensors, _ = fitting(model, trees["model"])
    others = {name: value for name, value in trees["model"].items() if not isinstance(value, Tensor)}
    own = model.state_dict()
    tensors = {name: cut_as(own[name], tensor) for name, tensor in tensors.items()}
    model.load_state_dict({**others, **tensors}, strict=False)  # fitting has seen to it that all is there
    _put_passing_buffers(model, trees["state"]["buffers"]["model"])
    generators = generators_in(model, "model")
    put(generators, {where: state for where, state in trees["state"]["generators"].items() if where in generators})


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of a checkpoint and those of the run that goes on from it, a line each.

    Example:
        >>> differences({"batch_size": 32, "lr": 0.1}, {"batch_size": 64, "lr": 0.1})
        ['batch_size was 32, is 64']
    """
    return [
        f"{name} was {then.get(name)}, is {now.get(name)}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]


def check_kept(keep: Mapping[str, object]) -> None:
    """Raises for an object that cannot be saved, before the run begins."""
    for name, kept in keep.items():
        if not isinstance(kept, Stateful):
            raise ArgumentError(
                f"trainer.keep[{name!r}] must have state_dict() and load_state_dict(state), got "
                f"{type(kept).__name__}; give it both, or keep an object that has them"
            )


# --- the parts ------------------------------------------------------------------------------------------------------


def _passing_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that ``state_dict`` leaves out (``persistent=False``)."""
    kept = module.state_dict(keep_vars=True).keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in kept}


def _put_passing_buffers(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    device = next((tensor.device for tensor in itertools.chain(module.parameters(), module.buffers())), None)
    owners = dict(module.named_modules())
    for name, value in saved.items():
        owner, _, own = name.rpartition(".")
        buffers = owners[owner]._buffers if owner in owners else {}
        now = buffers.get(own)
        if now is not None and (now.shape, now.dtype) == (value.shape, value.dtype):
            with torch.no_grad():
                now.copy_(value)
        elif own in buffers:  # one that grows in the run, or that its first batch makes
            buffers[own] = value.to(device if now is None else now.device, copy=True)


def _stateful(observers: Sequence[object]) -> list[tuple[str, Stateful]]:
    """Observers that hold state, by their kind and how many of that kind came before."""
    found: dict[str, Stateful] = {}
    for observer in observers:
        if isinstance(observer, Stateful) and not isinstance(observer, type):
            kind = type(observer).__name__
            number = sum(name.partition("-")[0] == kind for name in found)
            found[f"{kind}-{number + 1}" if number else kind] = observer
    return list(found.items())


def _state_of_metric(metric: Metric) -> dict[str, Any]:
    """The states of a torchmetric and of those inside it; ``state_dict`` has them only where they are persistent."""
    return {
        name: {"states": dict(one.metric_state), "updates": one._update_count}
        for name, one in metric.named_modules()
        if isinstance(one, Metric)
    }


def _load_metric(metric: Metric, saved: Mapping[str, Any]) -> None:
    for name, one in metric.named_modules():
        if isinstance(one, Metric) and name in saved:
            for key, value in saved[name]["states"].items():
                if key in one._defaults:
                    setattr(one, key, _on(value, one.device))
            one._update_count, one._computed = saved[name]["updates"], None


def _on(value: Any, device: torch.device) -> Any:
    return [part.to(device) for part in value] if isinstance(value, list) else value.to(device)


def _check_optimizer(
    name: str, optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], kinds: Mapping[str, str]
) -> None:
    called = f"optimizer {name!r}" if name else "the optimizer"
    if name not in saved:
        raise CheckpointError(f"the checkpoint holds no state of {called}; it has: {', '.join(map(repr, saved))}")
    kind = type(optimizer).__name__
    if kinds[name] != kind:
        raise CheckpointError(
            f"{called} is {kind}, and the checkpoint holds the state of {kinds[name]}; resume with {kinds[name]}, or "
            "take the weights alone: trueloop.checkpoint.weights.load_weights"
        )
    then = [len(group["params"]) for group in saved[name]["param_groups"]]
    now = [len(group["params"]) for group in optimizer.param_groups]
    if then != now:
        raise CheckpointError(
            f"{called} has parameter groups of {now} tensors, and that of the checkpoint had {then}: parameters were "
            "frozen, thawed or grouped otherwise; resume with the same groups"
        )


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """As torch does it, and then dtypes and layouts as they were.

    torch casts fp32 state of bf16 weights down to bf16; and a checkpoint holds contiguous tensors, while fused kernels
    walk through weights and state as they lie in memory: state of channels_last weights must lie as they do.
    """
    optimizer.load_state_dict(dict(saved))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        loaded = optimizer.state.get(parameter, {})
        for key, value in saved["state"].get(index, {}).items():
            if isinstance(value, Tensor):
                loaded[key] = laid_out_as(parameter, value).to(loaded[key].device)


def _settings_given_now(
    name: str,
    optimizer: torch.optim.Optimizer,
    then: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
    scheduler: object,
) -> list[str]:
    """What the user has changed since goes before what was saved, and is said.

    Not the rate where a torch scheduler moves it: how far it has come is known to nobody but the scheduler.
    """
    called = f"optimizer {name!r}: " if name else ""
    lines = []
    for number, (group, before, given) in enumerate(zip(optimizer.param_groups, then, now, strict=False)):
        for key, value in given.items():
            if key in before and before[key] != value:
                where = f" of group {number}" if len(now) > 1 else ""
                changed = f"{called}{key}{where} was {before[key]}, is {value}"
                if key == "lr" and scheduler is not None:
                    lines.append(f"{changed}: the old one is used, which torch's scheduler goes on from")
                else:
                    group[key] = value
                    lines.append(f"{changed}: the new one is used")
    return lines


def _without_functions(tree: Any) -> Any:
    """A scheduler's state may hold functions (a warm-up's shape), which its constructor makes again."""
    if isinstance(tree, dict):
        return {key: _without_functions(value) for key, value in tree.items() if not _is_function(value)}
    if isinstance(tree, list):
        return [_without_functions(value) for value in tree]
    return tree


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, (Tensor, type))
