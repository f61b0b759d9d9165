"""Training and validation data: folders of images with one subfolder per class, or the demonstration's digits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sait_deploy.demo.data import Split, stacked
from sait_deploy.demo.tasks import Composer, Task, composed_scenes, composer_of
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.class_folders import all_numbered, match_folders, natural_order
from sait_deploy.images.dataset import check_class_map, evenly_spaced
from sait_deploy.images.labels import is_class_name
from sait_deploy.images.preprocess import (
    ImageLike,
    ImageSet,
    Preprocessing,
    list_images,
    normalised,
    open_image,
    preprocess,
)
from sait_deploy.system.children import end_with
from sait_deploy.training.options import Augmentation, DataOptions

VALIDATION_SEED: Final = 3
"""Of the demonstration's validation images: neither those of evaluations nor those of tuning."""

_TRAIN, _VALIDATION = "train", ("val", "validation")
_LAYOUT: Final = "give a folder with one subfolder of images per class, or with train and val folders of such"


class EpochSampler(Sampler[int]):
    """A shuffled order that is a function of seed and epoch: a training that resumes meets the same images."""

    def __init__(self, length: int, seed: int) -> None:
        super().__init__()
        self._length, self._seed = length, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng((self._seed, self.epoch)).permutation(self._length).tolist())


class ComposedImages(Dataset[tuple[Tensor, int]]):
    """A demonstration's training images, composed when they are read, other ones in every epoch."""

    def __init__(self, composer: Composer, length: int, seed: int, preprocessing: Preprocessing) -> None:
        self._composer, self._length, self._seed, self._preprocessing = composer, length, seed, preprocessing
        self.epoch = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scene = self._composer(np.random.default_rng((self._seed, self.epoch, index)))
        channels = self._preprocessing.channels
        grey = np.broadcast_to(scene.pixels[None, :, :, None], (1, *scene.pixels.shape, channels))
        return torch.from_numpy(normalised(grey, self._preprocessing)[0]), scene.label


