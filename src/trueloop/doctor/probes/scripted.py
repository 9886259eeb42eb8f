"""Steps aside for what reads or records functions instead of running them: TorchScript, tracing, export.

``torch.jit.script`` compiles the source of what a model calls, and cannot read a wrapper; a tracer would record what
the doctor computes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from trueloop.doctor.patches import Patches
from trueloop.doctor.trace import Trace

READERS = (
    ("torch.jit", "script"),
    ("torch.jit", "trace"),
    ("torch.jit", "trace_module"),
    ("torch.fx", "symbolic_trace"),
    ("torch.export", "export"),
    ("torch.onnx", "export"),
)


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to step aside; nothing but the patches has to be taken out."""
    for module, name in READERS:
        if module in sys.modules:
            patches.replace(sys.modules[module], name, partial(_aside, trace, patches))
    return lambda: None


def _aside(trace: Trace, patches: Patches, original: Any) -> Any:
    counts_frames = "_frames_up" in inspect.signature(original).parameters

    @wraps(original)
    def read(*args: Any, **kwargs: Any) -> Any:
        was_deaf, trace.deaf = trace.deaf, True
        if counts_frames and len(args) < 3:  # the names that a class uses are those of its caller, one frame further up
            kwargs["_frames_up"] = kwargs.get("_frames_up", 0) + 1
        try:
            with patches.aside():
                return original(*args, **kwargs)
        finally:
            trace.deaf = was_deaf

    return read
