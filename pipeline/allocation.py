"""Memory that was freed, back to the system."""

from __future__ import annotations

import ctypes
import sys


def hand_back() -> None:
    """glibc keeps what was freed, a hundred megabytes after a fit or a dozen figures, for requests that need not come.

    Elsewhere the system's own allocator is left to itself.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
