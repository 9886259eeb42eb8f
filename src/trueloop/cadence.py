"""How often a torch LRScheduler is to be stepped, and whether a schedule's length fits the run.

torch leaves both to the user: the same ``CosineAnnealingLR(T_max=1000)`` is right once a step and wrong once an epoch,
and nothing complains. Its length usually tells what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch.optim import lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler

from trueloop.schedules import Curve, Schedule, Stepped, describe, length

_ASK = "if it is not what you want, say so: schedules.stepped(scheduler, every=…)"


def cadence(
    scheduler: LRScheduler | Stepped, *, epochs: int | None, steps: int | None, steps_per_epoch: int | None
) -> tuple[Stepped, str]:
    """The scheduler with its cadence, and the reason in words.

    Args:
        scheduler: of torch; one that was ``stepped`` keeps the cadence it was given.
        epochs: of the run; None if it is counted in steps.
        steps: optimizer steps of the run; None if the data does not say how long it is.
        steps_per_epoch: optimizer steps in an epoch; None if that is not known.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)
        >>> chosen, reason = cadence(scheduler, epochs=10, steps=1000, steps_per_epoch=100)
        >>> chosen.every, reason
        ('step', 'once a step: T_max=1000 is the number of steps')
    """
    if isinstance(scheduler, Stepped):
        return scheduler, f"once {_once(scheduler.every)}: as asked"
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return Stepped(
            scheduler, "evaluation", "loss"
        ), "after each evaluation, on its loss: ReduceLROnPlateau needs one"
    every, reason = _every(scheduler, _epochs(epochs, steps, steps_per_epoch), steps)
    return Stepped(scheduler, every), f"once {_once(every)}: {reason}"


def mismatch(
    schedule: Schedule | LRScheduler | Stepped, *, epochs: int | None, steps: int | None, steps_per_epoch: int | None
) -> str | None:
    """What does not fit between a schedule's length and the run's, in one sentence; None if it fits, or has none.

    Args: as for ``cadence``; a schedule of ours is counted in steps.

    Example:
        >>> from trueloop.schedules import cosine
        >>> mismatch(cosine(total_steps=500), epochs=10, steps=1000, steps_per_epoch=100)
        'cosine over 500 steps, but the run has 10 epochs / 1000 steps: it is over too early'
    """
    has = f"but the run has {_run(epochs, steps)}"
    if not isinstance(schedule, LRScheduler | Stepped):
        return _curve_mismatch(schedule, steps, has)
    chosen, _ = cadence(schedule, epochs=epochs, steps=steps, steps_per_epoch=steps_per_epoch)
    scheduler = chosen.scheduler
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        if scheduler.mode == "max" and chosen.metric == "loss":
            return (
                "ReduceLROnPlateau has mode='max' but watches the loss, which is to fall; "
                "name its metric: schedules.stepped(scheduler, every='evaluation', metric=…)"
            )
        return None
    known = _length(scheduler)
    run = {"step": steps, "epoch": _epochs(epochs, steps, steps_per_epoch), "evaluation": None}[chosen.every]
    if known is None or run is None:
        return None
    said = f"{type(scheduler).__name__} is stepped once {_once(chosen.every)} and has {known.text}, {has}"
    if known.kind == "all" and known.steps != run:
        return f"{said}: {'it is cut off before its end' if known.steps > run else known.early}"
    if known.kind == "mark" and known.steps >= run:
        return f"{said}: it gets there too late to matter"
    if known.kind == "rise" and known.steps > run:
        return f"{said}: it is cut off before its end"
    return None


@dataclass(frozen=True)
class _Length:
    """What a scheduler's settings say about how long it is, in calls of its ``step``."""

    text: str
    steps: int
    kind: Literal["all", "mark", "rise"]
    """It covers the whole run; it is a mark somewhere in it; it is a warm-up at its start."""
    early: str = "it is over too early"


