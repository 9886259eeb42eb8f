"""A run's checkpoints on the disk: written whole or not at all, and verified before they are read.

``RUN/checkpoints/step-00000120/`` holds safetensors files for what has tensors, ``state.json`` for the rest, and
``manifest.json`` with size and sha256 of each file. It is written aside, synced file by file and as a folder, renamed,
and the name is synced, so that at every instant whatever is called ``step-*`` is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from safetensors import SafetensorError

from trueloop.checkpoint import layout
from trueloop.checkpoint.disk import DISK, Chunk, Disk
from trueloop.checkpoint.layout import MANIFEST, STATE, Manifest
from trueloop.errors import ArgumentError, CheckpointError, NewerFormatError

if TYPE_CHECKING:  # a list of checkpoints must not wait for torch
    from torch import Tensor

    from trueloop.checkpoint.shards import Empty


@dataclass(frozen=True)
class Snapshot:
    """What is to be written.

    Args:
        step: optimizer steps that were taken.
        epoch: the epoch that it stands in.
        why: what asked for it.
        metrics: of the last evaluation.
        exact: why a resume from it is not exact; None if it is.
        tree: JSON, as ``encode.pack`` gives it.
        tensors: for each file (``model.safetensors``) its tensors by name, on the CPU. Those that lie in parts on
            several processes go to files of their own, of which each process writes one.
    """

    step: int
    epoch: int
    why: str
    metrics: Mapping[str, float]
    exact: str | None
    tree: Any
    tensors: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Entry:
    """A checkpoint in a list, by its manifest.

    Args:
        path: its folder.
        step: by its name.
        number: 1 for the first of its step.
        epoch: 0 if the manifest cannot be read; the texts are then empty.
        saved: when, in ISO 8601 and UTC.
        why: what asked for it.
        metrics: of the last evaluation; NaN for what was not finite.
        exact: why a resume from it is not exact; None if it is.
        bytes: all its files together.
        problem: what is wrong with its manifest or the sizes of its files; None if nothing is. Flipped bits are for
            ``damage`` to find.
    """

    path: Path
    step: int
    number: int
    epoch: int
    saved: str
    why: str
    metrics: Mapping[str, float]
    exact: str | None
    bytes: int
    problem: str | None


@dataclass(frozen=True)
class Stored:
    """A checkpoint that was read: its entry, its JSON, and for each file its tensors by name."""

    entry: Entry
    tree: Any
    tensors: Mapping[str, Mapping[str, Tensor]]


class WriteShards(Protocol):
    """Has each process write its parts of tensors; called once or never, and then closed by whoever made it."""

    def __call__(self, folder: Path, /) -> Mapping[str, layout.Written]:
        """Writes them into a folder; gives the files of all processes."""

    def close(self) -> None:
        """Nothing comes of it, if it was not called."""


def write(folder: Path, snapshot: Snapshot, disk: Disk = DISK, shards: WriteShards | None = None) -> Path:
    """Add a checkpoint.

    Args:
        folder: ``RUN/checkpoints``; made if it is not there.
        snapshot: what it holds.
        disk: what does the writing.
        shards: where tensors lie in parts on several processes.

    Returns:
        Its folder. It is whole, and on the disk.

    Raises:
        CheckpointError: the disk is full or broken. As far as the disk lets us, nothing is left of it.
        ArgumentError: the snapshot holds what cannot be written.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp(), "checkpoints")
        >>> tensors = {"model.safetensors": {"weight": torch.ones(2)}}
        >>> path = write(folder, Snapshot(120, 3, "every 20 steps", {"loss": 0.5}, None, {"seed": 7}, tensors))
        >>> path.name, sorted(file.name for file in path.iterdir())
        ('step-00000120', ['manifest.json', 'model.safetensors', 'state.json'])
        >>> read(path).tree, read(path).tensors["model.safetensors"]["weight"]
        ({'seed': 7}, tensor([1., 1.]))
    """
    with _ONE_AT_A_TIME:
        return _write(folder, snapshot, disk, shards)


def copy(path: Path, folder: Path, disk: Disk = DISK) -> Path:
    """A checkpoint, again, in another run's folder: byte by byte, with the care of ``write``.

    Args:
        path: of the checkpoint, which was verified.
        folder: the other ``RUN/checkpoints``, in which there is none of this name.
        disk: what does the writing.

    Raises:
        CheckpointError: it could not be read or written. As far as the disk lets us, nothing is left of the copy.

    Example:
        >>> import tempfile
        >>> runs = Path(tempfile.mkdtemp())
        >>> path = write(runs / "a" / "checkpoints", Snapshot(120, 0, "asked", {}, None, {"seed": 7}, {}))
        >>> read(copy(path, runs / "b" / "checkpoints")).tree
        {'seed': 7}
    """
    aside, new = folder / f"{layout.WRITING}{path.name}-{os.getpid()}", folder / path.name
    with _ONE_AT_A_TIME:
        try:
            _make(folder, disk)
            disk.make_folder(aside)
            for name in (*_read_manifest(path).files, MANIFEST):
                disk.write(aside / name, _pieces(path / name))
            disk.sync_folder(aside)
            disk.rename(aside, new)
            disk.sync_folder(folder)
        except BaseException as error:
            with suppress(OSError, RuntimeError):
                disk.remove(aside)
                if new.exists():
                    discard(new, disk)
            if not isinstance(error, (OSError, RuntimeError)):
                raise
            raise CheckpointError(f"the checkpoint could not be copied: {cause(error)}", file=new) from error
    return new


_ONE_AT_A_TIME = threading.Lock()
"""In this process: the thread of a run, and a save that an observer of the same run asks for."""


def _write(folder: Path, snapshot: Snapshot, disk: Disk, shards: WriteShards | None) -> Path:
    contents = _contents(snapshot)
    path = at = folder / layout.folder_name(snapshot.step)
    aside = folder / f"{layout.WRITING}{path.name}-{os.getpid()}"
    renamed = False
    try:
        _make(folder, disk)
        if aside.exists():
            disk.remove(aside)  # what is left of a save of ours that the disk did not even let us clean up
        number = 1 + max((number for step, number, _ in _checkpoints_in(folder) if step == snapshot.step), default=0)
        path = at = folder / layout.folder_name(snapshot.step, number)
        disk.make_folder(aside)
        files: dict[str, layout.Written] = {}
        if shards is not None:
            files |= _seen(shards(aside.absolute()), aside)
        for name, chunks in contents.items():
            at = path / name
            files[name] = layout.Written(*disk.write(aside / name, chunks))
        at = path / MANIFEST
        disk.write(aside / MANIFEST, [layout.serialise(_manifest_of(snapshot, files))])
        at = path
        disk.sync_folder(aside)
        disk.rename(aside, path)
        renamed = True
        disk.sync_folder(folder)
    except BaseException as error:
        # A checkpoint whose name may not be on the disk does not count as saved, though it is whole.
        with suppress(OSError, RuntimeError):
            if renamed:
                discard(path, disk)
            else:
                disk.remove(aside)
        if not isinstance(error, (OSError, RuntimeError)):
            raise
        raise CheckpointError(
            f"the checkpoint could not be saved: {cause(error)}; free some space or mend the disk, those before it "
            "are as they were",
            step=snapshot.step,
            file=at,
        ) from error
    return path


def entries(folder: Path) -> list[Entry]:
    """All checkpoints, oldest first (by step and number; clocks jump), from their manifests alone.

    Args:
        folder: ``RUN/checkpoints``; if it is not there, there are none.

    Example:
        >>> import tempfile
        >>> entries(Path(tempfile.mkdtemp()))
        []
    """
    return [_entry(path, step, number) for step, number, path in _checkpoints_in(folder)]


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, after reading every byte of it; None if nothing is.

    Args:
        path: its folder.

    Example:
        >>> import tempfile
        >>> damage(Path(tempfile.mkdtemp()))
        'manifest.json is missing'
    """
    try:
        return _damage(path)
    except NewerFormatError as error:
        return str(error)


