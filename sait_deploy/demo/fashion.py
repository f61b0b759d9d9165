"""Fashion-MNIST: 70,000 grey product images of 28 x 28 pixels, read from the four files that it is published as.

Zalando SE, 2017, MIT licence. Debian packages it as ``dataset-fashion-mnist``.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from sait_deploy.demo.data import Split
from sait_deploy.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES: Final = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip

_FILES: Final = {
    Split.TRAIN: (
        ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    ),
    Split.HELD_OUT: (
        ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
}
"""Names, and SHA-256 of what is in the files, whether they are compressed or not."""

_IMAGES_HEADER, _LABELS_HEADER, _SIDE = 16, 8, 28
_HINT: Final = "give the folder of the four files of Fashion-MNIST, such as of Debian's dataset-fashion-mnist"


class Goods(NamedTuple):
    """Product images: ``pixels`` uint8 [n, 28, 28], light on black, and ``labels`` uint8 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@functools.cache
def read_goods(folder: Path, split: Split) -> Goods:
    """Reads the product images of one split: 60,000 to train on, or the 10,000 held out.

    Raises:
        ImageError: a file is missing, cannot be read or is not the one that was published.
    """
    images, labels = (_content(folder, name, sha256) for name, sha256 in _FILES[split])
    pixels = np.frombuffer(images, dtype=np.uint8, offset=_IMAGES_HEADER).reshape(-1, _SIDE, _SIDE)
    return Goods(pixels, np.frombuffer(labels, dtype=np.uint8, offset=_LABELS_HEADER))


def _content(folder: Path, name: str, sha256: str) -> bytes:
    packed = folder / f"{name}.gz"
    path = packed if packed.is_file() else folder / name
    try:
        found = gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"there is no {packed} of Fashion-MNIST, nor an unpacked one", _HINT) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"{path} cannot be read: {error}", _HINT) from None
    if hashlib.sha256(found).hexdigest() != sha256:
        raise ImageError(f"{path} is not the file of Fashion-MNIST: its content has another SHA-256", _HINT)
    return found
