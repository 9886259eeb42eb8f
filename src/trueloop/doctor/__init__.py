"""The doctor: listens to torch while any training script runs, and says what is wrong with the training.

``probes`` turn what happens into facts, the ``trace`` keeps what is known and hands each fact to the ``rules``, and
a rule that has seen a mistake tells a ``Finding``. Nothing here knows the trainer; and names are imported when they are
first used, because ``trueloop check`` reads the catalogue without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trueloop.doctor.findings import Finding
    from trueloop.doctor.listen import listening
    from trueloop.doctor.trace import Trace

__all__ = ["Finding", "Trace", "listening"]

_HOME = {"Finding": "findings", "Trace": "trace", "listening": "listen"}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