def unlisted(path: Path) -> list[str]:
    """Names of what lies in a checkpoint's folder and was not written with it: nobody reads or verifies it.

    Args:
        path: its folder; its manifest is whole.

    Example:
        >>> import tempfile
        >>> path = write(Path(tempfile.mkdtemp()), Snapshot(120, 0, "asked", {}, None, {}, {}))
        >>> (path / "notes.txt").touch()
        >>> unlisted(path)
        ['notes.txt']
    """
    known = {MANIFEST, *_read_manifest(path).files}
    return [file.name for file in inside(path) if file.name not in known]


def read(path: Path, empty: Empty | None = None, *, verified: bool = False) -> Stored:
    """A checkpoint from the disk. Nothing of it is parsed before all of it was verified.

    Each file is read once, into memory, and what was verified there is what is parsed: a disk that gives other bytes
    at a second reading cannot slip them in. Shards, of which a process may want but a part, are read a second time.

    Args:
        path: its folder.
        empty: gives the memory for a tensor that was written in parts, of which this process may want its own alone;
            None reads all of it.
        verified: the shards were verified by another process just now: they are not read for that once more.

    Raises:
        NewerFormatError: a newer trueloop wrote it.
        CheckpointError: it is damaged; the message names the files and what is wrong with them.
    """
    try:
        manifest, contents = _verified(path, shards=not verified)
    except NewerFormatError as error:
        raise NewerFormatError(str(error), file=path) from error
    except CheckpointError as error:
        raise CheckpointError(
            f"the checkpoint is damaged: {error}; resume from the one before it", file=path
        ) from error
    return _parsed(path, manifest, contents, empty)


