"""The predict stage: images in, likeliest classes or embeddings and kept tokens out, a batch at a time."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.artifacts.files import cut_name, write_whole
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.errors import ImageError
from sait_deploy.images.contact_sheet import Tile, contact_sheet, tile
from sait_deploy.images.kept_tokens import draw_kept
from sait_deploy.images.preprocess import Preprocessing, list_images, normalised, seen, shown
from sait_deploy.runtime.answers import Output, Prediction, predictions
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import run_all, select_all

BATCH: Final = 16
CONTACT_SHEET: Final = "contact-sheet.png"
_LONGEST_STEM: Final = 200
"""Bytes of an image's name that its picture's name repeats."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embedding of one image, as the graph gives it: of unit length, or of older artifacts features as they are.

    Attributes:
        embedding: its numbers.
        kept: patch tokens kept.
    """

    embedding: tuple[float, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's answer."""

    path: Path
    prediction: Prediction | Embedded


@dataclass(frozen=True, slots=True)
class Collected:
    """Image files, in order, and how many files of other suffixes lie among them."""

    paths: list[Path]
    others: Mapping[str, int]


def collect(paths: Sequence[Path]) -> Collected:
    """Finds the image files that paths and folders name, each once.

    Raises:
        ImageError: a path does not exist, or a folder holds no image.
    """
    found: dict[str, Path] = {}
    others: Counter[str] = Counter()
    for path in paths:
        images = list_images(path)
        others.update(images.others)
        for image in images.paths:
            found.setdefault(os.path.abspath(image), image)  # noqa: PTH100 - resolve() would follow links
    return Collected(list(found.values()), others)


def predict(
    runner: Runner,
    paths: Sequence[Path],
    top: int = 5,
    visualize: Path | None = None,
    choice: PointChoice = DEFAULT_CHOICE,
    broken: Callable[[ImageError], None] | None = None,
) -> Iterator[Answer]:
    """Classifies or embeds image files, yielding each answer as its batch is done.

    Args:
        runner: an artifact ready to run.
        paths: image files.
        top: classes per image.
        visualize: folder for a picture of each image with its kept tokens, made where it is missing, and of an
            adaptive artifact a contact sheet, from easy to difficult; None for none.
        choice: operating point of an adaptive artifact.
        broken: called for each image that cannot be read, which gets no answer; None to raise the error.

    Raises:
        ImageError: an image cannot be read, and ``broken`` is None.
        StorageError: a picture cannot be written.
        InvalidArgument: the point cannot be.
    """
    manifest = runner.artifact.manifest
    tiles: list[Tile] = []
    fewest, _ = runner.batch_range
    size = max(BATCH // fewest, 1) * fewest
    for start in range(0, len(paths), size):
        chunk = _readable(range(start, min(start + size, len(paths))), paths, manifest.preprocessing, broken)
        if not chunk:
            continue
        pixels = np.stack([image for _, image in chunk])
        images = normalised(pixels, manifest.preprocessing)
        if visualize is None or manifest.pruning is None:
            output, keep, importance = run_all(runner, images, choice), None, None
        else:
            selection = select_all(runner, images, choice)
            keep, importance = selection.keep[:, manifest.model.geometry.prefix_tokens :], selection.importance
            output = Output(selection.logits, keep.sum(axis=1, dtype=np.int32))
        found = _answers(manifest, output, top)
        for index, ((number, _), prediction) in enumerate(zip(chunk, found, strict=True)):
            path = paths[number]
            if visualize is not None:
                kept = None if keep is None else keep[index]
                scores = None if importance is None else importance[index]
                target = visualize / f"{number:04d}-{cut_name(path.stem, _LONGEST_STEM)}.png"
                picture = shown(pixels[index])
                _draw(manifest, picture, prediction, kept, scores, target)
                if manifest.form is Form.ADAPTIVE and kept is not None:
                    label = prediction.labels[0] if isinstance(prediction, Prediction) else path.stem
                    tiles.append(tile(picture, kept, _grid(manifest), kept=prediction.kept, label=label))
            yield Answer(path, prediction)
    if visualize is not None and tiles:
        sheet = contact_sheet(tiles, manifest.model.geometry.patch_tokens, title=manifest.name)
        _write_picture(sheet, visualize / CONTACT_SHEET)


def _answers(manifest: Manifest, output: Output, top: int) -> Sequence[Prediction | Embedded]:
    if manifest.model.classes:
        return predictions(manifest, output, top)
    return [Embedded(tuple(map(float, row)), int(kept)) for row, kept in zip(output.logits, output.kept, strict=True)]


def _readable(
    numbers: Iterable[int],
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    broken: Callable[[ImageError], None] | None,
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Returns the images that can be read, each with its number in ``paths``, cropped: uint8 [H, W, C]."""
    found = []
    for number in numbers:
        try:
            found.append((number, seen(paths[number], preprocessing)))
        except ImageError as error:
            if broken is None:
                raise
            broken(error)
    return found


def _grid(manifest: Manifest) -> tuple[int, int]:
    """Returns rows and columns of patches."""
    height, width = (s // p for s, p in zip(manifest.model.image_size, manifest.model.patch_size, strict=True))
    return height, width


def _draw(
    manifest: Manifest,
    image: NDArray[np.uint8],
    prediction: Prediction | Embedded,
    keep: NDArray[np.int32] | None,
    importance: NDArray[np.float32] | None,
    target: Path,
) -> None:
    tokens = manifest.model.geometry.patch_tokens
    caption = f"{prediction.kept} of {tokens} tokens kept"
    if isinstance(prediction, Prediction):
        caption = f"{prediction.labels[0]} ({prediction.probabilities[0]:.0%}), {caption}"
    mask = np.ones(tokens, dtype=np.int32) if keep is None else keep
    _write_picture(draw_kept(image, mask, _grid(manifest), caption=caption, importance=importance), target)


def _write_picture(picture: Image.Image, target: Path) -> None:
    data = io.BytesIO()
    picture.save(data, format="PNG")
    write_whole(target, data.getvalue())
