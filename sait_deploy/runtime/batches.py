"""Any number of images in batches that a runner takes; the last is filled with images that are repeated."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.runtime.answers import Output, Selection
from sait_deploy.runtime.base import Runner

Numbers = NDArray[np.intp]

FILLED: Final = "a batch of fewer is filled with repeated images, whose answers are dropped"


def portions(images: int, wanted: int, batch_range: tuple[int, int]) -> list[Numbers]:
    """Splits images into batches that a runner takes.

    Args:
        images: how many.
        wanted: batch size, as far as the runner takes it.
        batch_range: the fewest and the most that it takes.

    Returns:
        The numbers of the images of each batch, from 0; where the last would be too small, it begins again at 0.
    """
    fewest, most = batch_range
    size = min(max(wanted, fewest), most)
    ends = [(start, max(min(start + size, images), start + fewest)) for start in range(0, images, size)]
    return [np.arange(start, end) % images for start, end in ends]


def run_all(runner: Runner, images: NDArray[np.float32], choice: PointChoice = DEFAULT_CHOICE) -> Output:
    """Runs any number of images, float32 [n, C, H, W], at one operating point, and returns an answer to each.

    Raises:
        InvalidArgument, NotFinite: as :meth:`Runner.run`.
    """
    refuse_tower(runner.description, "a set of batches")
    parts = portions(len(images), len(images), runner.batch_range)
    outputs = [runner.run_at(images[part], choice) for part in parts]
    features = [output.features for output in outputs if output.features is not None]
    further = {name: [output.further[name] for output in outputs] for name in outputs[0].further}
    return Output(
        np.concatenate([output.logits for output in outputs])[: len(images)],
        np.concatenate([output.kept for output in outputs])[: len(images)],
        np.concatenate(features)[: len(images)] if features else None,
        {name: np.concatenate(arrays)[: len(images)] for name, arrays in further.items()},
    )


def select_all(runner: Runner, images: NDArray[np.float32], choice: PointChoice = DEFAULT_CHOICE) -> Selection:
    """Does what ``run_all`` does, and returns importance and kept tokens too.

    Raises:
        InvalidArgument, NotFinite: as :meth:`Runner.select`.
    """
    parts = portions(len(images), len(images), runner.batch_range)
    found = [runner.select_at(images[part], choice) for part in parts]
    return Selection(
        np.concatenate([one.logits for one in found])[: len(images)],
        np.concatenate([one.importance for one in found])[: len(images)],
        np.concatenate([one.keep for one in found])[: len(images)],
    )
