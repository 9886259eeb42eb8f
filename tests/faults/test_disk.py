"""Every operation of a save fails once, and every bit may flip: what was whole stays, what is not is never read."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from trueloop.checkpoint.retention import sweep
from trueloop.checkpoint.store import Snapshot, Stored, damage, entries, newest, read, write
from trueloop.errors import CheckpointError
from trueloop.testing import FailingDisk


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model.safetensors": {"weight": torch.randn(20, 10, generator=generator), "bias": torch.arange(3.0)},
        "optimizer.safetensors": {"0/exp_avg": torch.randn(20, 10, generator=generator)},
        "state.safetensors": {"rng": torch.randint(0, 255, (99,), dtype=torch.uint8, generator=generator)},
    }
    return Snapshot(step, 0, "every step", {"loss": 1.0}, None, {"step": step}, tensors)


def holds(stored: Stored, given: Snapshot) -> bool:
    return stored.tree == given.tree and all(
        torch.equal(tensor, stored.tensors[file][name])
        for file, tensors in given.tensors.items()
        for name, tensor in tensors.items()
    )


def whole(folder: Path) -> Stored:
    """The newest; it is not damaged."""
    stored, passed_over = newest(folder)
    assert passed_over == []
    return stored


ERRORS: dict[str, tuple[BaseException, type[BaseException]]] = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), CheckpointError),
    "broken": (OSError(errno.EIO, "Input/output error"), CheckpointError),
    "as torch says it": (RuntimeError("unexpected pos 64 vs 0"), CheckpointError),
    "Ctrl-C": (KeyboardInterrupt(), KeyboardInterrupt),
}
"""What the disk raises, and what comes of it."""


@pytest.mark.parametrize("dead", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ERRORS)
def test_every_operation_of_a_save_fails(tmp_path: Path, error: str, dead: bool) -> None:
    old, new = snapshot(1), snapshot(2)
    raised, comes_of_it = ERRORS[error]
    for at in range(1, 1000):
        folder = tmp_path / f"{at}" / "checkpoints"
        first = write(folder, old)
        disk = FailingDisk(at, raised, dead=dead)
        try:
            path = write(folder, new, disk)
        except comes_of_it:
            pass
        else:
            assert whole(folder).entry.path == path
            break
        stored = whole(folder)
        if not dead:
            assert os.listdir(folder) == [first.name]
        assert holds(stored, old if stored.entry.path == first else new)
        sweep(folder)
        assert all(name.startswith("step-") for name in os.listdir(folder))
        again = write(folder, new)
        assert whole(folder).entry.path == again
        assert holds(whole(folder), new)
    assert at == disk.operations + 1 > 25  # the loop ended since the save succeeded, with every operation tried


def test_the_first_save_of_all_may_fail_at_every_operation(tmp_path: Path) -> None:
    for at in range(1, 1000):
        folder = tmp_path / f"{at}" / "run" / "checkpoints"
        try:
            write(folder, snapshot(1), FailingDisk(at))
        except CheckpointError:
            assert entries(folder) == []
            assert holds(read(write(folder, snapshot(1))), snapshot(1))
        else:
            break
    assert at > 25


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write(folder, snapshot(1))
    write(folder, snapshot(2))
    return folder


def copied(two: Path, tmp_path: Path, name: str) -> Path:
    return shutil.copytree(two, tmp_path / name)


def is_said(folder: Path) -> bool:
    """Whether damage in the newest is found wherever one looks, and the one before it is used."""
    harmed = folder / "step-00000002"
    problem = damage(harmed)
    with pytest.raises(CheckpointError):
        read(harmed)
    stored, passed_over = newest(folder)
    return (
        problem is not None
        and passed_over == [f"{harmed.name} is damaged and was passed over: {problem}"]
        and holds(stored, snapshot(1))
    )


def test_400_flipped_bits_are_found(two: Path, tmp_path: Path) -> None:
    folder = copied(two, tmp_path, "flipped")
    files = sorted((folder / "step-00000002").iterdir())
    random.seed(0)
    for number in range(400):
        file = files[number % len(files)]
        data = file.read_bytes()
        place = random.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        assert is_said(folder), f"bit {place} of {file.name}"
        file.write_bytes(data)
    assert damage(folder / "step-00000002") is None


def test_ends_cut_off_are_found(two: Path, tmp_path: Path) -> None:
    folder = copied(two, tmp_path, "cut")
    random.seed(0)
    for file in sorted((folder / "step-00000002").iterdir()):
        data = file.read_bytes()
        for length in {0, 1, len(data) - 1, *(random.randrange(len(data)) for _ in range(20))}:
            os.truncate(file, length)
            assert is_said(folder), f"{length} bytes of {file.name}"
            file.write_bytes(data)


def test_bytes_added_are_found(two: Path, tmp_path: Path) -> None:
    folder = copied(two, tmp_path, "longer")
    for file in sorted((folder / "step-00000002").iterdir()):
        data = file.read_bytes()
        file.write_bytes(data + b"\n")
        assert is_said(folder), file.name
        file.write_bytes(data)


def test_every_missing_file_is_found(two: Path, tmp_path: Path) -> None:
    names = sorted(os.listdir(two / "step-00000002"))
    assert len(names) == 5
    for name in names:
        folder = copied(two, tmp_path, name)
        (folder / "step-00000002" / name).unlink()
        assert is_said(folder), name


def test_files_of_the_one_before_are_found(two: Path, tmp_path: Path) -> None:
    """Each is whole, and of the right size."""
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        folder = copied(two, tmp_path, name)
        shutil.copy(folder / "step-00000001" / name, folder / "step-00000002" / name)
        assert is_said(folder), name
