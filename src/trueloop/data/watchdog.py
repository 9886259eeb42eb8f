"""A DataLoader's worker that raises, exits, is killed or hangs: one ``WorkerError``, and nothing is left behind.

torch tells of a dead worker by three exceptions (``RuntimeError``, ``ConnectionResetError``, ``EOFError``), sometimes
in the middle of the user's own step, from a signal handler; for a *stopped* worker it waits for ever, whatever its
``timeout=``, inside the receipt of a tensor's file descriptor. So a thread of ours looks at the clock, and kills
whoever holds us up.

What is touched of torch's private parts is at the bottom of this file, and nowhere else.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from trueloop.errors import WorkerError


class Making(NamedTuple):
    """What a worker is making: the samples' indices, and the same in words."""

    samples: tuple[int, ...] = ()
    words: str = ""


def watched(
    loader: DataLoader[Any], timeout: float, making: Callable[[int], Making] = lambda worker: Making()
) -> Generator[Any, None, None]:
    """The loader's batches, ``iter(loader)`` called once; workers are ended with it, unless they are persistent.

    Args:
        loader: the loader.
        timeout: seconds to wait for one batch before the worker that holds it up is killed; the loader's own
            ``timeout``, if it has one, goes before.
        making: what the worker of that number is making.

    Raises:
        WorkerError: a worker raised, exited, was killed, or hangs.

    Example:
        >>> list(watched(DataLoader([1, 2, 3], batch_size=2), timeout=60))
        [tensor([1, 2]), tensor([3])]
    """
    if loader.num_workers == 0:
        yield from loader  # what it raises is the user's own, with the user's own traceback
        return
    with _no_signal_handler():
        iterator = _begun(loader)
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            _take_over(iterator)
    if not isinstance(iterator, _MultiProcessingDataLoaderIter):
        yield from iterator  # a subclass with an __iter__ of its own: not ours to watch
        return
    alarm = _Alarm(iterator, loader.timeout or timeout)
    alarm.start()
    healthy = True
    try:
        while True:
            try:
                with alarm.waiting():
                    batch = _fetch(iterator)
            except Exception as error:
                healthy = False
                _blame(error, iterator, alarm, making)
                raise  # no worker is to blame: too many open files, say
            if alarm.killed is not None:  # the batch came in the very moment in which its worker was given up
                healthy = False
                raise _hangs(alarm.killed, iterator, alarm.timeout, making)
            if batch is _END:
                return
            yield batch
    finally:
        alarm.stop()
        if not healthy:
            _kill(iterator)
            loader._iterator = None  # persistent workers: the next epoch must not meet the dead
        elif loader.persistent_workers:
            iterator._timeout = loader.timeout
        else:
            _shut_down(iterator)


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator; persistent workers that died since the last epoch are told of here."""
    kept, own = loader._iterator, loader.worker_init_fn
    context = loader.multiprocessing_context or multiprocessing.get_context()
    loader.worker_init_fn = _Loyal(own, None if context.get_start_method() == "forkserver" else os.getpid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if _HAS_MASKS else None  # until they are loyal
    others = active_children()
    try:
        iterator = iter(loader)
        for worker in set(active_children()) - set(others):
            _killed_not_terminated(worker)
        return iterator
    except RuntimeError as error:
        loader._iterator = None  # the next epoch must not meet the dead
        if not isinstance(kept, _MultiProcessingDataLoaderIter) or "exited unexpectedly" not in str(error):
            raise
        dead = [number for number, worker in enumerate(kept._workers) if not worker.is_alive()]
        _kill(kept)
        raise WorkerError(
            f"loader worker {', '.join(map(str, dead))} died between two epochs; persistent workers must live as "
            "long as the loader: was it killed (out of memory?)",
            worker=dead[0] if dead else -1,
            cause="killed",
        ) from error
    finally:
        loader.worker_init_fn = own
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_HAS_MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows


class _Loyal:
    """What a worker does first: it no longer ends at a SIGTERM, and ends when its parent does.

    A scheduler sends SIGTERM to all processes of a job. Workers that ended at it would break off the step at whose end
    the run is to be saved. (A parent that wants one of them to end kills it.)

    Args:
        then: the user's own ``worker_init_fn``.
        parent: this process, where workers are its children: one whose parent dies before it begins would else take
            init for it. None asks there.
    """

    def __init__(self, then: Callable[[int], None] | None, parent: int | None) -> None:
        self._then, self._parent = then, parent

    def __call__(self, worker: int) -> None:
        if _HAS_MASKS:
            # A handler, since what the worker starts (ffmpeg, say) would inherit SIG_IGN, or a mask, and never end.
            signal.signal(signal.SIGTERM, lambda number, frame: None)
            signal.siginterrupt(signal.SIGTERM, False)  # libraries that read a file need not know of it
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            parent = os.getppid() if self._parent is None else self._parent
            threading.Thread(target=_end_with, args=(parent,), name="end with the parent", daemon=True).start()
        if self._then is not None:
            self._then(worker)


def _end_with(parent: int) -> None:
    """Also in the middle of a sample; torch's own look at the parent comes after it."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(0)


