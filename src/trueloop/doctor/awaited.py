"""Waits for a module to be imported: torch is to be listened to from the first moment, and not to be imported by us."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextmanager
def once_imported(name: str, then: Callable[[], None]) -> Iterator[None]:
    """Calls a function as soon as a module is there: now, or when the script imports it.

    Example:
        >>> with once_imported("sys", lambda: print("it is there")):
        ...     pass
        it is there
    """
    awaited = _Awaited(name, then)
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, awaited)
    try:
        yield
    finally:
        if awaited in sys.meta_path:
            sys.meta_path.remove(awaited)


class _Awaited(MetaPathFinder):
    """Among Python's importers: knows when a module has been imported for the first time."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)  # ours, or that of another one that waits for the same
            try:
                execute(module)
            except BaseException:
                sys.meta_path.insert(0, self)  # it may be tried again
                raise
            self.then()

        loader.exec_module = executed
        return spec
