"""DDP: a whole model on each process, one sum of gradients a step, which travels while backward still goes on.

torch's ``DistributedDataParallel`` does it (https://arxiv.org/abs/2006.15704). It would average over the processes;
here gradients are summed, since each process has already divided by the count of *all* of them (``step.py``): so
uneven parts weigh what they should, and two processes give the bits of one that accumulates two microbatches.
"""

# No "from __future__ import annotations": DDP reads those of its hook.
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trueloop.objective import Batch, Computed, Objective


@dataclass(frozen=True)
class DDP:
    """How gradients travel; all of it torch's.

    Args:
        bucket_mb: gradients travel in buckets of this size, the first while backward goes on.
        find_unused: parameters may have no gradient in a step (branches); costs a walk through the graph each step.
        static_graph: the graph is the same each step, so that unused parameters need to be found once.
        sync_batchnorm: BatchNorm takes its statistics over all processes' samples; on GPUs alone, says torch.
        compress: gradients travel as bf16, half the bytes; they are rounded by it.
    """

    bucket_mb: float = 25.0
    find_unused: bool = False
    static_graph: bool = False
    sync_batchnorm: bool = False
    compress: bool = False


class Replicated:
    """A model of which every process has a whole copy.

    Args:
        model: the same on every process; rank 0's weights are taken.
        how: see ``DDP``.
    """

    def __init__(self, model: nn.Module, how: DDP) -> None:
        device = next(model.parameters()).device
        self._model = model
        self._ddp = DistributedDataParallel(
            _Called(model),
            device_ids=[device] if device.type == "cuda" else None,
            bucket_cap_mb=how.bucket_mb,
            find_unused_parameters=how.find_unused,
            static_graph=how.static_graph,
        )
        self._ddp.register_comm_hook(how.compress, _summed)

    def compute(self, objective: Objective, batch: Batch, *, last: bool) -> Computed:
        """Forward pass and loss of one microbatch. What its backward gives travels after the last of a window alone.

        The loss function gets the model itself: whatever it calls of it, and however often, is one forward pass of
        DDP's.
        """
        with contextlib.nullcontext() if last else self._ddp.no_sync():
            computed: Computed = self._ddp(lambda: objective.compute(self._model, batch))
        return computed


class _Called(nn.Module):
    """What DDP wraps: the model's parameters, and a forward pass that is whatever it is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Computed]) -> Computed:
        return compute()


def _summed(compress: bool, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """A communication hook of DDP's: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html."""
    gradients = bucket.buffer()
    sent = gradients.to(torch.bfloat16) if compress else gradients
    work = distributed.all_reduce(sent, async_op=True)
    assert work is not None, "the process group is this process's"

    def back(future: Any) -> Tensor:
        total: Tensor = future.value()[0]
        return gradients.copy_(total) if compress else total

    return work.get_future().then(back)