def newest(folder: Path, step: int | None = None, empty: Empty | None = None) -> tuple[Stored, list[str]]:
    """The newest whole checkpoint, read as ``read`` does it: each of its files once.

    Args:
        folder: ``RUN/checkpoints``.
        step: the newest of this step; None: of all.
        empty: as for ``read``.

    Returns:
        What it holds, and a sentence for each damaged one that was passed over.

    Raises:
        NewerFormatError: the newest that is not damaged was written by a newer trueloop; going back behind it
            unasked would lose what was learnt since.
        CheckpointError: there is none, none of this step, or none that is whole; it lists what there is.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> paths = [write(folder, Snapshot(step, 0, "asked", {}, None, {}, {})) for step in (100, 120)]
        >>> (paths[1] / "state.json").unlink()
        >>> stored, passed_over = newest(folder)
        >>> stored.entry.step, passed_over
        (100, ['step-00000120 is damaged and was passed over: state.json is missing'])
    """
    there = _checkpoints_in(folder)
    if not there:
        raise CheckpointError(
            "there are no checkpoints: expected folders step-…; name a run that saved some", file=folder
        )
    wanted = [path for at, _, path in there if step is None or at == step]
    if not wanted:
        steps = sorted({at for at, _, _ in there})
        raise CheckpointError(f"there is no checkpoint of step {step}; choose among {_listed(steps)}", file=folder)
    passed_over: list[str] = []
    for path in reversed(wanted):
        try:
            manifest, contents = _verified(path)
        except NewerFormatError as error:
            raise NewerFormatError(str(error), file=path) from error
        except CheckpointError as error:
            passed_over.append(f"{path.name} is damaged and was passed over: {error}")
        else:
            return _parsed(path, manifest, contents, empty), passed_over
    problems = "; ".join(passed_over).replace(" and was passed over", "")
    which = "" if step is None else f" of step {step}"
    raise CheckpointError(f"there is no whole checkpoint{which}: {problems}", file=folder)


def inside(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing, if there is no such folder.

    Raises:
        CheckpointError: it cannot be read.

    Example:
        >>> inside(Path("nowhere"))
        []
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"the folder of checkpoints cannot be read: {cause(error)}", file=folder) from error


def discard(path: Path, disk: Disk) -> None:
    """Remove a checkpoint: first its name, so that a removal which is cut off leaves no half of one under it."""
    gone = path.with_name(f"{layout.GONE}{path.name}-{os.getpid()}")
    if os.path.lexists(gone):
        disk.remove(gone)
    disk.rename(path, gone)
    disk.remove(gone)


def cause(error: BaseException) -> str:
    """Why an operation failed, in the system's words.

    Example:
        >>> cause(FileNotFoundError(2, "No such file or directory", "a"))
        'No such file or directory'
    """
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


