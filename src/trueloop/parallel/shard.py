"""FSDP2: of every weight, gradient and optimizer state, each process holds a part; a layer is whole while it computes.

torch's ``fully_shard`` does it (https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html): the weights of
a unit (a block of the model) are gathered before its forward and its backward pass, and its gradients are summed and
scattered after it. They are summed and not averaged, as ``replicate`` does it and for the same reason.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed._composable.checkpoint_activation import checkpoint
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._ops._pointwise_ops import _register_single_dim_pointwise
from torch.nn.modules.batchnorm import _BatchNorm

from trueloop.data.cursor import derive
from trueloop.data.part import Idle
from trueloop.errors import ArgumentError
from trueloop.objective import Batch, Computed, Objective
from trueloop.parallel.reduce import of_the_first, summed, summing_tensor
from trueloop.parallel.ritual import SharedRitual
from trueloop.parallel.units import FSDP, units_of
from trueloop.parallel.world import world

# As torch has it for its fused Adam; without it SGD's weights would not be one process's to the bit.
for _op in (torch.ops.aten._fused_sgd_.default, torch.ops.aten._fused_sgd_.tensor_lr):
    _register_single_dim_pointwise(_op)

_INIT = 0x696E6974  # "init" in ASCII: keeps these seeds apart from those of data and dropout


def shard(model: nn.Module, how: FSDP, device: torch.device, *, copies: bool = False) -> None:
    """Cuts up a model in place: its parameters become ``DTensor``, of which each process has a part.

    All processes begin with rank 0's weights. A model on the meta device is given memory and initialised unit by unit,
    so that no process ever holds all of it: every module with tensors of its own is asked for ``reset_parameters()``,
    with a seed that depends on ``torch.initial_seed()`` and its place in the model alone.

    Args:
        model: anywhere; its parts will be on ``device``.
        how: see ``FSDP``.
        device: this process's.
        copies: whether ``copy.deepcopy`` of it is to work, as averages of weights need it.

    Raises:
        ArgumentError: a module on the meta device cannot initialise itself; a parameter is a lone number; the model has
            no forward pass.
        UnknownNameError: no module is of a class to wrap.
    """
    if lone := next((name for name, parameter in model.named_parameters() if not parameter.ndim), None):
        raise ArgumentError(
            f"FSDP cuts weights by their first dimension, and {lone} has none: give it the shape (1,), or train with "
            "parallel='ddp'"
        )
    if isinstance(model, (nn.ModuleList, nn.ModuleDict)):
        raise ArgumentError(
            f"FSDP gathers weights in a module's forward pass, and a {type(model).__name__} has none: make it a module "
            "of your own, with the parts as attributes and a forward, or train with parallel='ddp'"
        )
    units = _cuts(model, how)
    mesh = init_device_mesh(device.type, (world().size,))
    bare = _without_memory(model) if copies else None
    seed = int(of_the_first(torch.initial_seed()))
    modules = list(model.modules())
    twins: dict[Tensor, Tensor] = {}
    for number, module in reversed(list(enumerate(modules))):  # what is inside goes first
        _initialise(module, twins, derive(seed, number, _INIT))
        if module in units:
            for tensor in _tensors(module):
                distributed.broadcast(tensor.detach(), src=0)
            if how.checkpoint_activations and module is not model and not isinstance(module, _BatchNorm):
                checkpoint(module)
            _shard(module, how, mesh, whole=module is model)
    for one in _sharded(model):
        one.set_gradient_divide_factor(1.0)
        one.set_force_sum_reduction_for_comms(True)
    model.register_forward_hook(_free_at_rest)
    for parameter in model.parameters():
        if parameter.requires_grad and isinstance(parameter, DTensor):
            parameter.register_hook(partial(_in_its_parts, parameter.device_mesh, parameter.placements))  # type: ignore[no-untyped-call]
    if bare is not None:
        # fully_shard forbids copies: a copy's hooks would be those of the model itself.
        model.__deepcopy__ = partial(_copied, model, bare, how, mesh)  # type: ignore[assignment]


class Sharded:
    """A model that was cut up by ``shard``: the engine of a ``SharedRitual``."""

    def __init__(self, model: nn.Module) -> None:
        assert isinstance(model, FSDPModule), "cut up by shard()"
        self._model, self._root = model, model
        with contextlib.suppress(AttributeError):  # it was not used yet
            self._root.reset_iter_state()  # what a run that has failed in the middle of a step has left
        self._syncs: bool | None = None

    def compute(self, objective: Objective, batch: Batch, *, last: bool) -> Computed:
        """Forward pass and loss of one microbatch. Gradients travel in the backward pass of a window's last one."""
        if last is not self._syncs:
            self._root.set_requires_gradient_sync(last)
            self._syncs = last
        assert isinstance(self._model, nn.Module)
        try:
            return objective.compute(self._model, batch)
        except RuntimeError as error:
            if "mixed torch.Tensor and DTensor" in str(error):
                raise ArgumentError(
                    "a weight was used outside of the model's forward pass, while it is cut up among the processes "
                    "(FSDP); call the model itself in the loss, and use its weights in forward() alone"
                ) from error
            raise

    def send(self, loss: Tensor) -> Callable[[], Tensor]:
        """Begins to sum a window's loss."""
        return summing_tensor(loss)


