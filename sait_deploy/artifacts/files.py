"""Reports and pictures: files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from sait_deploy.errors import StorageError


def check_writable(path: Path) -> None:
    """Finds out whether a file can be written, before the work that fills it is done; its folder is made.

    Raises:
        StorageError: it cannot.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        probe = _partial(path)
        probe.touch()
        probe.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes a file beside its place and puts it there by rename; its folder is made.

    Raises:
        StorageError: it could not be written.
    """
    partial = _partial(path)
    with _refusals(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"cannot write {path}: {reason}", "write it to another place") from error
