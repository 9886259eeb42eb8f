"""What is wrong with a batch, a loss or a model's output, in words: before the first backward, or after an error.

Torch says "Target 7 is out of bounds" and does not say where; it broadcasts (n, 1) against (n,) with a warning and
trains on the wrong loss. The first window of a run is looked at here, with the values in it; so is a window that
raised. Nothing of this runs in the hot path.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trueloop.data.device import batch_length
from trueloop.data.feed import Feed
from trueloop.data.nested import leaves
from trueloop.data.part import Idle
from trueloop.errors import DataError, LossError, NonFiniteError, TrueloopError
from trueloop.finite import bad_samples, first_bad_module
from trueloop.objective import Batch, Computed, Objective, loss_kind, run_model, setting, split_batch
from trueloop.optim.parts import lies_in_parts, own_part


def checked(objective: Objective, feed: Feed, held_out: Feed | None = None) -> Objective:
    """The same objective, looking at each batch and loss before it lets them pass: for a run's first window.

    Args:
        objective: whose forward pass is then made once, as ever: no RNG is drawn that would not be.
        feed: in-memory data is looked at whole, as soon as the model's output says how many classes there are.
        held_out: the same for validation data, whose mistakes would else be told when an epoch was trained.
    """

    def compute(model: nn.Module, batch: Batch) -> Computed:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a (target|input) size")  # torch's own broadcast warning
            try:
                computed = objective.compute(model, batch)
            except UserWarning as warning:
                shapes = re.findall(r"torch.Size\((\[.*?\])\)", str(warning))
                raise LossError(_broadcast_story(" and ".join(shapes) or str(warning))) from None
            except (TypeError, AttributeError) as error:
                if objective.criterion is None:
                    error.add_note(
                        "the loss was called as loss(model, batch); a function of (output, target) is wrapped: "
                        "trueloop.objective.criterion(function)"
                    )
                raise
        check_target(objective, computed.output, computed.target)
        _check_all_targets(objective, computed.output, feed)
        _check_all_targets(objective, computed.output, held_out, of="validation data: ")
        _check_alike(feed, held_out)
        check_loss(computed)
        return computed

    return dataclasses.replace(objective, compute=compute)


def check_loss(computed: Computed) -> None:
    """Raises unless a loss is a scalar with a graph. (Whether that reaches a parameter, backward tells: ``Ritual``.)

    Example:
        >>> check_loss(Computed(torch.zeros(3), 3, False, {}, None, None))
        Traceback (most recent call last):
        trueloop.errors.LossError: the loss must be a scalar, got shape (3,); average it: loss.mean()
    """
    loss = computed.loss
    if not isinstance(loss, Tensor):
        raise LossError(f"the loss must be a scalar tensor, got {type(loss).__name__} ({loss!r}); do not call .item()")
    if loss.dim() != 0:
        raise LossError(f"the loss must be a scalar, got shape {tuple(loss.shape)}; average it: loss.mean()")
    if not loss.requires_grad:
        raise LossError(
            "the loss has no graph: nothing would be learned. It was detached (.item(), .data, .detach(), "
            "torch.tensor(loss)) or computed under torch.no_grad()"
        )
    if isinstance(computed.count, (int, float)) and not computed.count > 0:
        raise LossError(f"the loss's count must be positive, got {computed.count}")


def check_target(objective: Objective, output: Any, target: Any) -> None:
    """Raises if a ``torch.nn`` loss cannot be right for this output and target: shapes, dtypes, class range.

    Args:
        objective: of a ``torch.nn`` loss.
        output: the model's; logits are (batch, classes, …).
        target: the batch's.

    Raises:
        LossError: shapes that would broadcast, or do not fit.
        DataError: class labels out of range or of the wrong dtype.
    """
    loss = objective.criterion
    if loss is None or not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return
    kind = loss_kind(loss)
    if kind == "elementwise":
        if output.shape != target.shape:
            raise LossError(_broadcast_story(f"output {tuple(output.shape)}, target {tuple(target.shape)}"))
        takes_counts = "Poisson" in type(loss).__name__ or "poisson" in getattr(loss, "__name__", "")
        if not target.is_floating_point() and output.is_floating_point() and not takes_counts:
            raise DataError(
                f"expected a floating-point target for {type(loss).__name__}, as the output ({output.dtype}), got "
                f"{target.dtype}; convert it: y.float()"
            )
    elif kind == "classwise":
        _check_classes(loss, output, target)


def explain(
    error: Exception, model: nn.Module, objective: Objective, window: Sequence[Batch], feed: Feed | None = None
) -> None:
    """Raises a clearer error from one that torch raised on this window, if its cause can be told; else returns.

    Args:
        error: what was raised.
        model: run once more on the window, without a graph.
        objective: of the run.
        window: the batches of the step.
        feed: where they come from: in-memory data is looked at whole.
    """
    if isinstance(error, TrueloopError):
        return
    window = [batch.batch if isinstance(batch, Idle) else batch for batch in window]
    if "more than 1 value per channel" in str(error) and any(batch_length(batch) == 1 for batch in window):
        raise DataError(
            "BatchNorm has one sample to normalise by: a batch, or this process's part of one, is that short; drop a "
            "short last batch (DataLoader(drop_last=True)), take a batch size that leaves each process two samples of "
            "it, or a norm that looks at one sample (GroupNorm, LayerNorm)"
        ) from error
    about_dtypes = re.search(r"dtype|scalar type", str(error)) is not None
    for batch in window:
        wrong = _dtype_story(model, objective, batch) if about_dtypes else None
        if wrong is not None:
            raise DataError(wrong) from error
        if objective.criterion is None or _lies_in_parts(model):
            continue
        try:
            with torch.no_grad(), torch.random.fork_rng():
                output, target = run_model(model, batch)
        except TrueloopError as clearer:
            raise clearer from error
        except Exception:
            return  # the model itself fails on this batch: its own error says more
        try:
            _check_all_targets(objective, output, feed)
            check_target(objective, output, target)
        except TrueloopError as clearer:
            raise clearer from error


def explain_not_finite(
    model: nn.Module, objective: Objective, window: Sequence[Batch], step: int, feed: Feed | None = None
) -> NonFiniteError:
    """The story of a loss that was NaN or Inf: the first module whose output was not finite, or what else it was."""
    broken = [name for name, p in model.named_parameters() if not bool(torch.isfinite(own_part(p)).all())]
    if broken:
        return NonFiniteError(
            f"the loss is not finite, since weights are not: {', '.join(broken[:5])}{' …' if len(broken) > 5 else ''} "
            "hold NaN or Inf. Some step before this one wrote them: its loss was finite and its gradient was not (the "
            "root of 0, a division by a tiny number), or they were so from the start; clip_norm, an epsilon, or "
            "torch.autograd.detect_anomaly() will help",
            step=step,
        )
    for batch in window:
        if bad_samples(batch):
            arrays = getattr(feed, "arrays", None)
            samples = bad_samples(batch if arrays is None else arrays)
            shown = ", ".join(map(str, samples[:10])) + (" …" if len(samples) > 10 else "")
            return NonFiniteError(
                "the loss is not finite, and neither is the data that it comes from: NaN or Inf in samples "
                f"{shown} of the {'batch' if arrays is None else 'data'}; {KEPT}; clean the data",
                step=step,
            )
    for batch in window:

        def forward(batch: Batch = batch) -> Any:
            return objective.compute(model, batch)

        module = None if _lies_in_parts(model) else first_bad_module(model, forward)
        if module is not None:
            return NonFiniteError(
                f"the loss is not finite; the first module whose output is not is {module}; {KEPT}; "
                "a smaller rate, clip_norm=1.0, or a look at that module's input will help",
                step=step,
                module=module,
            )
    if _lies_in_parts(model):
        return NonFiniteError(
            "the loss is not finite, while the data and the weights are; in which module it begins is not looked for, "
            f"since the weights lie in parts on several processes; {KEPT}; a smaller rate or clip_norm=1.0 may help",
            step=step,
        )
    return NonFiniteError(
        "the loss is not finite, while every module's output is: the loss function itself makes it (log of 0, "
        f"overflow, a mean over no sample, all targets ignored?); {KEPT}",
        step=step,
    )


def explain_skipped(model: nn.Module, objective: Objective, window: Sequence[Batch], step: int) -> NonFiniteError:
    """The story of an epoch whose every step the gradient scaler skipped: not a matter of scale."""
    module = first_bad_module(model, lambda: [objective.compute(model, batch) for batch in window])
    where = f"the first module whose output is not finite is {module}" if module else "the modules' outputs are finite"
    return NonFiniteError(
        f"the gradient scaler skipped every step of the epoch, since gradients were not finite: {where}; {KEPT}; "
        "try precision='bf16' or 'fp32', which have a wider range",
        step=step,
        module=module,
    )


KEPT = "the weights are those before this step (a BatchNorm's running statistics have seen the batch)"


def _lies_in_parts(model: nn.Module) -> bool:
    """Whether a forward pass takes all processes; the others are not here."""
    return any(map(lies_in_parts, model.parameters()))


# --- what can be wrong ----------------------------------------------------------------------------------------------


def _broadcast_story(what: str) -> str:
    return (
        f"the loss compares shapes that differ and would broadcast: {what}; every prediction would be compared with "
        "every target. Make them equal: output.squeeze(1), or y.unsqueeze(1)"
    )


def _check_classes(loss: Any, output: Tensor, target: Tensor) -> None:
    name = type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", "the loss")
    if output.dim() == 1 and target.dim() == 0:
        return
    if target.is_floating_point():
        if target.shape != output.shape:
            raise DataError(
                f"{name} expected class labels of dtype int64 and shape {_label_shape(output)}, or probabilities of "
                f"shape {tuple(output.shape)}; got {target.dtype} of shape {tuple(target.shape)}; convert labels: "
                "y.long()"
            )
        return
    if target.dtype not in (torch.int64, torch.uint8):
        raise DataError(f"{name} expected class labels of dtype int64, got {target.dtype}; convert them: y.long()")
    if tuple(target.shape) != _label_shape(output):
        hint = "squeeze the labels: y.squeeze(1)" if target.dim() == output.dim() else "check the model's last layer"
        raise LossError(
            f"{name} expected labels of shape {_label_shape(output)} for logits {tuple(output.shape)}, got "
            f"{tuple(target.shape)}; {hint}"
        )
    _check_range(loss, target, output.shape[1] if output.dim() > 1 else output.shape[0])


def _label_shape(output: Tensor) -> tuple[int, ...]:
    return (output.shape[0], *output.shape[2:])


def _check_range(loss: Any, target: Tensor, classes: int) -> None:
    ignored = setting(loss, "ignore_index", -100)
    kept = target[target != ignored]
    if kept.numel() == 0:
        return
    low, high = int(kept.min()), int(kept.max())
    if low < 0 or high >= classes:
        where = torch.nonzero(((target < 0) | (target >= classes)) & (target != ignored))[0].tolist()
        hint = "labels start at 0: y - 1" if low == 1 and high == classes else f"the model needs {high + 1} outputs"
        raise DataError(
            f"class labels must be 0…{classes - 1}, since the model gives {classes} logits; got labels from {low} to "
            f"{high} (the first wrong one at index {where[0] if len(where) == 1 else tuple(where)}); "
            + (hint if low >= 0 else "a label below 0 is no class; ignore it with ignore_index")
        )


def _check_all_targets(objective: Objective, output: Any, feed: Feed | None, of: str = "") -> None:
    """In-memory labels are all looked at, and not the first batch's only."""
    arrays = getattr(feed, "arrays", None)
    loss = objective.criterion
    if arrays is None or loss is None or loss_kind(loss) != "classwise" or not isinstance(output, Tensor):
        return
    target = split_batch(arrays)[2]
    if isinstance(target, Tensor) and target.dtype in (torch.int64, torch.uint8) and output.dim() > 1:
        try:
            _check_range(loss, target, output.shape[1])
        except DataError as error:
            raise DataError(f"{of}{error}") from None


