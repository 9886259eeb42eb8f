"""Processes that torchrun has started: the first one of a machine tells what all of them have seen, once.

Each of the others leaves word in the folder that torchrun has made for this start of theirs: after each finding, so
that something is there if it is killed, and at its end. None waits for the first one; the first waits for them a while.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trueloop.doctor.children import Heard, heard_of, read_heard
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.precedence import nearest_to_the_cause

if TYPE_CHECKING:
    from trueloop.doctor.script import Run

PATIENCE_SECONDS = 20.0
"""So long the first process waits, when it is at its end, for others that are not."""
GRACE_SECONDS = 5.0
"""The same where it was ended: torchrun kills what has not gone after 30."""


class Ranks(NamedTuple):
    """This process among those that torchrun has started on this machine.

    Args:
        rank: its number among all.
        here: the numbers of those on this machine.
        folder: where they leave word.
    """

    rank: int
    here: tuple[int, ...]
    folder: Path

    @property
    def tells(self) -> bool:
        """Whether it is this process that tells."""
        return self.rank == self.here[0]


class Peer(NamedTuple):
    """What another process has left.

    Args:
        heard: what it has heard; None if it has left no word at all.
        over: it had come to its end.
        failed: what its script failed with; None if it did not.
    """

    heard: Heard | None
    over: bool
    failed: str | None


def ranks(environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """The processes among which this one is; None where torchrun has started no others on this machine.

    Example:
        >>> ranks({}) is None
        True
    """
    try:
        rank, local, many = (int(environment[name]) for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        attempt = Path(environment["TORCHELASTIC_ERROR_FILE"]).parents[1]  # of one start, and nobody else's
    except (KeyError, ValueError, IndexError):
        return None
    if many < 2 or not attempt.is_dir():
        return None
    first = rank - local
    return Ranks(rank, tuple(range(first, first + many)), attempt / "trueloop-doctor")


def leave_word(own: Ranks, ran: Run) -> None:
    """Leaves word of what was heard so far, for the process that tells; all of it or nothing.

    Args:
        own: this process.
        ran: its run, over or not.
    """
    failed = (ran.error or f"it exited with {ran.exit}") if ran.failed else None
    told: dict[str, Any] = {"over": ran.exit is not None, "failed": failed, "heard": None}
    with suppress(Exception):  # ours: it must not become the script's
        if ran.trace is not None:
            told["heard"] = heard_of(ran.trace, ran.stopped)
        own.folder.mkdir(exist_ok=True)
        aside = own.folder / f"{own.rank}.part"
        aside.write_text(json.dumps(told))
        aside.replace(own.folder / f"{own.rank}.json")


def peers(own: Ranks, ran: Run, speak: frozenset[str]) -> dict[int, Peer]:
    """What the others have left, by their numbers; waits a while for those that are still at it.

    Args:
        own: this process.
        ran: its run.
        speak: the rules that are asked for, by name.
    """

    def left() -> dict[int, Peer]:
        return {rank: _read(own.folder / f"{rank}.json", speak) for rank in own.here if rank != own.rank}

    ended = ran.failed or ran.stopped is not None
    until = time.monotonic() + (GRACE_SECONDS if ended else PATIENCE_SECONDS) * (ran.exit is not None)
    while True:
        found = left()
        if all(one.over for one in found.values()) or time.monotonic() >= until:
            return found
        time.sleep(0.05)


def of_all(findings: Sequence[Finding], own: Ranks, others: Mapping[int, Peer]) -> list[Finding]:
    """The findings of this process and of the others, one a cause; each says in which processes it was seen.

    A note must come from all that train: that there is no validation, say, is wrong where another process does it.

    Args:
        findings: this process's.
        own: this process.
        others: what the others have left.

    Example:
        >>> seen = Finding("missing-zero-grad", 101, "error", "certain", "they add up")
        >>> peer = Peer(Heard(8, 8, (seen,)), over=True, failed=None)
        >>> of_all([seen], Ranks(0, (0, 1), Path()), {1: peer})[0].evidence
        ('seen in 2 of the 2 processes',)
        >>> of_all([], Ranks(0, (0, 1), Path()), {1: peer})[0].evidence
        ('seen in process 1 alone, of 2',)
    """
    training = {rank: peer.heard for rank, peer in others.items() if peer.heard is not None and peer.heard.trains}
    every: dict[tuple[str, Place | None], dict[int, Finding]] = {}
    for rank, seen in [(own.rank, findings), *((rank, heard.findings) for rank, heard in training.items())]:
        for finding in seen:
            every.setdefault((finding.name, finding.place), {}).setdefault(rank, finding)
    many = len(own.here)
    told = []
    for alike in every.values():
        (rank, finding), *_ = alike.items()
        if finding.level == "note" and not alike.keys() >= training.keys():
            continue
        where = f"seen in {len(alike)} of the {many} processes"
        if len(alike) == 1:
            where = f"seen in process {rank} alone, of {many}"
        told.append(replace(finding, evidence=(*finding.evidence, where)))
    return nearest_to_the_cause(told)


def not_heard(others: Mapping[int, Peer], ran: Run) -> list[str]:
    """What is not known of the others, and how they failed, in sentences."""
    told = []
    for rank, peer in others.items() if ran.exit is not None else ():
        if peer.failed is not None:
            told.append(f"the script failed in process {rank} ({peer.failed.partition(chr(10))[0]})")
        elif not peer.over:
            told.append(f"process {rank} had not ended" + (" and has left no word" if peer.heard is None else ""))
    return told


def _read(file: Path, speak: frozenset[str]) -> Peer:
    try:
        told: dict[str, Any] = json.loads(file.read_text())
    except OSError:
        return Peer(None, over=False, failed=None)
    heard = None if told["heard"] is None else read_heard(told["heard"])
    if heard is not None:
        heard = heard._replace(findings=tuple(one for one in heard.findings if one.name in speak))
    return Peer(heard, told["over"], told["failed"])
