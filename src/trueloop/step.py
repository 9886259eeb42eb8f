"""The ritual: zero, divide, backward, unscale, clip, step, schedule, average. All that changes training is here.

One ``Ritual`` is one optimizer with all that belongs to its step. A *window* is what one step is made of:
``accumulate`` microbatches, or fewer at an epoch's end. Its gradient is that of the window as one big batch: each
microbatch's mean loss is divided by (the window's count / its own count), which for k equal ones is the ``loss / k``
of the loop written by hand, to the bit.

Gradients are zeroed at the start of an update and not after it, so that whoever watches can still read them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueloop.data.device import batch_length
from trueloop.errors import ArgumentError, LossError, NonFiniteError, UnknownNameError
from trueloop.events import StepEnded
from trueloop.finite import Guard, NotFinite
from trueloop.objective import NO_TERMS, Batch, Computed, Count, Mean, Objective, Penalty
from trueloop.optim.averages import Averaged
from trueloop.optim.parts import cut_as, lies_in_parts
from trueloop.optim.quick import quick_step
from trueloop.schedules import Schedule, Stepped

PATIENCE_WITH_SCALER = 50
"""Steps in a row that the gradient scaler may skip; its scale has then fallen by 2**50: the loss itself is broken."""

COUNTED = float("inf")  # an object of its own: what counts for nothing has math.inf
"""In place of a ratio: counts come with the losses, and the window's is known at its end."""

Ratio = Count | float | None


@dataclass(frozen=True)
class Settings:
    """What the user chose about an update; see ``Trainer``."""

    clip_norm: float | None = None
    clip_value: float | None = None
    penalty: Penalty | None = None
    is_sum: bool = False


