"""An image that arrives as bytes from somebody else: its size is read off its header before any pixel is decoded."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from sait_deploy.errors import ImageError
from sait_deploy.images.formats import open_file, readable
from sait_deploy.images.preprocess import open_image


def open_received(data: bytes, most_pixels: int, channels: int = 3) -> Image.Image:
    """Decodes an image file's bytes as ``open_image`` does a file.

    Args:
        data: of the file.
        most_pixels: an image of more by its header is not decoded.
        channels: as ``open_image`` takes them.

    Raises:
        ImageError: it is no image, damaged, cut short, or has more pixels.
    """
    if not data:
        raise ImageError("there is no image: the data is empty", "send an image file's bytes")
    smaller = f"make it smaller first, at most {most_pixels:,} pixels"
    try:
        file = open_file(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ImageError("the data is no image, or of an unknown format", readable()) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("the image is too large by its header", smaller) from None
    except Exception as error:  # decoders raise nearly anything on damaged headers
        raise ImageError(f"the image cannot be read: {error}", readable()) from None
    if file.width * file.height > most_pixels:
        raise ImageError(f"an image of {file.width} x {file.height} pixels is too large", smaller)
    return open_image(file, channels)
