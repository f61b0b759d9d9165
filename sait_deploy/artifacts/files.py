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
from sait_deploy.system.reading import read_text

_LONGEST_STEM: Final = 100
"""Characters of a file's name that its partial file repeats: the longest names leave no room for more."""

Document = TypeVar("Document")


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
        probe.touch(exist_ok=False)
        probe.unlink(missing_ok=True)


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


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes a file beside its place and puts it there by rename; its folder is made.

    Raises:
        StorageError: it could not be written.
    """
    partial = _partial(path)
    with _refusals(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
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
    return path.with_name(f".{path.name[:_LONGEST_STEM]}.{secrets.token_hex(8)}.partial")


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"cannot write {path}: {reason}", "write it to another place") from error
