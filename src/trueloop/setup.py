"""From what the user gave to what the loop needs; each decision with its reason, for the plan."""

from __future__ import annotations

import numbers
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from trueloop import schedules
from trueloop.cadence import cadence, mismatch
from trueloop.checkpoint.modes import Modes, modes_of
from trueloop.checks import check_count
from trueloop.data.device import choose_device
from trueloop.data.feed import Feed
from trueloop.errors import ArgumentError, UnknownNameError
from trueloop.finite import Guard, Latch, check
from trueloop.memory import keep_freed_blocks
from trueloop.objective import Objective, objective
from trueloop.optim import Average, Averaged, OptimizerFactory
from trueloop.parallel.reduce import sum_gradients
from trueloop.parallel.replicate import DDP, Replicated, synchronise_batchnorm
from trueloop.parallel.ritual import OwnRitual, SharedRitual
from trueloop.parallel.units import FSDP
from trueloop.parallel.world import World, wait_no_longer, world
from trueloop.precision import Precision, gradient_scaler, lay_out, precision
from trueloop.schedules import Schedule, Stepped
from trueloop.step import Ritual, Settings
from trueloop.tally import MetricFunction

OptimizerLike = torch.optim.Optimizer | OptimizerFactory
ScheduleLike = Schedule | Stepped | LRScheduler | Callable[[torch.optim.Optimizer], LRScheduler]
MetricLike = Metric | MetricFunction
Parallel = Literal["auto", "ddp", "fsdp"] | DDP | FSDP | None

_PLAIN = (bool, int, float, str, tuple, type(None))


@dataclass(frozen=True)
class Choices:
    """What the user gave to ``Trainer``, as it was given."""

    model: nn.Module
    loss: Callable[..., Any] | Objective | None
    optimizer: OptimizerLike | Mapping[str, OptimizerLike]
    schedule: ScheduleLike | Mapping[str, ScheduleLike] | None
    metrics: Mapping[str, MetricLike]
    settings: Settings
    accumulate: int
    precision: str
    memory_format: str | None
    compile: bool
    average: Average | None
    device: str | torch.device | None
    deterministic: bool
    doctor: bool
    parallel: Parallel
    process_timeout: float | None
    compare_every_steps: int | None


@dataclass
class Setup:
    """What lasts as long as the trainer: device, precision, optimizers, metrics."""

    choices: Choices
    world: World
    """The processes that train together: this one alone, unless torchrun has started more."""
    device: torch.device
    device_reason: str
    precision: Precision
    memory_reason: str
    compile_reason: str | None
    objective: Objective | None
    loss: nn.Module | None
    """The loss, where it is a module: it may have weights of its own."""
    optimizers: dict[str, torch.optim.Optimizer]
    base_rates: dict[str, list[float]]
    given: dict[str, list[dict[str, Any]]]
    """The settings of each optimizer's groups as the user gave them."""
    modes: Modes
    """Which weights and modules the user had frozen and put in eval mode."""
    metrics: dict[str, MetricLike]
    used: tuple[str, ...]
    """What the optimizers bring along from another trainer's schedule, in words."""
    averaged: Averaged | None
    """The average of the run's weights; None before a run."""
    is_cut_up: bool
    """The model's weights lie in parts on several processes (FSDP)."""

    @property
    def training_objective(self) -> Objective:
        """What is minimised, where that is not the user's own loop's to say."""
        if self.objective is None:
            raise ArgumentError(
                "expected a loss, got none: give Trainer(model, loss=…); only a loop of your own needs none"
            )
        return self.objective


