"""Cluttered digits: the data set of the demonstration model.

One of scikit-learn's 8 x 8 digits stands, at a size that varies from image to image, on a shaded, noisy canvas or on
a piece of one of scikit-image's photographs, among fragments of other digits. Most of the canvas is background, which
is what makes token pruning worth watching, and the share that is not varies, which is what makes an adaptive number of
tokens worth having.

Source digits and photographs are split before any image is composed: none seen in training is ever evaluated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
from PIL import Image

from sait_deploy.errors import MissingDependency

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANVAS = 96
"""Side of a composed image in pixels."""

CLASSES = 10

_STROKE: Final = 0.25
"""Share of full intensity from which on a digit's pixel is part of its stroke."""

# Bundled with scikit-image, so that nothing is downloaded; each split has people or animals, textures and stars.
_TRAIN_PHOTOGRAPHS: Final = (
    "astronaut",
    "brick",
    "coins",
    "grass",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "rocket",
)
_HELD_OUT_PHOTOGRAPHS: Final = ("camera", "chelsea", "coffee", "gravel")


class Split(StrEnum):
    """Which source digits an image may be made of."""

    TRAIN = "train"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class CanvasOptions:
    """How images are composed; every range is drawn from uniformly, once per image (or per fragment).

    Sizes are multiples of the source digit's 8 pixels; intensities are in [0, 1].

    Attributes:
        copies: whole digits, all of the label's class; each is another source digit, of its own size.
        photograph: probability that a photograph is the background.
        photograph_contrast: a photograph's range of intensities, from 0.
        photograph_window: side of the piece of a photograph that fills the canvas, in its pixels.
    """

    copies: tuple[int, int] = (1, 1)
    digit_scale: tuple[float, float] = (2.0, 6.0)
    digit_intensity: tuple[float, float] = (0.7, 1.0)
    fragments: tuple[int, int] = (0, 6)
    fragment_scale: tuple[float, float] = (2.0, 5.0)
    fragment_intensity: tuple[float, float] = (0.3, 0.7)
    background: tuple[float, float] = (0.0, 0.35)
    photograph: float = 0.5
    photograph_contrast: tuple[float, float] = (0.2, 0.6)
    photograph_window: tuple[int, int] = (96, 288)
    noise: tuple[float, float] = (0.01, 0.10)


LIGHT_CLUTTER: Final = CanvasOptions(fragments=(0, 2))
HEAVY_CLUTTER: Final = CanvasOptions(fragments=(6, 12))
TWO_OBJECTS: Final = CanvasOptions(copies=(2, 2), digit_scale=(2.0, 4.0))
"""What a point chosen elsewhere meets when the data shift: see ``benchmarks/demo_training.py``."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What images are composed of: ``pixels`` float32 [n, 8, 8] in [0, 1] and ``labels`` int64 [n] of the digits, and
    photographs, grey."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    photographs: tuple[Image.Image, ...]


@functools.cache
def load_sources(split: Split) -> Sources:
    """Returns what images of one split are composed of.

    Every fifth of scikit-learn's 1,797 digits is held out, and four of scikit-image's photographs are.

    Raises:
        MissingDependency: scikit-learn or scikit-image is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled_digits
    except ImportError:
        raise MissingDependency("scikit-learn", "generating the demonstration images", extra="train") from None
    bunch = bundled_digits()
    held_out = np.arange(len(bunch.target)) % 5 == 0
    chosen = held_out if split is Split.HELD_OUT else ~held_out
    pixels = (bunch.images[chosen] / 16.0).astype(np.float32)
    return Sources(pixels, bunch.target[chosen].astype(np.int64), _photographs(split))


def _photographs(split: Split) -> tuple[Image.Image, ...]:
    try:
        from skimage import data as bundled
    except ImportError:
        raise MissingDependency("scikit-image", "generating the demonstration images", extra="train") from None
    names = _HELD_OUT_PHOTOGRAPHS if split is Split.HELD_OUT else _TRAIN_PHOTOGRAPHS
    return tuple(Image.fromarray(np.asarray(getattr(bundled, name)())).convert("L") for name in names)


