"""Images to check, measure and classify with: a folder of the user's, the demonstration's, or shipped photographs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy import demo
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.class_folders import match_folders
from sait_deploy.images.preprocess import MODES, ImageLike, list_images, open_image

PHOTOGRAPHS: Final = demo.FOLDER / "photographs"
BRIGHTNESS: Final = "shipped photographs, their brightness in place of the fourth channel that they lack"
GENERATED_SEED: Final = 1
GENERATED_COUNT: Final = 1000


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images and, where they are known, labels.

    Attributes:
        images: paths, or arrays uint8 [H, W, 3] or [H, W, 4].
        labels: int64 [n], indices of classes; None where unknown.
        source: where the images came from, in words.
        classes: names of the classes, where they are others than the model's; None where they are its own.
    """

    images: Sequence[ImageLike]
    labels: NDArray[np.int64] | None
    source: str
    classes: tuple[str, ...] | None = None

    def sample(self, count: int) -> Dataset:
        """Returns at most ``count`` images, evenly spaced."""
        if len(self.images) <= count:
            return self
        chosen = evenly_spaced(len(self.images), count)
        labels = None if self.labels is None else self.labels[chosen]
        return Dataset([self.images[i] for i in chosen], labels, self.source, self.classes)


def evenly_spaced(length: int, most: int) -> NDArray[np.int64]:
    """Returns the places of at most ``most`` of so many items, the first and the last among them, int64 ascending."""
    places: NDArray[np.int64] = np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)
    return places


def check_class_map(images: Path | None, class_map: Path | None) -> None:
    """Refuses a class map where there is no folder of images to use it on.

    Raises:
        InvalidArgument: that is so.
    """
    if class_map is not None and images is None:
        raise InvalidArgument(f"class map {class_map} is for a folder of images", "name the folder as well")


def folder_dataset(
    path: Path, class_names: Sequence[str] | None, classes: int, class_map: Path | None = None
) -> Dataset:
    """Lists a folder of images; subfolders are taken as classes where they match the model's.

    Args:
        path: an image or a folder.
        class_names: the model's labels, where known; subfolders of those names are theirs.
        classes: the model's number of classes.
        class_map: a file that says the class of each subfolder.

    Returns:
        The images; the source says what was assumed, and where subfolders are not taken as classes.

    Raises:
        ImageError: there is no image.
        InvalidArgument: it is not clear which classes the subfolders are; see ``match_folders``.
    """
    found = list_images(path)
    if found.classes is None or found.labels is None or not classes:
        if class_map is not None:
            raise InvalidArgument(f"{path} has no folders of classes for {class_map}", "leave the class map out")
        return Dataset(found.paths, None, str(path))
    matched = match_folders(path, found.classes, class_names, classes, class_map)
    if matched is None:
        source = f"{path} (unlabelled: its {len(found.classes)} subfolders are not the model's {classes} classes)"
        return Dataset(found.paths, None, source)
    labels = np.array([matched.classes[i] for i in found.labels], dtype=np.int64)
    return Dataset(found.paths, labels, f"{path} ({matched.assumption})" if matched.assumption else str(path))


def grouped_dataset(path: Path) -> Dataset:
    """Lists a folder of images whose subfolders are classes, whatever a model's classes are.

    Returns:
        The images; without labels where there are not two subfolders with images and nothing beside them.

    Raises:
        ImageError: there is no image.
    """
    found = list_images(path)
    if found.classes is None or found.labels is None or len(set(found.labels)) < 2:
        return Dataset(found.paths, None, str(path))
    return Dataset(found.paths, np.array(found.labels, dtype=np.int64), str(path), found.classes)


def shipped_dataset(model_name: str, channels: int = 3) -> Dataset:
    """Returns the images that come with the toolkit for a model: digits for the demonstration's, else photographs.

    Photographs have no fourth channel: for a model that reads one, their brightness stands there.
    """
    if model_name != demo.NAME:
        paths = list_images(PHOTOGRAPHS).paths
        if channels == len(MODES[4]):
            return Dataset([_with_brightness(path) for path in paths], None, BRIGHTNESS)
        return Dataset(paths, None, "shipped photographs")
    digits = folder_dataset(demo.IMAGES, demo.LABELS, len(demo.LABELS))
    return Dataset(digits.images, digits.labels, "shipped held-out digits")


def _with_brightness(path: Path) -> NDArray[np.uint8]:
    """Returns a photograph uint8 [H, W, 4] whose fourth channel is its brightness."""
    return np.dstack([np.asarray(open_image(path)), np.asarray(open_image(path, 1))])


def evaluation_dataset(model_name: str, channels: int = 3) -> Dataset:
    """Returns what accuracy is measured on where the user names no images.

    For the demonstration model these are a thousand images composed of held-out digits, or the shipped ones where
    scikit-learn or scikit-image is not installed; the source says which.
    """
    composable = all(importlib.util.find_spec(package) is not None for package in ("sklearn", "skimage"))
    if model_name != demo.NAME or not composable:
        return shipped_dataset(model_name, channels)
    from sait_deploy.demo.data import Split, compose_many

    images, labels = compose_many(Split.HELD_OUT, GENERATED_COUNT, GENERATED_SEED)
    return Dataset(list(images), labels, f"{GENERATED_COUNT} composed held-out digits")
