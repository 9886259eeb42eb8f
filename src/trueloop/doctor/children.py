"""Processes that the script starts by multiprocessing (``mp.spawn``): each is heard for itself, and tells by a file.

Forked or spawned, a process runs what ``multiprocessing`` has in store for it before its own work begins, and at its
end: no frame of ours stands between it and its work. What trains nothing (workers of a DataLoader, pools, servers) is
left alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.awaited import once_imported
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.limits import Limits
from trueloop.doctor.precedence import nearest_to_the_cause

if TYPE_CHECKING:
    from trueloop.doctor.listen import Ear
    from trueloop.doctor.trace import Trace

TRAIN_NOTHING = ("torch.utils.data", "multiprocessing", "joblib")
"""Whose processes are left alone."""
UNHEARD = ("concurrent.futures",)
"""Whose are not heard, though they may train."""


class Heard(NamedTuple):
    """What was heard of one process."""

    steps: int
    backwards: int
    findings: tuple[Finding, ...]
    passed: tuple[tuple[str, str], ...] = ()
    """Names of rules, each with what it found right."""
    unseen: tuple[tuple[str, str], ...] = ()
    """The same of what they could not see."""
    notes: tuple[str, ...] = ()
    """What else could not be seen."""
    stopped: str | None = None
    """Why it was ended early, if it was."""

    @property
    def trains(self) -> bool:
        """Whether there was any training to hear."""
        return bool(self.steps or self.backwards)


@contextmanager
def children_heard(note: Callable[[str], None], limits: Limits) -> Iterator[Callable[[], list[Heard]]]:
    """Listens to processes that are started in this block.

    Args:
        note: told what will not be heard.
        limits: when they are to end.

    Yields:
        What has been heard so far of those that have something to say.
    """
    original, process = BaseProcess.start, os.getpid()
    folder: list[Path] = []

    def start(self: BaseProcess) -> None:
        made_by = getattr(getattr(self, "_target", None), "__module__", None) or type(self).__module__
        if os.getpid() == process and made_by.startswith(UNHEARD):
            note("the script started processes of its own (concurrent.futures): what they train was not seen")
        elif os.getpid() == process and not made_by.startswith(TRAIN_NOTHING):
            if not folder:
                folder.append(Path(tempfile.mkdtemp(prefix="trueloop-")))
            setattr(self, _TRAVELS_AS, Listener(folder[0], limits))
        original(self)

    def heard() -> list[Heard]:
        files = sorted(folder[0].glob("*.json"), key=lambda file: int(file.stem)) if folder else []
        return [read_heard(json.loads(file.read_text())) for file in files]

    _register()
    BaseProcess.start = start  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        BaseProcess.start = original  # type: ignore[method-assign]
        if folder and os.getpid() == process:
            shutil.rmtree(folder[0], ignore_errors=True)


def together(findings: Iterable[Finding], heard: Sequence[Heard], *, alone: bool = True) -> list[Finding]:
    """The findings of the script's own process and of those that it started, one a cause.

    What is the same in several ranks is told once. A note must come from all of them: that there is no validation, say,
    is wrong where another rank does it.

    Args:
        findings: of the script's own process.
        heard: of the others.
        alone: the script's own process used no model.
    """
    training = [one for one in heard if one.trains]
    own, theirs = list(findings), dict[tuple[str, Place | None], list[Finding]]()
    for one in training:
        for finding in one.findings:
            theirs.setdefault((finding.name, finding.place), []).append(finding)
    for alike in theirs.values():
        if alike[0].level != "note" or (alone and len(alike) >= len(training)):
            where = f"seen in {len(alike)} of the {len(training)} processes that the script started to train"
            own.append(replace(alike[0], evidence=(*alike[0].evidence, where)))
    return nearest_to_the_cause(own)


class Listener:
    """Goes along with a process that is to be heard, into a fork as into a new interpreter.

    Args:
        folder: where it writes what it has heard.
        limits: when the process is to end.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.ear: Ear | None = None
        self.stopped: str | None = None
        self._waits: AbstractContextManager[None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "limits": self.limits, "ear": None, "stopped": None, "_waits": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        _register()
        self.begin()  # in a new interpreter, where nothing is called if it was spawned

    def begin(self) -> None:
        """Listens from here, or from the moment that torch is there."""
        self._waits = once_imported("torch", self._listen)  # kept: one that is let go of waits no more
        self._waits.__enter__()
        util.Finalize(None, self._finish, exitpriority=100)

    def _listen(self) -> None:
        if self.ear is not None:
            return
        with suppress(Exception):  # ours: it must not become the script's
            from trueloop.doctor.catalogue import dynamic_rules
            from trueloop.doctor.listen import Ear, taken_out
            from trueloop.doctor.trace import Trace

            taken_out()
            trace = Trace(dynamic_rules(), found=lambda _: self._write())
            if self.limits.any:
                trace.each_step = partial(self._end, trace)
            self.ear = Ear(trace)
            self.ear.listen()

    def _end(self, trace: Trace) -> None:
        self.stopped = self.limits.reached(trace)
        if self.stopped:
            sys.exit(0)

    def _finish(self) -> None:
        with suppress(Exception):
            if self.ear is not None:
                self.ear.finish(sys.exc_info()[1])
                self._write()

    def _write(self) -> None:
        """All of it or nothing, after each finding: a rank may be killed because another one failed."""
        if self.ear is None:
            return
        aside = self.folder / f"{os.getpid()}.part"
        aside.write_text(json.dumps(heard_of(self.ear.trace, self.stopped)))
        aside.replace(self.folder / f"{os.getpid()}.json")


_TRAVELS_AS = "_heard_by_trueloop"
_registered: list[bool] = []


def _register() -> None:
    """Asks ``multiprocessing`` to call us in each process that it starts, before the process's own work."""
    if not _registered:
        util.register_after_fork(Listener, _begin)
        _registered.append(True)


def _begin(_: object) -> None:
    listener = getattr(multiprocessing.current_process(), _TRAVELS_AS, None)
    if isinstance(listener, Listener):
        listener.begin()


def heard_of(trace: Trace, stopped: str | None) -> dict[str, Any]:
    """What was heard of this process, for json: ``read_heard`` reads it.

    Args:
        trace: of what it has trained so far.
        stopped: why it was ended early, if it was.
    """
    own = [(rule.name, rule) for rule in trace.rules] if trace.ended else []
    return {
        "steps": trace.step,
        "backwards": trace.backwards,
        "findings": [finding.as_dict() for finding in nearest_to_the_cause(trace.findings)],
        "passed": [(name, text) for name, rule in own if (text := rule.passed())],
        "unseen": [(name, text) for name, rule in own if (text := rule.unseen())],
        "notes": [*trace.notes, *trace.silenced],
        "stopped": stopped,
    }


def read_heard(told: dict[str, Any]) -> Heard:
    """What ``heard_of`` has told.

    Example:
        >>> from trueloop.doctor.trace import Trace
        >>> read_heard(heard_of(Trace(), None)).trains
        False
    """
    findings = tuple(Finding.from_dict(one) for one in told["findings"])
    passed, unseen = (tuple((name, text) for name, text in told[key]) for key in ("passed", "unseen"))
    return Heard(told["steps"], told["backwards"], findings, passed, unseen, tuple(told["notes"]), told["stopped"])