def enlarged(patch: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Returns a patch of intensities with sides of so many times its own."""
    height, width = (max(2, round(side * scale)) for side in patch.shape)
    image = Image.fromarray(patch).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def _paste(canvas: NDArray[np.float32], patch: NDArray[np.float32], rng: np.random.Generator) -> tuple[slice, slice]:
    """Draws a patch somewhere on a canvas, and returns its rows and columns there."""
    height, width = patch.shape
    top = int(rng.integers(0, canvas.shape[0] - height + 1))
    left = int(rng.integers(0, canvas.shape[1] - width + 1))
    place = slice(top, top + height), slice(left, left + width)
    np.maximum(canvas[place], patch, out=canvas[place])
    return place


class Scene(NamedTuple):
    """A composed image and what it was composed of.

    Attributes:
        pixels: uint8 [CANVAS, CANVAS], grey.
        label: the digit.
        digit_scale: size of the (last) digit, in multiples of 8 pixels.
        fragments: clutter pasted.
        photograph: whether the background is one.
        mask: bool [CANVAS, CANVAS], which pixels whole digits cover: their strokes, and no clutter.
    """

    pixels: NDArray[np.uint8]
    label: int
    digit_scale: float
    fragments: int
    photograph: bool
    mask: NDArray[np.bool_]


def compose(
    sources: Sources, rng: np.random.Generator, options: CanvasOptions = CanvasOptions()
) -> tuple[NDArray[np.uint8], int]:
    """Composes one image.

    Returns:
        The image, uint8 [CANVAS, CANVAS], grey, and its label.
    """
    scene = compose_scene(sources, rng, options)
    return scene.pixels, scene.label


def compose_scene(sources: Sources, rng: np.random.Generator, options: CanvasOptions = CanvasOptions()) -> Scene:
    """Composes one image and says of what."""
    ground = backdrop(sources, rng, options)
    canvas = ground.canvas
    index = int(rng.integers(len(sources.pixels)))
    label, scale, mask = int(sources.labels[index]), 0.0, np.zeros(canvas.shape, np.bool_)
    for _ in range(between(options.copies, rng)):
        scale = float(rng.uniform(*options.digit_scale))
        digit = enlarged(sources.pixels[index], scale)
        place = _paste(canvas, digit * np.float32(rng.uniform(*options.digit_intensity)), rng)
        mask[place] |= digit > _STROKE
        index = int(rng.choice(np.flatnonzero(sources.labels == label)))
    return Scene(finished(canvas, rng, options), label, scale, ground.fragments, ground.photograph, mask)


class Backdrop(NamedTuple):
    """What stands behind the digits.

    Attributes:
        canvas: float32 [CANVAS, CANVAS], to be drawn on.
        fragments: clutter pasted.
        photograph: whether the background is one.
    """

    canvas: NDArray[np.float32]
    fragments: int
    photograph: bool


def backdrop(sources: Sources, rng: np.random.Generator, options: CanvasOptions) -> Backdrop:
    """Composes what stands behind the digits: a shade or a photograph, and fragments of other digits."""
    photograph = rng.uniform() < options.photograph
    canvas = _photograph(sources, rng, options) if photograph else _shaded(rng, options)
    fragments = between(options.fragments, rng)
    for _ in range(fragments):
        source = sources.pixels[rng.integers(len(sources.pixels))]
        height, width = rng.integers(3, 6, size=2)
        top, left = rng.integers(0, 9 - height), rng.integers(0, 9 - width)
        fragment = enlarged(source[top : top + height, left : left + width], rng.uniform(*options.fragment_scale))
        _paste(canvas, fragment * np.float32(rng.uniform(*options.fragment_intensity)), rng)
    return Backdrop(canvas, fragments, photograph)


def finished(canvas: NDArray[np.float32], rng: np.random.Generator, options: CanvasOptions) -> NDArray[np.uint8]:
    """Returns pixels of a canvas, which it adds noise to."""
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(*options.noise))
    return (np.clip(canvas, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def between(limits: tuple[int, int], rng: np.random.Generator) -> int:
    """Draws a whole number within limits, both included."""
    return int(rng.integers(limits[0], limits[1] + 1))


def _photograph(sources: Sources, rng: np.random.Generator, options: CanvasOptions) -> NDArray[np.float32]:
    photograph = sources.photographs[rng.integers(len(sources.photographs))]
    side = min(between(options.photograph_window, rng), *photograph.size)
    left, top = (int(rng.integers(0, whole - side + 1)) for whole in photograph.size)
    piece = photograph.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(piece, dtype=np.float32) * np.float32(rng.uniform(*options.photograph_contrast) / 255.0)


def _shaded(rng: np.random.Generator, options: CanvasOptions) -> NDArray[np.float32]:
    ramp = np.linspace(-0.5, 0.5, CANVAS, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.3, 0.3, size=2).astype(np.float32)
    plain = np.float32(rng.uniform(*options.background))
    canvas: NDArray[np.float32] = plain + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    return canvas


def compose_scenes(split: Split, count: int, seed: int, options: CanvasOptions = CanvasOptions()) -> list[Scene]:
    """Composes ``count`` images of one split and says of what; the same arguments always give the same images."""
    sources, rng = load_sources(split), np.random.default_rng(seed)
    return [compose_scene(sources, rng, options) for _ in range(count)]


def compose_many(
    split: Split, count: int, seed: int, options: CanvasOptions = CanvasOptions()
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Composes ``count`` images of one split; the same arguments always give the same images.

    Returns:
        images uint8 [count, CANVAS, CANVAS, 3] (grey in three channels) and labels int64 [count].
    """
    return stacked(compose_scenes(split, count, seed, options))


class Composed(Protocol):
    """A composed image: ``pixels`` uint8 [CANVAS, CANVAS], grey, and ``label``, its class."""

    @property
    def pixels(self) -> NDArray[np.uint8]: ...  # noqa: D102

    @property
    def label(self) -> int: ...  # noqa: D102


def stacked(scenes: Sequence[Composed]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns images uint8 [count, CANVAS, CANVAS, 3] (grey in three channels) and labels int64 [count] of scenes."""
    images = np.stack([scene.pixels for scene in scenes])
    labels = np.array([scene.label for scene in scenes], dtype=np.int64)
    return np.repeat(images[..., None], 3, axis=-1), labels


def stacked_masks(scenes: Sequence[Scene]) -> NDArray[np.uint8]:
    """Returns what pixels of scenes show, uint8 [count, CANVAS, CANVAS]: 0 background, 1 + the digit its strokes."""
    return np.stack([np.where(scene.mask, scene.label + 1, 0).astype(np.uint8) for scene in scenes])
