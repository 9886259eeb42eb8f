"""The processes of a run: those that torchrun has started, or this one alone."""

from __future__ import annotations

import atexit
import contextlib
import glob
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from trueloop.errors import ArgumentError, PeerError, ProcessError

TIMEOUT = timedelta(minutes=10)
"""A process that waits longer for another one gives up: torch's own 30 minutes are half an hour of a cluster."""


@dataclass(frozen=True)
class World:
    """Where this process stands among the others.

    Args:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine: the device that is its own.

    Example:
        >>> World().alone, World(rank=1, size=2).first
        (True, False)
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0


@cache
def world() -> World:
    """The processes of this run; joins them at the first call, if torchrun has started several.

    Example:
        >>> world()
        World(rank=0, size=1, local_rank=0)
    """
    if not distributed.is_available():
        return World()
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
            return World()
        _join()
        atexit.register(_leave)
    atexit.register(_let_go)
    local = os.environ.get("LOCAL_RANK", str(distributed.get_rank()))
    return World(distributed.get_rank(), distributed.get_world_size(), int(local))


def check_alone(what: str) -> None:
    """Raises where torchrun has started several processes, and something is for one: none of them is joined or waits.

    Args:
        what: it is, as a sentence begins.

    Raises:
        ArgumentError: on each process.

    Example:
        >>> check_alone("an examination")
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if distributed.is_available() and distributed.is_initialized():
        size = distributed.get_world_size()
    if size > 1:
        raise ArgumentError(f"{what} is for one process, and there are {size}: start it without torchrun")


def wait_no_longer(seconds: float) -> None:
    """From here on, whoever waits longer than that for another process gives up."""
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))


def _join() -> None:
    """Gloo carries what is on the CPU, also between processes that have GPUs: what is agreed on waits for no device."""
    from torch.distributed.distributed_c10d import PrefixStore

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    prefix = "trueloop"
    if _meets_the_dead() and os.environ.get("GROUP_WORLD_SIZE") == "1":
        prefix = f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}"
    elif _meets_the_dead() and rank == 0:
        print(_ADVICE, file=sys.stderr)
    try:
        store = PrefixStore(prefix, _meeting_point(rank, size))
    except distributed.DistError as error:
        raise _late(rank, size, (0,)) from error
    store.set(f"{_CAME}/{rank}", "")
    try:
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except distributed.DistError as error:
        try:
            came = [other for other in range(size) if store.check([f"{_CAME}/{other}"])]
        except distributed.DistError:
            raise PeerError("the process that keeps the store has given up, and says why") from error
        if len(came) == size:
            raise
        if rank != came[0]:
            raise PeerError(f"process {came[0]} says who has not come") from error
        raise _late(rank, size, sorted({*range(size)} - {*came})) from error


def _meeting_point(rank: int, size: int) -> Any:
    """The store that torchrun keeps; or rank 0's, which waits for nobody: who never comes is to be told from it."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is in its documentation
    from torch.distributed.rendezvous import rendezvous

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return next(rendezvous("env://", timeout=TIMEOUT))[0]
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, size, rank == 0, timeout=TIMEOUT, wait_for_workers=False, multi_tenant=True)


def _late(rank: int, size: int, missing: Sequence[int]) -> ProcessError:
    who = ", ".join(f"process {other}" for other in missing)
    return ProcessError(
        f"process {rank} of {size} has waited {TIMEOUT.total_seconds():g} s to begin, for {who}: it hangs, or is at "
        "work, in what comes before fit, or it has not been started",
        ranks=missing,
    )


def _meets_the_dead() -> bool:
    """Whether torchrun restarts processes with the store of those before, in which their addresses stand.

    They hang then, with torch 2.13 (https://github.com/pytorch/pytorch/issues/135712). On one machine a prefix of our
    own tells the generations apart; on several, they count restarts differently, and only torchrun can.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    return restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


_ADVICE = (
    "torchrun --max-restarts on several machines hangs after a restart, with torch 2.13: start it with "
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment"
)


def _leave() -> None:
    """Its threads must not outlive the interpreter."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _let_go() -> None:
    """Waits until gloo's threads have let go of the tensors that they summed last; the interpreter is theirs meanwhile.

    To let go of one takes the interpreter, and that of a program that ends is held or gone: a process that has done
    all its work hangs, or is aborted (https://github.com/pytorch/pytorch/issues/190489; half of all runs on a machine
    that is busy enough).
    """
    until, at_rest = time.monotonic() + _PATIENCE_SECONDS, 0
    while at_rest < 3 and time.monotonic() < until:
        time.sleep(0.002)
        at_rest = 0 if _is_at_work() else at_rest + 1


def _is_at_work() -> bool:
    """Whether one of gloo's threads runs, or would if a core were free. Only Linux tells; elsewhere it is a guess."""
    for thread in glob.glob("/proc/self/task/*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = Path(thread).read_text().partition("(")[2].rpartition(")")
            if name.startswith(_GLOO) and rest.split()[0] == "R":
                return True
    return False


_CAME = "trueloop/came"
_GLOO = "pt_gloo_runloop"
_PATIENCE_SECONDS = 10
