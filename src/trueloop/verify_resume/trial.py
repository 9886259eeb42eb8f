"""A trial from beginning to end: its processes one after the other, their records, the verdict."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trueloop import errors
from trueloop.checkpoint.rngs import set_rngs_to, state_of_rngs
from trueloop.data.device import choose_device
from trueloop.errors import ArgumentError, TrueloopError
from trueloop.verify_resume.processes import Process, finished, forked
from trueloop.verify_resume.record import Record
from trueloop.verify_resume.roles import AGAIN, HALFWAY, KILLED, OWN, OWN_RESUMED, RESUMED, UNBROKEN, play
from trueloop.verify_resume.verdict import Verdict, differences, verdict

if TYPE_CHECKING:  # the trainer imports this
    from trueloop.trainer import Trainer

Start = Callable[[str, Path], Process]
"""(role, folder of the trial) -> a process that plays that role: see ``playing``."""

TIMEOUT = 1800.0
"""Seconds for one process of a trial."""


def verify_resume(
    trainer: Trainer,
    train: Any,
    val: Any,
    how: Mapping[str, Any],
    *,
    verify_steps: int | None = None,
    timeout: float = TIMEOUT,
) -> Verdict:
    """Tries whether a run is resumed exactly, in forks of this process: the trainer and its RNGs stay as they are.

    Args:
        trainer: what the user has made.
        train: as for ``fit``.
        val: as for ``fit``.
        how: the arguments of ``fit``.
        verify_steps: optimizer steps of each run; None chooses.
        timeout: seconds for one of the runs.

    Raises:
        ArgumentError: the process cannot be forked: an accelerator is in use, or the system has no fork.
        TrueloopError: a run failed, as it would have failed in ``fit``.
    """
    inspect.signature(trainer.fit).bind(train, val, **how)  # a mistyped name is told here
    _check_forks(trainer)
    rngs = state_of_rngs()

    def start(role: str, folder: Path) -> Process:
        def job() -> None:
            torch.set_num_threads(1)  # OpenMP's other threads do not survive a fork, and would be waited for
            set_rngs_to(rngs)  # python seeds its random anew in a fork
            with playing(role, folder):
                play(role, trainer, train, val, how, folder, verify_steps)

        return forked(job, folder / f"{role}.log")

    return tried(start, timeout)


def tried(start: Start, timeout: float = TIMEOUT) -> Verdict:
    """Plays all roles, and compares. Nothing is left on the disk.

    Raises:
        TrueloopError: a run failed, was killed, or took longer than ``timeout`` seconds.
    """
    records: dict[str, Record] = {}
    with tempfile.TemporaryDirectory(prefix="trueloop-verify-") as name:
        folder = Path(name)

        for role in (UNBROKEN, AGAIN, HALFWAY, RESUMED, OWN, OWN_RESUMED):
            if _is_due(role, records) and not differences(records):
                try:
                    records[role] = _record(role, folder, finished(start(role, folder), timeout), timeout)
                except _ResumeFailedError as error:
                    return Verdict(False, (f"NOT exact: the resume failed: {error}", *error.__notes__))
    return verdict(records)


@contextlib.contextmanager
def playing(role: str, folder: Path) -> Iterator[None]:
    """Around ``play`` in its process: what it raises is written down for the process that waits."""
    try:
        yield
    except BaseException as error:
        told = {"kind": type(error).__name__, "text": str(error), "notes": list(getattr(error, "__notes__", ()))}
        told["trace"] = "".join(traceback.format_exception(error)).strip()
        at = traceback.extract_tb(error.__traceback__)[-1]
        told["where"] = f"raised by {at.name}() in line {at.lineno} of {at.filename}"
        (folder / f"{role}.error.json").write_text(json.dumps(told), encoding="utf-8")
        raise


class _ResumeFailedError(TrueloopError):
    """What could be trained and saved cannot be resumed: an answer, and no failure of the trial."""


_OURS = ("ArgumentError", "DataError", "LossError", "NonFiniteError", "CheckpointError")
_TOLD = 3000
"""Characters of a log's end."""


def _record(role: str, folder: Path, code: int | None, timeout: float) -> Record:
    """What the process wrote down.

    Raises:
        TrueloopError: it failed.
    """
    file, failure = folder / f"{role}.json", folder / f"{role}.error.json"
    if file.exists() and code == (KILLED if role == HALFWAY else 0):
        return Record.read(file)
    called = f"the {role} run of the trial"
    if failure.exists():
        raise _again(role, called, json.loads(failure.read_text(encoding="utf-8")))
    ended = f"died with exit code {code}"
    if code is None:
        ended = f"did not end in {timeout:g} seconds; give it more time (timeout), or fewer steps (verify_steps)"
    elif code == 0:
        ended = "ended before its middle, and another one from the same beginning did not"
    error = TrueloopError(f"{called} {ended}")
    log = folder / f"{role}.log"
    if log.exists() and (text := log.read_text(encoding="utf-8", errors="replace").strip()):
        error.add_note(f"it printed at its end:\n{text[-_TOLD:]}")
    raise error


def _again(role: str, called: str, told: Mapping[str, Any]) -> TrueloopError:
    """The error of a process, to be raised in this one."""
    text = f"{told['kind']}: {told['text']}"
    if role in (RESUMED, OWN_RESUMED):
        error: TrueloopError = _ResumeFailedError(text)
        error.add_note(told["where"])
        return error
    if told["kind"] in _OURS:
        error = getattr(errors, told["kind"])(told["text"])
    else:
        error = TrueloopError(f"{called} raised {text}")
        error.add_note(told["trace"])
    for note in told["notes"]:
        error.add_note(note)
    return error


def _is_due(role: str, records: Mapping[str, Record]) -> bool:
    """Whether a role is to be played, after those that were."""
    if role == AGAIN:
        _check_long_enough(records[UNBROKEN])
    if role == OWN:
        return records[UNBROKEN].accumulate > 1
    if role == OWN_RESUMED:
        return OWN in records and records[OWN].refused is None and records[OWN].saved_after is not None
    return True


def _check_long_enough(unbroken: Record) -> None:
    if unbroken.saved_after is None or unbroken.saved_after >= len(unbroken.windows):
        steps = unbroken.windows[-1].step if unbroken.windows else 0
        raise ArgumentError(
            f"the run ended with step {steps}, and was to be stopped after step {unbroken.halfway}; give "
            f"verify_steps={max(2, steps)} or fewer"
        )


def _check_forks(trainer: Trainer) -> None:
    device = choose_device(trainer.choices.device)[0]
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if hasattr(os, "fork") and device.type == "cpu" and not used:
        return
    why = f"a process that uses {device.type}" if hasattr(os, "fork") else "a process on this system"
    raise ArgumentError(
        f"a trainer is tried in forks of its process, and {why} cannot be forked; write a recipe, which new processes "
        "can make again, and run: trueloop verify-resume file.py:recipe (or give Trainer(device='cpu'))"
    )
