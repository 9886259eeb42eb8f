"""Trying things that leave no trace: in a fork of this process, or here, with everything put back.

A fork is the surer way: whatever the user's code keeps (a counter, a file's position, a generator in a loader), the
process that asked has it as it was. Where the process cannot be forked (an accelerator is in use, or the system has no
fork), weights, optimizers, modes and random numbers are put back.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from trueloop.checkpoint.rngs import set_rngs_to, state_of_rngs
from trueloop.data.generators import generators_in, put, states
from trueloop.doctor.findings import Place
from trueloop.doctor.places import raised_at
from trueloop.verify_resume.processes import finished, forked

if TYPE_CHECKING:  # the trainer imports this
    from trueloop.trainer import Trainer

T = TypeVar("T")
Job = Callable[[], T]


class AsideError(Exception):
    """What was tried did not come to its end: what it raised, in words, and the user's line that raised it."""

    def __init__(self, text: str, place: Place | None = None) -> None:
        super().__init__(text)
        self.text, self.place = text, place


class Aside(NamedTuple):
    """One way of trying things.

    Args:
        trainer: whose state is to stay as it is.
        data: what it reads.
        forks: in a fork; else here.
    """

    trainer: Trainer
    data: tuple[Any, ...]
    forks: bool

    def __call__(self, job: Job[T], seconds: float) -> T:
        """What ``job`` returns, with nothing else left of it.

        Args:
            job: returns plain values.
            seconds: a fork is ended after so many; here, nothing can be ended.

        Raises:
            AsideError: it raised, died or took too long.
        """
        if self.forks:
            return in_fork(job, seconds)
        with put_back(self.trainer, *self.data):
            try:
                return job()
            except Exception as error:
                raise AsideError(_told(error), raised_at(error)) from error


def can_fork(device: torch.device) -> bool:
    """Whether this process can be forked and go on computing.

    Example:
        >>> can_fork(torch.device("cpu")) == hasattr(os, "fork")
        True
    """
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return hasattr(os, "fork") and device.type == "cpu" and not used


def in_fork(job: Job[T], seconds: float) -> T:
    """Does ``job`` in a fork, on one thread, with the random numbers of this process.

    Args:
        job: what it returns is pickled.
        seconds: after so many it is ended.

    Raises:
        AsideError: it raised, died or took too long.

    Example:
        >>> kept = []
        >>> in_fork(lambda: kept.append(1) or len(kept), seconds=60), kept
        (1, [])
    """
    rngs = state_of_rngs()
    with tempfile.TemporaryDirectory(prefix="trueloop-examine-") as name:
        file = Path(name, "returned")

        def written() -> None:
            torch.set_num_threads(1)  # OpenMP's other threads do not survive a fork, and would be waited for
            set_rngs_to(rngs)  # python seeds its random anew in a fork
            returned: tuple[str, Any]
            try:
                returned = "returned", job()
            except Exception as error:
                returned = "raised", (_told(error), raised_at(error))
            file.write_bytes(pickle.dumps(returned))

        code = finished(forked(written, Path(name, "log")), seconds)
        if code == 0 and file.exists():
            how, what = pickle.loads(file.read_bytes())  # of our own fork
            if how == "raised":
                raise AsideError(*what)
            value: T = what
            return value
    if code is None:
        raise AsideError(f"it had not ended after {seconds:g} s (timeout)")
    raise AsideError(f"its process died of signal {-code}" if code < 0 else f"its process ended with exit code {code}")


@contextlib.contextmanager
def put_back(trainer: Trainer, *data: Any) -> Iterator[None]:
    """Puts back what the trainer is made of: weights, buffers, gradients, optimizers, modes, random numbers.

    Args:
        trainer: set up.
        data: whose generators are put back too.

    Example:
        >>> import trueloop as tl
        >>> trainer = tl.Trainer(nn.Linear(1, 1), nn.MSELoss(), tl.optim.sgd(lr=0.1))
        >>> before = trainer.model.weight.item()
        >>> with put_back(trainer):
        ...     _ = trainer.fit((torch.ones(4, 1), torch.ones(4, 1)), epochs=1, batch_size=2, progress=False)
        >>> trainer.model.weight.item() == before
        True
    """
    setup = trainer.setup
    modules = [module for root in (trainer.model, setup.loss) if root is not None for module in root.modules()]
    optimizers = [_of_optimizer(optimizer) for optimizer in setup.optimizers.values()]
    inside = [_of_module(module) for module in modules]
    last_run, averaged = trainer._session.run, setup.averaged
    roots = (trainer.model, trainer.choices.loss, trainer.choices.settings.penalty, *data)
    generators = generators_in([root for root in roots if root is not None])
    before, rngs = states(generators), state_of_rngs()
    try:
        yield
    finally:
        for back in (*inside, *optimizers):
            back()
        trainer._session.run, setup.averaged = last_run, averaged
        put(generators, before)
        set_rngs_to(rngs)


def _of_module(module: nn.Module) -> Callable[[], None]:
    """Gives what puts one module back; its children are put back by themselves."""
    tensors = [
        (kind, name, tensor, tensor.detach().clone(), tensor.grad, tensor.requires_grad)
        for kind in ("_parameters", "_buffers")
        for name, tensor in vars(module)[kind].items()
        if tensor is not None
    ]
    gradients = [None if grad is None else grad.clone() for *_, grad, _ in tensors]
    training = module.training

    @torch.no_grad()
    def back() -> None:
        module.training = training
        for (kind, name, tensor, values, grad, wanted), kept in zip(tensors, gradients, strict=True):
            tensor.copy_(values)
            if kind == "_parameters":
                tensor.requires_grad_(wanted)
            if grad is not None and kept is not None:
                grad.copy_(kept)
            tensor.grad = grad
            vars(module)[kind][name] = tensor

    return back


def _of_optimizer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    state = {parameter: _copied(values) for parameter, values in optimizer.state.items()}
    groups = [dict(group) for group in optimizer.param_groups]
    rates = [group["lr"].clone() if isinstance(group.get("lr"), Tensor) else None for group in groups]

    def back() -> None:
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, kept, rate in zip(optimizer.param_groups, groups, rates, strict=True):
            group.clear()
            group.update(kept)
            if rate is not None:
                group["lr"].copy_(rate)

    return back


def _copied(values: Mapping[str, Any]) -> Any:
    return {key: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value) for key, value in values.items()}


def _told(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
