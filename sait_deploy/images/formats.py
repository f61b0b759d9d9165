"""Image files: which formats are decoded, and which files of a folder are images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image, UnidentifiedImageError

from sait_deploy.errors import ImageError
from sait_deploy.system.reading import check_regular

# Formats are named because Pillow hands some of the others to outside programs (EPS runs Ghostscript).
_FIRST: Final = ("JPEG", "PNG", "BMP", "GIF", "PPM")
"""Pillow has these at once; for the others it loads all of its plugins."""

_FURTHER: Final = ("WEBP", "TIFF", "AVIF", "HEIF")
"""Some builds of Pillow have no AVIF, and HEIF comes with a package that registers it."""

_DEEPEST: Final = 64
"""Folders within each other at most, links counted."""

_MOST_LINKED: Final = 20_000
"""Folders that are walked through by way of links at most: a few links among folders make millions of paths."""

_LARGEST_IMAGE: Final = 4 << 30
"""Bytes of an image file at most."""

_MEASUREMENTS: Final = frozenset({".pfm"})
"""Suffixes of those formats whose samples are no colours from 0 to 255."""


def open_file(path: str | BinaryIO) -> Image.Image:
    """Opens a file, or its bytes, of a format that is decoded here; its pixels are not read yet.

    Raises:
        UnidentifiedImageError: it is damaged or of another format.
    """
    try:
        return Image.open(path, formats=_FIRST)
    except UnidentifiedImageError:
        return Image.open(path, formats=_known(_FURTHER))


def check_file(path: str) -> None:
    """Checks that a path is a regular file: opening a pipe would wait for ever.

    Raises:
        ImageError: it is not, or is not there.
    """
    try:
        check_regular(Path(path), _LARGEST_IMAGE)
    except FileNotFoundError:
        raise ImageError(f"there is no image {path}", "check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder, not an image", "name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"image {path!r} cannot be read: {reason}", "check the path, and name a file") from error


def files_under(root: Path) -> Iterator[Path]:
    """Yields the files under a folder, links included but for those that lead back up; hidden ones are left out.

    Each folder is sorted, its own files before those of its folders; no more than one folder's names are held.

    Raises:
        ImageError: the folder goes too deep, or links in it lead to very many folders.
        OSError: a folder cannot be listed.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]], bool]] = [(root, frozenset(), False)]
    linked = 0
    while waiting:
        folder, above, through_link = waiting.pop()
        status, linked = folder.stat(), linked + through_link
        own = (status.st_dev, status.st_ino)
        if own in above:
            continue
        if len(above) > _DEEPEST or linked > _MOST_LINKED:
            what = f"goes {_DEEPEST} folders deep" if len(above) > _DEEPEST else f"leads by links to {linked} folders"
            raise ImageError(f"{root} {what}, or more", "links among its folders may do so: name a folder further down")
        with os.scandir(folder) as entries:
            seen = sorted((e.name, e.is_dir(), e.is_symlink()) for e in entries if not e.name.startswith("."))
        yield from (folder / name for name, is_folder, _ in seen if not is_folder)
        for name, is_folder, is_link in reversed(seen):
            if is_folder:
                waiting.append((folder / name, above | {own}, through_link or is_link))


def suffixes() -> frozenset[str]:
    """Returns the suffixes, small letters with their dot, by which files are taken for images."""
    formats = set(_known((*_FIRST, *_FURTHER)))
    return (
        frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in formats) - _MEASUREMENTS
    )


def readable() -> str:
    """Returns which formats can be read, in words."""
    *most, last = _known((*_FIRST, *_FURTHER))
    return f"readable are {', '.join(most)} and {last}"


def _known(formats: Iterable[str]) -> list[str]:
    Image.init()
    return [form for form in formats if form in Image.OPEN]
