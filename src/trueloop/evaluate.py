"""Evaluation: eval mode, no graph, exact means over samples; the modes of all modules come back as they were."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trueloop.data.device import batch_length, move
from trueloop.data.part import Idle
from trueloop.errors import ArgumentError, DataError, LossError
from trueloop.events import EvalEnded
from trueloop.objective import Batch, Computed, Objective, named_parts, run_model, split_batch
from trueloop.preflight import check_target, explain
from trueloop.tally import CPU, Metrics, Tally, join


@contextlib.contextmanager
def resting(model: nn.Module) -> Iterator[None]:
    """Eval mode and no graph inside; the mode of *every module* and the grad mode as they were, outside.

    ``model.train()`` on the way back would wake modules that the user keeps in eval mode (a frozen BatchNorm).

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with resting(model):
        ...     print([module.training for module in model])
        [False, False]
        >>> [module.training for module in model]
        [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def wake(model: nn.Module) -> None:
    """Train mode. Inside a model that is in train mode already, what the user put in eval mode stays so.

    A ``train`` of a module's own is asked then as well: it is how a frozen part is kept in eval mode, and a new module
    is in train mode without ever having been asked.

    Example:
        >>> class Frozen(nn.Sequential):
        ...     def train(self, mode=True):
        ...         return super().train(False)
        >>> model = nn.Sequential(Frozen(nn.BatchNorm1d(2)), nn.Dropout())
        >>> wake(model)
        >>> model[0].training, model[1].training
        (False, True)
    """
    if not model.training:
        model.train()
    elif any(_sets_modes(module) for module in model.modules()):
        at_rest = [module for module in model.modules() if not module.training]
        model.train()
        for module in at_rest:
            module.training = False


def _sets_modes(module: nn.Module) -> bool:
    """Whether it has a ``train`` of its own that takes torch's ``mode``: one without may train the model instead."""
    own = type(module).train
    return own is not nn.Module.train and "mode" in inspect.signature(own).parameters


def evaluate(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    metrics: Metrics,
    *,
    step: int = 0,
    epoch: int = 0,
    tally: type[Tally] = Tally,
) -> EvalEnded:
    """The loss and all metrics over all samples of ``batches``, exactly, whatever their sizes.

    Args:
        model: evaluated as it is, in eval mode.
        objective: gives loss and count of each batch; penalties are no part of it.
        batches: on the model's device; of an ``Idle`` one nothing counts.
        metrics: torchmetrics are reset, updated a batch at a time and computed; a plain function is called once, as
            ``function(outputs, targets)``, on the outputs and targets of all samples, on the CPU.
        step: for the record.
        epoch: for the record.
        tally: counts and sums what the batches gave; ``SharedTally`` where other processes have batches, too.

    Raises:
        DataError: there is not one batch.
        ArgumentError: a metric gives what is not a number.
    """
    started = time.monotonic()
    seen, checked = tally(metrics, is_sum=objective.is_sum), False
    with resting(model):
        for batch in batches:
            try:
                own = batch.batch if isinstance(batch, Idle) else batch
                computed, output, target = _compute(model, objective, own, want_output=bool(metrics))
            except (RuntimeError, ValueError, IndexError) as error:
                explain(error, model, objective, [batch])
                raise
            if isinstance(batch, Idle):
                continue
            if not checked:
                check_target(objective, output, target)
                checked = True
            seen.add(computed, batch_length(batch), output, target)
        seen.gather()
        mean = seen.loss
        if mean.samples == 0:
            raise DataError("expected at least one sample to evaluate, got an empty loader")
        values: dict[str, float] = {"loss": mean.value()}
        for name, value in seen.values().items():
            values |= _flatten(name, value)
    return EvalEnded(step, epoch, values, mean.samples, time.monotonic() - started)


def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    has_target: bool | None = None,
    gather: Callable[[list[Any]], list[Any]] = list,
) -> Any:
    """The model's outputs for all samples, in the order of the input, on the CPU.

    Args:
        model: run in eval mode and without a graph.
        batches: on the model's device.
        has_target: the last entry of each batch is a target, and not an input; None takes a lone tensor for an input.
        gather: from the outputs of these batches to those of all, where other processes have some.

    Returns:
        A tensor (samples, …), or a tuple or dict of them where the model returns one.
    """
    outputs: list[Any] = []
    with resting(model):
        for dealt in batches:
            batch = dealt.batch if isinstance(dealt, Idle) else dealt
            if has_target is not False:
                output, _ = run_model(model, batch)
            elif isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
                output = model(*batch)
            elif (named := named_parts(batch)) is not None:
                output = model(*named.values()) if len(named) == 1 else model(**named)
            else:
                output = model(batch)
            if not isinstance(dealt, Idle):
                outputs.append(move(output, CPU))
    outputs = gather(outputs)
    if not outputs:
        raise DataError("expected at least one sample to predict, got an empty loader")
    return join(outputs)


def _compute(model: nn.Module, objective: Objective, batch: Batch, *, want_output: bool) -> tuple[Computed, Any, Any]:
    """A batch's loss, and the output and target that metrics look at, in one forward pass."""
    if objective.criterion is not None or not want_output:
        computed = objective.compute(model, batch)
        return computed, computed.output, computed.target
    outputs: list[Any] = []
    hook = model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        computed = objective.compute(model, batch)
    finally:
        hook.remove()
    output, target = computed.output, computed.target
    if output is None:
        if len(outputs) != 1:
            raise LossError(
                f"metrics need the model's output, but the loss function called the model {len(outputs)} times; "
                "return a dict with 'loss', 'output' and 'target'"
            )
        output = outputs[0]
    if target is None:
        target = split_batch(batch)[2]
    return computed, output, target


def _flatten(name: str, value: Any) -> dict[str, float]:
    """A metric's value as numbers by name: ``f1``, or ``f1/0``, ``f1/1`` … for one a class, ``f1/key`` for a dict."""
    if isinstance(value, Mapping):
        return {k: v for key, part in value.items() for k, v in _flatten(f"{name}/{key}", part).items()}
    if isinstance(value, Tensor) and value.numel() > 1:
        return {f"{name}/{index}": float(part) for index, part in enumerate(value.flatten())}
    try:
        return {name: float(value)}
    except (TypeError, ValueError):
        raise ArgumentError(f"metric {name!r} must give a number, a tensor or a dict of them, got {value!r}") from None
