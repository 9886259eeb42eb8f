"""What is minimised: a loss, and the count that its mean is over, so that every mean is exact.

A mean of batch means is wrong as soon as batches differ (a short last one, padded tokens, class weights). So a loss
comes here with its *count*: how many samples, elements or tokens it is the mean of, or the sum of their weights. With
it, an epoch's mean is the mean over the epoch, and the gradient of an accumulation window is that of the one big batch.

Three kinds of loss are taken:

- a ``torch.nn`` loss or a function of ``torch.nn.functional``, called as ``loss(model(*inputs), target)``;
- a function ``(model, batch) -> loss``: the loss is a mean over the batch's samples;
- one that returns ``(loss, count)``, the mean and what it is the mean over, or a dict with ``loss``, and, if wanted,
  ``count``, ``output`` and ``target`` (for metrics), and other scalars, which are reported.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trueloop.data.device import batch_length
from trueloop.errors import ArgumentError, LossError

Batch = Any
"""What a loader gives: tensors in tuples, lists, dicts or dataclasses, nested as you like."""

Count = int | Tensor
"""What a mean is over: a number, or a scalar tensor where only the device knows (ignored tokens, class weights)."""

Penalty = Callable[[nn.Module], Tensor]
"""What is added to the training loss, once an update: the model -> a scalar."""

TARGET_NAMES = ("target", "targets", "label", "labels", "y")
"""The names under which a dict or dataclass batch may hold its target."""


@dataclasses.dataclass(slots=True)
class Computed:
    """One batch's loss, and what it is the mean of."""

    loss: Tensor
    """A scalar, with its graph."""
    count: Count
    counted: bool
    """The count came with the loss: nobody could know it before the forward pass."""
    terms: Mapping[str, Tensor]
    """Other scalars to report, without graph."""
    output: Any
    """The model's output where the objective saw it, for metrics; None where it did not."""
    target: Any


NO_TERMS: Mapping[str, Tensor] = {}


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss of any kind in one form.

    Attributes:
        compute: ``(model, batch)`` -> ``Computed``: the forward pass and the loss.
        count: a batch -> what its mean is over, before the forward pass (an objective that counts by itself is
            asked all the same: its own count replaces this one).
        criterion: the ``torch.nn`` loss or functional; None for a function of ``(model, batch)``.
        is_sum: the loss is a sum: a window's losses add up and are not averaged.
    """

    compute: Callable[[nn.Module, Batch], Computed]
    count: Callable[[Batch], Count]
    criterion: Callable[..., Tensor] | None = None
    is_sum: bool = False


def objective(loss: Callable[..., Any]) -> Objective:
    """Brings a loss of any kind into one form.

    Args:
        loss: a ``torch.nn`` loss, a function of ``torch.nn.functional``, or a callable ``(model, batch)``; see the
            top of this file.

    Raises:
        ArgumentError: it is not callable, or its reduction is ``none``.

    Example:
        >>> model, batch = nn.Identity(), (torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))
        >>> float(objective(nn.MSELoss()).compute(model, batch).loss)
        2.5
        >>> float(objective(lambda model, batch: (model(batch[0]) - batch[1]).abs().mean()).compute(model, batch).loss)
        1.5
    """
    if isinstance(loss, type):
        raise ArgumentError(f"loss must be a loss and not its class, got {loss.__name__}; write {loss.__name__}()")
    if not callable(loss):
        raise ArgumentError(f"loss must be a torch.nn loss or a callable (model, batch) -> loss, got {loss!r}")
    if is_criterion(loss):
        return _of_criterion(loss)
    return Objective(compute=functools.partial(_compute_callable, loss), count=batch_length)


def criterion(function: Callable[[Any, Any], Tensor]) -> Objective:
    """Marks a function of your own as ``(output, target) -> mean loss``, which is then called as a ``torch.nn`` loss.

    Example:
        >>> log_cosh = criterion(lambda output, target: (output - target).cosh().log().mean())
        >>> float(log_cosh.compute(nn.Identity(), (torch.zeros(3), torch.zeros(3))).loss)
        0.0
    """
    return _of_criterion(function)


def is_criterion(loss: Callable[..., Any]) -> bool:
    """Whether a loss takes (output, target) and not (model, batch): modules, and torch's own functions.

    A module of your own whose ``forward`` begins with ``model`` takes (model, batch).

    Example:
        >>> is_criterion(nn.L1Loss()), is_criterion(nn.functional.l1_loss), is_criterion(lambda model, batch: 0)
        (True, True, False)
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    if isinstance(function, nn.Module):
        return next(iter(inspect.signature(function.forward).parameters), "") not in ("model", "net", "network")
    return f"{getattr(function, '__module__', '')}.".startswith("torch.")