def set_up(choices: Choices) -> Setup:
    """Moves the model to its device, builds optimizers, brings the loss into form. Once a trainer, at its first use."""
    model = choices.model
    here = World() if choices.parallel is None else world()
    device, device_reason = choose_device(choices.device)
    index: int | None = device.index  # torch's stub says int
    if device.type == "cuda" and index is None and not here.alone:
        device = torch.device("cuda", here.local_rank)
    if not here.alone and choices.process_timeout is not None:
        wait_no_longer(choices.process_timeout)
    memory = keep_freed_blocks() if device.type == "cpu" else ""
    chosen = precision(choices.precision, device)
    cut_up = None if here.alone else _cut_up(choices, device)
    if cut_up is None:
        _check_has_memory(model)
        model.to(device)
    if isinstance(choices.parallel, DDP) and choices.parallel.sync_batchnorm and not here.alone:
        synchronise_batchnorm(model, device)
    memory_reason = lay_out(model, choices.memory_format)
    form, compile_reason, loss = None, None, None
    if choices.loss is not None:
        form = choices.loss if isinstance(choices.loss, Objective) else objective(choices.loss)
        if (loss := _module_of(choices.loss)) is not None:
            loss.to(device)  # its class weights
        compute = form.compute
        if choices.compile:
            compute, compile_reason = compiled(compute, device)
        form = replace(form, compute=chosen.cast(compute, device))
    wanted = choices.optimizer if cut_up is None else given_again(choices.optimizer, cut_up, model)
    optimizers = build_optimizers(model, wanted)
    if cut_up is not None:
        _check_takes_parts(optimizers)
    if isinstance(choices.schedule, Mapping):
        for name in choices.schedule:
            if name not in optimizers:
                raise UnknownNameError("optimizer", name, optimizers)
    for metric in choices.metrics.values():
        if isinstance(metric, Metric):
            metric.to(device)
    base_rates = {
        name: [float(group.get("initial_lr", group["lr"])) for group in made.param_groups]
        for name, made in optimizers.items()
    }
    return Setup(
        choices=choices,
        world=here,
        device=device,
        device_reason="; ".join(filter(None, [f"{device}: {device_reason}", memory])),
        precision=chosen,
        memory_reason=memory_reason,
        compile_reason=compile_reason,
        objective=form,
        loss=loss,
        optimizers=optimizers,
        base_rates=base_rates,
        given={
            name: [
                {k: v for k, v in group.items() if isinstance(v, _PLAIN)} | {"lr": rate}
                for group, rate in zip(made.param_groups, base_rates[name], strict=True)
            ]
            for name, made in optimizers.items()
        },
        modes=modes_of(model),
        metrics=dict(choices.metrics),
        used=tuple(
            f"the optimizer's rate is {float(group['lr']):g} now; a schedule begins with {float(group['initial_lr']):g}"
            for made in optimizers.values()
            for group in made.param_groups
            if not isinstance(choices.schedule, (Stepped, LRScheduler))
            and group.get("initial_lr", group["lr"]) != group["lr"]
        ),
        averaged=None,
        is_cut_up=cut_up is not None,
    )


def _cut_up(choices: Choices, device: torch.device) -> dict[nn.Parameter, str] | None:
    """Cuts up the model among the processes, where that is asked for; gives the names of what its parameters were."""
    how = FSDP() if choices.parallel == "fsdp" else choices.parallel
    if not isinstance(how, FSDP):
        return None
    for name, value in (("memory_format", choices.memory_format), ("compile", choices.compile)):
        if value:
            raise ArgumentError(f"{name}={value!r} does not go with FSDP, whose weights lie in parts; leave it out")
    from trueloop.parallel.shard import shard  # DTensor takes 0.5 s to import

    names = {parameter: name for name, parameter in choices.model.named_parameters()}
    shard(choices.model, how, device, copies=choices.average is not None)
    return names


def given_again(
    wanted: OptimizerLike | Mapping[str, OptimizerLike], names: Mapping[nn.Parameter, str], model: nn.Module
) -> OptimizerLike | Mapping[str, OptimizerLike]:
    """Optimizers that were made before the model was cut up get its new parameters in place of the old ones.

    Raises:
        ArgumentError: one of them has taken steps already.
    """
    now = dict(model.named_parameters())
    for one in wanted.values() if isinstance(wanted, Mapping) else (wanted,):
        if not isinstance(one, torch.optim.Optimizer):
            continue
        if one.state:
            raise ArgumentError(
                f"the {type(one).__name__} has taken steps, and its state cannot be cut up among processes (FSDP); "
                "make it anew, or give a factory: trueloop.optim.adamw(lr=…)"
            )
        for group in one.param_groups:
            group["params"] = [now[names[p]] if p in names else p for p in group["params"]]
    return wanted


