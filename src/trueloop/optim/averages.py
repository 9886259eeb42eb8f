"""Averages of weights over the steps of a run (EMA, SWA), and BatchNorm statistics that fit them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from trueloop.errors import ArgumentError, DataError
from trueloop.optim.parts import cut_as, own_part


class Averaged(AveragedModel):
    """torch's ``AveragedModel`` that reads no tensor's value when it is updated (torch's reads its count, twice).

    Weights and floating-point buffers (BatchNorm's statistics) are averaged; other buffers are copied.

    Args:
        model: a copy of it is averaged into.
        share: ``models averaged so far -> share of the next one``; the first one is taken whole.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> averaged = Averaged(model, lambda taken: 0.5)
        >>> for value in (0.0, 4.0):
        ...     _ = model.weight.data.fill_(value)
        ...     averaged.update_parameters(model)
        >>> averaged.module.weight.item(), int(averaged.n_averaged)
        (2.0, 2)
    """

    def __init__(self, model: nn.Module, share: Callable[[int], float]) -> None:
        super().__init__(model, use_buffers=True)
        self.share = share
        self.taken = 0
        self.recomputed_at = 0  # how many weights were taken in when BatchNorm's statistics were last made

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights that ``model`` has now."""
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        floats = [pair for pair in pairs if self.taken and pair[0].is_floating_point()]
        copies = [pair for pair in pairs if not self.taken or not pair[0].is_floating_point()]
        if floats:
            mine, theirs = map(list, zip(*floats, strict=True))
            torch._foreach_lerp_(mine, theirs, self.share(self.taken))
        for own, other in copies:
            own.copy_(other)
        self.n_averaged += 1
        self.taken += 1

    def get_extra_state(self) -> dict[str, int]:
        """What torch's own average does not have."""
        return {"recomputed_at": self.recomputed_at}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """As ``get_extra_state`` gave it."""
        self.recomputed_at = state["recomputed_at"]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; the count is read here, once."""
        own = self.state_dict()
        state_dict = {name: cut_as(own.get(name), value) for name, value in state_dict.items()}
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.taken = int(self.n_averaged)
        return result


@dataclass(frozen=True)
class Average:
    """An average of the weights, and the steps at which it takes them in; made by ``ema`` or ``swa``.

    Args:
        text: what it is, in words.
        share: ``models averaged so far -> share of the next one``.
        start: the first step that counts: an int is a number of optimizer steps, a float a fraction of the run.
        every_steps: how often after that.
        evaluate: whether evaluations use the average instead of the weights.
        recompute: whether BatchNorm's statistics are made anew from the training data before each evaluation; where
            not, they are averaged as the weights are.

    Example:
        >>> late = Average("the last one", lambda taken: 1.0, start=1.0)
        >>> late.due(9, total_steps=10), late.due(10, total_steps=10)
        (False, True)
    """

    text: str
    share: Callable[[int], float]
    start: int | float = 0
    every_steps: int = 1
    evaluate: bool = True
    recompute: bool = False

    def begin(self, model: nn.Module) -> Averaged:
        """The average of nothing yet: a copy of ``model``, to be given to ``update_parameters`` when ``due``."""
        return Averaged(model, self.share)

    def due(self, step: int, total_steps: int | None = None) -> bool:
        """Whether the weights after ``step`` optimizer steps (1 after the first) belong to the average.

        Args:
            step: optimizer steps taken so far.
            total_steps: those of the whole run; needed where ``start`` is a fraction.
        """
        start = self.start
        if isinstance(start, float):
            if total_steps is None:
                raise ArgumentError(
                    f"{self.text} starts at a fraction of the run ({start}), whose number of steps is not known; "
                    "give start_step=…"
                )
            start = math.ceil(start * total_steps)
        return step >= start and (step - start) % self.every_steps == 0

    def __repr__(self) -> str:
        return self.text


def ema(decay: float = 0.999, *, evaluate: bool = True) -> Average:
    """The exponential moving average of the weights: ``average = decay * average + (1 - decay) * weights``.

    It starts from the weights after the first step, and looks back about ``1 / (1 - decay)`` steps: choose ``decay``
    so that this is a small part of the run.

    Args:
        decay: at least 0, less than 1.
        evaluate: whether evaluations use the average.

    Example:
        >>> ema(0.99).due(1), ema(0.99)
        (True, ema(0.99))
    """
    if not 0 <= decay < 1:
        raise ArgumentError(f"decay must be at least 0 and less than 1, got {decay=}; 0.999 looks back 1,000 steps")
    return Average(f"ema({decay})", lambda taken: 1 - decay, evaluate=evaluate)


def swa(start: float = 0.75, *, start_step: int | None = None, every_steps: int = 1, evaluate: bool = True) -> Average:
    """The plain mean of the weights over the end of a run (stochastic weight averaging, Izmailov et al. 2018).

    Args:
        start: where it starts, as a fraction of the run.
        start_step: the same as a number of optimizer steps; it goes before ``start``.
        every_steps: how often weights are taken in after that.
        evaluate: whether evaluations use the average.

    Example:
        >>> average = swa(0.75, every_steps=2)
        >>> [step for step in range(1, 9) if average.due(step, total_steps=8)]
        [6, 8]
    """
    if not 0 <= start <= 1:
        raise ArgumentError(
            f"start must be a fraction of the run, from 0 to 1, got {start=}; for a number of steps write start_step=…"
        )
    if start_step is not None and start_step < 0:
        raise ArgumentError(f"start_step must be 0 or more, got start_step={start_step}; 0 averages the whole run")
    if every_steps < 1:
        raise ArgumentError(f"every_steps must be 1 or more, got every_steps={every_steps}; 1 takes in every step")
    begins = float(start) if start_step is None else start_step
    text = f"swa(start={start})" if start_step is None else f"swa(start_step={start_step})"
    return Average(text, lambda taken: 1 / (taken + 1), begins, every_steps, evaluate, recompute=True)


Forward = Callable[[nn.Module, Any], Any]


@torch.no_grad()
def recompute_batchnorm(
    model: nn.Module,
    batches: Iterable[Any],
    device: torch.device | str | None = None,
    forward: Forward | None = None,
    keep: Collection[str] = (),
) -> None:
    """Set the running statistics of every BatchNorm to those of the whole data, for weights that never saw any.

    As torch's ``update_bn``, each layer normalises by its batch meanwhile, and ends with the statistics of what it
    was given; but batches of unequal sizes count by their samples, the variance is that of the whole data and not the
    mean of the batches', a lone sample (which torch refuses) is normalised by the statistics so far, and all other
    modules (Dropout) are in eval mode, as they will be when it is used. Every module's mode comes back.

    Args:
        model: nothing is done, and no batch fetched, if it has no BatchNorm with running statistics.
        batches: a tensor, or a tuple or list whose first entry is the model's input; anything else needs ``forward``.
        device: where the input is moved to; None leaves it.
        forward: ``(model, batch)``, how the model is called; then the batch is its own business.
        keep: names of BatchNorms whose statistics stay as they are (frozen ones).

    Raises: DataError for no batches, or a batch of a kind that needs ``forward``.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> recompute_batchnorm(norm, [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0]])])
        >>> norm.running_mean.item(), norm.running_var.item()
        (2.0, 4.0)
    """
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and name not in keep
    ]
    if not norms:
        return
    seen = {norm: _Moments() for norm in norms}
    count = 0
    with _in_eval_mode(model), _listening(seen):
        for batch in batches:
            forward(model, batch) if forward else model(_input(batch, device))
            count += 1
    if not count:
        raise DataError("BatchNorm statistics need at least one batch, got none; give the training data")
    for norm, moments in seen.items():
        if moments.count:  # a layer that was not run keeps what it has
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(moments.mean)
            norm.running_var.copy_(moments.squares / max(moments.count - 1, 1))  # unbiased, as torch's
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(count)


class _Moments:
    """Mean and squared deviations by channel, in float64, one chunk after another (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())

    def add(self, values: Tensor) -> int:
        """How many values by channel ``values`` had: (samples, channels, positions …)."""
        exact = torch.float32 if values.device.type == "mps" else torch.float64  # mps has no float64
        columns = values.detach().transpose(0, 1).flatten(1).to(exact)  # (channels, samples x positions)
        count, mean = columns.shape[1], columns.mean(1)
        squares = (columns - mean[:, None]).square().sum(1)
        total = self.count + count
        if self.count:
            apart = mean - self.mean
            squares = self.squares + squares + apart.square() * (self.count * count / total)
            mean = self.mean + apart * (count / total)
        self.count, self.mean, self.squares = total, mean, squares
        return count


@contextlib.contextmanager
def _listening(seen: Mapping[_BatchNorm, _Moments]) -> Iterator[None]:
    def listen(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        norm.training = seen[norm].add(inputs[0]) > 1  # torch's does not train on one value

    handles = [norm.register_forward_pre_hook(listen) for norm in seen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from map(own_part, model.parameters())
    yield from model.buffers()


def _input(batch: Any, device: torch.device | str | None) -> Tensor:
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(first, Tensor):
        raise DataError(
            f"a batch must be a tensor, or a tuple or list that starts with one, got {type(first).__name__}; "
            "say how the model is called with forward=lambda model, batch: …"
        )
    return first if device is None else first.to(device)
