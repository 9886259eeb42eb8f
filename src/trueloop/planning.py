"""The plan of a run, written down: what was decided, in words, from what was set up."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trueloop.consult import listening_plan
from trueloop.data.feed import Feed
from trueloop.data.part import Part
from trueloop.errors import ArgumentError
from trueloop.objective import Objective, loss_name
from trueloop.parallel.replicate import DDP
from trueloop.parallel.units import FSDP
from trueloop.plan import Group, Plan, Rate, course
from trueloop.schedules import Schedule, Stepped
from trueloop.setup import Length, Setup
from trueloop.step import Ritual

BY_PART = "; each process looks at its own part of the weights"


def make_plan(
    setup: Setup,
    ritual: Ritual,
    run: Length,
    feed: Feed,
    schedule: Schedule | None,
    schedule_text: str,
    *,
    evaluates: str,
    saves: str | None,
    notes: list[str],
) -> Plan:
    """The plan of one run."""
    choices, optimizer = setup.choices, ritual.optimizer
    per_batch = feed.batch_size
    held = {id(p) for p in ritual.parameters}
    idle = [name for name, p in choices.model.named_parameters() if p.requires_grad and id(p) not in held]
    if isinstance(choices.loss, nn.Module):
        idle += [f"loss.{name}" for name, p in choices.loss.named_parameters() if p.requires_grad and id(p) not in held]
    if idle:
        notes.append(
            f"{len(idle)} trainable tensors are in no optimizer and will not move: {', '.join(idle[:5])}"
            + (" …" if len(idle) > 5 else "")
        )
    if not choices.model.training:
        notes.append("the model was in eval mode; it is put in train mode, all of it")
    return Plan(
        steps=run.steps,
        epochs=run.epochs,
        steps_per_epoch=run.steps_per_epoch,
        samples_per_step=None if per_batch is None else per_batch * choices.accumulate,
        samples=feed.samples,
        data=feed.reason,
        ritual=_parts(setup, ritual, schedule_text),
        rate=_rate(schedule, schedule_text, ritual.base_rates[0], run.steps)
        if ritual.scheduler is None
        else _rate_of_torch(ritual.scheduler, optimizer, f"torch's {schedule_text}", run),
        groups=tuple(_groups(optimizer, ritual.base_rates)),
        frozen=sum(p.numel() for p in choices.model.parameters() if id(p) not in held),
        device=setup.device_reason,
        precision=setup.precision.reason,
        memory=setup.memory_reason,
        processes=tuple(_processes(setup, feed)),
        compiles=setup.compile_reason,
        average=None if choices.average is None else str(choices.average),
        evaluates=evaluates,
        saves=saves,
        doctor=listening_plan() + BY_PART * setup.is_cut_up if choices.doctor else None,
        notes=(*notes, *(setup.used if ritual.schedule is not None else ())),
    )


def _parts(setup: Setup, ritual: Ritual, schedule_text: str) -> tuple[str, ...]:
    choices, settings = setup.choices, setup.choices.settings
    loss = choices.loss.criterion if isinstance(choices.loss, Objective) else choices.loss
    fused = ", fused" if any(group.get("fused") for group in ritual.optimizer.param_groups) else ""
    micro = choices.accumulate > 1
    parts = [
        "forward" + (f" in {setup.precision.name}" if setup.precision.dtype else ""),
        f"loss {loss_name(loss)}" if loss is not None else "loss",
        "zero" + (" at the window's start" if micro else ""),
        f"divide by the window's share (accumulates {choices.accumulate})" if micro else None,
        "backward" + (" scaled" if ritual.scaler else ""),
        "penalty" if settings.penalty else None,
        "unscale" if ritual.scaler else None,
        f"clip norm {settings.clip_norm:g}" if settings.clip_norm is not None else None,
        f"clip value {settings.clip_value:g}" if settings.clip_value is not None else None,
        f"{type(ritual.optimizer).__name__}{fused}",
        f"schedule {schedule_text}" if schedule_text != "constant" else None,
        "average" if choices.average is not None else None,
    ]
    return tuple(part for part in parts if part)


def _groups(optimizer: torch.optim.Optimizer, base_rates: Sequence[float]) -> Iterator[Group]:
    for index, (group, lr) in enumerate(zip(optimizer.param_groups, base_rates, strict=True)):
        name = group.get("name", "all" if len(optimizer.param_groups) == 1 else f"group {index}")
        weights = sum(p.numel() for p in group["params"])
        yield Group(name, len(group["params"]), weights, lr, float(group.get("weight_decay", 0.0)))


def _processes(setup: Setup, feed: Feed) -> Iterator[str]:
    """How the processes share the run."""
    choices, here = setup.choices, setup.world
    asked = choices.parallel if isinstance(choices.parallel, str) else type(choices.parallel).__name__.lower()
    why = (
        "asked for"
        if asked != "auto"
        else "auto: torchrun has started several; FSDP is for what one device cannot hold"
    )
    if here.alone:
        if choices.parallel not in (None, "auto"):
            yield f"1, though {asked} was asked for: start more by torchrun, or by trueloop train … --processes N"
        return
    threads = f"{torch.get_num_threads()} thread{'' if torch.get_num_threads() == 1 else 's'} each"
    if setup.is_cut_up:
        how = choices.parallel if isinstance(choices.parallel, FSDP) else FSDP()
        yield f"{here.size}, {threads}; FSDP ({why}): each holds and saves a part of all weights, gradients, moments"
        yield f"weights are gathered {_unit(how)} for each forward and backward pass, gradients are summed once a step"
    else:
        ddp = choices.parallel if isinstance(choices.parallel, DDP) else DDP()
        trained = [p for p in choices.model.parameters() if p.requires_grad]
        sent = sum(p.numel() * (2 if ddp.compress else p.element_size()) for p in trained)
        yield f"{here.size}, {threads}; DDP ({why}): each has the whole model"
        yield f"gradients are summed once a step: {sent / 1e6:,.3g} MB" + (", rounded to bf16" if ddp.compress else "")
    if any(isinstance(module, _BatchNorm) for module in choices.model.modules()):
        synced = isinstance(choices.parallel, DDP) and choices.parallel.sync_batchnorm
        yield "BatchNorm: " + (
            "statistics over all processes (sync_batchnorm=True)"
            if synced
            else "each normalises by its own samples, and rank 0's running statistics are kept"
        )
    if feed.batch_size is not None:
        own = [Part(rank, here.size).rows(feed.batch_size) for rank in (0, here.size - 1)]
        most, least = (rows.stop - rows.start for rows in own)
        sizes = f"{most}" if most == least else f"{least} or {most}"
        hint = "" if least else "; raise batch_size"
        yield f"of a batch's {feed.batch_size:,} samples each computes {sizes}{hint}"


def _unit(how: FSDP) -> str:
    if how.wrap is None:
        return "block by block"
    if isinstance(how.wrap, int):
        return f"by parts of {how.wrap:,} weights"
    return " and ".join(one if isinstance(one, str) else one.__name__ for one in how.wrap) + " by itself"


WALKED = 10_000
"""Steps for which a torch scheduler is tried out beforehand: 10 µs each."""


def _rate_of_torch(stepped: Stepped, optimizer: torch.optim.Optimizer, text: str, run: Length) -> Rate:
    """The course of a torch scheduler, by walking a copy of it over the whole run; unknown for a plateau.

    Raises:
        ArgumentError: it fails on the way, as a OneCycleLR does that is shorter than the run.
    """
    if stepped.every == "evaluation" or run.steps is None or run.steps > WALKED:
        return Rate(text)
    if stepped.every == "epoch" and run.steps_per_epoch is None:
        return Rate(text)
    settings = [{k: v for k, v in group.items() if k not in ("params", "fused")} for group in optimizer.param_groups]
    stand_in = torch.optim.SGD([{**group, "params": [torch.zeros(1)]} for group in settings], lr=0.0)
    scheduler = copy.deepcopy(stepped.scheduler, {id(optimizer): stand_in})
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its order: no step is taken between
        for step in range(run.steps):
            seen.append((step, float(stand_in.param_groups[0]["lr"])))
            if stepped.every == "epoch" and (step + 1) % (run.steps_per_epoch or 1):
                continue
            if step + 1 < run.steps:
                try:
                    scheduler.step()
                except ValueError as error:
                    raise ArgumentError(
                        f"{type(scheduler).__name__} fails after step {step + 1} of {run.steps}: {error}; make it as "
                        "long as the run"
                    ) from error
    return course(text, seen, 1.0)


def _rate(schedule: Schedule | None, text: str, base: float, steps: int | None) -> Rate:
    if schedule is None:
        return Rate(text, base, base, 0, base)
    if steps is None:
        return Rate(text, start=base * schedule(0))
    stride = max(1, steps // 2_000)  # a long run's peak is found to within this many steps
    seen = sorted({*range(0, steps, stride), *(j for j in getattr(schedule, "joins", ()) if j < steps), steps - 1})
    multipliers = [(step, schedule(step)) for step in seen]
    for step, value in multipliers:
        if not 0 <= value < math.inf:
            raise ArgumentError(f"schedule must give a finite multiplier of 0 or more, got {value!r} at step {step}")
    return course(text, multipliers, base)


def describe_evaluation(
    held_out: Feed | None, every: int | None, every_steps: int | None, metrics: Mapping[str, Any]
) -> str:
    """When evaluations come, on what and of what.

    Example:
        >>> describe_evaluation(None, 1, None, {})
        'never: no validation data was given'
    """
    if held_out is None:
        return "never: no validation data was given"
    when = [] if every is None else ["every epoch" if every == 1 else f"every {every} epochs"]
    when += [] if every_steps is None else [f"every {every_steps} steps"]
    samples = "an unknown number of" if held_out.samples is None else f"{held_out.samples:,}"
    size = "" if held_out.batch_size is None else f" in batches of {held_out.batch_size}"
    return f"{' and '.join([*when, 'at the end'])}, on {samples} samples{size}: {', '.join(['loss', *metrics])}"


def in_words(value: Any) -> Any:
    """A setting as ``run.json`` shows it: a function by its name, and not by its place in memory.

    Example:
        >>> in_words({"loss": nn.functional.mse_loss, "accumulate": 2, "device": None})
        {'loss': 'mse_loss', 'accumulate': 2, 'device': None}
    """
    if isinstance(value, Mapping):
        return {str(name): in_words(part) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: in_words(part) for name, part in vars(value).items()}
    if value is None or isinstance(value, (int, float)):
        return value
    return getattr(value, "__qualname__", None) or str(value)
