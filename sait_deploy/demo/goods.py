"""Goods: a product image of Fashion-MNIST on a photograph, at 20 to 80 % of the frame; the label is what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image

from sait_deploy.demo.data import CANVAS, CanvasOptions, Sources, backdrop, finished

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sait_deploy.demo.fashion import Goods


_CANVAS: Final = CanvasOptions(photograph=1.0, fragments=(0, 0), noise=(0.01, 0.05))


@dataclass(frozen=True, slots=True)
class GoodsOptions:
    """How images of goods are composed; every range is drawn from uniformly.

    Attributes:
        share: side of the product's square, as a share of the frame's.
        intensity: factor of the product's brightness.
        opaque: brightness of the product, of 1, from which on nothing shines through.
        canvas: background and noise.
    """

    share: tuple[float, float] = (0.2, 0.8)
    intensity: tuple[float, float] = (0.7, 1.0)
    opaque: float = 0.25
    canvas: CanvasOptions = _CANVAS


class GoodsScene(NamedTuple):
    """A composed image and what it was composed of.

    Attributes:
        pixels: uint8 [CANVAS, CANVAS], grey.
        label: number of the product's class.
        share: side of the product's square, as a share of the frame's.
    """

    pixels: NDArray[np.uint8]
    label: int
    share: float


def compose_goods(
    goods: Goods, sources: Sources, rng: np.random.Generator, options: GoodsOptions = GoodsOptions()
) -> GoodsScene:
    """Composes one image; classes are as frequent as in Fashion-MNIST, where they are equal."""
    canvas = backdrop(sources, rng, options.canvas).canvas
    index, share = int(rng.integers(len(goods.pixels))), float(rng.uniform(*options.share))
    side = round(share * CANVAS)
    product = Image.fromarray(goods.pixels[index]).resize((side, side), Image.Resampling.BILINEAR)
    light = np.asarray(product, dtype=np.float32) / np.float32(255.0)
    top, left = (int(at) for at in rng.integers(0, CANVAS - side + 1, size=2))
    region = canvas[top : top + side, left : left + side]
    cover = np.minimum(light / np.float32(options.opaque), np.float32(1.0))
    region += cover * (light * np.float32(rng.uniform(*options.intensity)) - region)
    return GoodsScene(finished(canvas, rng, options.canvas), int(goods.labels[index]), share)
