"""Files checked against the SHA-256 that a manifest has of them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

from sait_deploy.artifacts.codec import shown
from sait_deploy.artifacts.links import check_links
from sait_deploy.errors import ArtifactError
from sait_deploy.system.reading import MOST_WEIGHTS, open_regular, read_bytes


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(folder: Path, name: str, expected: str, again: str) -> None:
    """Checks a file against what a manifest says of it.

    Args:
        folder: where the manifest lies.
        name: the file's name in it.
        expected: SHA-256 of its bytes.
        again: how such files are made anew.

    Raises:
        ArtifactError: it is missing, a link that is not followed, empty or another file.
    """
    file = _plain_file(folder, name, again)
    with _readable(file, again):
        found = sha256_of(file)
    _check_digest(file, found, expected, again)


def checked_bytes(folder: Path, name: str, expected: str, again: str) -> bytes:
    """Returns what a file holds, for those that check and use it in one reading.

    Takes and raises what ``check_file`` does.
    """
    file = _plain_file(folder, name, again)
    with _readable(file, again):
        data = read_bytes(file, MOST_WEIGHTS)
    _check_digest(file, hashlib.sha256(data).hexdigest(), expected, again)
    return data


def _plain_file(folder: Path, name: str, again: str) -> Path:
    file = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise ArtifactError(f"the manifest of {folder} lists {name!r}, which is not a plain file name", again)
    with _readable(file, again):
        if not file.is_file():
            raise ArtifactError(f"{file} is missing", again)
    check_links(file, "copy the artifact's files as files")
    if file.stat().st_size == 0:
        raise ArtifactError(f"{file} is empty", again)
    return file


def _check_digest(file: Path, found: str, expected: str, again: str) -> None:
    if found != expected:
        raise ArtifactError(
            f"{file} has SHA-256 {found[:12]}…, its manifest says {expected[:12]}…",
            f"it was changed or cut short since: {again}",
        )


@contextlib.contextmanager
def _readable(file: Path, again: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = file if error.errno != errno.ENAMETOOLONG else shown(str(file))
        raise ArtifactError(f"{named} cannot be read: {error.strerror}", again) from None
