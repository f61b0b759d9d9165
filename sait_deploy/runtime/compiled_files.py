"""What a runtime compiled, kept beside its artifact from one process to the next: files whose names tell of damage.

It is executable code, as an engine is: what this user did not write is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.files import write_whole
from sait_deploy.engine.trust import built_here, record_built
from sait_deploy.system.reading import MOST_WEIGHTS, read_bytes

COMPILED_FOLDER: Final = "compiled"
"""Where in an artifact's folder it lies."""


def kept_files(folder: Path, key: str) -> Iterator[bytes]:
    """Yields what was kept under a key, and removes what is damaged, is by others, or is not wanted.

    Args:
        folder: where it lies.
        key: what it depends on, as the beginning of the files' names.

    Yields:
        The content of a file. Who asks for the next one does not want it.
    """
    for file in folder.glob(f"{key}-*.blob"):
        with contextlib.suppress(OSError):
            yield from _if_sound(file, key)
            file.unlink()


def _if_sound(file: Path, key: str) -> Iterator[bytes]:
    """Yields what a file holds where it is whole and by this user, and keeps no reference to it: it can be large."""
    held = [read_bytes(file, MOST_WEIGHTS)]
    if file.name == _file_name(key, held[0]) and built_here(hashlib.sha256(held[0]).hexdigest()):
        yield held.pop()


def keep_file(folder: Path, key: str, data: bytes) -> None:
    """Keeps what was compiled, in place of what was kept under the same key.

    Raises:
        StorageError: nothing can be written there.
    """
    name = _file_name(key, data)
    write_whole(folder / name, data)
    record_built([hashlib.sha256(data).hexdigest()])
    for file in folder.glob(f"{key}-*.blob"):
        if file.name != name:
            with contextlib.suppress(OSError):
                file.unlink()


def digest(data: bytes) -> str:
    """Returns 16 hexadecimal digits that tell data apart."""
    return hashlib.sha256(data).hexdigest()[:16]


def _file_name(key: str, data: bytes) -> str:
    return f"{key}-{digest(data)}.blob"
