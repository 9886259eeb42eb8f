"""What the other processes of a training have seen: each leaves word in the process group's store, and none waits."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from typing import Any

from trueloop.doctor.places import is_users

KEY = "trueloop/doctor"


def group() -> tuple[int, int] | None:
    """This process's number and how many there are; None for one alone."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
        return None
    return dist.get_rank(), dist.get_world_size()


def leave(what: str, word: str) -> None:
    """Leaves word for the others."""
    if (of := group()) is not None:
        _put(f"{KEY}/{what}/{of[0]}", word)


def left(what: str) -> dict[int, str]:
    """What others have left by now, by their numbers."""
    of = group()
    if of is None:
        return {}
    found = {other: _get(f"{KEY}/{what}/{other}") for other in range(of[1]) if other != of[0]}
    return {other: word for other, word in found.items() if word is not None}


def shares_out(loader: Any) -> bool:
    """Whether a loader has a sampler that gives each process samples of its own."""
    from torch.utils.data.distributed import DistributedSampler

    samplers = (getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None))
    return any(isinstance(one, DistributedSampler) and one.num_replicas > 1 for one in samplers)


def users_lines(file: str | None) -> list[str]:
    """All lines of the user's own files, without their comments.

    Args:
        file: one of them; where it is no file (a notebook's cell), it is all.
    """
    files = {file} if file is not None else set()
    if file is None or Path(file).is_file():
        modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        files |= {one for one in modules if isinstance(one, str) and one.endswith(".py") and is_users(one)}
    return [line.partition("#")[0] for one in sorted(files) for line in linecache.getlines(one)]


def _put(key: str, word: str) -> None:
    try:
        _store().set(key, word)
    except Exception:  # a store that is closed, or of a kind that keeps nothing
        return


def _get(key: str) -> str | None:
    try:
        store = _store()
        return store.get(key).decode() if store.check([key]) else None
    except Exception:
        return None


def _store() -> Any:
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()
