"""Every error that trueloop raises on purpose.

TrueloopError                   what was expected, what came (the value), what to do
├── ArgumentError               a setting that cannot be: out of range, of the wrong kind, at odds with another
│   ├── UnknownNameError        a name that stands for nothing; the nearest one is offered
│   └── RunFolderError          a folder that holds another run, or cannot be written
├── DataError                   data that cannot be trained on: empty, of unequal lengths, labels out of range
│   └── WorkerError             a loader's worker raised, exited, was killed, or hangs
├── LossError                   a loss that cannot be minimised: not a scalar, no graph, shapes that would broadcast
│   └── NonFiniteError          NaN or Inf, with the step and the first module whose output was not finite
├── ProcessError                a process of several that hangs, is gone, or whose weights have drifted
├── PeerError                   another process has failed, and tells it
├── CheckpointError             a checkpoint that is damaged, of a newer format, or of something else
│   └── NewerFormatError        one that a newer trueloop wrote, with the version that reads it
└── MissingExtraError           an optional package is not installed; carries the install line
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

REQUEUE = 75
"""The exit code that asks a scheduler to start the run again: EX_TEMPFAIL of sysexits.h."""


class TrueloopError(Exception):
    """The root of the tree.

    Args:
        message: what was expected, what came, what to do.
        step: how many optimizer steps had been taken, if it is about one.
        file: the file that it is about, if any.

    Example:
        >>> error = TrueloopError("the disk is full", step=7)
        >>> error.step, str(error)
        (7, 'the disk is full (step 7)')
    """

    def __init__(self, message: str, *, step: int | None = None, file: Path | str | None = None) -> None:
        about = [f"step {step}"] * (step is not None) + [str(file)] * (file is not None)
        super().__init__(message + (f" ({', '.join(about)})" if about else ""))
        self.step = step
        self.file = None if file is None else Path(file)


class ArgumentError(TrueloopError, ValueError):
    """A setting that cannot be."""


class UnknownNameError(ArgumentError):
    """A name that stands for nothing, with the nearest one that stands for something.

    Example:
        >>> str(UnknownNameError("metric", "acuracy", ["accuracy", "loss"]))
        "unknown metric 'acuracy'; did you mean 'accuracy'? Known: accuracy, loss"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, file: Path | None = None) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(f"unknown {kind} {name!r}{hint} Known: {', '.join(known) or 'none'}", file=file)


class RunFolderError(ArgumentError):
    """A folder that holds another run, or cannot be written."""


class DataError(TrueloopError, ValueError):
    """Data that cannot be trained on."""


class WorkerError(DataError):
    """A loader's worker raised, exited, was killed, or hangs.

    Args:
        message: worker, cause and samples in words.
        worker: the worker's number; -1 where the loader is not ours and it cannot be known.
        cause: ``raised``, ``exited``, ``killed`` or ``hangs``.
        samples: the indices of the samples that it was making.
    """

    def __init__(self, message: str, *, worker: int, cause: str, samples: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.worker = worker
        self.cause = cause
        self.samples = tuple(samples)


class LossError(TrueloopError, ValueError):
    """A loss that cannot be minimised."""


class NonFiniteError(LossError):
    """NaN or Inf in a loss; the weights are those before the step.

    Args:
        message: the whole story in words.
        step: how many optimizer steps had been taken before it.
        module: the first module, in order of execution, whose output was not finite; None if every output was.
    """

    def __init__(self, message: str, *, step: int | None = None, module: str | None = None) -> None:
        super().__init__(message, step=step)
        self.module = module


class CheckpointError(TrueloopError):
    """A checkpoint that is damaged, of a newer format, or of something else; or one that could not be saved."""


class NewerFormatError(CheckpointError):
    """A checkpoint that a newer trueloop wrote, with the version that reads it."""


class MissingExtraError(TrueloopError, ImportError):
    """An optional package is not installed.

    Example:
        >>> str(MissingExtraError("tensorboard", "tensorboard"))
        "tensorboard is not installed; it comes with an extra: pip install 'trueloop[tensorboard]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; it comes with an extra: pip install 'trueloop[{extra}]'")


class ProcessError(TrueloopError):
    """A process of this run hangs, is gone, or has weights that are not those of the others.

    Args:
        message: which one, and what it was doing.
        step: how many optimizer steps had been taken, if that is known.
        ranks: the processes that are at fault, as far as that is known.
    """

    def __init__(self, message: str, *, step: int | None = None, ranks: Iterable[int] = ()) -> None:
        super().__init__(message, step=step)
        self.ranks = tuple(ranks)


class PeerError(TrueloopError):
    """Another process of this run has failed: what went wrong is its to tell."""


class Preempted(SystemExit):
    """No error: the machine was asked for, the run has saved its state, and the process is to end with code 75.

    As ``SystemExit`` does, it ends the program unless somebody catches it.

    Example:
        >>> Preempted("preempted by SIGTERM").code
        75
    """

    def __init__(self, reason: str) -> None:
        super().__init__(REQUEUE)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
