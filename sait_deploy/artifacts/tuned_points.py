"""Operating points that were chosen after export: files beside an artifact, read as named points of its manifest.

``points/NAME.json`` in the artifact's folder holds one point and the evidence that it was chosen by. The manifest's own
file is never rewritten; opening the artifact appends these points to those that it was exported with.
"""

from __future__ import annotations

import dataclasses
import json
import math
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.codec import Codec
from sait_deploy.artifacts.files import write_whole
from sait_deploy.artifacts.links import check_links
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import DEFAULT_POINT, PointRequest
from sait_deploy.artifacts.pruning_info import KeptInfo, MacsInfo, PointInfo
from sait_deploy.errors import ArtifactError, InvalidArgument, SaitError
from sait_deploy.system.reading import read_text
from sait_deploy.tokens import pruned_macs

POINTS_FOLDER: Final = "points"
SCHEMA_VERSION: Final = 1
_SUFFIX: Final = ".json"
_MOST_BYTES: Final = 1 << 20
_AGAIN: Final = "delete it, then make it anew: sait-deploy tune"
_LONGEST_NAME: Final = 100
_ROUNDING: Final = 1e-6


class Measure(StrEnum):
    """What a point was held to, in percent and against the dense model on the same images."""

    DROP = "drop"
    """Points of top-1 lost: images that dense alone has right, less those that the point alone has right."""

    DISAGREEMENT = "disagreement"
    """Images whose top-1 is not dense's."""

    COSINE = "cosine"
    """One less the cosine similarity to dense's features, a mean over images: of models without a head."""

    RECALL_AT_1 = "recall@1"
    """Images whose nearest other by dense is not the nearest one: of models without a head, as are the next two."""

    RECALL_AT_5 = "recall@5"
    """Images whose nearest other image by dense is not among the five nearest."""

    RECALL_AT_10 = "recall@10"
    """Images whose nearest other image by dense is not among the ten nearest."""


@dataclass(frozen=True, slots=True)
class SplitEvidence:
    """What was found on one set of images.

    Attributes:
        images: how many, from 1.
        source: where they came from.
        value_percent: the measure itself.
        bound_percent: its one-sided upper bound at the evidence's confidence.

    Raises:
        InvalidArgument: there are no images, or the bound is below the value.
    """

    images: int
    source: str
    value_percent: float
    bound_percent: float

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InvalidArgument(f"{self.images} images are no evidence", "measure on some")
        if self.bound_percent < self.value_percent - _ROUNDING:
            raise InvalidArgument(f"the bound {self.bound_percent:g} % is below the value {self.value_percent:g} %")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a point may be trusted.

    Attributes:
        measure: what was limited.
        limit_percent: the limit; of a drop, points.
        confidence: probability with which a point beyond the limit is not chosen, such as 0.95.
        sequences: sequences of candidates that shared 1 - confidence, one for each artifact and family searched.
        grid: shares of this point's sequence, from safe to cheap, those that were not reached included.
        tried: candidates tried of it, the one that stopped it included.
        calibration: the images that the point was chosen on; its bound is at 1 - (1 - confidence) / sequences.
        check: images that had no part in the choice; its bound is at the confidence.
        check_passed: whether the value found there is within the limit.
        check_confirmed: whether its bound is too.
        seed: of the split.
        runtime: what answered; with versions in ``environment``, name to value.

    Raises:
        InvalidArgument: a limit or confidence that cannot be, a verdict that contradicts the figures, or figures beyond
            the limit.
    """

    measure: Measure
    limit_percent: float
    confidence: float
    sequences: int
    grid: tuple[float, ...]
    tried: int
    calibration: SplitEvidence
    check: SplitEvidence
    check_passed: bool
    check_confirmed: bool
    seed: int
    runtime: str
    environment: dict[str, str]

    def __post_init__(self) -> None:
        if not all(0 < share < 1 for share in self.grid):
            raise InvalidArgument(f"a grid of {', '.join(f'{share:g}' for share in self.grid[:4])} cannot be")
        if not (self.limit_percent > 0 and 0 < self.confidence < 1 and min(self.sequences, self.tried) >= 1):
            raise InvalidArgument(f"a limit of {self.limit_percent:g} % at confidence {self.confidence:g} cannot be")
        verdicts = self.check.value_percent <= self.limit_percent, self.check.bound_percent <= self.limit_percent
        if (self.check_passed, self.check_confirmed) != verdicts:
            raise InvalidArgument(f"the check's figures do not say passed {self.check_passed}")
        if self.calibration.bound_percent > self.limit_percent or not self.check_passed:
            raise InvalidArgument(f"the figures are beyond the limit of {self.limit_percent:g} %")


@dataclass(frozen=True, slots=True)
class TunedPoint:
    """One file of ``points/``.

    Attributes:
        schema_version: of this document.
        artifact: id of the artifact that the point belongs to.
        created: when, ISO 8601.
        point: the point under its name, with the patch tokens kept and MACs on the calibration images.
        evidence: why it may be trusted.
    """

    schema_version: int
    artifact: str
    created: str
    point: PointInfo
    evidence: Evidence


def points_path(artifact: Path, name: str) -> Path:
    """Returns where a tuned point of that name lies in an artifact's folder."""
    return artifact / POINTS_FOLDER / (name + _SUFFIX)


