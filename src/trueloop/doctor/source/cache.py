"""What was found in a file the last time, kept for as long as neither it nor what it imports has changed.

One entry a file, in the user's folder for caches. An entry that is damaged, of another version or of changed rules is
none: then the file is read again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trueloop import __version__
from trueloop.doctor import findings as _findings
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.source.fixes import Checked, Edit, Fix
from trueloop.doctor.source.library import KNOWN, ROOTS
from trueloop.doctor.source.read import Source, bytes_of, of_bytes

MOST = 40
"""So many files decide on one; ``imports.py`` reads no more than 12 for one."""

Imports = tuple[tuple[int, str], ...]
"""What a file imports: how many dots, and the name."""


@dataclass
class Cache:
    """Entries in a folder.

    Args:
        folder: where they lie; None keeps nothing.
        maker: who made them; another's are not read.

    Example:
        >>> import tempfile
        >>> kept = Cache(Path(tempfile.mkdtemp()))
        >>> kept.store("a.py", b"x = 1", Path(), [])
        >>> kept.load("a.py", b"x = 1", Path()), kept.load("a.py", b"x = 2", Path())
        ([], None)
    """

    folder: Path | None
    maker: str = field(default_factory=lambda: _maker())
    _read: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # a file: its hash, and what it imports

    def load(self, path: str, content: bytes, root: Path) -> list[Checked] | None:
        """What was found in a file with this content; None if that is not known.

        Args:
            path: the file.
            content: what stands in it now.
            root: from where it imports.
        """
        entry = self._entry(path) if self.folder is not None else None
        if entry is None or entry["content"] != _hash(content) or entry["key"] != self._key(path, content, root):
            return None
        return [_unpacked(packed) for packed in entry["found"]]

    def store(self, path: str, content: bytes, root: Path, found: list[Checked]) -> None:
        """Keeps what was found in a file; silently not, if the disk does not want it."""
        if self.folder is None:
            return
        body = json.dumps(
            {
                "maker": self.maker,
                "content": _hash(content),
                "key": self._key(path, content, root),
                "imports": _imports(path, content),
                "found": [_packed(checked) for checked in found],
            }
        )
        file = self._file(path)
        aside = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(f"{_hash(body.encode())}\n{body}", encoding="utf-8")
            os.replace(aside, file)
        except OSError:
            with suppress(OSError):
                aside.unlink()

    def forget(self, path: str) -> None:
        """Has a file read again that was changed meanwhile, also where others import it."""
        self._read.pop(path, None)

    def _file(self, path: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{_hash(os.fsencode(os.path.abspath(path)))[:40]}.json"

    def _entry(self, path: str) -> dict[str, Any] | None:
        try:
            checksum, _, body = self._file(path).read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        if _hash(body.encode()) != checksum:
            return None
        entry: dict[str, Any] = json.loads(body)
        return entry if entry.get("maker") == self.maker else None

    def _key(self, path: str, content: bytes, root: Path) -> str:
        """Of a file and of those that it imports, and these import, in the order in which a run would meet them."""
        reached, ahead = dict[str, str](), [os.path.abspath(path)]
        while ahead and len(reached) < MOST:
            file = ahead.pop()
            if file not in reached:
                reached[file], imported = self._seen(file, None if reached else content, root)
                ahead += reversed(imported)
        return _hash(os.fsencode("\0".join([str(root), *(f"{file}\0{its}" for file, its in reached.items())])))

    def _seen(self, file: str, content: bytes | None, root: Path) -> tuple[str, tuple[str, ...]]:
        if file not in self._read:
            if content is None:
                try:
                    content = bytes_of(file)
                except OSError:
                    content = b""
            own, entry = _hash(content), self._entry(file)
            known = entry is not None and entry["content"] == own
            named = entry["imports"] if entry is not None and known else _imports(file, content)
            self._read[file] = own, tuple(_local(file, named, root))
        return self._read[file]


def user_folder() -> Path | None:
    """Where entries lie if nothing else is said: ``$XDG_CACHE_HOME/trueloop/check``, or below ``~/.cache``."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "trueloop" / "check"
    except RuntimeError:  # no home
        return None


def _maker() -> str:
    """Our version, Python's, and the state of the doctor's own files, rules among them."""
    house = Path(_findings.__file__).parent
    states = []
    for folder, _, names in os.walk(house):
        for name in sorted(names):
            if name.endswith(".py"):
                state = os.stat(os.path.join(folder, name))
                states.append(f"{folder}/{name} {state.st_size} {state.st_mtime_ns}")
    return _hash("\n".join([__version__, sys.version, *sorted(states)]).encode())


def _imports(path: str, content: bytes) -> Imports:
    """What is imported, but for libraries that are known; nothing, where nothing is of interest to any rule."""
    if not any(root.encode() in content for root in ROOTS):
        return ()
    if path.endswith(".ipynb"):
        source = of_bytes(content, path)
        content = source.text.encode() if isinstance(source, Source) else b""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = dict[tuple[int, str], None]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name): None for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            front = f"{node.module}." if node.module else ""
            found |= {(node.level, f"{front}{alias.name}"): None for alias in node.names}
    return tuple((level, name) for level, name in found if level or name.partition(".")[0] not in KNOWN | ROOTS)


def _local(file: str, named: Imports, root: Path) -> Iterator[str]:
    """The files next to a file, or below the root, that its imports may stand for."""
    here = os.path.dirname(file)
    up = [here]
    while up[-1] != str(root) and os.path.dirname(up[-1]) != up[-1] and up[-1].startswith(str(root)):
        up.append(os.path.dirname(up[-1]))
    for level, name in named:
        folders = up
        if level:
            above = here
            for _ in range(level - 1):
                above = os.path.dirname(above)
            folders = [above]
        for folder in folders:
            for found in _on_the_way(folder, name.split(".")):
                yield os.path.abspath(found)


def _on_the_way(folder: str, parts: list[str]) -> Iterator[str]:
    """The files of a module and of the packages that it is in."""
    at = folder
    for part in parts:
        at = os.path.join(at, part)
        if os.path.isfile(f"{at}.py"):
            yield f"{at}.py"
        if not os.path.isdir(at):
            return
        if os.path.isfile(os.path.join(at, "__init__.py")):
            yield os.path.join(at, "__init__.py")


def _packed(checked: Checked) -> dict[str, Any]:
    finding = {one.name: getattr(checked.finding, one.name) for one in fields(Finding)}
    return {"finding": finding, "fix": checked.fix}


def _unpacked(packed: dict[str, Any]) -> Checked:
    told, fix = packed["finding"], packed["fix"]
    finding = Finding(
        **told
        | {
            "place": Place(*told["place"]) if told["place"] else None,
            "evidence": tuple(told["evidence"]),
            "explains": tuple(told["explains"]),
            "related": tuple((Place(*place), label) for place, label in told["related"]),
        }
    )
    if fix is None:
        return Checked(finding)
    title, safe, edits = fix
    return Checked(finding, Fix(title, safe, tuple(Edit((*start,), (*end,), text) for start, end, text in edits)))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