def _check_takes_parts(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    for one in optimizers.values():
        if isinstance(one, (torch.optim.LBFGS, torch.optim.Adafactor, torch.optim.Rprop)):
            raise ArgumentError(
                f"torch's {type(one).__name__} does not take weights that lie in parts on several processes (FSDP); "
                "train with another optimizer, or with parallel='ddp'"
            )


def _module_of(loss: Callable[..., Any] | Objective) -> nn.Module | None:
    """The module that computes a loss, if one does."""
    if isinstance(loss, Objective):
        loss = loss.criterion or loss.compute
    while isinstance(loss, partial):
        loss = loss.func
    return loss if isinstance(loss, nn.Module) else None


def begin_average(setup: Setup) -> None:
    """Begins the average of weights, which belongs to one run: the next one starts its own."""
    average = setup.choices.average
    setup.averaged = None if average is None else average.begin(setup.choices.model)


def build_optimizers(
    model: nn.Module, wanted: OptimizerLike | Mapping[str, OptimizerLike]
) -> dict[str, torch.optim.Optimizer]:
    """The optimizers by name; a lone one is called ``""``.

    A factory of a named optimizer trains the submodule of that name; an instance trains what it was made for.

    Raises:
        ArgumentError: no trainable parameter, or an optimizer that holds none of the model's parameters.
    """
    if not isinstance(wanted, Mapping):
        return {"": _build(model, model, wanted, "")}
    if not wanted:
        raise ArgumentError("optimizer must be an optimizer, a factory, or a dict of them by name; got an empty dict")
    built = {}
    for name, one in wanted.items():
        part = model
        if not isinstance(one, torch.optim.Optimizer):
            try:
                part = model.get_submodule(name)
            except AttributeError:
                children = ", ".join(child for child, _ in model.named_children())
                raise ArgumentError(
                    f"an optimizer factory called {name!r} trains the submodule of that name, which the model has not; "
                    f"it has: {children or 'none'}"
                ) from None
        built[name] = _build(model, part, one, name)
    return built


def _build(model: nn.Module, part: nn.Module, wanted: OptimizerLike, name: str) -> torch.optim.Optimizer:
    called = f"optimizer {name!r}" if name else "the optimizer"
    if not any(p.requires_grad for p in model.parameters()):
        raise ArgumentError(
            f"expected at least one trainable parameter, got none in {type(model).__name__}: all are frozen "
            "(requires_grad=False) or there are none; unfreeze some: p.requires_grad_(True)"
        )
    if isinstance(wanted, type):
        raise ArgumentError(
            f"{called} must be a factory or an instance, got the class {wanted.__name__}; write "
            f"trueloop.optim.{wanted.__name__.lower()}(lr=…), or {wanted.__name__}(model.parameters(), lr=…)"
        )
    if isinstance(wanted, partial) and isinstance(wanted.func, type) and issubclass(wanted.func, torch.optim.Optimizer):
        wanted = wanted([p for p in part.parameters() if p.requires_grad])
    made = wanted(part) if callable(wanted) and not isinstance(wanted, torch.optim.Optimizer) else wanted
    if not isinstance(made, torch.optim.Optimizer):
        raise ArgumentError(f"{called} must be a torch.optim.Optimizer or a factory of one, got {made!r}")
    own = {id(p) for p in model.parameters()}
    held = [p for group in made.param_groups for p in group["params"]]
    if not any(id(p) in own for p in held):
        raise ArgumentError(
            f"{called} holds none of the model's parameters (it holds {len(held)} others): was the model made again, "
            "copied or replaced after the optimizer was made? Make the optimizer last, or give a factory: "
            "trueloop.optim.adam(lr=…)"
        )
    return made


def compiled(compute: Callable[..., Any], device: torch.device) -> tuple[Callable[..., Any], str]:
    """Model and loss as one compiled function, where a compiler is found; else as they are, with the reason."""
    if device.type == "cpu":
        wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
        if not any(shutil.which(name) for name in wanted):
            return compute, f"NOT compiled: no C++ compiler found (looked for {', '.join(wanted)}); going on without"
    elif device.type == "cuda" and find_spec("triton") is None:
        return compute, "NOT compiled: triton is not installed; going on without"
    return torch.compile(compute), "model and loss, by torch.compile; the first step waits for it"


# --- what belongs to one run ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Length:
    """How long a run is; None where the data does not say."""

    epochs: int | None
    steps: int | None
    steps_per_epoch: int | None


def length(feed: Feed, accumulate: int, epochs: int | None, steps: int | None) -> Length:
    """The length of a run in epochs and optimizer steps.

    Raises:
        ArgumentError: neither or both of epochs and steps, or one of them below 1.
    """
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None:
            check_count(name, value, hint="to only evaluate, call evaluate()" if value == 0 else "")
    if (epochs is None) == (steps is None):
        raise ArgumentError(f"give the run's length as epochs or as steps, one of them; got {epochs=}, {steps=}")
    per_epoch = None if feed.batches is None else -(-feed.batches // accumulate)
    if epochs is not None:
        return Length(epochs, None if per_epoch is None else epochs * per_epoch, per_epoch)
    return Length(None, steps, per_epoch)


def _check_has_memory(model: nn.Module) -> None:
    empty = next((name for name, one in model.named_parameters() if one.is_meta), None)
    if empty is not None:
        raise ArgumentError(
            f"the weights are on the meta device, without memory ({empty}): FSDP on several processes gives them "
            "theirs, and elsewhere the model is to be built on a device"
        )


def make_ritual(
    setup: Setup, name: str, run: Length, notes: list[str], seed: int | None = None
) -> tuple[Ritual, Schedule | None, str, Latch | None]:
    """One optimizer's ritual for one run; its schedule, the schedule in words, and what watches losses on a device.

    What does not look right is added to ``notes``. The seed is that of forward passes; None where they are not ours, in
    a loop of the user's own.
    """
    optimizer = setup.optimizers[name]
    wanted = setup.choices.schedule
    wanted = wanted.get(name) if isinstance(wanted, Mapping) else wanted
    schedule, scheduler, text = _schedule(wanted, optimizer, setup.base_rates[name], name, run, notes)
    if schedule is not None:
        for group, base in zip(optimizer.param_groups, setup.base_rates[name], strict=True):
            group["initial_lr"] = base  # as torch's schedulers do, so that another trainer knows it
    scaler = gradient_scaler(setup.precision, setup.device, optimizer)
    guard, latch = _guard(setup, optimizer, scaler is not None)
    average = None
    if setup.averaged is not None and setup.choices.average is not None:
        average = (setup.averaged, partial(setup.choices.average.due, total_steps=run.steps))
        setup.choices.average.due(0, run.steps)  # raises now where it needs a length that is not known
    make: Callable[..., Ritual] = Ritual
    if not setup.world.alone:
        make = _shared(setup.choices, seed)
    ritual = make(
        setup.choices.model,
        optimizer,
        replace(setup.choices.settings, is_sum=setup.objective is not None and setup.objective.is_sum),
        schedule=schedule,
        scheduler=scheduler,
        scaler=scaler,
        average=average,
        base_rates=setup.base_rates[name],
        guard=guard,
    )
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    if setup.is_cut_up and setup.device.type == "cpu" and is_fused:
        from trueloop.parallel.aligned import aligned

        ritual.take_step = aligned(ritual.take_step)
    return ritual, schedule, text, latch


def _shared(choices: Choices, seed: int | None) -> Callable[..., Ritual]:
    how = choices.parallel
    ddp = how if isinstance(how, DDP) else DDP()
    if seed is None:
        return partial(OwnRitual, partial(sum_gradients, bucket_mb=ddp.bucket_mb, compress=ddp.compress))
    if how == "fsdp" or isinstance(how, FSDP):
        from trueloop.parallel.shard import Sharded, ShardedRitual

        return partial(ShardedRitual, Sharded(choices.model), seed)
    return partial(SharedRitual, Replicated(choices.model, ddp), seed)


def _guard(setup: Setup, optimizer: torch.optim.Optimizer, scaled: bool) -> tuple[Guard, Latch | None]:
    if scaled:
        return _no_guard, None  # the scaler skips what is not finite, and counts how often
    if setup.device.type == "cpu":
        return check, None
    latch = Latch(optimizer, setup.device)
    return latch, latch


def _no_guard(loss: torch.Tensor) -> None:
    return None


def _schedule(
    wanted: ScheduleLike | None,
    optimizer: torch.optim.Optimizer,
    base_rates: Sequence[float],
    name: str,
    run: Length,
    notes: list[str],
) -> tuple[Schedule | None, Stepped | None, str]:
    if wanted is None:
        return None, None, "constant"
    made = _made(wanted.scheduler if isinstance(wanted, Stepped) else wanted, optimizer, base_rates)
    if made is not None:
        wanted = replace(wanted, scheduler=made) if isinstance(wanted, Stepped) else made
    torch_scheduler = wanted.scheduler if isinstance(wanted, Stepped) else wanted
    if isinstance(torch_scheduler, LRScheduler) and torch_scheduler.optimizer is not optimizer:
        raise ArgumentError(
            f"the {type(torch_scheduler).__name__} moves the rates of another optimizer than the one that trains"
            + (f" ({name!r})" if name else "")
            + "; make it of that one, or as schedule=functools.partial(StepLR, step_size=30), say"
            + (", or give a dict of schedules by optimizer" if name else "")
        )
    if not isinstance(wanted, (Stepped, LRScheduler)) and not callable(wanted):
        raise ArgumentError(f"schedule must be a function step -> multiplier or a torch LRScheduler, got {wanted!r}")
    known = {"epochs": run.epochs, "steps": run.steps, "steps_per_epoch": run.steps_per_epoch}
    wrong = mismatch(cast(Schedule, wanted), **known)
    if wrong:
        notes.append(wrong)
    if isinstance(wanted, (Stepped, LRScheduler)):
        chosen, reason = cadence(wanted, **known)
        return None, chosen, reason
    schedule = cast(Schedule, wanted)
    text = schedules.describe(schedule)
    if run.steps is not None:
        return schedules.bind(schedule, run.steps), None, text
    if isinstance(schedule, schedules.Curve) and schedules.length(schedule) is None:
        raise ArgumentError(
            f"{text} is as long as the run, and the data does not say how long that is; "
            "give the run in steps=…, or the schedule total_steps=…"
        )
    return schedule, None, text


def _made(maker: object, optimizer: torch.optim.Optimizer, base_rates: Sequence[float]) -> LRScheduler | None:
    """The torch scheduler of a function of the optimizer; None for a function of the step."""
    if isinstance(maker, (LRScheduler, schedules.Curve)) or not callable(maker):
        return None
    function = maker.func if isinstance(maker, partial) else maker
    failure: Exception | None = None
    if not (isinstance(function, type) and issubclass(function, LRScheduler)):
        try:
            if isinstance(maker(0), (numbers.Real, torch.Tensor)):
                return None
        except Exception as error:  # it may want more than a number: the optimizer
            failure = error
    for group, base in zip(optimizer.param_groups, base_rates, strict=True):  # where the last run did not leave it
        group["lr"] = base
        group.pop("initial_lr", None)
    try:
        made = maker(optimizer)
    except Exception:
        if failure is None:
            raise
        raise ArgumentError(f"schedule failed at step 0: {type(failure).__name__}: {failure}") from failure
    if not isinstance(made, LRScheduler):
        raise ArgumentError(
            f"schedule must be a function step -> multiplier, or optimizer -> LRScheduler; got one that gives {made!r}"
        )
    return made