class _Alarm(threading.Thread):
    """Looks at the clock while we wait for a batch, and kills the worker that holds it up."""

    def __init__(self, iterator: _MultiProcessingDataLoaderIter, timeout: float) -> None:
        super().__init__(name="trueloop watchdog", daemon=True)
        self.timeout = timeout
        self.killed: int | None = None
        self._iterator = iterator
        self._since: float | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._since = None

    def run(self) -> None:
        while self.killed is None and not self._over.wait(min(1.0, self.timeout / 10)):
            since = self._since
            if since is None or time.monotonic() - since <= self.timeout:
                continue
            for worker in _suspects(self._iterator):
                with self._lock:
                    if self._since is None:  # it came after all, or the death of the one before it was noticed
                        break
                    self.killed = worker
                    self._iterator._workers[worker].kill()  # SIGKILL ends a stopped process too; SIGTERM does not
                # A death is noticed within half a second; still waiting long after that: another one holds us up.
                if self._over.wait(5.0):
                    break

    def stop(self) -> None:
        self._over.set()
        self.join()


def _blame(
    error: Exception, iterator: _MultiProcessingDataLoaderIter, alarm: _Alarm, making: Callable[[int], Making]
) -> None:
    """Raise what the exception really means, if a worker is to blame."""
    # No error in a local variable: its traceback holds the frame, a circle that keeps a loader and its workers alive.
    if alarm.killed is not None:
        raise _hangs(alarm.killed, iterator, alarm.timeout, making) from error
    if raised := re.search(r"in DataLoader worker process (\d+)", str(error)):
        number = int(raised.group(1))
        words = f"loader worker {number} raised {type(error).__name__}: {error}"
        raise WorkerError(words, worker=number, cause="raised") from error
    if isinstance(error, (RuntimeError, OSError, EOFError)) and (dead := _dead(iterator._workers)):
        raise _died(dead[0], iterator._workers[dead[0]], making(dead[0])) from error


def _died(number: int, worker: BaseProcess, making: Making) -> WorkerError:
    code = worker.exitcode or 0
    if code >= 0:
        cause = "exited"
        story = f"exited with code {code}{making.words}; the dataset, or a library under it, ended the process"
    else:
        cause = "killed"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        story = f"was killed by {name}{making.words}"
        if -code == signal.SIGKILL:
            story += "; out of memory? (the system kills whoever uses most): use fewer workers or smaller batches"
        elif -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
            story += "; a library under the dataset crashed (SIGBUS: /dev/shm may be full): try workers=0 to see where"
    return WorkerError(
        f"loader worker {number} (pid {worker.pid}) {story}", worker=number, cause=cause, samples=making.samples
    )


