"""How the C library hands out memory: freed blocks are kept for the next step instead of given back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_WHOLE_GIB = 1 << 30
_NEVER = 2**31 - 1

SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""With one of these in the environment the user has chosen already: thresholds of their own, or another allocator."""

Mallopt = Callable[[int, int], int]


def keep_freed_blocks(environment: Mapping[str, str] = os.environ, mallopt: Mallopt | None = None) -> str:
    """Lets glibc keep large blocks that were freed; the same ones are asked for again in the next step.

    By default each large activation is mapped anew and its pages are cleared by the kernel: 69,000 page faults a step
    for a small CNN. Kept, a step on the CPU takes 0.80 to 0.95 of the time (docs/log.md). The process then holds on to
    the most that it has ever used. It can be set: whatever the environment says of malloc is left as it is.

    Args:
        environment: where the user's own settings are looked for.
        mallopt: the C function; None finds glibc's, if this process runs on it.

    Returns:
        What was decided, in words, for the plan; empty where there is nothing to decide.

    Source:
        https://man7.org/linux/man-pages/man3/mallopt.3.html

    Example:
        >>> keep_freed_blocks({"MALLOC_TRIM_THRESHOLD_": "131072"}, mallopt=lambda name, value: 1)
        'malloc as MALLOC_TRIM_THRESHOLD_ sets it'
    """
    chosen = next((name for name in SETTINGS if environment.get(name)), None)
    if chosen is not None:
        return f"malloc as {chosen} sets it"
    mallopt = mallopt or _glibc()
    if mallopt is None or not (mallopt(_M_MMAP_THRESHOLD, _WHOLE_GIB) and mallopt(_M_TRIM_THRESHOLD, _NEVER)):
        return ""
    return "freed memory is kept for the next step (MALLOC_TRIM_THRESHOLD_ in the environment sets it)"


@cache
def _glibc() -> Mallopt | None:
    """glibc's ``mallopt``; None elsewhere (musl has none, macOS and Windows have other allocators)."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # an attribute only of glibc
    except (OSError, AttributeError, TypeError):
        return None
    function: Mallopt = library.mallopt
    return function
