"""Has torch keep the user's line of each operation in the graph, in the first steps.

It is what anomaly mode does in the forward pass, without its check of values: tens of microseconds an operation, and so
only until a few backwards have begun; it never runs during a backward. What the script itself asked for is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trueloop.doctor.findings import Place
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here

BACKWARDS = 3
"""A script's first graphs; a guess that serves GANs, which have two or three a step."""


class Lines:
    """Whether lines are being kept.

    Args:
        backwards: for how many backwards.
    """

    def __init__(self, backwards: int = BACKWARDS) -> None:
        self._left = backwards
        self._wanted = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
        self._ours = False
        self._set: Callable[[bool, bool], None] = torch.set_anomaly_enabled
        self.user_place: Place | None = None
        """Where the script last switched it on."""

    @property
    def kept(self) -> bool:
        """Whether the graph that is being built has them."""
        return self._ours

    @property
    def user_wants_anomaly(self) -> bool:
        """Whether the script itself has anomaly mode on."""
        return self._wanted[0] if self._ours else torch.is_anomaly_enabled()

    def install(self, patches: Patches) -> None:
        """Begins to keep lines, unless the script has anomaly mode on by itself."""

        def replace(original: Any) -> Any:
            self._set = original

            def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
                self._wanted = (mode, check_nan)
                if mode:
                    self.user_place = here()
                if self._ours:
                    original(True, check_nan if mode else False)
                else:
                    original(mode, check_nan)

            return set_anomaly_enabled

        # The script must not read our mode as its own: ``detect_anomaly`` would put it back when its block ends.
        patches.replace(torch, "is_anomaly_enabled", lambda original: self._as_wanted(0, original))
        patches.replace(torch, "is_anomaly_check_nan_enabled", lambda original: self._as_wanted(1, original))
        patches.replace(torch, "set_anomaly_enabled", replace)
        self.begin()

    def _as_wanted(self, which: int, original: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: self._wanted[which] if self._ours else original()

    def begin(self) -> None:
        """Keeps the lines of the next forward pass, if there are backwards left to look at."""
        if self._left > 0 and not self._ours and not self._wanted[0]:
            self._ours = True
            self._set(True, False)

    def rest(self) -> None:
        """A backward is about to run: anomaly mode is as the script wants it."""
        if self._ours:
            self._ours = False
            self._left -= 1
            self._set(*self._wanted)

    def stop(self) -> None:
        """No more lines are kept."""
        self._left = 0
        self.rest()