class Ritual:
    """One optimizer and all that its update needs.

    Args:
        model: the model whose parameters the optimizer holds.
        optimizer: torch's.
        settings: clipping and penalty.
        schedule: step -> multiplier of the optimizer's rates; None leaves them alone.
        scheduler: a torch scheduler with its cadence; stepped here and nowhere else.
        scaler: torch's gradient scaler, for fp16.
        average: the average of weights to keep, and the rule when it is updated.
        base_rates: the rate of each parameter group that the schedule multiplies.
        guard: looks at each loss before its backward.

    Attributes:
        step: optimizer steps taken; steps that the scaler skipped do not count.
        mean: the mean of the losses since it was last replaced.
        take_step: the optimizer's step.
        stepping: the optimizer is at work; an error that comes meanwhile leaves weights that are half old, half new.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        *,
        schedule: Schedule | None = None,
        scheduler: Stepped | None = None,
        scaler: torch.amp.GradScaler | None = None,
        average: tuple[Averaged, Callable[[int], bool]] | None = None,
        base_rates: list[float],
        guard: Guard,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.settings = settings
        self.schedule = schedule
        self.scheduler = scheduler
        self.scaler = scaler
        self.average = average
        self.guard = guard
        self.step = 0
        self.mean = Mean(is_sum=settings.is_sum)
        self.parameters: list[nn.Parameter] = []
        self.base_rates = base_rates
        self._groups = 0
        self._collect()
        self.needs_closure = needs_closure(optimizer)
        self.take_step = quick_step(optimizer)
        self._in_window = 0  # microbatches whose gradients are in .grad
        self._loss: Tensor | None = None  # the open window's loss so far
        self._counted: Count | None = None  # the open window's count, where losses bring their own
        self._samples = 0
        self._skipped_in_a_row = 0
        self.stepping = False
        self._is_whole = True  # a window is all that a step is made of; False where other processes have parts of it
        self._clips = settings.clip_norm is not None or settings.clip_value is not None

    # --- a whole window at once: the loop's way --------------------------------------------------------------------

    def take(self, objective: Objective, window: Sequence[Batch], epoch: int) -> StepEnded:
        """One update on one window of batches.

        Args:
            objective: gives each batch's loss.
            window: one batch, or several to accumulate; on the device.
            epoch: the epoch (0-based), for the record.
        """
        if self.needs_closure:
            return self._take_with_closure(objective, window, epoch)
        return self.finish(epoch, self._accumulate(objective, window).terms)

    def _accumulate(self, objective: Objective, window: Sequence[Batch]) -> Computed:
        """The gradient of the whole window, undivided where counts come with the losses; the last microbatch's loss."""
        if len(window) == 1:  # nearly every window there is: nothing to divide, and nothing to count beforehand
            computed = objective.compute(self.model, window[0])
            self.contribute(computed.loss, computed.count, batch_length(window[0]))
            return computed
        ratios = shares([objective.count(batch) for batch in window])
        for batch, ratio in zip(window, ratios, strict=True):
            computed = objective.compute(self.model, batch)
            ratio = COUNTED if computed.counted else ratio
            self.contribute(computed.loss, computed.count, batch_length(batch), ratio)
        return computed

    def _take_with_closure(self, objective: Objective, window: Sequence[Batch], epoch: int) -> StepEnded:
        """For optimizers that ask for the loss several times a step, as LBFGS does."""
        first: list[tuple[Tensor, int, Tensor | None]] = []
        before = [parameter.detach().clone() for parameter in self.parameters]
        mean = self.mean

        def closure() -> Tensor:
            self._in_window = 0  # each call is a window of its own
            self._accumulate(objective, window)
            loss, penalty, norm = self._close()
            if not first:
                first.append((loss, self._samples, norm))
                self.mean = Mean()  # each sample counts once, however often the optimizer asks
            return loss if penalty is None else loss + penalty

        if self.schedule is not None:
            self._set_rates(self.schedule)
        try:
            self.optimizer.step(closure)  # type: ignore[arg-type]  # torch types it -> float; LBFGS calls float() on it
        except NotFinite:  # in the middle of its search, with weights on trial
            with torch.no_grad():
                for parameter, kept in zip(self.parameters, before, strict=True):
                    parameter.copy_(kept)
            raise
        finally:
            self.mean = mean
        lr = float(self.optimizer.param_groups[0]["lr"])
        self._advance()
        loss, samples, norm = first[0]
        return StepEnded(self.step, epoch, loss, samples, lr, norm, NO_TERMS, False)

    # --- microbatch by microbatch: the way of one's own loop -------------------------------------------------------

    def shares(self, sizes: Sequence[int]) -> list[Ratio]:
        """What each microbatch's mean is divided by, where a window has these samples."""
        return shares(sizes)

    def contribute(self, loss: Tensor, count: Count, samples: int, ratio: Ratio = None) -> None:
        """Adds one microbatch's gradient to the open window; the first one opens it and zeroes what was there.

        Args:
            loss: a scalar with its graph.
            count: what it is the mean of.
            samples: how many samples that is.
            ratio: the window's count over this microbatch's, by which a mean is divided; None where the window has
                one microbatch only; ``COUNTED`` where the window's count is not known yet: the gradient is then
                multiplied by the microbatch's count, and divided by their sum when the window closes.
        """
        if self._in_window == 0:
            self._open()
        part = seen = loss.detach()
        if ratio is not None and not self.settings.is_sum:
            if ratio is COUNTED:
                loss = loss * count
                self._counted = count if self._counted is None else self._counted + count
            else:
                loss = divide(loss, ratio)
            part = loss.detach()
        self.guard(part)
        if self._is_whole:
            self.mean.add(seen, count, samples)
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss = part if self._loss is None else self._loss + part
        self._in_window += 1
        self._samples += samples

    def finish(self, epoch: int, terms: Mapping[str, Tensor] = NO_TERMS) -> StepEnded:
        """Closes the window: divides, adds the penalty, unscales, clips, steps, moves the schedule and the average."""
        loss, _, norm = self._close()
        if self.schedule is not None:
            self._set_rates(self.schedule)
        lr = self.optimizer.param_groups[0]["lr"]
        if lr.__class__ is not float:
            lr = float(lr)  # a tensor, which schedulers fill in place: the record is of this step
        skipped = self._step()
        if not skipped:
            self._advance()
        return StepEnded(self.step, epoch, loss, self._samples, lr, norm, terms, skipped)

    @property
    def is_open(self) -> bool:
        """Whether gradients of a window wait for its end."""
        return self._in_window > 0

    @property
    def microbatches(self) -> int:
        """How many microbatches the open window has so far."""
        return self._in_window

    def discard(self) -> None:
        """Forgets the open window: its gradients are zeroed by the next one."""
        self._in_window = 0

    # --- what a checkpoint keeps -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Counters, rates, scheduler, scaler, mean, and the gradients of an open window; the optimizer is not in it."""
        window = None
        if self.is_open:
            window = {
                "microbatches": self._in_window,
                "samples": self._samples,
                "loss": self._loss,
                "counted": self._counted,
                "gradients": [parameter.grad for parameter in self.parameters],
            }
        return {
            "step": self.step,
            "skipped_in_a_row": self._skipped_in_a_row,
            "scheduler": None if self.scheduler is None else self.scheduler.scheduler.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "mean": self.mean.state_dict(),
            "window": window,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave; the optimizer has its own state by then.

        A scheduler or a scaler that was not there then begins anew, and one that is not here any more is left out:
        whoever resumes says so.
        """
        self.step = state["step"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        device = self.parameters[0].device
        self.mean.load_state_dict(state["mean"], device)
        if self.step:
            self.optimizer._opt_called = True  # type: ignore[attr-defined]  # else torch warns of a scheduler that moves first
        window = state["window"]
        self._in_window = 0 if window is None else window["microbatches"]
        if window is not None:
            self._samples, self._loss, self._counted = window["samples"], window["loss"].to(device), window["counted"]
            if isinstance(self._counted, Tensor):
                self._counted = self._counted.to(device)
            for parameter, gradient in zip(self.parameters, window["gradients"], strict=True):
                parameter.grad = None if gradient is None else laid_out_as(parameter, gradient).to(parameter.device)

    # --- cadences that are not a step's ----------------------------------------------------------------------------

    def epoch_ended(self) -> None:
        """Moves a scheduler that counts epochs."""
        if self.scheduler is not None and self.scheduler.every == "epoch":
            self.scheduler.scheduler.step()

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Moves a scheduler that looks at evaluations (a plateau)."""
        if self.scheduler is not None and self.scheduler.every == "evaluation":
            if self.scheduler.metric is None:
                self.scheduler.scheduler.step()
            elif self.scheduler.metric not in metrics:
                raise UnknownNameError("metric", self.scheduler.metric, metrics)
            else:
                self.scheduler.scheduler.step(metrics[self.scheduler.metric])

    # --- the parts, in their order ---------------------------------------------------------------------------------

    def _collect(self) -> None:
        """The parameters of all groups; a group that was added since (gradual unfreezing) has its own base rate."""
        groups = self.optimizer.param_groups
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.base_rates += [float(group["lr"]) for group in groups[len(self.base_rates) :]]
        self._groups = len(groups)

    def _open(self) -> None:
        if len(self.optimizer.param_groups) != self._groups:
            self._collect()
        for parameter in self.parameters:  # what zero_grad does, 20 times faster (docs/log.md)
            parameter.grad = None
        self._loss = None
        self._counted = None
        self._samples = 0

    def _close(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Makes ``.grad`` what the step needs; gives the window's loss, the penalty, and the norm before clipping."""
        assert self._loss is not None, "a window was closed before it was opened"
        loss, penalty, norm = self._loss, None, None
        self._in_window = 0
        if self.step == 0 and all(p.grad is None for p in self.parameters):
            raise LossError(
                "the loss reaches no parameter of the optimizer, so nothing would be learned: its graph comes from "
                "somewhere else (a frozen part, an input that wants a gradient, another model)"
            )
        if self._counted is not None:
            counted = self._counted  # a window that counts for nothing has no gradient
            counted = torch.where(counted > 0, counted, 1) if isinstance(counted, Tensor) else counted or 1
            loss = loss / counted
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_div_(gradients, counted.to(loss.dtype) if isinstance(counted, Tensor) else counted)
        if self.settings.penalty is not None:
            penalty = self.settings.penalty(self.model)
            add_gradient(penalty if self.scaler is None else self.scaler.scale(penalty), self.parameters)
            penalty = penalty.detach()
        if self._clips:
            norm = self._clip()
        return loss, penalty, norm

    def _clip(self) -> Tensor | None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = None
        if self.settings.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        if self.settings.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self.settings.clip_value)
        return norm

    def _set_rates(self, schedule: Schedule) -> None:
        multiplier = schedule(self.step)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * multiplier

    def _step(self) -> bool:
        """The optimizer's step; True if the scaler skipped it."""
        if self.scaler is None:
            self.stepping = True
            self.take_step()
            self.stepping = False
            return False
        before = self.scaler.get_scale()
        self.stepping = True
        self.scaler.step(self.optimizer)
        self.stepping = False
        self.scaler.update()
        skipped = self.scaler.get_scale() < before  # the one documented sign of a skipped step; reads the device
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row == PATIENCE_WITH_SCALER:
            raise NonFiniteError(
                f"the gradients of {PATIENCE_WITH_SCALER} steps in a row were not finite at any scale, so fp16 is not "
                "the cause; try precision='fp32' to see which module breaks",
                step=self.step,
            )
        return skipped

    def _advance(self) -> None:
        self.step += 1
        if self.scheduler is not None and self.scheduler.every == "step":
            self.scheduler.scheduler.step()
        if self.average is not None:
            averaged, due = self.average
            if due(self.step):
                averaged.update_parameters(self.model)


def add_gradient(value: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Adds the gradient of ``value`` to what the parameters have, where they are trained.

    As ``value.backward(inputs=parameters)`` does; but that sets off the hooks by which DDP learns that a parameter has
    its gradient, and DDP has summed them by now.

    Example:
        >>> weight = nn.Parameter(torch.tensor(3.0))
        >>> add_gradient(weight**2, [weight]); add_gradient(weight * 1, [weight]); weight.grad
        tensor(7.)
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(value, trained, allow_unused=True), strict=True):
        if gradient is not None:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = gradient + own if own.is_sparse else own.add_(gradient)


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A tensor of a parameter's shape in the layout of that parameter; any other tensor as it is.

    Of a parameter that is cut up among processes (DTensor), so is the tensor: each takes its part of it.

    Example:
        >>> images = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
        >>> laid_out_as(images, torch.ones(2, 3, 4, 4)).stride() == images.stride()
        True
    """
    if lies_in_parts(parameter):
        return cut_as(parameter, value)
    if value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def shares(counts: Sequence[Count]) -> list[Ratio]:
    """What each microbatch's mean loss is divided by, so that their sum is the window's mean.

    Example:
        >>> shares([3, 1])
        [1.3333333333333333, 4.0]
        >>> shares([8])
        [None]
    """
    if len(counts) == 1:
        return [None]
    total = sum(counts[1:], start=counts[0])
    return [share_of(total, count) for count in counts]


def share_of(total: Count, count: Count) -> Ratio:
    """What a mean over ``count`` is divided by to be its share of one over ``total``; infinite for a count of 0.

    Example:
        >>> share_of(4, 1), share_of(4, torch.tensor(3)).dtype
        (4.0, torch.float64)
    """
    one = total if isinstance(total, Tensor) else count
    if not isinstance(one, Tensor):
        return total / count if count else math.inf
    dtype = torch.float32 if one.device.type == "mps" else torch.float64  # which has no float64
    # Not number / tensor, which torch takes as the number times 1 / tensor, an ulp off.
    return torch.as_tensor(total, dtype=dtype, device=one.device) / torch.as_tensor(
        count, dtype=dtype, device=one.device
    )


def divide(loss: Tensor, ratio: Count | float) -> Tensor:
    """``loss / ratio``, and 0 where the ratio is infinite: a microbatch that counts for nothing (all ignored).

    Example:
        >>> divide(torch.tensor(float("nan")), torch.tensor(float("inf")))
        tensor(0.)
    """
    if isinstance(ratio, Tensor):
        return torch.where(torch.isinf(ratio), 0.0, loss / ratio).to(loss.dtype)  # the ratio is in double precision
    return loss / ratio


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer's step must be given a closure, as LBFGS's must.

    Example:
        >>> weights = [nn.Parameter(torch.zeros(1))]
        >>> needs_closure(torch.optim.LBFGS(weights)), needs_closure(torch.optim.SGD(weights, lr=0.1))
        (True, False)
    """
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def refuse_closure(optimizer: torch.optim.Optimizer) -> None:
    """Raises for an optimizer that needs a closure where a loss was already computed."""
    if needs_closure(optimizer):
        raise ArgumentError(
            f"{type(optimizer).__name__} asks for the loss several times a step, so update(loss) cannot drive it; "
            "use fit or train with a loss function (model, batch) -> loss"
        )
