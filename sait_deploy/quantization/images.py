"""Images to calibrate on, and others to compare answers on."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Final

import numpy as np

from sait_deploy import demo
from sait_deploy.artifacts.manifest import Manifest, WeightsSource
from sait_deploy.errors import ImageError
from sait_deploy.images.dataset import Dataset, evaluation_dataset, folder_dataset, shipped_dataset
from sait_deploy.quantization.options import CALIBRATION_IMAGES, FEWEST_IMAGES, QuantizeOptions

COMPARED_IMAGES: Final = 500
"""Held-out images that answers are compared on at most."""

_HELD_OUT_SHARE: Final = 4
"""One in so many images is held out, where that leaves fewer than are wanted to calibrate on."""

_SEED: Final = 2000
"""Of images that are composed to calibrate on: of the training's split of digits, with a seed that no training has."""


@dataclass(frozen=True, slots=True)
class QuantizationImages:
    """The two sets; ``random`` says that the weights are random, so that any images do."""

    calibration: Dataset
    held_out: Dataset

    @property
    def classes(self) -> int | None:
        """How many classes the calibration images are of; None where that is unknown."""
        labels = self.calibration.labels
        return None if labels is None else len(np.unique(labels))


def quantization_images(manifest: Manifest, options: QuantizeOptions) -> QuantizationImages:
    """Returns the two sets for a model, which share no image; the same options always give the same ones.

    Raises:
        ImageError: there are no images of the model's kind, or too few.
        InvalidArgument: it is not clear which classes the subfolders are.
    """
    model = manifest.model
    if options.images is not None:
        given = folder_dataset(options.images, model.labels, model.classes, options.class_map)
        if len(given.images) < FEWEST_IMAGES:
            raise ImageError(
                f"{options.images} has {len(given.images)} images, too few to calibrate on",
                f"give at least {FEWEST_IMAGES}, better {CALIBRATION_IMAGES} and others to compare on",
            )
        return _divided(given)
    if model.name == demo.NAME or manifest.weights.source is WeightsSource.RANDOM:
        return _demonstration()
    raise ImageError(
        f"there are no images to calibrate {model.name} on", "name a folder of images such as will be met: --images DIR"
    )


def _demonstration() -> QuantizationImages:
    if any(importlib.util.find_spec(package) is None for package in ("sklearn", "skimage")):
        return _divided(shipped_dataset(demo.NAME))
    from sait_deploy.demo.data import Split, compose_many

    images, labels = compose_many(Split.TRAIN, CALIBRATION_IMAGES, _SEED)
    source = f"{CALIBRATION_IMAGES} composed digits of the training's split"
    return QuantizationImages(Dataset(list(images), labels, source), _shortened(evaluation_dataset(demo.NAME)))


def _divided(whole: Dataset) -> QuantizationImages:
    """Spreads both sets evenly over a folder, whose images may be sorted."""
    count = len(whole.images)
    calibrating = min(CALIBRATION_IMAGES, count - count // _HELD_OUT_SHARE)
    chosen = np.zeros(count, dtype=bool)
    chosen[np.linspace(0, count - 1, calibrating).round().astype(int)] = True
    return QuantizationImages(_part(whole, chosen), _shortened(_part(whole, ~chosen)))


def _part(whole: Dataset, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Dataset:
    images = [image for image, wanted in zip(whole.images, chosen, strict=True) if wanted]
    return Dataset(images, None if whole.labels is None else whole.labels[chosen], whole.source)


def _shortened(dataset: Dataset) -> Dataset:
    return dataset.sample(COMPARED_IMAGES)