def _hangs(
    number: int, iterator: _MultiProcessingDataLoaderIter, timeout: float, making: Callable[[int], Making]
) -> WorkerError:
    samples, words = making(number)
    return WorkerError(
        f"loader worker {number} (pid {iterator._workers[number].pid}) hangs{words}: no batch came for {timeout:g} "
        "seconds, so it was killed; if one batch may take that long, pass a larger worker_timeout",
        worker=number,
        cause="hangs",
        samples=samples,
    )


def _dead(workers: Sequence[BaseProcess]) -> list[int]:
    """The workers that ended, those with an exit code other than 0 first. Waits: a pipe breaks before the exit."""
    ready = wait([worker.sentinel for worker in workers], timeout=5.0)
    for worker in workers:
        if worker.sentinel in ready:
            worker.join(timeout=5.0)  # the sentinel is a pipe, closed a moment before the exit code is there
    ended = [number for number, worker in enumerate(workers) if worker.exitcode is not None]
    return sorted(ended, key=lambda number: workers[number].exitcode == 0)


# ---- torch's private parts -------------------------------------------------------------------------------------------

_END = object()

_POLL_SECONDS = 0.5
"""How often a wait looks whether the workers live; torch's own is 5 s."""


def _take_over(iterator: _MultiProcessingDataLoaderIter) -> None:
    """Take the workers off torch's SIGCHLD handler: it raises wherever the main thread happens to be, in the user's
    forward pass say. A death is noticed all the same, by the next fetch."""
    iterator._timeout = _POLL_SECONDS
    if iterator._worker_pids_set:
        torch._C._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def _killed_not_terminated(worker: BaseProcess) -> None:
    """Torch and multiprocessing ``terminate`` those that do not go, and wait for them; ours let a SIGTERM pass."""
    running = worker._popen  # type: ignore[attr-defined]
    running.terminate = running.kill


@contextmanager
def _no_signal_handler() -> Iterator[None]:
    """A SIGCHLD inside waits until the end: the death of a new-born worker must not raise before ``_take_over``."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield  # Windows has no such signal, and Python's handlers run in the main thread only
        return
    signal_handling._set_SIGCHLD_handler()  # now, once and for all, and not in the midst of ours
    missed: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: missed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
        if missed and callable(before):
            before(signal.SIGCHLD, None)


def _fetch(iterator: _MultiProcessingDataLoaderIter) -> Any:
    """The next batch, or ``_END``. torch's timeout leaves its state as it was, so that the wait can go on."""
    while True:
        try:
            return next(iterator, _END)
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise


def _suspects(iterator: _MultiProcessingDataLoaderIter) -> list[int]:
    """Workers, the likeliest to hold us up first: the stopped, then those whose batch is due, the oldest first."""
    due = [info[0] for info in list(iterator._task_info.values()) if len(info) == 1]
    numbers = dict.fromkeys([*due, *range(len(iterator._workers))])
    return sorted(numbers, key=lambda number: not _stopped(iterator._workers[number].pid))


def _stopped(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:  # not Linux, or gone
        return False


def _shut_down(iterator: _MultiProcessingDataLoaderIter) -> None:
    """torch's good-bye, which lets each worker finish its sample; then death for those that do not go."""
    if any(not worker.is_alive() for worker in iterator._workers):
        _kill(iterator)
        return
    iterator._shutdown_workers()
    if any(worker.is_alive() for worker in iterator._workers):
        _kill(iterator)


def _kill(iterator: _MultiProcessingDataLoaderIter) -> None:
    """End all workers at once. Not torch's good-bye: that takes a lock which a killed worker may hold for ever."""
    for worker in iterator._workers:
        worker.kill()
    for worker in iterator._workers:
        worker.join()
        for leftover in Path("/dev/shm").glob(f"torch_{worker.pid}_*"):  # killed between making and unlinking a file
            leftover.unlink(missing_ok=True)
    iterator._shutdown = True
    if hasattr(iterator, "_pin_memory_thread_done_event"):
        iterator._pin_memory_thread_done_event.set()
    for requests in iterator._index_queues:
        requests.cancel_join_thread()
        requests.close()
