"""Many digits: one to six of them on a photograph, and the label is the largest digit by value.

Any digit may be the largest, so every one has to be read; one digit covers a few of the image's patches, six cover half
of them. Sources are the demonstration's, held out as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from sait_deploy.demo.data import CANVAS, CLASSES, CanvasOptions, Sources, backdrop, between, enlarged, finished

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SOURCE_SIDE: Final = 8
_TRIES: Final = 40
"""Places drawn for a digit before it is made smaller."""

_SHRINK: Final = 0.9


_CANVAS: Final = CanvasOptions(photograph=1.0, fragments=(0, 4), noise=(0.01, 0.06))


@dataclass(frozen=True, slots=True)
class ManyOptions:
    """How images of many digits are composed; every range is drawn from uniformly.

    Attributes:
        digits: how many.
        scale: size of each, in multiples of its 8 pixels; smaller where there is no room left.
        canvas: background, clutter, intensities and noise.
    """

    digits: tuple[int, int] = (1, 6)
    scale: tuple[float, float] = (2.5, 4.0)
    canvas: CanvasOptions = _CANVAS


class ManyScene(NamedTuple):
    """A composed image and what it was composed of.

    Attributes:
        pixels: uint8 [CANVAS, CANVAS], grey.
        label: the largest digit by value.
        digits: how many there are.
        area: share of the image that the squares around them cover.
        fragments: clutter pasted.
    """

    pixels: NDArray[np.uint8]
    label: int
    digits: int
    area: float
    fragments: int


def compose_many_digits(sources: Sources, rng: np.random.Generator, options: ManyOptions = ManyOptions()) -> ManyScene:
    """Composes one image; its label is uniform over the classes, whatever the number of digits.

    The other digits are smaller ones, so that the largest stands there once; beside a zero there are only zeros.
    """
    canvas, fragments, _ = backdrop(sources, rng, options.canvas)
    label, count = int(rng.integers(CLASSES)), between(options.digits, rng)
    values = [label, *(int(rng.integers(max(label, 1))) for _ in range(count - 1))]
    scales = np.sort(rng.uniform(*options.scale, size=count))[::-1]  # the largest first, while there is room
    taken = np.zeros((CANVAS, CANVAS), dtype=bool)
    for value, scale in zip(rng.permutation(values), scales, strict=True):
        top, left, side = _free_place(taken, float(scale), rng)
        index = int(rng.choice(np.flatnonzero(sources.labels == value)))
        digit = enlarged(sources.pixels[index], side / _SOURCE_SIDE)
        region = canvas[top : top + side, left : left + side]
        np.maximum(region, digit * np.float32(rng.uniform(*options.canvas.digit_intensity)), out=region)
        taken[top : top + side, left : left + side] = True
    return ManyScene(finished(canvas, rng, options.canvas), label, count, float(taken.mean()), fragments)


def _free_place(taken: NDArray[np.bool_], scale: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """Returns top, left and side of a square that nothing stands in."""
    while True:
        side = max(_SOURCE_SIDE, round(scale * _SOURCE_SIDE))
        for _ in range(_TRIES):
            top, left = (int(at) for at in rng.integers(0, CANVAS - side + 1, size=2))
            if not taken[top : top + side, left : left + side].any():
                return top, left, side
        scale *= _SHRINK
