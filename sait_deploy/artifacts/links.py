"""Links among an artifact's files: those of a Hugging Face hub cache are followed, all others are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from sait_deploy.errors import ArtifactError

_SNAPSHOTS: Final = "snapshots"
_BLOBS: Final = "blobs"


def check_links(file: Path, again: str) -> None:
    """Checks that a file's content stands in the file itself, or in a blob of the hub cache that it lies in.

    A hub cache keeps content in ``blobs/HASH``, and in ``snapshots/REVISION/`` a link to it under the file's own name.

    Args:
        file: what is to be read; it is there.
        again: what to do instead, for the error's hint.

    Raises:
        ArtifactError: it is a symbolic link to anywhere else, or it or the blob has further names, so that its content
            can change from elsewhere.
    """
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        blob = _blob(file)
        if blob is None:
            raise ArtifactError(f"{file} is a link to {file.readlink()}", again)
        status = blob.lstat()
    if status.st_nlink > 1:
        raise ArtifactError(f"{file} has {status.st_nlink} names on this disk: hard links share its content", again)


def _blob(link: Path) -> Path | None:
    """Returns the blob that a link inside a hub cache's snapshot names; None of any other link."""
    place = link.parent.resolve()
    # The link is taken one step alone: a blob that is a link itself may lead anywhere.
    target = Path(os.path.normpath(place / link.readlink()))
    blobs = [above.parent / _BLOBS for above in place.parents if above.name == _SNAPSHOTS]
    if target.parent not in blobs or target.parent.is_symlink() or not stat.S_ISREG(target.lstat().st_mode):
        return None
    return target
