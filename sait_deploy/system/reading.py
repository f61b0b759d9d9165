"""The one door for what comes from files: regular files alone, of a bounded size, and JSON of a bounded depth.

Whatever is refused is an ``OSError`` or a ``ValueError``, as of a file that cannot be read or decoded.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

MOST_DOCUMENT: Final = 64 << 20
"""Bytes of a text or JSON document at most: labels, configurations, manifests, reports."""

MOST_WEIGHTS: Final = 256 << 30
"""Bytes of a file of weights at most."""

_DEEPEST: Final = 64
"""Lists and objects within each other in a JSON document at most."""

_SPARSE_FROM: Final = 256 << 20
"""Bytes from which a file is searched for holes: shorter ones are read in a moment."""

_MOST_EXTENTS: Final = 1000
_CHUNK: Final = 1 << 20

_KINDS: Final = (
    (stat.S_ISDIR, errno.EISDIR, "it is a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a pipe, not a regular file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, not a regular file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, not a regular file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, not a regular file"),
)


def open_regular(path: Path, most: int = MOST_WEIGHTS) -> BufferedReader:
    """Opens a file to read, which is the caller's to close.

    Args:
        path: the file; links are followed.
        most: bytes that it may have.

    Raises:
        OSError: it is not there, no regular file, longer, or consists of holes for the most part.
    """
    # A pipe that nobody writes to would keep the call waiting.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _check(descriptor, path, most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path, most: int = MOST_WEIGHTS) -> None:
    """Checks a file that another package opens by its name. Takes and raises what ``open_regular`` does."""
    open_regular(path, most).close()


def read_bytes(path: Path, most: int = MOST_DOCUMENT) -> bytes:
    """Returns what a file holds. Takes and raises what ``open_regular`` does."""
    with open_regular(path, most) as file:
        data = file.read(os.fstat(file.fileno()).st_size + 1)  # reading all at once takes no second copy
        while len(data) <= most and (more := file.read(_CHUNK)):  # files of /proc say that they are empty
            data += more
    if len(data) > most:
        raise _too_long(path, len(data), most)
    return data


def read_text(path: Path, most: int = MOST_DOCUMENT, encoding: str = "utf-8") -> str:
    """Returns the text of a file. Takes and raises what ``open_regular`` does.

    Raises:
        UnicodeDecodeError: it is not of that encoding.
    """
    return read_bytes(path, most).decode(encoding).replace("\r\n", "\n")


def parse_json(text: str) -> Any:
    """Returns what JSON text holds.

    Raises:
        ValueError: it is no JSON, has a number that JSON has not, names a field twice, or is nested too deep.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_fields)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from None
    # Each level takes a bracket: most documents have too few of them to be searched.
    if text.count("[") + text.count("{") > _DEEPEST:
        _check_depth(data)
    return data


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)[:80]!r} twice")
    return fields


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(_DEEPEST + 1):
        held = [value.values() if isinstance(value, dict) else value for value in level]
        level = [child for values in held for child in values if isinstance(child, (dict, list))]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


def _check(descriptor: int, path: Path, most: int) -> None:
    status = os.fstat(descriptor)
    for is_kind, number, what in _KINDS:
        if is_kind(status.st_mode):
            raise OSError(number, what, str(path))
    if status.st_size > most:
        raise _too_long(path, status.st_size, most)
    if status.st_size >= _SPARSE_FROM and 2 * _held(descriptor, status.st_size) < status.st_size:
        raise OSError(errno.EINVAL, f"most of its {status.st_size} bytes are holes", str(path))


def _held(descriptor: int, size: int) -> int:
    """Returns how many bytes of a file were written; those beyond many extents are taken as written."""
    if not hasattr(os, "SEEK_DATA"):
        return size
    held = place = 0
    for _ in range(_MOST_EXTENTS):
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            held += 0 if error.errno == errno.ENXIO else size - place  # ENXIO: holes to the end
            break
        place = os.lseek(descriptor, start, os.SEEK_HOLE)
        held += place - start
        if place >= size:
            break
    else:
        held += size - place
    os.lseek(descriptor, 0, os.SEEK_SET)
    return held


def _too_long(path: Path, size: int, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size} bytes or more, at most {most} are read", str(path))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
