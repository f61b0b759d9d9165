"""Memory that this process has freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Frees what nothing refers to, and gives it back where the C library is glibc, which keeps it otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