def split_batch(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """A batch as (positional inputs, named inputs, target), by convention.

    The last of a tuple or list is the target, the others are the model's inputs. Of a dict or dataclass, the entry
    called ``target``, ``targets``, ``label``, ``labels`` or ``y`` is the target; one other entry is the input, several
    are passed by name.

    Raises:
        LossError: no target can be told.

    Example:
        >>> split_batch(("image", "question", "answer"))
        (('image', 'question'), {}, 'answer')
        >>> split_batch({"x": 1, "y": 2})
        ((1,), {}, 2)
        >>> split_batch({"ids": 1, "mask": 2, "labels": 3})
        ((), {'ids': 1, 'mask': 2}, 3)
    """
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        if len(batch) >= 2:
            return tuple(batch[:-1]), {}, batch[-1]
        raise LossError(
            f"a torch.nn loss needs batches of (input, target), got a {type(batch).__name__} of {len(batch)}; "
            "give X and y, or a loss function (model, batch) -> loss"
        )
    named = named_parts(batch)
    if named is None:
        raise LossError(
            f"a torch.nn loss needs batches of (input, target), got a lone {type(batch).__name__}; "
            "give X and y, or a loss function (model, batch) -> loss"
        )
    targets = [name for name in TARGET_NAMES if name in named]
    if len(targets) != 1 or len(named) < 2:
        raise LossError(
            f"expected one target among the batch's entries, called one of {', '.join(TARGET_NAMES)}, beside the "
            f"inputs; got entries {sorted(named)}; rename it, or give a loss function (model, batch) -> loss"
        )
    target = named.pop(targets[0])
    if len(named) == 1:
        return tuple(named.values()), {}, target
    return (), named, target


def named_parts(batch: Batch) -> dict[str, Any] | None:
    """The entries of a dict, dataclass or named tuple by name; None for anything else."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if hasattr(batch, "_asdict"):
        return dict(batch._asdict())
    return None


def run_model(model: nn.Module, batch: Batch) -> tuple[Any, Any]:
    """The model's output for a batch, and the batch's target.

    A batch with no target (a lone tensor) is all input, and its target is None.
    """
    if isinstance(batch, Tensor):
        return model(batch), None
    if isinstance(batch, (tuple, list)) and len(batch) == 1:
        return model(batch[0]), None
    named = named_parts(batch)
    if named is not None and len(named) == 1:
        return model(*named.values()), None
    positional, by_name, target = split_batch(batch)
    return model(*positional, **by_name), target


# --- a torch.nn loss ------------------------------------------------------------------------------------------------


def _of_criterion(loss: Callable[..., Tensor]) -> Objective:
    reduction = setting(loss, "reduction", "mean")
    if reduction not in ("mean", "sum", "batchmean"):
        raise ArgumentError(
            f"{loss_name(loss)} has reduction={reduction!r}, which gives a loss for each element and not a scalar; "
            "use reduction='mean', or a function (model, batch) -> loss that reduces it"
        )
    _check_takes_two(loss)
    count_target = _counter(loss)

    def compute(model: nn.Module, batch: Batch) -> Computed:
        if (batch.__class__ is tuple or batch.__class__ is list) and len(batch) == 2:  # nearly every batch there is
            output = model(batch[0])
            target = batch[1]
        else:
            positional, named, target = split_batch(batch)
            output = model(*positional, **named)
        return Computed(loss(output, target), count_target(target), False, NO_TERMS, output, target)

    def count(batch: Batch) -> Count:
        return count_target(split_batch(batch)[2])

    return Objective(compute, count, criterion=loss, is_sum=reduction == "sum")


def _check_takes_two(loss: Callable[..., Tensor]) -> None:
    try:
        parameters = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.values()
    except (TypeError, ValueError):  # a function written in C does not tell
        return
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 2:
        raise ArgumentError(
            f"{loss_name(loss)} takes {', '.join(needed)}, and not an output and a target alone; "
            "write a function (model, batch) -> loss that calls it"
        )


ELEMENTWISE = frozenset(
    {
        *("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss", "KLDivLoss"),
        *(
            "PoissonNLLLoss",
            "SoftMarginLoss",
            "HingeEmbeddingLoss",
            "mse_loss",
            "l1_loss",
            "smooth_l1_loss",
            "huber_loss",
        ),
        *("binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss"),
        "soft_margin_loss",
        "hinge_embedding_loss",
    }
)
"""Losses whose mean is over every element: output and target must have one shape, or they would broadcast."""

CLASSWISE = frozenset({"CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss"})
"""Losses whose targets may be class indices, some of them ignored or weighted."""


def loss_kind(loss: Callable[..., Any]) -> str:
    """``elementwise``, ``classwise`` or ``samplewise``: what a ``torch.nn`` loss takes its mean over.

    Example:
        >>> loss_kind(nn.HuberLoss()), loss_kind(nn.functional.cross_entropy), loss_kind(nn.TripletMarginLoss())
        ('elementwise', 'classwise', 'samplewise')
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    names = [base.__name__ for base in type(function).__mro__] if isinstance(function, nn.Module) else [loss_name(loss)]
    if ELEMENTWISE.intersection(names):
        return "elementwise"
    return "classwise" if CLASSWISE.intersection(names) else "samplewise"


def setting(loss: Callable[..., Any], name: str, default: Any) -> Any:
    """A setting of a criterion: a module's attribute, a partial's keyword, or the function's own default."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get(name, default)
    return getattr(loss, name, default)


def _counter(loss: Callable[..., Tensor]) -> Callable[[Any], Count]:
    """What the mean of a ``torch.nn`` loss is over, told from the target alone (torch's docs, "reduction")."""
    kind = loss_kind(loss)
    if setting(loss, "reduction", "mean") == "batchmean" or kind == "samplewise":
        return batch_length
    if kind == "elementwise":
        return torch.numel
    ignored = setting(loss, "ignore_index", -100)

    def count_classes(target: Tensor) -> Count:
        if target.is_floating_point():  # class probabilities (batch, classes, …): the mean is over all but the classes
            return target.numel() // target.shape[1] if target.dim() > 1 else 1
        weight = setting(loss, "weight", None)
        if target.dtype is not torch.int64:
            target = target.long()  # bytes index as a mask, and wrap at 256
        kept: Tensor = target != ignored
        if weight is None:
            return kept.sum()
        safe = torch.where(kept, target, 0)  # an ignored label need not be an index of the weights
        weights: Tensor = torch.where(kept, weight[safe], 0)
        return weights.sum()

    return count_classes


# --- a function (model, batch) --------------------------------------------------------------------------------------


def _compute_callable(loss: Callable[..., Any], model: nn.Module, batch: Batch) -> Computed:
    returned = loss(model, batch)
    if isinstance(returned, Tensor):
        return Computed(returned, batch_length(batch), False, NO_TERMS, None, None)
    if isinstance(returned, tuple) and len(returned) == 2:
        return Computed(returned[0], _scalar(returned[1]), True, NO_TERMS, None, None)
    if isinstance(returned, Mapping) and "loss" in returned:
        own = returned.get("count")
        terms = {
            name: value.detach() if isinstance(value, Tensor) else torch.tensor(value, device=returned["loss"].device)
            for name, value in returned.items()
            if name not in ("loss", "count", "output", "target") and _is_scalar(value)
        }
        count = batch_length(batch) if own is None else _scalar(own)
        return Computed(returned["loss"], count, own is not None, terms, returned.get("output"), returned.get("target"))
    keys = f" with keys {sorted(returned)}" if isinstance(returned, Mapping) else ""
    raise LossError(
        f"the loss must return a scalar tensor, (loss, count), or a dict with 'loss'; got "
        f"{type(returned).__name__}{keys} from {loss_name(loss)}"
    )


def _scalar(count: Count) -> Count:
    """A count of shape (1,) would broadcast where it is used."""
    if isinstance(count, Tensor) and count.dim():
        if count.numel() != 1:
            raise LossError(f"the loss's count must be one number, got shape {tuple(count.shape)}; sum it: count.sum()")
        return count.reshape(())
    return count


def _is_scalar(value: object) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, (int, float))


def loss_name(loss: Callable[..., Any]) -> str:
    """What a loss is called: a module by its class, a function by its name."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    return getattr(function, "__name__", type(function).__name__)


# --- penalties ------------------------------------------------------------------------------------------------------


def l2(strength: float) -> Penalty:
    """``strength / 2 * sum(w ** 2)`` over all trainable parameters, added to the loss.

    With plain SGD it is the same as ``weight_decay=strength``; with Adam it is not: see decoupled weight decay
    (https://arxiv.org/abs/1711.05101), which is ``optim.adamw``.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 2.0)
        >>> l2(0.5)(layer).item()
        2.0
    """
    _non_negative("l2", strength)
    return lambda model: _sum_over(model, lambda w: w.square().sum()) * (strength / 2)


def l1(strength: float) -> Penalty:
    """``strength * sum(abs(w))`` over all trainable parameters, added to the loss: drives weights to zero.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, -2.0)
        >>> l1(0.5)(layer).item()
        2.0
    """
    _non_negative("l1", strength)
    return lambda model: _sum_over(model, lambda w: w.abs().sum()) * strength


def _sum_over(model: nn.Module, term: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([term(p) for p in model.parameters() if p.requires_grad]).sum()


def _non_negative(name: str, strength: float) -> None:
    if not 0 <= strength < float("inf"):
        raise ArgumentError(f"the strength of {name} must be zero or more, got {strength}")


# --- exact means ----------------------------------------------------------------------------------------------------


class Mean:
    """An exact mean of losses over their counts, that reads no value until it is asked.

    Example:
        >>> mean = Mean()
        >>> mean.add(torch.tensor(1.0), 3)
        >>> mean.add(torch.tensor(5.0), 1)
        >>> mean.value()
        2.0
    """

    __slots__ = ("_counts", "_is_sum", "_losses", "_total", "_weight", "samples")

    def __init__(self, *, is_sum: bool = False) -> None:
        self._losses: list[Tensor] = []
        self._counts: list[Count] = []
        self._total: Tensor | float = 0.0
        self._weight: Tensor | float = 0.0
        self._is_sum = is_sum
        self.samples = 0

    def add(self, loss: Tensor, count: Count, samples: int = 0) -> None:
        """Adds one batch: its loss (a scalar without graph) and what that is the mean of."""
        self._losses.append(loss)
        self._counts.append(count)
        self.samples += samples
        if len(self._losses) == 256:  # kept in a list, since adding on the device costs 3 µs a step (docs/log.md)
            self._fold()

    def value(self) -> float:
        """The mean so far; reads from the device. NaN if nothing was counted."""
        self._fold()
        total, weight = float(self._total), float(self._weight)
        return total / weight if weight else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """All of it, unfolded: a sum that is folded elsewhere differs in its last bit."""
        same = len({(loss.dtype, loss.shape, loss.device) for loss in self._losses}) == 1
        return {
            "losses": torch.stack(self._losses) if same else list(self._losses),
            "counts": list(self._counts),
            "total": self._total,
            "weight": self._weight,
            "samples": self.samples,
            "is_sum": self._is_sum,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | None = None) -> None:
        """Goes on from what ``state_dict`` gave, on the device where the losses are."""
        self._losses = [loss.to(device) for loss in state["losses"]]
        self._counts = [_on(count, device) for count in state["counts"]]
        self._total, self._weight = _on(state["total"], device), _on(state["weight"], device)
        self.samples, self._is_sum = state["samples"], state["is_sum"]

    def _fold(self) -> None:
        if not self._losses:
            return
        losses = torch.stack([loss.reshape(()) for loss in self._losses])
        exact = torch.float64 if losses.device.type != "mps" else torch.float32  # mps has no float64
        losses = losses.to(exact)
        if any(isinstance(count, Tensor) for count in self._counts):
            counts = torch.stack([torch.as_tensor(c, device=losses.device).to(exact).reshape(()) for c in self._counts])
        else:
            counts = torch.tensor(self._counts, dtype=exact, device=losses.device)
        # The mean over nothing is NaN, and counts for nothing (a batch whose tokens are all ignored); so does the loss
        # of a step that the gradient scaler skipped. All others are finite: step.py sees to that.
        counts = torch.where(torch.isfinite(losses), counts, 0)
        losses = torch.nan_to_num(losses, 0.0, 0.0, 0.0)
        sums = losses if self._is_sum else torch.where(counts > 0, losses * counts, 0.0)
        self._total = self._total + sums.sum()
        self._weight = self._weight + counts.sum()
        self._losses.clear()
        self._counts.clear()


def _on(value: Any, device: torch.device | None) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