class ShardedRitual(SharedRitual):
    """A ``SharedRitual`` of a model that is cut up: what it tells is told whole."""

    def _clip(self) -> Tensor | None:
        norm = super()._clip()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def in_step(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of an evaluation; where others have one more than this process, an ``Idle`` one at the end.

    A forward pass gathers weights: all processes have to make it.

    Example:
        >>> list(in_step([1, 2]))
        [1, 2]
    """
    last: Batch | None = None
    for number, batch in enumerate(itertools.chain(map(_Some, batches), itertools.repeat(None))):
        have = int(summed([batch is not None], "in an evaluation")[0])
        if not have:
            return
        if number == 0 and have < world().size:  # fewer batches than processes
            last = of_the_first(None if batch is None else batch.value)
        if batch is None:
            yield Idle(last)
        else:
            last = batch.value
            yield last


@dataclass(frozen=True)
class _Some:
    value: Any


def _cuts(model: nn.Module, how: FSDP) -> set[nn.Module]:
    """The modules that are cut up one by one, the whole model among them."""
    norms = [one for one in model.modules() if isinstance(one, _BatchNorm) and how.mixed_precision and one.affine]
    return {model, *units_of(model, how.wrap), *norms}


def _shard(module: nn.Module, how: FSDP, mesh: DeviceMesh, *, whole: bool) -> None:
    policy = MixedPrecisionPolicy()
    if how.mixed_precision:
        bf16, fp32 = torch.bfloat16, torch.float32
        policy = MixedPrecisionPolicy(bf16, fp32, output_dtype=fp32 if whole else None)
        if isinstance(module, _BatchNorm):  # its statistics are not rounded
            policy = MixedPrecisionPolicy(fp32, fp32, output_dtype=bf16)
    offload = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if how.cpu_offload else OffloadPolicy()
    fully_shard(
        module,
        mesh=mesh,
        reshard_after_forward=how.reshard_after_forward and not whole,  # backward begins with it
        mp_policy=policy,
        offload_policy=offload,
    )


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _in_its_parts(mesh: DeviceMesh, placements: Any, gradient: Any) -> Any:
    """A penalty's gradient, which DTensor computes whole where a weight has fewer rows than there are processes."""
    return gradient.redistribute(mesh, placements)


def _free_at_rest(model: nn.Module, inputs: Any, output: Any) -> None:
    """After a forward pass without a backward: what is whole would be taken for the weights."""
    if not torch.is_grad_enabled():
        for module in _sharded(model):
            module.reshard()


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers that are not cut up yet."""
    every = itertools.chain(module.parameters(), module.buffers())
    return [tensor for tensor in every if not isinstance(tensor, DTensor)]


def _initialise(module: nn.Module, twins: dict[Tensor, Tensor], seed: int) -> None:
    """Gives a module's own tensors memory and values, if they are on the meta device."""
    own = [(table, name) for table in (module._parameters, module._buffers) for name in table]
    empty = [(table, name, one) for table, name in own if (one := table[name]) is not None and one.is_meta]
    if not empty:
        return
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is None:
        raise ArgumentError(
            f"a {type(module).__name__} on the meta device has to initialise itself, and has no reset_parameters(); "
            f"give it one that fills {', '.join(name for _, name, _ in empty)}"
        )
    for table, name, tensor in empty:  # a tied weight stays tied
        if tensor not in twins:
            filled = torch.empty_like(tensor, device="cpu")
            is_weight = isinstance(tensor, nn.Parameter)
            twins[tensor] = nn.Parameter(filled, tensor.requires_grad) if is_weight else filled
        table[name] = twins[tensor]  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reset()


def _without_memory(model: nn.Module) -> nn.Module:
    """A copy on the meta device."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


def _copied(model: nn.Module, bare: nn.Module, how: FSDP, mesh: DeviceMesh, memo: dict[int, Any]) -> nn.Module:
    """A copy of a model that was cut up, cut up as well: each process copies its parts."""
    other = copy.deepcopy(bare)
    units = _cuts(other, how)
    for module in reversed(list(other.modules())):
        if module in units:
            _shard(module, how, mesh, whole=module is other)
    other.to_empty(device="cpu" if how.cpu_offload else mesh.device_type)
    other.register_forward_hook(_free_at_rest)
    with torch.no_grad():
        for own, theirs in zip(other.parameters(), model.parameters(), strict=True):
            own.requires_grad_(theirs.requires_grad).copy_(theirs)
        for own_buffer, buffer in zip(other.buffers(), model.buffers(), strict=True):
            own_buffer.copy_(buffer)
    memo[id(model)] = other
    return other
