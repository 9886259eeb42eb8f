"""``--processes N``: the same command in N processes, by torch's own elastic launcher (what ``torchrun`` is)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence

from trueloop.errors import REQUEUE, ArgumentError

RESTART = "TRUELOOP_RESTART"
"""In the environment of the processes: how often they were started again."""

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


def is_restart() -> bool:
    """Whether processes have died, and these are started in their place, by us or by torchrun.

    Example:
        >>> is_restart()
        False
    """
    return any(os.environ.get(name, "0") != "0" for name in (RESTART, "TORCHELASTIC_RESTART_COUNT"))


def launch(arguments: Sequence[str], processes: int, restarts: int = 0) -> int:
    """Runs ``trueloop ARGUMENTS`` in several processes of this machine, and waits for them.

    Args:
        arguments: of the command, without the program's name.
        processes: how many.
        restarts: how often all are started again when one dies: killed, hanging, or by an exception. What is wrong with
            the request, the data or the training (code 2) would be as wrong again.

    Returns:
        The exit code: theirs if they agree, 75 if they were asked to end and have saved.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # torch's launcher tells of each end several times
    threads = max(1, len(os.sched_getaffinity(0)) // processes) if hasattr(os, "sched_getaffinity") else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # more of them than cores would slow each other
    try:
        for restart in range(restarts + 1):
            os.environ[RESTART] = str(restart)
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=str(uuid.uuid4()),
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,  # torch's own would also try again what is a mistake of the user's
                monitor_interval=0.2,
                shutdown_timeout=SHUTDOWN_SECONDS,
                logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # no folder is left in /tmp
            )
            try:
                elastic_launch(config, sys.executable)("-m", "trueloop", *arguments)
                return 0
            except ChildFailedError as failed:
                codes = {rank: failure.exitcode for rank, failure in sorted(failed.failures.items())}
            killed = _killed(codes)
            if restart == restarts or not codes.keys() or not _MEANT.isdisjoint(codes.values()):
                break
            print(
                f"{killed or 'a process has failed'}: all {processes} begin again from the newest checkpoint "
                f"(restart {restart + 1} of {restarts})",
                file=sys.stderr,
            )
    except SignalException as asked:
        return REQUEUE if asked.sigval in (signal.SIGTERM, signal.SIGUSR1) else 128 + asked.sigval
    if killed is not None and BROKEN_OFF not in codes.values():  # that process has told of it
        print(f"error: {killed}", file=sys.stderr)
    return next((code for code in (REQUEUE, 2, BROKEN_OFF) if code in codes.values()), max(1, *codes.values()))


BROKEN_OFF = 3
"""The exit code of a process that has told of another one: it hangs, is gone, or has other weights."""

_MEANT = {2, REQUEUE, 128 + signal.SIGINT}
"""Exit codes with which a process ends that is not to be started again."""


def _killed(codes: Mapping[int, int]) -> str | None:
    """Which process was killed, in words: the launcher's own SIGTERM, which the others get then, does not count."""
    for rank, code in codes.items():
        if code < 0 and -code != signal.SIGTERM:
            cause = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"process {rank} was killed by {signal.Signals(-code).name}{cause}"
    return None
