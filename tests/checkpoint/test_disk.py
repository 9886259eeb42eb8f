"""Files that are on the disk when a write returns, and every operation announced."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueloop.checkpoint.disk import Disk
from trueloop.testing import FailingDisk


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def disk(done: list[str]) -> Disk:
    return Disk(lambda operation, path: done.append(f"{operation} {path.name}"))


@given(chunks=st.lists(st.binary(max_size=50)))
def test_a_file_holds_its_chunks_and_the_hash_is_theirs(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    file = tmp_path_factory.mktemp("disk") / "a"
    size, sha256 = Disk().write(file, chunks)
    content = b"".join(chunks)
    assert file.read_bytes() == content
    assert (size, sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_large_chunk_is_written_in_pieces(tmp_path: Path, disk: Disk, done: list[str]) -> None:
    content = os.urandom(5 * 2**20)
    assert disk.write(tmp_path / "a", [memoryview(content)]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / "a").read_bytes() == content
    assert done == ["open a", "write a", "write a", "fsync a", "close a"]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    assert Disk().write(tmp_path / "a", [b"hello ", b"world"])[0] == 11
    assert (tmp_path / "a").read_bytes() == b"hello world"


def test_a_system_that_takes_nothing_is_an_error_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda handle, data: 0)
    with pytest.raises(OSError, match="takes no more bytes"):
        Disk().write(tmp_path / "a", [b"hello"])


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileExistsError):
        Disk().write(tmp_path / "a", [b"new"])
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        Disk().write(tmp_path / "link", [b"new"])
    assert not (tmp_path / "elsewhere").exists()


def test_the_umask_is_obeyed(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Disk().write(tmp_path / "a", [b""])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_failed_write_leaves_no_handle_open(tmp_path: Path, at: int) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No space"):
        FailingDisk(at).write(tmp_path / "a", [b"hello"])
    assert os.listdir("/proc/self/fd") == before


def test_a_folder_is_removed_from_the_bottom_up(tmp_path: Path, disk: Disk, done: list[str]) -> None:
    folder = tmp_path / "a"
    disk.make_folder(folder)
    disk.make_folder(folder / "b")
    disk.write(folder / "b" / "c", [])
    done.clear()
    disk.remove(folder)
    assert not folder.exists()
    assert done == ["unlink c", "rmdir b", "rmdir a"]
    disk.remove(folder)


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    Disk().remove(tmp_path / "gone")
    assert (tmp_path / "kept" / "file").exists()
    assert not (tmp_path / "gone").exists()


def test_rename_and_sync_are_announced(tmp_path: Path, disk: Disk, done: list[str]) -> None:
    disk.write(tmp_path / "a", [b"1"])
    done.clear()
    disk.rename(tmp_path / "a", tmp_path / "b")
    disk.sync_folder(tmp_path)
    assert (tmp_path / "b").read_bytes() == b"1"
    assert done == ["rename b", f"sync_folder {tmp_path.name}"]


def test_a_failing_disk_fails_once_or_for_ever_or_never(tmp_path: Path) -> None:
    once, dead, never = FailingDisk(1), FailingDisk(1, dead=True), FailingDisk(1, None)
    for disk in (once, dead):
        with pytest.raises(OSError, match="No space"):
            disk.make_folder(tmp_path / "a")
    with pytest.raises(OSError, match="No space"):
        dead.make_folder(tmp_path / "a")
    once.make_folder(tmp_path / "a")
    never.make_folder(tmp_path / "b")
    assert (once.operations, dead.operations, never.operations) == (2, 2, 1)