_MOST_BYTES = 2**24  # of a manifest; a few hundred is what one has
_AT_ONCE = 2**22


def _contents(snapshot: Snapshot) -> dict[str, Iterable[Chunk]]:
    if type(snapshot.step) is not int or snapshot.step < 0:
        raise ArgumentError(f"step must be a count of steps, got step={snapshot.step!r}")
    from trueloop.optim.parts import lies_in_parts

    contents: dict[str, Iterable[Chunk]] = {}
    for name, every in snapshot.tensors.items():
        if not layout.is_plain(name) or not name.endswith(layout.TENSORS):
            raise ArgumentError(f"expected plain names of files that end in {layout.TENSORS}, got {name!r}")
        if tensors := {name: one for name, one in every.items() if not lies_in_parts(one) or not one.numel()}:
            from trueloop.checkpoint.tensors import chunks

            contents[name] = chunks(tensors)
    try:
        contents[STATE] = [json.dumps(snapshot.tree, allow_nan=False, separators=(",", ":")).encode("ascii")]
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"the snapshot's tree must be JSON, as encode.pack() gives it: {error}") from error
    return contents


def _seen(files: Mapping[str, layout.Written], aside: Path) -> Mapping[str, layout.Written]:
    """The same files, which processes on other machines may have written."""
    for name, expected in files.items():
        if problem := _wrong_size(aside / name, expected.size):
            raise RuntimeError(f"{problem}; give the run a folder on a file system that all processes share")
    return files


def _manifest_of(snapshot: Snapshot, files: Mapping[str, layout.Written]) -> Manifest:
    saved = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(snapshot.step, snapshot.epoch, saved, snapshot.why, snapshot.metrics, snapshot.exact, files)


def _make(folder: Path, disk: Disk) -> None:
    missing = []
    for at in (folder, *folder.parents):
        if at.is_dir():
            break
        missing.append(at)
    for at in reversed(missing):
        disk.make_folder(at)
        disk.sync_folder(at.parent)


def _checkpoints_in(folder: Path) -> list[tuple[int, int, Path]]:
    """Step, number and folder of all that is called a checkpoint, oldest first."""
    named = [(layout.parse_folder_name(path.name), path) for path in inside(folder)]
    return sorted((*name, path) for name, path in named if name is not None)


def _entry(path: Path, step: int, number: int) -> Entry:
    try:
        manifest = _read_manifest(path)
    except CheckpointError as error:
        return Entry(path, step, number, 0, "", "", {}, None, _bytes_in(path), str(error))
    problems = [_wrong_size(path / name, expected.size) for name, expected in manifest.files.items()]
    return _entry_of(path, step, number, manifest, "; ".join(filter(None, problems)) or None)


def _entry_of(path: Path, step: int, number: int, manifest: Manifest, problem: str | None) -> Entry:
    size = sum(file.size for file in manifest.files.values()) + len(layout.serialise(manifest))
    said = (manifest.epoch, manifest.saved, manifest.why, manifest.metrics, manifest.exact)
    return Entry(path, step, number, *said, size, problem)


def _bytes_in(path: Path) -> int:
    size = 0
    with suppress(OSError):
        for file in path.iterdir():
            size += file.lstat().st_size
    return size


