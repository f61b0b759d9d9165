"""Computing batches: an artifact cut at its seam, or a whole one, behind the same two calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.points import DEFAULT_CHOICE, BatchPoint, PointChoice
from sait_deploy.errors import InvalidArgument, NotFinite, SaitError
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.graph_io import feeds
from sait_deploy.runtime.parts import CutArtifact, open_cut, why_whole
from sait_deploy.serving.seam import CutImage, join, split

T = TypeVar("T")

_CHECK: Final = "check the weights and the image for NaN and infinity"


@dataclass(frozen=True, slots=True)
class ImagePoint:
    """One image's operating point."""

    mass: float
    min_keep: int
    max_keep: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image on its way.

    Attributes:
        image: float32 [3, H, W].
        point: None for an artifact whose point is fixed.
        cut: what the stem made of it; None before, and where an artifact runs whole.
    """

    image: NDArray[np.float32]
    point: ImagePoint | None
    cut: CutImage | None = None


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """One image's answer.

    Attributes:
        logits: float32 [classes].
        kept: patch tokens kept.
        keep: int32 [N], 1 where a patch token was kept; None where the runtime does not say which.
    """

    logits: NDArray[np.float32]
    kept: int
    keep: NDArray[np.int32] | None


class Stages(Protocol):
    """Computes batches of images, for one thread at a time."""

    @property
    def whole(self) -> str:
        """Why there is no stem, in words; empty where there is one."""

    @property
    def most_images(self) -> int:
        """Images of a batch at most."""

    def tokens(self, image: Prepared) -> int:
        """Returns the tokens that an image brings to a batch, prefix included: before the trunk those that it keeps."""

    def stem(self, images: Sequence[Prepared]) -> list[Prepared]:
        """Computes up to the seam.

        Raises:
            SaitError: the runtime cannot run this batch.
        """

    def trunk(self, images: Sequence[Prepared]) -> list[ImageAnswer | SaitError]:
        """Computes the rest: an answer for each image, or what is wrong with that image.

        Raises:
            SaitError: the runtime cannot run this batch.
        """


def open_stages(artifact: Artifact, runtime: str, options: RunOptions) -> Stages:
    """Opens an artifact for serving, cut where it can be.

    Raises:
        SaitError: it cannot be loaded, or its graph is for batches of one size alone.
    """
    if artifact.manifest.batch is not None:
        raise InvalidArgument(
            f"{artifact.path.name} takes batches of {artifact.manifest.batch} images, and a server's batches vary",
            "export without --batch",
        )
    reason = why_whole(artifact, runtime)
    if reason:
        return WholeStages(load(artifact, runtime, options), artifact.manifest, reason)
    return CutStages(open_cut(artifact, runtime, options), artifact.manifest)


class CutStages:
    """A stem and a trunk; what an image keeps is known between them."""

    whole: Final = ""

    def __init__(self, cut: CutArtifact, manifest: Manifest) -> None:
        self._cut, self._prefix = cut, manifest.model.geometry.prefix_tokens
        self._logits = manifest.output_names[0]
        self._fewest, self.most_images = cut.batch_range

    def tokens(self, image: Prepared) -> int:
        """Returns the tokens that an image keeps, prefix included."""
        assert image.cut is not None
        return image.cut.kept

    def stem(self, images: Sequence[Prepared]) -> list[Prepared]:
        """Computes up to the seam."""
        given = _filled(images, self._fewest)
        seam = self._cut.stem.run_part(feeds(np.stack([one.image for one in given]), _batch_point(given)))
        found = split(seam)[: len(images)]
        return [dataclasses.replace(one, cut=part) for one, part in zip(images, found, strict=True)]

    def trunk(self, images: Sequence[Prepared]) -> list[ImageAnswer | SaitError]:
        """Computes the rest."""
        parts = [one.cut for one in images if one.cut is not None]
        logits = self._cut.trunk.run_part(join(_filled(parts, self._fewest), self._cut))[self._logits]
        return [self._answer(row, part) for row, part in zip(logits[: len(parts)], parts, strict=True)]

    def _answer(self, logits: NDArray[np.float32], part: CutImage) -> ImageAnswer | SaitError:
        if not np.isfinite(logits).all():
            return NotFinite("the image's logits are not finite numbers", 0, _CHECK)
        return ImageAnswer(logits, part.kept - self._prefix, part.keep(self._prefix))


class WholeStages:
    """A runner; what an image keeps is known beforehand, or bounded."""

    def __init__(self, runner: Runner, manifest: Manifest, whole: str) -> None:
        self._runner, self._manifest, self.whole = runner, manifest, whole
        self._fewest, self.most_images = runner.batch_range

    def tokens(self, image: Prepared) -> int:
        """Returns the tokens that an image keeps at most, prefix included."""
        geometry, default = self._manifest.model.geometry, self._manifest.default_point
        fixed = geometry.patch_tokens if default is None else default.point.max_keep
        return geometry.prefix_tokens + (fixed if image.point is None else image.point.max_keep)

    def stem(self, images: Sequence[Prepared]) -> list[Prepared]:
        """There is none: images go on as they are."""
        return list(images)

    def trunk(self, images: Sequence[Prepared]) -> list[ImageAnswer | SaitError]:
        """Computes all of the model. Where an image's answer is no number, the others are computed again without it."""
        try:
            given = _filled(images, self._fewest)
            output = self._runner.run_at(np.stack([one.image for one in given]), _choice(given))
        except NotFinite as error:
            others = [one for i, one in enumerate(images) if i != error.image]
            wrong = NotFinite("the image's logits are not finite numbers", 0, error.hint)
            answers = self.trunk(others) if others else []
            return [*answers[: error.image], wrong, *answers[error.image :]]
        found = zip(output.logits[: len(images)], output.kept[: len(images)], strict=True)
        return [ImageAnswer(row, int(kept), None) for row, kept in found]


def _filled(images: Sequence[T], fewest: int) -> list[T]:
    """Repeats the first image until there are as many as the runtime takes at least; repetitions come last."""
    return [*images, *[images[0]] * (fewest - len(images))]


def _batch_point(images: Sequence[Prepared]) -> BatchPoint:
    points = [one.point for one in images if one.point is not None]
    limits = [(point.min_keep, point.max_keep) for point in points]
    return BatchPoint(np.array([point.mass for point in points], np.float32), np.array(limits, np.int32))


def _choice(images: Sequence[Prepared]) -> PointChoice:
    points = [one.point for one in images if one.point is not None]
    if not points:
        return DEFAULT_CHOICE

    mass, least, most = zip(*((one.mass, one.min_keep, one.max_keep) for one in points), strict=True)
    return PointChoice(None, mass, least, most)
