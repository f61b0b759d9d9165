"""Folders for a while, among the system's temporary files: what a kill leaves there, the next such folder sweeps."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sait_deploy.system.interrupts import deferred
from sait_deploy.system.locks import held

_PREFIX: Final = "sait-"  # short, as names of sockets below are
_NAME: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{16}}")
_PLACE: Final = "SAIT_DEPLOY_TEMPORARY_PLACE"
"""Environment variable of processes whose other packages keep temporary files elsewhere: the value is the place."""


def temporary_place() -> Path:
    """Returns where the system keeps temporary files; from here on all of this process keeps its own there.

    Raises:
        OSError: there is no such place.
    """
    if (place := os.environ.get(_PLACE)) is not None:
        return Path(place)
    if tempfile.tempdir is None and os.name == "posix":
        tempfile.tempdir = _writable()
    with deferred():
        return Path(tempfile.gettempdir())


def _writable() -> str | None:
    """Returns the first of Python's places that is there. Python tries each by writing a file, which a kill leaves."""
    said = (os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP"))
    for place in map(Path, (*filter(None, said), "/tmp", "/var/tmp", "/usr/tmp")):
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return str(place.absolute())
    return None


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields an empty folder that is this user's alone, and removes it when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    place = temporary_place()
    _sweep(place)
    with contextlib.ExitStack() as stack:
        with deferred():
            folder = stack.enter_context(_made(place))
        yield folder
    _sweep(place)  # again: processes of a command that was killed may have written there for a moment


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """Puts what other packages write among temporary files into such a folder, in all of this process, for a while."""
    with scratch_folder() as folder:
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def temporary_files_of_children(folder: Path) -> Iterator[None]:
    """Puts what other packages write among temporary files into a folder, in processes that the block starts.

    They may be killed at any moment, and what they leave then has no name that tells whose it is.
    """
    before = {name: os.environ.get(name) for name in ("TMPDIR", _PLACE)}
    os.environ |= {"TMPDIR": str(folder), _PLACE: str(temporary_place())}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _made(place: Path) -> Iterator[Path]:
    folder = place / f"{_PREFIX}{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        with held(folder):
            yield folder
    finally:
        with deferred():
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Removes folders of this user that nobody holds."""
    user = os.getuid() if hasattr(os, "getuid") else None
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(place)):
            if _NAME.fullmatch(entry.name) is None or not entry.is_dir(follow_symlinks=False):
                continue
            if user is not None and entry.stat(follow_symlinks=False).st_uid != user:
                continue
            with contextlib.suppress(OSError), held(Path(entry.path)) as free:
                if free:
                    shutil.rmtree(entry.path, ignore_errors=True)
