"""What all tests take for granted."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# Before torch is imported: a process that is forked from one whose OpenMP has threads hangs in its first kernel.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with Ctrl-C ignored, and so would everything that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no defect of the code: hypothesis is not to time it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