def _damage(path: Path) -> str | None:
    try:
        manifest = _read_manifest(path)
    except NewerFormatError:
        raise
    except CheckpointError as error:
        return str(error)
    problems = [_differs(path / name, expected) for name, expected in manifest.files.items()]
    return "; ".join(filter(None, problems)) or None


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not path.is_dir():
        raise CheckpointError(f"{path.name} is no folder" if os.path.lexists(path) else f"{path.name} is missing")
    problem = _unlike_a_file(file)
    if problem:
        raise CheckpointError(problem)
    try:
        with _opened(file) as opened:
            data = opened.read(_MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{MANIFEST} cannot be read: {cause(error)}") from error
    manifest = layout.parse(data)
    named = layout.parse_folder_name(path.name)
    if named and named[0] != manifest.step:
        raise CheckpointError(f"the folder is named {path.name}, its {MANIFEST} says step {manifest.step}")
    if STATE not in manifest.files:
        raise CheckpointError(f"{MANIFEST} knows of no {STATE}")
    return manifest


def _unlike_a_file(file: Path) -> str | None:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return f"{file.name} is missing"
    except OSError as error:
        return f"{file.name} cannot be read: {cause(error)}"
    return None if stat.S_ISREG(mode) else f"{file.name} is no plain file, but a {_kind(mode)}"


def _kind(mode: int) -> str:
    return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "device"


def _wrong_size(file: Path, expected: int) -> str | None:
    problem = _unlike_a_file(file)
    if problem:
        return problem
    size = file.lstat().st_size
    return None if size == expected else f"{file.name}: {size:,} bytes where {expected:,} were written"


def _differs(file: Path, expected: layout.Written) -> str | None:
    problem = _wrong_size(file, expected.size)
    if problem:
        return problem
    try:
        digest = hashlib.sha256()
        for piece in _pieces(file):
            digest.update(piece)
    except OSError as error:
        return f"{file.name} cannot be read: {cause(error)}"
    return _flipped(file, digest.hexdigest(), expected)


def _verified(path: Path, *, shards: bool = True) -> tuple[Manifest, dict[str, bytes]]:
    """A checkpoint's manifest, and the bytes of its files, which are those that were written.

    Args:
        path: its folder.
        shards: whether to read every byte of shards as well. They are not kept.

    Raises:
        NewerFormatError: a newer trueloop wrote it.
        CheckpointError: what is wrong with it, in words that go after a colon.
    """
    manifest = _read_manifest(path)
    contents, problems = {}, []
    for name, expected in manifest.files.items():
        if layout.is_shard(name):
            problem = _differs(path / name, expected) if shards else _wrong_size(path / name, expected.size)
        else:
            contents[name], problem = _read_file(path / name, expected)
        if problem is not None:
            problems.append(problem)
    if problems:
        raise CheckpointError("; ".join(problems))
    return manifest, contents


def _read_file(file: Path, expected: layout.Written) -> tuple[bytes, str | None]:
    """A file's bytes, and what is wrong with them."""
    problem = _wrong_size(file, expected.size)
    if problem:
        return b"", problem
    try:
        with _opened(file) as opened:
            data = opened.read()
    except OSError as error:
        return b"", f"{file.name} cannot be read: {cause(error)}"
    return data, _flipped(file, hashlib.sha256(data).hexdigest(), expected)


def _parsed(path: Path, manifest: Manifest, contents: dict[str, bytes], empty: Empty | None) -> Stored:
    try:
        tree = json.loads(contents.pop(STATE))
        # One after the other, so that no more than one file is in memory twice.
        tensors = {name: _load(contents.pop(name)) for name in sorted(contents) if name.endswith(layout.TENSORS)}
    except (ValueError, KeyError, AssertionError, RecursionError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint holds what no trueloop wrote: {error}", step=manifest.step, file=path
        ) from error
    if in_shards := [name for name in manifest.files if layout.is_shard(name)]:
        from trueloop.checkpoint import shards  # DTensor takes 0.5 s to import

        for file, parts in shards.read(path, in_shards, empty or shards.whole).items():
            tensors[file] = {**tensors.get(file, {}), **parts}
    step, number = layout.parse_folder_name(path.name) or (manifest.step, 1)
    return Stored(_entry_of(path, step, number, manifest, None), tree, tensors)


def _flipped(file: Path, sha256: str, expected: layout.Written) -> str | None:
    if sha256 == expected.sha256:
        return None
    return f"{file.name}: its sha256 is not the one that was written: a bit has flipped"


def _pieces(file: Path) -> Iterator[bytes]:
    with _opened(file) as opened:
        while piece := opened.read(_AT_ONCE):
            yield piece


def _opened(file: Path) -> BinaryIO:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(file, flags), "rb", buffering=0)


def _load(data: bytes) -> Mapping[str, Tensor]:
    from safetensors.torch import load

    return load(data)


def _listed(steps: list[int]) -> str:
    shown = [str(step) for step in steps[-20:]]
    return ", ".join(["…"] * (len(steps) > 20) + shown)