def _dtype_story(model: nn.Module, objective: Objective, batch: Batch) -> str | None:
    """float64 data (numpy's default) in a float32 model, the commonest first error there is; or pixels as integers."""
    weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    embeds = any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())
    inputs = list(leaves(batch))
    if objective.criterion is not None and loss_kind(objective.criterion) != "elementwise":
        positional, named, _ = split_batch(batch)  # a classifier's labels are integers
        inputs = [*positional, *named.values()]
    for tensor in inputs:
        if not isinstance(tensor, Tensor) or weights is None or tensor.dtype == weights or tensor.is_complex():
            continue
        if tensor.is_floating_point() or not embeds:
            return (
                f"the data is {tensor.dtype} and the model's weights are {weights}; convert it once, before training: "
                f"x.to({weights}) (numpy: x.astype('{str(weights).removeprefix('torch.')}'))"
                + ("" if tensor.is_floating_point() else "; pixels are best divided by 255")
            )
    return None


def _check_alike(feed: Feed, held_out: Feed | None) -> None:
    """Validation data in memory must have the dtypes of training data in memory."""
    ours, theirs = getattr(feed, "arrays", None), getattr(held_out, "arrays", None)
    if ours is None or theirs is None:
        return
    for here, there in zip(leaves(ours), leaves(theirs), strict=False):
        if here.dtype != there.dtype:
            raise DataError(
                f"validation data must be as training data, got {there.dtype} where training has {here.dtype}; "
                f"convert it: x.to({here.dtype})"
            )