def read_points(artifact: Path, manifest: Manifest) -> tuple[TunedPoint, ...]:
    """Reads the tuned points beside an artifact, by name. Hidden files and those of other endings are left alone.

    Args:
        artifact: its folder.
        manifest: as it was exported.

    Raises:
        ArtifactError: the artifact is not adaptive, or a file is a link, damaged, of another artifact, or of a name or
            point that the artifact cannot have.
    """
    folder = artifact / POINTS_FOLDER
    if folder.is_symlink():
        raise ArtifactError(f"{folder} is a link", "copy the points as files, or delete it")
    if not folder.is_dir():
        return ()
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix == _SUFFIX and not p.name.startswith("."))
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read ({error.strerror})", "allow it, or delete it") from None
    if manifest.form is not Form.ADAPTIVE and files:
        raise ArtifactError(
            f"{folder} holds points, and a {manifest.form} artifact has none beside its own", "delete it"
        )
    exported = [] if manifest.pruning is None else [info.name for info in manifest.pruning.points]
    return tuple(_read(file, manifest, exported) for file in files)


def with_points(artifact: Path, manifest: Manifest) -> Manifest:
    """Returns the manifest with the tuned points beside the artifact after those it was exported with.

    Raises:
        ArtifactError: what :func:`read_points` raises.
    """
    found = read_points(artifact, manifest)
    if not found or manifest.pruning is None:
        return manifest
    points = (*manifest.pruning.points, *(tuned.point for tuned in found))
    return dataclasses.replace(manifest, pruning=dataclasses.replace(manifest.pruning, points=points))


def check_name(artifact: Path, manifest: Manifest, name: str) -> None:
    """Checks that a tuned point of an artifact may have this name; that of an earlier tuned point may be taken again.

    Args:
        artifact: its folder.
        manifest: as ``open_artifact`` gives it.
        name: what the point shall be called.

    Raises:
        InvalidArgument: the artifact is not adaptive, the name is none, or it was exported with a point of that name.
    """
    pruning = manifest.pruning
    if manifest.form is not Form.ADAPTIVE or pruning is None:
        raise InvalidArgument(
            f"{manifest.name} is a {manifest.form} artifact: its operating point is fixed",
            "tune an adaptive one: sait-deploy export --mass 0.9",
        )
    _check_free(name, [i.name for i in pruning.points if not points_path(artifact, i.name).is_file()], manifest.name)


