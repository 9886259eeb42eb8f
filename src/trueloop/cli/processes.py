"""``--processes N``: the same command in N processes, by torch's own elastic launcher (what ``torchrun`` is)."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Sequence

from trueloop.errors import REQUEUE, ArgumentError

SHUTDOWN_SECONDS = 120
"""A process that was asked to end gets so long to save; torchrun gives 30."""


def taken_from(flags: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The flags without ``--processes N`` and ``--restarts N``, and these.

    Raises:
        ArgumentError: what stands behind one of them is no whole number.

    Example:
        >>> taken_from(["--lr", "0.1", "--processes", "2"])
        (['--lr', '0.1'], {'processes': 2})
    """
    left, taken = [], dict[str, int]()
    waiting = iter(flags)
    for flag in waiting:
        name, _, value = flag.partition("=")
        least = _LEAST.get(name)
        if least is None:
            left.append(flag)
            continue
        value = value or next(waiting, "")
        if not value.isdecimal() or int(value) < least:
            raise ArgumentError(f"expected {name} of at least {least}, got {value or 'nothing'}")
        taken[name.removeprefix("--")] = int(value)
    return left, taken


_LEAST = {"--processes": 1, "--restarts": 0}


def launch(arguments: Sequence[str], processes: int, restarts: int = 0) -> int:
    """Runs ``trueloop ARGUMENTS`` in several processes of this machine, and waits for them.

    Args:
        arguments: of the command, without the program's name.
        processes: how many.
        restarts: how often all are started again when one dies.

    Returns:
        The exit code: theirs if they agree, 75 if they were asked to end and have saved.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # torch 2.13 would meet the addresses of dead processes after a restart: https://github.com/pytorch/pytorch/issues/135712
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    threads = max(1, len(os.sched_getaffinity(0)) // processes) if hasattr(os, "sched_getaffinity") else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # more of them than cores would slow each other
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.2,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "trueloop", *arguments)
    except SignalException as asked:
        return REQUEUE if asked.sigval in (signal.SIGTERM, signal.SIGUSR1) else 128 + asked.sigval
    except ChildFailedError as failed:
        codes = [failure.exitcode for failure in failed.failures.values()]
        return REQUEUE if REQUEUE in codes else max((code for code in codes if code > 0), default=1)
    return 0
