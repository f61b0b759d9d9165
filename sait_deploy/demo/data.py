"""Cluttered digits: the data set of the demonstration model.

One of scikit-learn's 8 x 8 digits stands, at a size that varies from image to image, on a shaded, noisy canvas among
fragments of other digits. Most of the canvas is background, which is what makes token pruning worth watching, and the
share that is not varies, which is what makes an adaptive number of tokens worth having.

Source digits are split before any image is composed: no digit seen in training, whole or as clutter, is ever evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sait_deploy.errors import MissingDependency

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANVAS = 96
"""Side of a composed image in pixels."""

CLASSES = 10


class Split(StrEnum):
    """Which source digits an image may be made of."""

    TRAIN = "train"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class CanvasOptions:
    """How images are composed; every range is drawn from uniformly, once per image (or per fragment).

    Sizes are multiples of the source digit's 8 pixels; intensities are in [0, 1].
    """

    digit_scale: tuple[float, float] = (2.5, 6.0)
    digit_intensity: tuple[float, float] = (0.65, 1.0)
    fragments: tuple[int, int] = (0, 10)
    fragment_scale: tuple[float, float] = (2.5, 6.0)
    fragment_intensity: tuple[float, float] = (0.3, 0.8)
    background: tuple[float, float] = (0.0, 0.35)
    noise: tuple[float, float] = (0.01, 0.10)


@dataclass(frozen=True, slots=True)
class Digits:
    """Source digits: ``pixels`` float32 [n, 8, 8] in [0, 1] and ``labels`` int64 [n]."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_digits(split: Split) -> Digits:
    """Returns the source digits of one split: every fifth of scikit-learn's 1,797 is held out.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled_digits
    except ImportError:
        raise MissingDependency("scikit-learn", "generating the demonstration images", extra="train") from None
    bunch = bundled_digits()
    held_out = np.arange(len(bunch.target)) % 5 == 0
    chosen = held_out if split is Split.HELD_OUT else ~held_out
    pixels = (bunch.images[chosen] / 16.0).astype(np.float32)
    return Digits(pixels, bunch.target[chosen].astype(np.int64))


def _enlarged(patch: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    height, width = (max(2, round(side * scale)) for side in patch.shape)
    image = Image.fromarray(patch).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def _paste(canvas: NDArray[np.float32], patch: NDArray[np.float32], rng: np.random.Generator) -> None:
    height, width = patch.shape
    top = int(rng.integers(0, canvas.shape[0] - height + 1))
    left = int(rng.integers(0, canvas.shape[1] - width + 1))
    region = canvas[top : top + height, left : left + width]
    np.maximum(region, patch, out=region)


def compose(
    digits: Digits, rng: np.random.Generator, options: CanvasOptions = CanvasOptions()
) -> tuple[NDArray[np.uint8], int]:
    """Composes one image.

    Returns:
        The image, uint8 [CANVAS, CANVAS], grey, and its label.
    """
    ramp = np.linspace(-0.5, 0.5, CANVAS, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.3, 0.3, size=2).astype(np.float32)
    canvas = np.float32(rng.uniform(*options.background)) + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    for _ in range(int(rng.integers(options.fragments[0], options.fragments[1] + 1))):
        source = digits.pixels[rng.integers(len(digits.pixels))]
        height, width = rng.integers(3, 6, size=2)
        top, left = rng.integers(0, 9 - height), rng.integers(0, 9 - width)
        fragment = _enlarged(source[top : top + height, left : left + width], rng.uniform(*options.fragment_scale))
        _paste(canvas, fragment * np.float32(rng.uniform(*options.fragment_intensity)), rng)
    index = int(rng.integers(len(digits.pixels)))
    digit = _enlarged(digits.pixels[index], rng.uniform(*options.digit_scale))
    _paste(canvas, digit * np.float32(rng.uniform(*options.digit_intensity)), rng)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(*options.noise))
    return (np.clip(canvas, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), int(digits.labels[index])


def compose_many(
    split: Split, count: int, seed: int, options: CanvasOptions = CanvasOptions()
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Composes ``count`` images of one split; the same arguments always give the same images.

    Returns:
        images uint8 [count, CANVAS, CANVAS, 3] (grey in three channels) and labels int64 [count].
    """
    digits = load_digits(split)
    rng = np.random.default_rng(seed)
    composed = [compose(digits, rng, options) for _ in range(count)]
    images = np.stack([image for image, _ in composed])
    labels = np.array([label for _, label in composed], dtype=np.int64)
    return np.repeat(images[..., None], 3, axis=-1), labels
