"""Checkpoints of a model that is cut up: each process copies its parts, and a thread of each writes them.

Rank 0 decides, makes the folder, and writes what is not in parts, and the manifest over all files (``Saver``). The
others hold copies of their parts, and a thread waits there for rank 0's word of where to write them, while training
goes on. The threads speak over a process group of their own: that of the run is training's.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard
from torch.distributed.tensor import empty as empty_in_parts

from trueloop.checkpoint import shards
from trueloop.checkpoint.disk import DISK
from trueloop.checkpoint.finite import StaysFinite
from trueloop.checkpoint.layout import Written
from trueloop.checkpoint.resume import FILES
from trueloop.checkpoint.saving import fresh_copies, snapshot_of
from trueloop.checkpoint.store import Snapshot
from trueloop.parallel.gather import whole
from trueloop.parallel.world import world

PATIENCE = timedelta(hours=1)
"""So long a disk may take on one process while the others wait for it. One that is gone is known at once."""


def in_parts(captured: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A run's state of which weights, their average and the optimizer's state stay in parts; all else is made whole."""
    state = dict(captured["state"])
    averaged = state.pop("averaged")
    return {**captured, "state": {**whole(state), "averaged": averaged}}


def empty(size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for this process's part of a tensor, as ``shard`` cuts it up: by its first dimension; on the CPU."""
    if not size:
        return shards.whole(size, dtype)
    everyone = distributed.group.WORLD
    assert everyone is not None, "the model is cut up"
    mesh = DeviceMesh.from_group(everyone, "cpu")
    tensor: Tensor = empty_in_parts(*size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    return tensor


class Shards:
    """What the processes write together; all of them make it, at the same place.

    Args:
        weights: names of the model's, which are not written if they are not finite any more.
    """

    def __init__(self, weights: Collection[str]) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._check, self._copies = StaysFinite(weights), fresh_copies()
        self._held: Snapshot | None = None
        self._turns = 0
        self._given: defaultdict[int, Future[Snapshot]] = defaultdict(Future)
        self._writing: list[Future[None]] = []

    def hold(self, captured: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]] | None:
        """What rank 0 is to save; the others copy their parts of it, to be written by ``take_turn``."""
        if world().first or captured is None:
            return captured
        self.wait()  # the memory of the copies is that of the save before
        self._held = self._copy(captured)
        return None

    def take_turn(self, snapshot: Snapshot | None = None) -> Turn | None:
        """Begins to write: on the other processes what they hold, or a snapshot, in a thread; None for them.

        Returns:
            On rank 0, which must use or close it: what has all of them write.
        """
        self._turns += 1
        if world().first:
            assert snapshot is not None
            return Turn(self, self._turns, snapshot)
        given = snapshot or self._held
        assert given is not None, "rank 0 has had it copied"
        self._given[self._turns].set_result(given)
        self._writing.append(self._pool.submit(self._follow))
        return None

    def wait(self) -> None:
        """Until this process writes no more. What went wrong is rank 0's to tell."""
        for writing in self._writing:
            writing.exception()
        self._writing.clear()

    def tell(self, turn: int, folder: Path | None) -> None:
        """In rank 0's thread: which turn it is. Two threads may write, a run's own and one that an observer asks."""
        distributed.broadcast_object_list([turn, None if folder is None else str(folder)], src=0, group=self._group)

    def write(self, snapshot: Snapshot, folder: Path) -> Mapping[str, Written]:
        """In a thread of each process: its parts; on rank 0, the files of all."""
        parts = shards.parts_in(snapshot.tensors)

        def check() -> None:
            if not world().first:  # rank 0's are looked at with the rest
                self._check(snapshot.tensors.get(FILES["model"], {}))

        own = shards.write(parts, folder, DISK, self._group, check)
        every: list[Any] | None = [None] * world().size if world().first else None
        distributed.gather_object(own, every, dst=0, group=self._group)
        return {name: written for files in every or [] for name, written in files.items()}

    def _follow(self) -> None:
        told: list[Any] = [None, None]
        distributed.broadcast_object_list(told, src=0, group=self._group)
        turn, folder = told
        snapshot = self._given[turn].result()
        del self._given[turn]
        if folder is not None:
            self.write(snapshot, Path(folder))

    def _copy(self, captured: dict[str, dict[str, Any]]) -> Snapshot:
        own = {**captured, "state": {"averaged": captured["state"]["averaged"]}}
        return snapshot_of(own, self._copies, 0, 0, "held")


class Turn:
    """On rank 0: one checkpoint that all processes write. A ``store.WriteShards``."""

    def __init__(self, all_of_them: Shards, number: int, snapshot: Snapshot) -> None:
        self._shards, self._number, self._snapshot = all_of_them, number, snapshot
        self._told = False

    def __call__(self, folder: Path) -> Mapping[str, Written]:
        """Has all processes write their parts into a folder; gives their files."""
        self._told = True
        self._shards.tell(self._number, folder)
        return self._shards.write(self._snapshot, folder)

    def close(self) -> None:
        """Tells the others, if nothing comes of it."""
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # they are gone
                self._shards.tell(self._number, None)
