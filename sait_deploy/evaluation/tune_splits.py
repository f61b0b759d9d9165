"""Two sets of images for a choice: one to choose on, and one that the choice never saw."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy import demo
from sait_deploy.artifacts.manifest import ModelInfo
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.dataset import Dataset, check_class_map, folder_dataset, shipped_dataset
from sait_deploy.system.option_values import check_options

COMPOSED_IMAGES: Final = 2000
"""Images composed for each of the two sets where the demonstration model is given none."""

_FIRST_SEED: Final = 1000
"""Seeds of composed images begin here: smaller ones are training's and evaluation's."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """Where the two sets come from.

    Attributes:
        images: an image folder; None for what comes with the toolkit.
        check_images: a folder for the check alone; None to split ``images``.
        calibration_share: the part of split images to choose on, in (0, 1).
        seed: of the split, from 0.
        class_map: file that says the class of each subfolder of ``images``; None for the classes of those names.

    Raises:
        InvalidArgument: a share or seed that cannot be, or images for the check alone.
    """

    images: Path | None = None
    check_images: Path | None = None
    calibration_share: float = 0.5
    seed: int = 0
    class_map: Path | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_class_map(self.images, self.class_map)
        if not 0 < self.calibration_share < 1:
            raise InvalidArgument(
                f"a calibration share of {self.calibration_share:g} leaves one set empty", "give one such as 0.5"
            )
        if self.seed < 0:
            raise InvalidArgument(f"seed {self.seed} is below 0", "give a whole number from 0")
        if self.check_images is not None and self.images is None:
            raise InvalidArgument("images to check on need others to choose on", "give --images as well")


@dataclass(frozen=True, slots=True)
class Splits:
    """The set that a point is chosen on, and the one it is checked on."""

    calibration: Dataset
    check: Dataset

    @property
    def labelled(self) -> bool:
        """Whether both sets have labels."""
        return self.calibration.labels is not None and self.check.labels is not None


def make_splits(model: ModelInfo, options: SplitOptions, channels: int = 3) -> Splits:
    """Returns the two sets for a model: the same options always give the same ones.

    Args:
        model: the model.
        options: where images are, and how they are divided.
        channels: of the images that the model reads, for what is shipped.

    Raises:
        ImageError: there is no image, or one alone.
        InvalidArgument: the two folders share an image.
    """
    if options.images is None:
        composed = _composed(model, options.seed)
        return split(shipped_dataset(model.name, channels), options) if composed is None else composed
    given = folder_dataset(options.images, model.labels, model.classes, options.class_map)
    if options.check_images is None:
        return split(given, options)
    check = folder_dataset(options.check_images, model.labels, model.classes, options.class_map)
    shared = _places(given) & _places(check)
    if shared:
        raise InvalidArgument(f"{min(shared)} is among both sets of images", "check on images that are in no other set")
    return Splits(given, check)


def split(dataset: Dataset, options: SplitOptions) -> Splits:
    """Divides images by chance, each class in the same proportion where labels are known.

    Raises:
        ImageError: there are too few images for two sets.
    """
    count = len(dataset.images)
    order = np.random.default_rng(options.seed).permutation(count)
    if dataset.labels is not None:
        order = order[np.argsort(dataset.labels[order], kind="stable")]
    # Every 1/share-th of the shuffled images, class after class: no class is off by more than one image.
    steps = np.floor(np.arange(count + 1) * options.calibration_share)
    chosen = np.diff(steps) > 0
    if chosen.all() or not chosen.any():
        images = "1 image" if count == 1 else f"{count} images"
        raise ImageError(f"{images} of {dataset.source} cannot be split in two sets", "give more images")
    return Splits(*(_part(dataset, np.sort(order[part]), options.seed) for part in (chosen, ~chosen)))


def _part(dataset: Dataset, numbers: NDArray[np.intp], seed: int) -> Dataset:
    labels = None if dataset.labels is None else dataset.labels[numbers]
    source = f"{len(numbers)} of {len(dataset.images)} images, {dataset.source}, split by seed {seed}"
    return Dataset([dataset.images[i] for i in numbers], labels, source)


def _composed(model: ModelInfo, seed: int) -> Splits | None:
    """Composes both sets for the demonstration model, where what they are made of is installed."""
    if model.name != demo.NAME or any(importlib.util.find_spec(name) is None for name in ("sklearn", "skimage")):
        return None
    from sait_deploy.demo.data import Split, compose_many

    def composed(number: int) -> Dataset:
        images, labels = compose_many(Split.HELD_OUT, COMPOSED_IMAGES, number)
        return Dataset(list(images), labels, f"{COMPOSED_IMAGES} composed held-out digits, seed {number}")

    first = _FIRST_SEED + 2 * seed
    return Splits(composed(first), composed(first + 1))


def _places(dataset: Dataset) -> set[str]:
    paths: Sequence[object] = dataset.images
    return {os.path.realpath(path) for path in paths if isinstance(path, (str, os.PathLike))}
