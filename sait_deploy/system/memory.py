"""Memory that this process has freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back() -> None:
    """Frees what nothing refers to, and gives back what is free."""
    gc.collect()
    trim()


def trim() -> None:
    """Gives what is free back to the system where the C library is glibc, which keeps it otherwise."""
    if sys.platform == "linux" and (release := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        release(0)
