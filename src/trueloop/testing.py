"""Shipped doubles: toy problems that train in milliseconds, and observers that follow a script.

So that tests of a loop, an observer or a model need no mocks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from trueloop.checkpoint.disk import Disk
from trueloop.events import EpochEnded, EvalEnded, Event, RunEnded, RunStarted, Saved, StepEnded, Stop

E = TypeVar("E", RunStarted, StepEnded, EvalEnded, EpochEnded, Saved, RunEnded)


def regression(
    samples: int = 28, features: int = 3, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Inputs (samples, features) and targets (samples, 1) that are nearly a line.

    Example:
        >>> x, y = regression(10)
        >>> x.shape, y.shape
        (torch.Size([10, 3]), torch.Size([10, 1]))
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, features, generator=generator, dtype=dtype)
    noise = torch.randn(samples, 1, generator=generator, dtype=dtype)
    return x, x.sum(1, keepdim=True) + 0.1 * noise


def classification(
    samples: int = 28, features: int = 3, classes: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Inputs (samples, features) and labels (samples,) of ``classes`` classes, each a cloud of its own.

    Example:
        >>> x, y = classification(10, classes=2)
        >>> x.shape, y.tolist()
        (torch.Size([10, 3]), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, features, generator=generator, dtype=dtype)
    y = torch.arange(samples) % classes
    return centres[y] + torch.randn(samples, features, generator=generator, dtype=dtype), y


def mlp(
    features: int = 3,
    outputs: int = 1,
    *,
    width: int = 5,
    norm: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Two layers with their weights from ``seed``; torch's global generator is left as it was.

    Example:
        >>> same_bits(mlp(seed=1), mlp(seed=1)), same_bits(mlp(seed=1), mlp(seed=2))
        (True, False)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Linear(features, width)]
        layers += [nn.BatchNorm1d(width)] * norm
        layers += [nn.ReLU()]
        layers += [nn.Dropout(dropout)] * (dropout > 0)
        return nn.Sequential(*layers, nn.Linear(width, outputs)).to(dtype)


class Weight(nn.Module):
    """One weight, times the input: with a loss that is the output's mean, the gradient is the mean input.

    Example:
        >>> model = Weight(2.0)
        >>> model(torch.tensor([1.0, 3.0])).tolist(), float(model)
        ([2.0, 6.0], 2.0)
    """

    def __init__(self, value: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x

    def __float__(self) -> float:
        return float(self.weight.detach())


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same weights and buffers, to the bit (NaNs are equal here).

    Example:
        >>> same_bits(Weight(0.0), Weight(-0.0))
        False
    """
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(_bits(ours[name]) == _bits(theirs[name]) for name in ours)


def _bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return tensor.dtype, tensor.shape, bytes(flat.view(torch.uint8).tolist())


class Recorder:
    """An observer that keeps every event, and may reply or raise when a certain one comes.

    Args:
        when: the event at which it acts; None never does.
        reply: the ``Stop`` that it then replies, or the exception that it raises.

    Example:
        >>> record = Recorder(lambda event: isinstance(event, RunEnded), Stop("too late"))
        >>> record(RunEnded(step=1, epoch=1, reason="finished", seconds=0.1))
        Stop(reason='too late')
        >>> record.kinds
        ['RunEnded']
    """

    def __init__(self, when: Callable[[Event], bool] | None = None, reply: Stop | BaseException | None = None) -> None:
        self.events: list[Event] = []
        self._when = when
        self._reply = reply

    def __call__(self, event: Event) -> Stop | None:
        self.events.append(event)
        if self._when is None or not self._when(event):
            return None
        if isinstance(self._reply, BaseException):
            raise self._reply
        return self._reply

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def kinds(self) -> list[str]:
        """The names of the events, in order."""
        return [type(event).__name__ for event in self.events]

    @property
    def ended(self) -> RunEnded:
        """The last event, which ends every run."""
        last = self.events[-1]
        assert isinstance(last, RunEnded), f"a run must end with RunEnded, got {last}"
        return last


class RaisesAt:
    """Samples of a dataset, until one raises: what a Ctrl-C or a broken file looks like from inside a run.

    Args:
        x: inputs, one a row.
        y: targets, one a row.
        index: the sample that raises.
        error: what it raises.

    Example:
        >>> data = RaisesAt(*regression(4), index=2, error=KeyboardInterrupt())
        >>> len(data), data[0][0].shape
        (4, torch.Size([3]))
    """

    def __init__(self, x: Tensor, y: Tensor, index: int, error: BaseException) -> None:
        self.x, self.y, self.index, self.error = x, y, index, error

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.index:
            raise self.error
        return self.x[index], self.y[index]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
"""What the system says of a full disk."""


class FailingDisk(Disk):
    """A disk that fails at one operation: try the 1st, the 2nd, … until what you test succeeds.

    Args:
        at: which operation fails, counted from 1; it is not done.
        error: what it raises; None: nothing, so that operations are counted only.
        dead: whether all that comes after it fails too, as if the process had been killed there.

    ``operations`` is how many were asked for.

    Example:
        >>> import tempfile
        >>> disk = FailingDisk(3)
        >>> disk.write(Path(tempfile.mkdtemp(), "a.txt"), [b"hello"])
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device
        >>> disk.operations
        3
    """

    def __init__(self, at: int, error: BaseException | None = FULL, *, dead: bool = False) -> None:
        super().__init__(before=self._count)
        self.operations = 0
        self._at, self._error, self._dead = at, error, dead

    def _count(self, operation: str, path: Path) -> None:
        self.operations += 1
        if self._error is not None and (self.operations == self._at or (self._dead and self.operations > self._at)):
            raise self._error


@contextmanager
def reads_counted() -> Iterator[dict[str, int]]:
    """Counts how often a tensor's value is read inside: each such reading waits for an accelerator.

    Counted are ``aten._local_scalar_dense``, which every reading of one value comes to on an accelerator, and calls
    of ``item``, ``tolist``, ``numpy``, ``cpu`` and the conversions to bool, int and float.

    Example:
        >>> with reads_counted() as reads:
        ...     _ = torch.ones(1) + 1
        ...     before = sum(reads.values())
        ...     _ = float(torch.ones(1))
        >>> before, reads["__float__"]
        (0, 1)
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    names = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
    reads = dict.fromkeys((*names, "_local_scalar_dense"), 0)

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten._local_scalar_dense.default:
                reads["_local_scalar_dense"] += 1
            return func(*args, **(kwargs or {}))

    def counted(name: str) -> Callable[..., object]:
        method = getattr(Tensor, name)

        def call(self: Tensor, *args: object, **kwargs: object) -> object:
            reads[name] += 1
            return method(self, *args, **kwargs)

        return call

    own = {name: name in vars(Tensor) for name in names}
    before = {name: getattr(Tensor, name) for name in names}
    for name in names:
        setattr(Tensor, name, counted(name))
    try:
        with Counting():  # type: ignore[no-untyped-call]
            yield reads
    finally:
        for name in names:
            if own[name]:
                setattr(Tensor, name, before[name])
            else:
                delattr(Tensor, name)
