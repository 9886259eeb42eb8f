"""What a run goes on from: its newest whole checkpoint, found and read, with what was passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueloop.checkpoint import retention, store
from trueloop.checkpoint.encode import unpack
from trueloop.checkpoint.layout import FOLDER, checkpoints_of, parse_folder_name, placed
from trueloop.checkpoint.resume import FILES
from trueloop.errors import CheckpointError

if TYPE_CHECKING:
    from trueloop.checkpoint.shards import Empty


@dataclass(frozen=True)
class Origin:
    """What a run goes on from."""

    entry: store.Entry
    run: Path
    """The run's folder."""
    trees: Mapping[str, Mapping[str, Any]]
    passed: list[str]
    """Damaged checkpoints that were newer, a sentence each."""

    @property
    def state(self) -> Mapping[str, Any]:
        """All but weights and optimizers."""
        return self.trees["state"]


def find(folder: Path | str, step: int | None = None, empty: Empty | None = None, *, verified: bool = False) -> Origin:
    """The newest whole checkpoint; each of its files is read once.

    Args:
        folder: of the run; or a checkpoint's own, which is then the one that is taken.
        step: the one that was saved after so many optimizer steps.
        empty: gives the memory for tensors that were written in parts, as for ``store.read``.
        verified: as for ``store.read``, where ``folder`` is a checkpoint's own.

    Raises:
        CheckpointError: there is none, or none that is whole.
    """
    folder = placed(Path(folder))
    passed: list[str] = []
    if step is None and is_checkpoint(folder):
        stored = store.read(folder, empty, verified=verified)
    else:
        stored, passed = store.newest(checkpoints_of(folder), step, empty)
    path = stored.entry.path
    tensors = {name: stored.tensors.get(file, {}) for name, file in FILES.items()}
    if stored.tree.keys() != FILES.keys():
        raise CheckpointError(f"expected a checkpoint with {', '.join(FILES)}, got {', '.join(stored.tree)}", file=path)
    trees = {name: unpack(stored.tree[name], tensors[name]) for name in FILES}
    return Origin(stored.entry, path.parent.parent, trees, passed)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint's own, by its place and name (a run's may be called ``checkpoints/mine``)."""
    return folder.parent.name == FOLDER and parse_folder_name(folder.name) is not None


def has_checkpoints(run: Path) -> bool:
    """Whether a run's folder holds any, damaged ones included."""
    return bool(store.entries(run / FOLDER))


def leave_behind(origin: Origin) -> list[str]:
    """Sets aside what is newer than the checkpoint that a run goes on from: its steps will come again.

    Returns:
        What was set aside, a line each.
    """
    lines = []
    for entry in store.entries(origin.run / FOLDER):
        if (entry.step, entry.number) > (origin.entry.step, origin.entry.number):
            word = "damaged" if store.damage(entry.path) else "abandoned"
            lines.append(f"{entry.path.name} is kept as {retention.set_aside(entry.path, word).name}")
    return lines
