"""DDP: a whole model on each process, one sum of gradients a step, which travels while backward still goes on.

torch's ``DistributedDataParallel`` does it (https://arxiv.org/abs/2006.15704). It would average over the processes;
here gradients are summed, since each process has already divided by the count of *all* of them (``step.py``): so
uneven parts weigh what they should, and two processes give the bits of one that accumulates two microbatches.
"""

# No "from __future__ import annotations": DDP reads those of its hook.
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from trueloop.checks import check_positive
from trueloop.errors import ArgumentError
from trueloop.objective import Batch, Computed, Objective
from trueloop.parallel.reduce import summing_tensor


@dataclass(frozen=True)
class DDP:
    """How gradients travel; all of it torch's.

    In a loop of your own they are summed when a window's last ``update`` is called: there any parameter may be unused
    in any step, and ``find_unused`` and ``static_graph`` say nothing.

    Args:
        bucket_mb: gradients travel in buckets of this size, the first while backward goes on. None has torch's: 25, and
            1 for the first of them, which leaves the sooner.
        find_unused: parameters may have no gradient in a step (branches); costs a walk through the graph each step.
        static_graph: the graph is the same each step, so that unused parameters need to be found once; not with
            ``accumulate``.
        sync_batchnorm: BatchNorm takes its statistics over all processes' samples; on GPUs alone, says torch.
        compress: gradients travel as bf16, half the bytes; they are rounded by it.

    Raises:
        ArgumentError: a bucket without a size.

    Example:
        >>> DDP(compress=True)
        DDP(bucket_mb=None, find_unused=False, static_graph=False, sync_batchnorm=False, compress=True)
    """

    bucket_mb: float | None = None
    find_unused: bool = False
    static_graph: bool = False
    sync_batchnorm: bool = False
    compress: bool = False

    def __post_init__(self) -> None:
        check_positive("bucket_mb", self.bucket_mb, hint="None has torch's own, 25")


class Replicated:
    """A model of which every process has a whole copy.

    Args:
        model: the same on every process; rank 0's weights are taken.
        how: see ``DDP``.
    """

    def __init__(self, model: nn.Module, how: DDP) -> None:
        self._model, self._how = model, how
        self._device = next(model.parameters()).device
        self._parameters = list(model.parameters())
        self._sent = True  # the gradients of all parameters, in this backward pass
        self._wrap()

    def compute(self, objective: Objective, batch: Batch, *, last: bool) -> Computed:
        """Forward pass and loss of one microbatch. What its backward gives travels after the last of a window alone.

        The loss function gets the model itself: whatever it calls of it, and however often, is one forward pass of
        DDP's.
        """
        if self._how.static_graph and not last:
            raise ArgumentError("static_graph=True does not go with accumulate, in torch 2.13; leave one of them out")
        if self._wanted != [parameter.requires_grad for parameter in self._parameters]:
            self._wrap()  # some were frozen, or thawed
        told: list[Computed] = []

        def forward() -> Tensor:
            told.append(objective.compute(self._model, batch))
            return told[0].loss

        with contextlib.nullcontext() if last else self._ddp.no_sync():
            loss: Tensor = self._ddp(forward)
        if last and not (self._how.find_unused or self._how.static_graph) and loss.requires_grad:
            self._sent = False
            loss.register_hook(self._begin)  # type: ignore[no-untyped-call]
        return told[0] if loss is told[0].loss else replace(told[0], loss=loss)

    def send(self, loss: Tensor) -> Callable[[], Tensor]:
        """Begins to sum a window's loss, before its last backward pass: it travels with the gradients, if exactly."""
        return summing_tensor(loss) if self._how.compress else self._called.carry(loss)

    def sent(self, *, is_last: bool) -> None:
        """A bucket is on its way; they go in their order."""
        self._sent = is_last

    @property
    def compresses(self) -> bool:
        """Whether gradients travel as bf16."""
        return self._how.compress

    def _wrap(self) -> None:
        self._wanted = [parameter.requires_grad for parameter in self._parameters]
        self._called = _Called(self._model)
        self._ddp = DistributedDataParallel(
            self._called,
            device_ids=[self._device] if self._device.type == "cuda" else None,
            bucket_cap_mb=self._how.bucket_mb,
            find_unused_parameters=self._how.find_unused,
            static_graph=self._how.static_graph,
            gradient_as_bucket_view=True,  # no second copy of them
        )
        self._ddp.register_comm_hook(self, _summed)
        for wrapper in (self._ddp, self._called):
            vars(wrapper)["_trueloop_wraps"] = True  # the doctor is to hear the model alone

    def _begin(self, gradient: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(self._end)

    def _end(self) -> None:
        """Backward is over. torch would take the step with what has arrived, and complain in the next one."""
        if self._sent:
            return
        trained = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        left = [name for name, p in trained if p.grad is None]
        which = f"{len(left)} of {len(trained)} parameters ({', '.join(left[:5])}{' …' if len(left) > 5 else ''})"
        raise ArgumentError(
            f"the loss of this step did not use {which if left else 'all parameters in its last microbatch'}, and the "
            "other processes wait for their gradients; if steps may leave some out, say "
            "parallel=trueloop.DDP(find_unused=True); if these are never used, freeze them: p.requires_grad_(False)"
        )


def synchronise_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Has BatchNorm take its statistics over all processes' samples: its modules are replaced by torch's that do.

    Raises:
        ArgumentError: the processes have no GPUs.

    Example:
        >>> synchronise_batchnorm(nn.Linear(2, 1), torch.device("cpu"))
    """
    if device.type == "cpu" and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ArgumentError(
            "sync_batchnorm=True needs a GPU for each process, says torch, and the model is on the CPU; leave it out: "
            "each process then normalises by its own samples, and rank 0's running statistics are kept"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


class _Called(nn.Module):
    """What DDP wraps: the model's parameters, and a forward pass that is whatever it is given.

    One parameter more has the loss for its gradient. So DDP sums it with those of the model, in the bucket that leaves
    first: an exchange of its own would be a third of what trueloop adds to a step (docs/log.md).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        first = next(model.parameters())
        dtype = torch.float64 if first.dtype is torch.float64 else torch.float32
        self.carries = nn.Parameter(torch.zeros((), dtype=dtype, device=first.device))
        self.loss: Tensor | None = None

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        self.loss = None
        loss = compute()
        return _Carried.apply(loss, self.carries, self) if loss.requires_grad else loss  # type: ignore[no-untyped-call]

    def carry(self, loss: Tensor) -> Callable[[], Tensor]:
        self.loss, self.carries.grad = loss.detach().to(self.carries.dtype), None

        def total() -> Tensor:
            assert self.carries.grad is not None, "backward is over"
            return self.carries.grad.clone()  # it lies in the bucket, which the next step fills

        return total


class _Carried(torch.autograd.Function):
    """A loss as it is, on whose way back another one's value is taken along as a gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, carries: Tensor, called: _Called) -> Tensor:
        ctx.called = called
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        return gradient, ctx.called.loss, None


def _summed(of: Replicated, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """A communication hook of DDP's: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html."""
    of.sent(is_last=bucket.is_last())
    gradients = bucket.buffer()
    sent = gradients.to(torch.bfloat16) if of.compresses else gradients
    work = distributed.all_reduce(sent, async_op=True)
    assert work is not None, "the process group is this process's"

    def back(future: Any) -> Tensor:
        total: Tensor = future.value()[0]
        return gradients.copy_(total) if of.compresses else total

    future: torch.futures.Future[Tensor] = work.get_future().then(back)
    return future
