"""The tensors of a checkpoint that lie in parts on several processes: each writes its own, any number of them reads.

``torch.distributed.checkpoint`` (DCP) plans who writes what, tells all processes of one that failed, and cuts up anew
for the processes that read. The files are its safetensors files, each with the place of its parts in the header: its
own ``.metadata`` is a pickle, which runs what it is told. The bytes are written as those of all other files of a
checkpoint, by ``Disk``: hashed on their way, and synced.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from trueloop.checkpoint import layout
from trueloop.checkpoint.disk import Disk
from trueloop.checkpoint.tensors import FORMAT, chunks
from trueloop.errors import CheckpointError
from trueloop.optim.parts import lies_in_parts, own_part

Empty = Callable[[torch.Size, torch.dtype], Tensor]
"""Gives the memory that a tensor is read into: whole, or one in parts, of which this process reads its own."""


def whole(size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for all of a tensor.

    Example:
        >>> whole(torch.Size([2, 3]), torch.float32).shape
        torch.Size([2, 3])
    """
    return torch.empty(size, dtype=dtype)


def parts_in(files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What each process writes by itself: the tensors that lie in parts, by file and name in one.

    Example:
        >>> parts_in({"model.safetensors": {"weight": torch.ones(1)}})
        {}
    """
    return {
        f"{file}/{name}": tensor
        for file, tensors in files.items()
        for name, tensor in tensors.items()
        if lies_in_parts(tensor) and own_part(tensor).numel()  # fewer rows than processes leave some without any
    }


def write(
    parts: Mapping[str, Tensor],
    folder: Path,
    disk: Disk,
    group: Any = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, layout.Written]:
    """Writes this process's parts, while the others of the group write theirs.

    Args:
        parts: as ``parts_in`` gave them, on the CPU; of none, no file is made.
        folder: of the checkpoint that is being made; every process sees it.
        disk: what does the writing.
        group: the processes; by gloo, and nobody else's while this goes on.
        check: called first; what it raises on one process, all of them are told.

    Returns:
        The file of this process.

    Raises:
        CheckpointError: a check has failed, on any process.
        RuntimeError: any process could not write, or is gone.
    """
    writer = _Writer(folder, disk, check)
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        save(dict(parts), storage_writer=writer, planner=planner, process_group=group)
    except CheckpointException as error:  # a BaseException
        raise _of_a_process(error) from None
    return writer.written


def read(folder: Path, files: Collection[str], empty: Empty = whole) -> dict[str, dict[str, Tensor]]:
    """The tensors in files that ``write`` made, by whatever number of processes; by this process alone.

    Args:
        folder: of the checkpoint.
        files: their names, all that there are: whatever else lies there is not looked at.
        empty: gives the memory for each.

    Returns:
        As ``parts_in`` took them: for each file the tensors by name.

    Raises:
        CheckpointError: the files hold something else.
    """
    reader = HuggingFaceStorageReader(str(folder))
    reader.fs = _Only(files)
    try:
        found: dict[str, TensorStorageMetadata] = reader.read_metadata().state_dict_metadata  # type: ignore[assignment]
        for name, one in found.items():
            if sum(math.prod(chunk.sizes) for chunk in one.chunks) != math.prod(one.size):
                raise ValueError(f"parts of {name} are missing")
        state = {name: empty(one.size, one.properties.dtype) for name, one in found.items()}
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(dict(state), storage_reader=reader, planner=planner, no_dist=True)
    except (Exception, CheckpointException) as error:  # whatever torch raises on a file that it did not write
        told = _of_a_process(error) if isinstance(error, CheckpointException) else error
        raise CheckpointError(f"its shards cannot be read: {told}", file=folder) from error
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        file, _, own = name.partition("/")
        tensors.setdefault(file, {})[own] = tensor
    return tensors


class _Writer(HuggingFaceStorageWriter):
    """DCP's, with bytes that are neither copied on their way, nor left to the system to write when it likes."""

    def __init__(self, folder: Path, disk: Disk, check: Callable[[], None]) -> None:
        super().__init__(str(folder), save_distributed=True)
        self._folder, self._disk, self._check = folder, disk, check
        self.written: dict[str, layout.Written] = {}

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        if not self._folder.is_dir():  # torch would make it, on a disk of this machine's own
            raise CheckpointError(
                f"there is no {self._folder} here; give the run a folder on a file system that all processes share"
            )
        self._check()
        return plan

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors, places = {}, {}
        for item in plan.items:
            assert item.tensor_data is not None
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, Tensor)
            tensors[item.index.fqn] = tensor
            places[item.index.fqn] = {SAVED_OFFSETS_KEY: list(item.tensor_data.chunk.offsets)}
        if tensors:
            name = layout.shard_name(plan.storage_data["shard_index"])
            metadata = {**FORMAT, CUSTOM_METADATA_KEY: json.dumps(places)}
            written = self._disk.write(self._folder / name, chunks(tensors, metadata))
            self.written[name] = layout.Written(*written)
        done: Future[list[WriteResult]] = Future()
        done.set_result([])  # places are in the headers: nothing is made of it
        return done


class _Only(FileSystem):
    """A folder in which there are files of these names alone."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def ls(self, path: Any) -> list[str]:
        return [str(Path(path) / name) for name in self._names]


def _of_a_process(error: CheckpointException) -> Exception:
    """What the first process that failed has met."""
    rank, (cause, _) = min(error.failures.items())
    if isinstance(cause, CheckpointError):
        return cause
    told = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
    return RuntimeError(f"process {rank}: {told}")
