"""Locks on files and folders, by which processes tell what is being written from what a crash left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # where the system has no such locks, nothing is locked and nothing is taken for a leftover
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds a lock on a file or folder while the block runs; it ends with the process, however that ends.

    Processes in other containers see it, and so does another call of this process.

    Yields:
        Whether the lock was to be had: False where somebody else holds it.

    Raises:
        OSError: the path is not there, is a link, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def is_held(path: Path) -> bool:
    """Returns whether somebody holds a lock on a file or folder, or that cannot be told."""
    if fcntl is None:
        return True
    try:
        with held(path) as free:
            return not free
    except OSError:
        return True


def is_left_over(path: Path) -> bool:
    """Returns whether nobody writes what lies there, which was to be renamed in the end; links are nobody's."""
    return path.is_symlink() or not is_held(path)
