"""Replacing functions of torch for a while, and putting every one back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from trueloop.doctor.places import is_users


class Patches:
    """What was replaced, so that it can be put back.

    A function that the user's modules have imported by name already (``from torch.nn.utils import clip_grad_norm_``)
    is replaced there as well. What somebody else replaced meanwhile is left alone, and named in ``lost``.

    Example:
        >>> import math
        >>> patches, original = Patches(), math.floor
        >>> patches.replace(math, "floor", lambda original: lambda x: original(x) + 1)
        >>> math.floor(2.5), patches.undo(), math.floor is original
        (3, [], True)
    """

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any, bool]] = []
        self._users: list[ModuleType] | None = None

    def replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Puts ``wrap(original)`` in the place of ``owner.name``; where there is none, nothing happens."""
        if not hasattr(owner, name):
            return
        original, own = getattr(owner, name), name in vars(owner)
        put = wrap(original)
        if self._users is None:
            self._users = _users_modules()
        importers = [module for module in self._users if getattr(module, "__dict__", {}).get(name) is original]
        for place in [owner, *(importers if isinstance(owner, ModuleType) else [])]:
            setattr(place, name, put)
            self._done.append((place, name, original, put, own or place is not owner))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, everything is as it was before: for what reads the source of functions, as ``torch.jit.script`` does.

        Example:
            >>> import math
            >>> patches, original = Patches(), math.floor
            >>> patches.replace(math, "floor", lambda original: lambda x: original(x) + 1)
            >>> with patches.aside():
            ...     math.floor is original
            True
            >>> math.floor is original, patches.undo()
            (False, [])
        """
        ours = [(owner, name, original, put) for owner, name, original, put, own in self._done if own]
        ours = [one for one in ours if getattr(one[0], one[1], None) is one[3]]
        for owner, name, original, _ in reversed(ours):
            setattr(owner, name, original)
        try:
            yield
        finally:
            for owner, name, _, put in ours:
                setattr(owner, name, put)

    def undo(self) -> list[str]:
        """Puts everything back, the last one first.

        Returns:
            The names that somebody else had replaced over ours, and that were left as they are.
        """
        lost = []
        self._users = None
        while self._done:
            owner, name, original, put, own = self._done.pop()
            if (now := getattr(owner, name, None)) is not put:
                if not str(getattr(now, "__module__", "")).startswith("torch"):  # else torch.compile wraps it
                    lost.append(f"{getattr(owner, '__name__', owner)}.{name}")
            elif own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)  # it was inherited
        return lost


_libraries: set[str] = set()  # names of modules that are known not to be the user's: there are thousands


def _users_modules() -> list[ModuleType]:
    """The user's modules: they may hold a function under its own name."""
    found = []
    for name, module in list(sys.modules.items()):
        if name not in _libraries:
            if is_users(getattr(module, "__file__", None) or f"<{name}>"):
                found.append(module)
            else:
                _libraries.add(name)
    return found