def _length(scheduler: LRScheduler) -> _Length | None:
    match scheduler:
        case lr_scheduler.OneCycleLR():
            early = "torch raises an error when it is stepped further"
            return _Length(f"total_steps={scheduler.total_steps}", scheduler.total_steps, "all", early)
        case lr_scheduler.CosineAnnealingLR():
            return _Length(f"T_max={scheduler.T_max}", scheduler.T_max, "all", "the rate rises again after it")
        case lr_scheduler.PolynomialLR():
            return _Length(
                f"total_iters={scheduler.total_iters}", scheduler.total_iters, "all", "the rate is 0 after it"
            )
        case lr_scheduler.LinearLR():
            down = scheduler.end_factor < scheduler.start_factor
            return _Length(f"total_iters={scheduler.total_iters}", scheduler.total_iters, "all" if down else "rise")
        case lr_scheduler.ConstantLR():
            return _Length(f"total_iters={scheduler.total_iters}", scheduler.total_iters, "rise")
        case lr_scheduler.StepLR():
            return _Length(f"step_size={scheduler.step_size}", scheduler.step_size, "mark")
        case lr_scheduler.MultiStepLR() if scheduler.milestones:
            milestones = sorted(scheduler.milestones.elements())
            return _Length(f"milestones={milestones}", milestones[-1], "mark")
        case lr_scheduler.CosineAnnealingWarmRestarts():
            return _Length(f"T_0={scheduler.T_0}", scheduler.T_0, "mark")
        case lr_scheduler.SequentialLR():
            return _sequence(scheduler._milestones, _length(scheduler._schedulers[-1]))
        case lr_scheduler.ChainedScheduler():
            lengths = [known for known in map(_length, scheduler._schedulers) if known]
            return max(lengths, key=lambda known: known.steps, default=None)
    return None


def _sequence(milestones: list[int], last: _Length | None) -> _Length:
    if last is None:
        return _Length(f"milestones={milestones}", milestones[-1], "mark")
    total = milestones[-1] + last.steps
    return _Length(f"milestones={milestones} and then {last.text} ({total} in all)", total, last.kind, last.early)


def _every(scheduler: LRScheduler, epochs: int | None, steps: int | None) -> tuple[Literal["step", "epoch"], str]:
    by_nature = _stepped_by_nature(scheduler)
    if by_nature:
        return "step", f"{by_nature} is made for steps"
    if isinstance(scheduler, swa_utils.SWALR):
        return "epoch", "SWALR is made for epochs"
    known = _length(scheduler)
    if known is None:
        return "epoch", f"torch's convention for {type(scheduler).__name__}, which has no length; {_ASK}"
    if steps is not None and known.steps == steps:
        return "step", f"{known.text} is the number of steps"
    if epochs is not None and known.steps <= epochs:
        fits = "the number of epochs" if known.steps == epochs else f"within the {epochs} epochs"
        return "epoch", f"{known.text} is {fits}"
    if steps is None:
        return "epoch", f"torch's convention, for the run's number of steps is not known; {_ASK}"
    if epochs is None:
        return "step", f"the run is counted in steps ({steps}); {_ASK}"
    if known.kind == "rise" and known.steps <= steps:
        return "step", f"{known.text} is more than the {epochs} epochs and within the {steps} steps"
    # Neither fits, as when a run of 90 epochs is tried for 10: what is nearer, by ratio, was meant.
    if known.steps**2 > epochs * steps:
        return "step", f"{known.text} is nearer to the {steps} steps than to the {epochs} epochs; {_ASK}"
    return "epoch", f"{known.text} is nearer to the {epochs} epochs than to the {steps} steps; {_ASK}"


def _stepped_by_nature(scheduler: LRScheduler) -> str | None:
    """The name of the scheduler, or one inside it, that makes sense only once a step."""
    if isinstance(scheduler, lr_scheduler.OneCycleLR | lr_scheduler.CyclicLR):
        return type(scheduler).__name__
    if isinstance(scheduler, lr_scheduler.SequentialLR | lr_scheduler.ChainedScheduler):
        return next(filter(None, map(_stepped_by_nature, scheduler._schedulers)), None)
    return None


def _curve_mismatch(schedule: Schedule, steps: int | None, has: str) -> str | None:
    own = length(schedule)
    if steps is None:
        return None
    if own is not None and own != steps:
        return f"{describe(schedule)}, {has}: it is {'over too early' if own < steps else 'cut off before its end'}"
    joins = schedule.joins if isinstance(schedule, Curve) else ()
    late = [join for join in joins if join >= steps]
    return f"{describe(schedule)}, {has}: what begins at step {late[0]} is never reached" if late else None


def _epochs(epochs: int | None, steps: int | None, steps_per_epoch: int | None) -> int | None:
    if epochs is None and steps is not None and steps_per_epoch:
        return -(-steps // steps_per_epoch)
    return epochs


def _run(epochs: int | None, steps: int | None) -> str:
    known = [f"{number} {unit}" for number, unit in ((epochs, "epochs"), (steps, "steps")) if number is not None]
    return " / ".join(known) or "no known length"


def _once(every: str) -> str:
    return f"an {every}" if every[0] == "e" else f"a {every}"
