"""The operations that a save is made of, one by one, so that each of them can be made to fail."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

Chunk: TypeAlias = bytes | memoryview


def _nothing(operation: str, path: Path) -> None:
    """What a plain disk does before an operation."""


class Disk:
    """Files and folders, written so that they outlast a power cut.

    A failed fsync is never tried again: the system may have dropped the pages that it could not write, and then says
    that all is well. The file counts as lost; whoever wants it writes it anew.

    Args:
        before: called with the name of an operation (mkdir, open, write, fsync, close, rename, sync_folder, unlink,
            rmdir) and its path, just before it is done; what it raises, the operation raises.

    Example:
        >>> import tempfile
        >>> done = []
        >>> disk = Disk(lambda operation, path: done.append(f"{operation} {path.name}"))
        >>> size, sha256 = disk.write(Path(tempfile.mkdtemp(), "a.txt"), [b"hel", b"lo"])
        >>> size, sha256[:8], done
        (5, '2cf24dba', ['open a.txt', 'write a.txt', 'write a.txt', 'fsync a.txt', 'close a.txt'])
    """

    def __init__(self, before: Callable[[str, Path], None] = _nothing) -> None:
        self._before = before

    def write(self, file: Path, chunks: Iterable[Chunk]) -> tuple[int, str]:
        """Make a new file of these bytes, on the disk when this returns.

        Args:
            file: must not be there; a link in its place is not followed.
            chunks: its bytes, hashed on their way, so that nothing has to be read again.

        Returns:
            Size in bytes and sha256 in hex.

        Raises:
            OSError: whatever goes wrong. What was written until then stays; the caller removes it.
        """
        digest, size = hashlib.sha256(), 0
        self._before("open", file)
        handle = os.open(file, _ANEW, 0o666)
        try:
            for piece in _pieces(chunks):
                digest.update(piece)
                size += len(piece)
                self._write(handle, file, piece)
            self._before("fsync", file)
            os.fsync(handle)
            self._before("close", file)
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise
        os.close(handle)
        return size, digest.hexdigest()

    def make_folder(self, path: Path) -> None:
        """Make one folder, in a folder that is there."""
        self._before("mkdir", path)
        os.mkdir(path)

    def sync_folder(self, path: Path) -> None:
        """Bring the names in a folder to the disk, where the system can do that."""
        self._before("sync_folder", path)
        if os.name == "nt":  # Windows opens no folders
            return
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # so say file systems that have no such thing
                raise
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or a folder another name, at once and whole."""
        self._before("rename", new)
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Remove a file, a link (not what it points to), or a folder with all that is in it; nothing there is fine."""
        if path.is_dir() and not path.is_symlink():
            for inside in sorted(path.iterdir()):
                self.remove(inside)
            self._before("rmdir", path)
            os.rmdir(path)
        else:
            self._before("unlink", path)
            path.unlink(missing_ok=True)

    def _write(self, handle: int, file: Path, piece: memoryview) -> None:
        while piece:
            self._before("write", file)
            written = os.write(handle, piece)  # may write less than asked for
            if written == 0:
                raise OSError(errno.EIO, "the system takes no more bytes", str(file))
            piece = piece[written:]


DISK = Disk()

_ANEW = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_PIECE = 4 * 2**20  # small enough that what was hashed is still in the cache when it is written


def _pieces(chunks: Iterable[Chunk]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]
