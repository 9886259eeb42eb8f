"""When a script that is listened to has been heard enough, and is ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from trueloop.doctor.trace import Trace


class Limits(NamedTuple):
    """How much of a script is to be heard; None: all of it.

    Example:
        >>> Limits(None, None, 0.0).reached(None) is None
        True
    """

    max_steps: int | None
    """Optimizer steps."""
    max_seconds: float | None
    started: float
    """From when seconds are counted, on ``time.monotonic``."""

    @property
    def any(self) -> bool:
        """Whether there is one to ask for."""
        return self.max_steps is not None or self.max_seconds is not None

    def reached(self, trace: Trace) -> str | None:
        """Asked after each step: why it is to end now; None if it is not."""
        if self.max_steps is not None and trace.step >= self.max_steps:
            return f"it was ended after {self.max_steps} steps (--max-steps)"
        if self.max_seconds is not None and time.monotonic() - self.started >= self.max_seconds:
            return f"it was ended after {self.max_seconds:g} s, at step {trace.step} (--max-seconds)"
        return None
