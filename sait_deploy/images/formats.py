"""Which image formats are decoded, and the suffixes by which a folder's images are known: those of Pillow here."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image, UnidentifiedImageError

from sait_deploy.errors import ImageError

# Formats are named because Pillow hands some of the others to outside programs (EPS runs Ghostscript).
_FIRST: Final = ("JPEG", "PNG", "BMP", "GIF", "PPM")
"""Pillow has these at once; for the others it loads all of its plugins."""

_FURTHER: Final = ("WEBP", "TIFF", "AVIF", "HEIF")
"""Some builds of Pillow have no AVIF, and HEIF comes with a package that registers it."""

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
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise ImageError(f"there is no image {path}", "check the path") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"image {path!r} cannot be read: {error}", "check the path") from error
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path} is a folder, not an image", "name a file in it")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path} is no regular file", "save the image to a file first")


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