def _check_free(name: str, exported: list[str], artifact: str) -> None:
    PointRequest(name, 1.0)
    if len(name) > _LONGEST_NAME:
        raise InvalidArgument(f"a name of {len(name)} letters cannot be a file's", f"give {_LONGEST_NAME} at most")
    if name in (DEFAULT_POINT, *exported):
        raise InvalidArgument(
            f"{artifact} has a point {name!r} of its own", "give the tuned one another name, such as tuned"
        )


def write_point(artifact: Path, manifest: Manifest, tuned: TunedPoint) -> Path:
    """Writes a tuned point beside its artifact, in place of one of the same name.

    Args:
        artifact: its folder.
        manifest: as ``open_artifact`` gives it.
        tuned: what to write.

    Returns:
        The file.

    Raises:
        InvalidArgument: the point cannot be one of this artifact.
        StorageError: it cannot be written.
        ArtifactError: the folder of points is a link.
    """
    check_name(artifact, manifest, tuned.point.name)
    if (artifact / POINTS_FOLDER).is_symlink():
        raise ArtifactError(f"{artifact / POINTS_FOLDER} is a link", "copy the points as files, or delete it")
    _check(tuned, manifest)
    place = points_path(artifact, tuned.point.name)
    text = json.dumps(dataclasses.asdict(tuned), indent=2, allow_nan=False) + "\n"
    write_whole(place, text)
    return place


def _read(file: Path, manifest: Manifest, exported: list[str]) -> TunedPoint:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        raise ArtifactError(f"{file} is no file", "delete it")
    check_links(file, "copy the point as a file, or delete it")
    try:
        text = read_text(file, _MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} cannot be read ({error})", _AGAIN) from None
    tuned = Codec(str(file), _AGAIN, SCHEMA_VERSION).read(TunedPoint, text)
    if tuned.point.name != file.stem:
        raise ArtifactError(f"{file} holds the point {tuned.point.name!r}", _AGAIN)
    if tuned.artifact != manifest.id:
        raise ArtifactError(f"{file} belongs to artifact {tuned.artifact}, not to {manifest.id}", _AGAIN)
    try:
        _check_free(tuned.point.name, exported, manifest.name)
        _check(tuned, manifest)
    except SaitError as error:
        raise ArtifactError(f"{file} cannot be used: {error.message}", _AGAIN) from None
    return tuned


def _check(tuned: TunedPoint, manifest: Manifest) -> None:
    """Checks that a point's figures can be those of the artifact's model: engines are tuned for them."""
    info, pruning = tuned.point, manifest.pruning
    assert pruning is not None
    if tuned.artifact != manifest.id:
        raise InvalidArgument(f"the point belongs to artifact {tuned.artifact}, not to {manifest.id}")
    geometry, point = manifest.model.geometry, info.point
    PointRequest.of(info.name, point).resolve(geometry.patch_tokens)
    least, most = (pruned_macs(geometry, pruning.prune_at, n) for n in (point.min_keep, point.max_keep))
    if not _possible(info.kept, point.min_keep, point.max_keep):
        raise InvalidArgument(
            f"point {info.name!r} cannot keep {info.kept.mean:g} patch tokens, at most {info.kept.most}"
        )
    if not _consistent(info.macs, manifest.macs.dense) or not least <= info.macs.per_image <= most:
        raise InvalidArgument(f"point {info.name!r} cannot take {info.macs.per_image} MACs")


def _possible(kept: KeptInfo, least: int, most: int) -> bool:
    ordered = least - _ROUNDING <= kept.p5 <= kept.p95 <= kept.most <= most
    return kept.images > 0 and ordered and least - _ROUNDING <= kept.mean <= kept.most and 0 <= kept.sd <= most


def _consistent(macs: MacsInfo, dense: int) -> bool:
    return macs.dense == dense and macs.per_image > 0 and math.isclose(macs.ratio, dense / macs.per_image, rel_tol=1e-6)
