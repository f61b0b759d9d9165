"""Pixels to preprocess, and a preprocessing to small images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sait_deploy.images.preprocess import CropMode, Interpolation, Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = Preprocessing((8, 8), (9, 9), CropMode.CENTER, Interpolation.BICUBIC, True, MEAN, STD)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)
