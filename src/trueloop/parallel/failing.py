"""What one process does for all, and what one process's failure is to the others: an error is told once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import distributed

from trueloop.errors import PeerError, Preempted
from trueloop.parallel.reduce import of_the_first
from trueloop.parallel.world import World, world

T = TypeVar("T")


def by_the_first(do: Callable[[], T]) -> T | None:
    """Has rank 0 do something while the others wait; None for them.

    Raises:
        PeerError: on the others, if it failed.

    Example:
        >>> by_the_first(lambda: 3)
        3
    """
    if world().alone:
        return do()
    result, error = None, None
    if world().first:
        try:
            result = do()
        except BaseException as raised:
            error = raised
    failed = of_the_first(None if error is None else _in_words(error))
    if error is not None:
        raise error
    if failed is not None:
        raise PeerError(f"process 0 has failed: {failed}")
    return result


@contextlib.contextmanager
def told_once(here: World) -> Iterator[None]:
    """Inside, the process that fails first raises its own error, with its number; the others a ``PeerError``.

    Whoever waits for a process that is gone fails as well, with an error of the network's that says nothing of the
    cause.
    """
    if here.alone:
        yield
        return
    try:
        yield
    except (Preempted, KeyboardInterrupt, PeerError):
        raise
    except BaseException as error:
        told = _claim(here, error)
        if told is not None:
            raise PeerError(told) from None
        if _is_of_the_network(error):
            raise PeerError(
                f"process {here.rank} waited for another process, which is gone: killed, or out of memory ({error})"
            ) from error
        error.add_note(f"in process {here.rank} of {here.size}")
        raise


def _claim(here: World, error: BaseException) -> str | None:
    """What the process that was first to fail has told; None if that is this one."""
    own = f"process {here.rank} has failed: {_in_words(error)}"
    try:
        store = distributed.distributed_c10d._get_default_store()
        key = f"trueloop/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        told: str = store.compare_set(key, "", own).decode()
    except (RuntimeError, ValueError):  # the store has gone with its process
        return None
    return None if told == own else told


def _is_of_the_network(error: BaseException) -> bool:
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "Connection", "NCCL"))


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
