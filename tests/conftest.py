"""What all tests take for granted."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with Ctrl-C ignored, and so would everything that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
