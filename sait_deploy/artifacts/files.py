"""Reports and pictures: files that are written whole or not at all, and documents that users name."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from sait_deploy.errors import ArtifactError, StorageError
from sait_deploy.system.interrupts import deferred
from sait_deploy.system.locks import held, is_left_over
from sait_deploy.system.reading import read_text

_PARTIAL: Final = ".partial"
_LONGEST_STEM: Final = 100
"""Bytes of a file's name that its partial file repeats: the longest names leave no room for more."""

Document = TypeVar("Document")


def check_writable(path: Path) -> None:
    """Finds out whether a file can be written, before the work that fills it is done; its folder is made.

    What a kill left of such a file is removed.

    Raises:
        StorageError: it cannot.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _sweep(path)
        probe = _partial(path)
        with deferred():
            probe.touch(exist_ok=False)
            probe.unlink(missing_ok=True)


def check_place(folder: Path) -> None:
    """Finds out whether files can be written into a folder, which need not be there, and is not made.

    Raises:
        StorageError: they cannot.
    """
    with _refusals(folder):
        os.fsencode(folder)
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        wrong = errno.ENOTDIR if not there.is_dir() else None if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
        if wrong is not None:
            raise OSError(wrong, os.strerror(wrong))


def read_document(path: Path, reader: Callable[[str], Document], make: str) -> Document:
    """Reads a JSON document that a user names.

    Args:
        path: the file.
        reader: makes the document of its text.
        make: what to do for such a file, in words.

    Raises:
        ArtifactError: the file cannot be read, or the reader refuses it; the message names it.
    """
    try:
        return reader(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error})", make) from None
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error.message}", error.hint or make) from None


def write_whole(path: Path, data: bytes | memoryview | str) -> None:
    """Writes a file beside its place and puts it there by rename; its folder is made.

    Text is written in UTF-8. What has no UTF-8, as of file names in another encoding, is written as JSON escapes it.

    Raises:
        StorageError: it could not be written.
    """
    if isinstance(data, str):
        data = data.encode(errors="backslashreplace")
    with _refusals(path):
        partial = _partial(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            with partial.open("xb") as file, held(partial):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


def _partial(path: Path) -> Path:
    """Returns a name that nobody can foresee, and so make a link of."""
    return path.with_name(f"{_stem(path)}{secrets.token_hex(8)}{_PARTIAL}")


def _stem(path: Path) -> str:
    return f".{cut_name(path.name, _LONGEST_STEM)}."


def cut_name(name: str, most: int) -> str:
    """Returns the beginning of a file's name that takes so many bytes at most."""
    return os.fsencode(name)[:most].decode(errors="ignore")


def _sweep(path: Path) -> None:
    """Removes partial files of a name that nobody writes."""
    for entry in list(os.scandir(path.parent)):
        left = path.with_name(entry.name)
        if entry.name.startswith(_stem(path)) and entry.name.endswith(_PARTIAL) and is_left_over(left):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # a name that no file can have
        raise StorageError(f"cannot write {str(path)!r}: {error}", "give it another name") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"cannot write {path}: {reason}", "write it to another place") from error
