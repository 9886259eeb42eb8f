"""Which files are read: those that are named, and all Python files and notebooks in the folders that are named."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from trueloop.doctor.source.read import Unread

ENDINGS = (".py", ".ipynb")
LEFT_OUT = {"__pycache__", "__pypackages__", "_build", "build", "buck-out", "dist", "node_modules", "site-packages"}
"""Folders that hold what others made, like hidden ones and virtual environments; a folder that is named is read."""


class Discovered(NamedTuple):
    """What is to be read.

    Args:
        files: each once, in the order of the paths given, and sorted within a folder.
        unread: folders that could not be listed.
    """

    files: list[str]
    unread: list[Unread]


def discover(
    paths: Iterable[str | os.PathLike[str]], exclude: Sequence[str] = (), *, also_named: bool = False
) -> Discovered:
    """Finds the files.

    A folder that is a symbolic link is not entered (so links may form a loop); a file that several links lead to is
    read once, under the first name.

    Args:
        paths: files, whatever their ending, and folders.
        exclude: patterns of paths; what they fit is left out, and so is all below it.
        also_named: also what is named is left out, if a pattern fits it or a folder that it is in.

    Example:
        >>> discover(["train.py", "./train.py"]).files == [os.path.abspath("train.py")]
        True
    """
    found: dict[str, str] = {}
    unread = list[Unread]()
    fits = re.compile("|".join(map(fnmatch.translate, exclude)) or r"(?!)")
    for path in map(os.path.abspath, paths):
        if also_named and is_excluded(path, exclude):
            continue
        for file in _below(path, fits, unread) if os.path.isdir(path) else [path]:
            found.setdefault(os.path.realpath(file), file)
    return Discovered(list(found.values()), unread)


def is_excluded(path: str, exclude: Sequence[str]) -> bool:
    """Whether a pattern fits a path or a folder that it is in.

    Example:
        >>> is_excluded("/p/old/train.py", ["/p/old"])
        True
    """
    real = Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return any(fnmatch.fnmatchcase(str(one), pattern) for one in (real, *real.parents) for pattern in exclude)


def root_of(file: str) -> Path:
    """The folder from which a file would be imported: above the topmost package that it is in.

    Example:
        >>> from trueloop.doctor import findings
        >>> (root_of(findings.__file__) / "trueloop").is_dir()
        True
    """
    folder = Path(file).absolute().parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _below(folder: str, fits: re.Pattern[str], unread: list[Unread]) -> Iterator[str]:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        unread.append(Unread(folder, 0, f"the folder cannot be listed: {error.strerror or error}"))
        return
    real = os.path.realpath(folder)  # as the settings' folder is known, whatever links lead here
    for entry in entries:
        try:
            if fits.match(os.path.join(real, entry.name)):
                continue
            if entry.is_dir(follow_symlinks=False):
                if not _left_out(entry):
                    yield from _below(entry.path, fits, unread)
            elif entry.name.endswith(ENDINGS) and entry.is_file():  # a link that leads nowhere is no file
                yield entry.path
        except OSError:  # a link to itself
            continue


def _left_out(folder: os.DirEntry[str]) -> bool:
    return (
        folder.name.startswith(".")
        or folder.name in LEFT_OUT
        or folder.name.endswith(".egg-info")
        or os.path.exists(os.path.join(folder.path, "pyvenv.cfg"))
    )
