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

from sait_deploy.artifacts.files import check_place, cut_name, write_whole
from sait_deploy.artifacts.folder import Artifact, ArtifactLike, open_artifact, with_labels
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice, resolve
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.contact_sheet import Tile, contact_sheet, tile
from sait_deploy.images.kept_tokens import draw_kept
from sait_deploy.images.labels import read_labels
from sait_deploy.images.preprocess import Preprocessing, list_images, normalised, seen, shown
from sait_deploy.runtime import load
from sait_deploy.runtime.answers import Output, Prediction, predictions
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import run_all, select_all
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME, find_runtime
from sait_deploy.system.option_values import check_options

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
class PredictOptions:
    """How images are answered.

    Attributes:
        top: classes per image.
        choice: operating point of an adaptive artifact.
        labels: file of class names, one a line, or JSON; None for the artifact's own.
        visualize: folder for a picture of each image with its kept tokens; None for none.
        runtime: what runs the artifact.
        precision: what to compute in; None for what the artifact is made for.
        device: where the runtime runs; see ``RunOptions``.
        threads: threads within one operator; None for all processors.
        weights: the torch runtime's weights file, where the one that the manifest names is not there any more.

    Raises:
        InvalidArgument: a value that cannot be.
    """

    top: int = 3
    choice: PointChoice = DEFAULT_CHOICE
    labels: Path | None = None
    visualize: Path | None = None
    runtime: str = ONNXRUNTIME
    precision: RunPrecision | None = None
    device: str = DEFAULT_DEVICE
    threads: int | None = None
    weights: Path | None = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.top < 1:
            raise InvalidArgument(f"there cannot be {self.top} classes of an image", "give 1 or more")
        if self.weights is not None and not find_runtime(self.runtime).from_weights:
            raise InvalidArgument(
                f"--weights are for torch, and {self.runtime} runs the artifact", "give --runtime torch too"
            )
        _ = self.running

    @property
    def running(self) -> RunOptions:
        """The part that a runtime needs."""
        return RunOptions(self.threads, self.weights, self.device, self.precision)


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
    artifact: ArtifactLike,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    options: PredictOptions = PredictOptions(),
) -> list[Answer]:
    """Classifies or embeds image files and folders of images.

    Example::

        for answer in sait_deploy.predict("artifacts/sait_demo_digits-density0.6", "photographs"):
            print(answer.path, answer.prediction.labels[0], answer.prediction.kept)

    Args:
        artifact: opened, or its folder.
        images: files and folders, or one of them.
        options: how.

    Raises:
        ImageError: there is no image, or one cannot be read.
        StorageError: a picture cannot be written.
        InvalidArgument: the point cannot be, or the labels are of another number of classes.
        ArtifactError, MissingDependency, RuntimeUnavailable: as ``load``.
    """
    if options.visualize is not None:
        check_place(options.visualize)
    named = [images] if isinstance(images, (str, os.PathLike)) else images
    paths = collect([Path(name) for name in named]).paths
    runner = load(prepared(artifact, options), options.runtime, options.running)
    return list(answers_to(runner, paths, options.top, options.visualize, options.choice))


def prepared(artifact: ArtifactLike, options: PredictOptions) -> Artifact:
    """Returns the artifact that answers in the precision asked for, with its labels, after checking the point.

    Raises:
        ArtifactError: it cannot be opened, or is not there in that precision.
        InvalidArgument: the point cannot be, or the labels are of another number of classes.
    """
    opened = artifact_for(open_artifact(artifact), options.runtime, options.precision)
    refuse_tower(opened.manifest, "predict")
    if options.labels is not None:
        opened = with_labels(opened, read_labels(options.labels, opened.manifest.model.classes))
    resolve(opened.manifest, 1, options.choice)
    return opened


def answers_to(
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
                    said = prediction.labels[0] if isinstance(prediction, Prediction) else ""
                    grid = _grid(manifest)
                    tiles.append(tile(picture, kept, grid, kept=prediction.kept, label=path.name, further=said))
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
