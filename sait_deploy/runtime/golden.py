"""The golden file of a runner: one image and the answer at the default point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.golden import Golden
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.runtime.base import Runner


def golden_of(runner: Runner, pixels: NDArray[np.uint8], images: NDArray[np.float32]) -> Golden:
    """Runs one image at the default point.

    Args:
        runner: what answers.
        pixels: uint8 [H, W, C], the image.
        images: float32 [1, C, H, W], the same as the model takes it.
    """
    manifest = runner.artifact.manifest
    answer, point = runner.run(images), resolve(manifest, len(images), PointChoice())
    counts = answer.kept + np.int32(manifest.model.geometry.prefix_tokens)
    if point is None:
        return Golden(pixels, images, answer.logits, counts, None, None, answer.features, answer.further)
    fed = point.mass, point.keep_limits
    return Golden(pixels, images, answer.logits, counts, *fed, answer.features, answer.further)