class FolderImages(Dataset[tuple[Tensor, int]]):
    """Images of a folder, varied by timm's transform.

    Args:
        images: with labels.
        transform: from a PIL image to a normalised float32 tensor [C, H, W].
        channels: C.
    """

    def __init__(self, images: ImageSet, transform: Any, channels: int) -> None:
        self._images, self._transform, self._channels = images, transform, channels

    def __len__(self) -> int:
        return len(self._images.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert self._images.labels is not None
        return self._transform(open_image(self._images.paths[index], self._channels)), self._images.labels[index]


class Prepared(Dataset[tuple[Tensor, int]]):
    """Images as a deployed model sees them."""

    def __init__(self, images: Sequence[ImageLike], labels: NDArray[np.int64], preprocessing: Preprocessing) -> None:
        self._images, self._labels, self._preprocessing = images, labels, preprocessing

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(preprocess(self._images[index], self._preprocessing)[0]), int(self._labels[index])


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The images of a training.

    Attributes:
        train: images varied for training and labels.
        validation: images as deployed, and labels.
        sampler: the order of ``train``.
        class_names: names of the classes, in the order of their labels.
        source: where the images come from, in words.
    """

    train: Dataset[tuple[Tensor, int]]
    validation: Dataset[tuple[Tensor, int]]
    sampler: EpochSampler
    class_names: tuple[str, ...]
    source: str

    @property
    def images(self) -> int:
        """Number of images to train on."""
        return len(self.sampler)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def start(self, epoch: int) -> None:
        """Begins an epoch: sets its order and its images."""
        self.sampler.epoch = epoch
        if isinstance(self.train, ComposedImages):
            self.train.epoch = epoch


def data_classes(options: DataOptions) -> int:
    """Returns the number of classes of the data, which a new head is made for.

    Raises:
        ImageError: the folder is not one subfolder of images per class.
        InvalidArgument: there is only one class.
    """
    task = options.task
    if task is not None:
        return len(task.labels)
    return len(_labelled(_folders(options)[0]).classes or ())


def open_data(
    options: DataOptions,
    classes: int,
    preprocessing: Preprocessing,
    seed: int,
    class_names: tuple[str, ...] | None = None,
) -> TrainingData:
    """Finds the images of a training.

    Args:
        options: where they are.
        classes: of the model.
        preprocessing: of the deployed model.
        seed: of order and variation.
        class_names: of the head's classes, where it is kept and they are known; None for the order of the folders.

    Raises:
        ImageError: a folder is missing, holds no image, or is not one subfolder of images per class.
        InvalidArgument: one class only, other classes than the model's, or others in validation; or it is not clear
            which classes the folders are.
    """
    task = options.task
    if task is not None:
        check_class_map(None, options.class_map)
        return _composed(task, options, classes, preprocessing, seed)
    train_folder, validation_folder = _folders(options)
    found, held_out = _labelled(train_folder), _labelled(validation_folder)
    _check_classes(len(found.classes or ()), classes, str(train_folder))
    if found.classes != held_out.classes:
        differing = sorted(set(found.classes or ()) ^ set(held_out.classes or ()))[:3]
        raise InvalidArgument(
            f"{validation_folder} has other classes than {train_folder}: {', '.join(differing)}", "give both the same"
        )
    ordered = partial(_in_order, class_names=class_names, class_map=options.class_map)
    found, held_out = ordered(train_folder, found), ordered(validation_folder, held_out)
    names = found.classes or ()
    chosen = evenly_spaced(len(held_out.paths), options.validation_images)
    labels = np.array(held_out.labels, dtype=np.int64)[chosen]
    validation = Prepared([held_out.paths[i] for i in chosen], labels, preprocessing)
    train: Dataset[tuple[Tensor, int]]
    if options.augmentation is Augmentation.NONE:
        train = Prepared(found.paths, np.array(found.labels, dtype=np.int64), preprocessing)
    else:
        train = FolderImages(found, _transform(options.augmentation, preprocessing), preprocessing.channels)
    return TrainingData(train, validation, EpochSampler(len(found.paths), seed), names, str(train_folder))


def _composed(task: Task, options: DataOptions, classes: int, preprocessing: Preprocessing, seed: int) -> TrainingData:
    _check_classes(len(task.labels), classes, "the demonstration's data")
    scenes = composed_scenes(task, Split.HELD_OUT, options.validation_images, VALIDATION_SEED, options.fashion)
    images, labels = stacked(scenes)
    train = ComposedImages(composer_of(task, Split.TRAIN, options.fashion), options.epoch_images, seed, preprocessing)
    validation = Prepared(list(images), labels, preprocessing)
    return TrainingData(train, validation, EpochSampler(len(train), seed), task.labels, task.words)


def loader_of(
    dataset: Dataset[tuple[Tensor, int]], batch: int, workers: int, sampler: EpochSampler | None = None
) -> DataLoader[Any]:
    """Returns batches of a dataset: in its own order, or in the sampler's without a last batch that is not whole."""
    length = len(dataset)  # type: ignore[arg-type]
    whole = sampler is not None and length >= batch
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        worker_init_fn=partial(end_with, os.getpid()) if workers else None,
        drop_last=whole,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def _folders(options: DataOptions) -> tuple[Path, Path]:
    root = Path(options.source)
    if not root.is_dir():
        raise ImageError(f"there is no folder {root} to train on", _LAYOUT)
    inner = next((root / name for name in _VALIDATION if (root / name).is_dir()), None)
    train = root / _TRAIN if (root / _TRAIN).is_dir() and (inner or options.validation) else root
    validation = options.validation or (inner if train != root else None)
    if validation is None:
        raise InvalidArgument(f"{root} has no train and val folders, and no validation images were named", "give --val")
    return train, validation


def _labelled(folder: Path) -> ImageSet:
    found = list_images(folder)
    if found.classes is None:
        raise ImageError(f"images under {folder} do not all lie in one subfolder per class", _LAYOUT)
    seen = set(found.labels or ())
    empty = next((name for i, name in enumerate(found.classes) if i not in seen), None)
    if empty is not None:
        raise ImageError(f"class folder {folder / empty} holds no image", "remove it, or put its images there")
    nameless = next((name for name in found.classes if not is_class_name(name)), None)
    if nameless is not None:
        raise InvalidArgument(f"class folder {nameless!r} in {folder} has no name that can be printed", "rename it")
    if len(found.classes) < 2:
        raise InvalidArgument(f"{folder} has one class only, {found.classes[0]!r}", "training needs two or more")
    return found


def _in_order(folder: Path, images: ImageSet, class_names: tuple[str, ...] | None, class_map: Path | None) -> ImageSet:
    """Returns images whose labels are the head's classes: by their names or a map, else in the folders' order."""
    folders = images.classes or ()
    if class_names is None and class_map is None:
        order = natural_order(folders) if all_numbered(folders) else sorted(folders)
        classes = tuple(order.index(name) for name in folders)
    else:
        matched = match_folders(folder, folders, class_names, len(folders), class_map)
        assert matched is not None  # there are as many folders as classes
        classes = matched.classes
    if sorted(classes) != list(range(len(folders))):
        raise InvalidArgument(f"two folders in {folder} are of one class", "give each class one folder")
    names = tuple(name for _, name in sorted(zip(classes, folders, strict=True)))
    return ImageSet(images.paths, names, tuple(classes[label] for label in images.labels or ()))


def _check_classes(found: int, classes: int, source: str) -> None:
    if found != classes:
        raise InvalidArgument(
            f"{source} has {found} classes, the model {classes}", "give --new-head for a head of its own"
        )


def _transform(augmentation: Augmentation, preprocessing: Preprocessing) -> Any:
    """Returns timm's transform of training images, which varies them."""
    varied: dict[str, Any] = {"color_jitter": 0.0, "scale": (0.5, 1.0)}
    if augmentation is Augmentation.STANDARD:
        varied = {"color_jitter": 0.3, "auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
    return create_transform(
        input_size=(preprocessing.channels, *preprocessing.image_size),
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation.value,
        is_training=True,
        **varied,
    )
