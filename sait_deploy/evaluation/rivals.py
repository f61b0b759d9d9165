"""Which density or image size costs as much as a row: by multiply-accumulates, or by time in a benchmark."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.files import read_document
from sait_deploy.bench.group_results import Group
from sait_deploy.bench.jsonform import from_json
from sait_deploy.bench.results import Pruning, Report
from sait_deploy.errors import InvalidArgument
from sait_deploy.tokens import Geometry, OperatingPoint, Score, dense_macs, pruned_macs

_AGAIN: Final = "measure masses and densities together: sait-deploy bench"


def density_of_equal_macs(geometry: Geometry, prune_at: int, macs: float) -> int:
    """Returns the fewest patch tokens per image, from 1, at which a density has at least so many multiply-accumulates.

    Where no density has as many, it is all of the patch tokens.
    """
    low, high = 1, geometry.patch_tokens
    while low < high:
        middle = (low + high) // 2
        if pruned_macs(geometry, prune_at, middle) >= macs:
            high = middle
        else:
            low = middle + 1
    return low


def resized_geometry(geometry: Geometry, patch_tokens: int) -> Geometry:
    """Returns the sizes of the same model on images of another number of patches."""
    embed = geometry.embed_macs // geometry.patch_tokens * patch_tokens
    return dataclasses.replace(geometry, patch_tokens=patch_tokens, embed_macs=embed)


def smaller_sizes(image_size: tuple[int, int], patch_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns image sizes below a model's own, as near to its shape as whole patches allow, ascending.

    Args:
        image_size: height and width, pixels.
        patch_size: height and width of a patch, pixels.
    """
    rows, columns = (pixels // patch for pixels, patch in zip(image_size, patch_size, strict=True))
    grids = [(number, max(1, round(columns * number / rows))) for number in range(1, rows)]
    return [(high * patch_size[0], wide * patch_size[1]) for high, wide in grids]


def resolution_of_equal_macs(
    geometry: Geometry, image_size: tuple[int, int], patch_size: tuple[int, int], macs: float
) -> tuple[int, int] | None:
    """Returns the smallest image size at which the dense model has at least so many multiply-accumulates.

    Args:
        geometry: of the model at its own size.
        image_size: its own height and width, pixels.
        patch_size: height and width of a patch, pixels.
        macs: to reach.

    Returns:
        Height and width, multiples of the patch size; None where no smaller size than the model's own has as many.
    """
    for height, width in smaller_sizes(image_size, patch_size):
        patches = (height // patch_size[0]) * (width // patch_size[1])
        if dense_macs(resized_geometry(geometry, patches)) >= macs:
            return height, width
    return None


@dataclass(frozen=True, slots=True)
class ModelInBench:
    """What a benchmark's variants must have in common with the model that is evaluated.

    Attributes:
        model: its name.
        weights_sha256: hash of its weights, as an artifact's manifest has it.
        geometry: its sizes.
        score: how importance is read off the attention.
        prune_at: block pruned in.
        threshold: of an adaptive artifact that has one.
    """

    model: str
    weights_sha256: str
    geometry: Geometry
    score: Score
    prune_at: int
    threshold: float | None = None

    def is_pruned_like(self, pruning: Pruning) -> bool:
        """Returns whether a variant is pruned by the same score in the same block, and if adaptive by the same rule."""
        same_rule = pruning.density is not None or pruning.threshold == self.threshold
        return same_rule and (pruning.score, pruning.prune_at) == (self.score, self.prune_at)


@dataclass(frozen=True, slots=True)
class TimedPoint:
    """What an adaptive artifact took at one operating point.

    Attributes:
        milliseconds: per request.
        kept_mean: patch tokens kept of each image that was timed, their mean.
    """

    milliseconds: float
    kept_mean: float


@dataclass(frozen=True, slots=True)
class BenchTimes:
    """The times of one batch size in one group, of a benchmark that measured masses and densities together.

    Attributes:
        group: which: the runtime, and the precision where one was asked for.
        batch: images per request.
        points: what an adaptive artifact took at each operating point.
        densities: (patch tokens kept, milliseconds per request) of each density by tokens ascending, dense last.
    """

    group: str
    batch: int
    points: dict[OperatingPoint, TimedPoint]
    densities: tuple[tuple[int, float], ...]

    def timed(self, point: OperatingPoint) -> TimedPoint:
        """Returns what an adaptive artifact took at a point, which densities can be told to take as well.

        Raises:
            InvalidArgument: the point was not measured, no density was, or all of them took longer.
        """
        found, (patches, _) = self.points.get(point), self.densities[-1]
        limits = "" if (point.min_keep, point.max_keep) == (1, patches) else f", {point.min_keep} to {point.max_keep}"
        label, where = f"mass {point.mass:.12g}{limits}", f"the benchmark at batch {self.batch} on {self.group}"
        if found is None:
            raise InvalidArgument(
                f"{where} has not measured {label} with the score, block and threshold evaluated", _AGAIN
            )
        if len(self.densities) < 2:
            raise InvalidArgument(f"{where} has no density beside dense", _AGAIN)
        fewest, shortest = self.densities[0]
        if found.milliseconds < shortest:
            raise InvalidArgument(
                f"{label} took {found.milliseconds:.3g} ms in {where}, less than the {shortest:.3g} ms of {fewest}"
                " tokens",
                "measure a lower density beside it",
            )
        return found

    def density_of_equal_time(self, point: OperatingPoint, kept_mean: float) -> int | None:
        """Returns the fewest patch tokens at which a density takes as long as an adaptive artifact at this point.

        A mass takes the time of the images it is given, and those that were timed need not keep as much as others do.
        So its time is moved by what densities take more, or less, for the difference in kept tokens. Between the
        densities measured, time is interpolated linearly; where even dense takes less, it is all tokens.

        Args:
            point: which.
            kept_mean: patch tokens that it keeps of each image that is evaluated, their mean.

        Returns:
            Patch tokens, or None where the density with the fewest tokens takes longer.

        Raises:
            InvalidArgument: as ``timed``.
        """
        timed, (fewest, shortest) = self.timed(point), self.densities[0]
        wanted = timed.milliseconds + (self._time_at(kept_mean) - self._time_at(timed.kept_mean))
        if wanted < shortest:
            return None
        if wanted == shortest:
            return fewest
        for (kept, time), (more, longer) in itertools.pairwise(self.densities):
            if wanted <= longer:
                return math.ceil(round(kept + (more - kept) * (wanted - time) / (longer - time), 9))
        return self.densities[-1][0]

    def _time_at(self, kept: float) -> float:
        """Returns milliseconds per request of a density, on the line through the two measured that are nearest."""
        pairs = list(itertools.pairwise(self.densities))
        (low, short), (high, long) = next((pair for pair in pairs if kept <= pair[1][0]), pairs[-1])
        return short + (long - short) * (kept - low) / (high - low)


def read_bench_times(
    path: Path,
    model: ModelInBench,
    runtime: str | None,
    batch: int | None,
    preferred: str | None = None,
    precision: str | None = None,
) -> BenchTimes:
    """Reads the times of a model from a benchmark's JSON file.

    Args:
        path: the file.
        model: the model.
        runtime: whose times; None for the preferred one's, or those of the only one in the file.
        batch: images per request; None for the largest batch measured there.
        preferred: a runtime that the file may have.
        precision: whose times where the file has the runtime in several precisions.

    Raises:
        ArtifactError: the file cannot be read or is no benchmark's.
        InvalidArgument: it is of another model or of other weights, does not say how its variants prune, or has no
            times of that runtime, precision and batch size.
    """
    report = read_document(path, from_json, "give the JSON file of a benchmark")
    _check_same(report, path, model)
    has_preferred = any(group.runtime == preferred for group in report.groups)
    chosen = _group(report, path, runtime or (preferred if has_preferred else None), precision)
    return _times(report, path, model, chosen, batch)


def _group(report: Report, path: Path, runtime: str | None, precision: str | None) -> str:
    """Returns the name of the group whose times are wanted: of the runtime, and if it has several of the precision."""
    groups = [group for group in report.groups if runtime in (None, group.runtime)]
    if len(groups) > 1:
        groups = [group for group in groups if _precision(report, group) == precision] or groups
    if not groups:
        known = ", ".join(group.name for group in report.groups)
        raise InvalidArgument(f"{path} has no times on {runtime}", f"it has times of {known}" if known else _AGAIN)
    if len(groups) > 1:
        raise InvalidArgument(
            f"{path} has times of {', '.join(group.name for group in groups)}",
            "say of which runtime they shall be, and evaluate in the precision whose times they are",
        )
    return groups[0].name


def _precision(report: Report, group: Group) -> str | None:
    """Returns the precision that dense of a group ran in."""
    found = (variant.precision for variant in report.variants if variant.baseline and variant.group == group.name)
    return next(found, None)


def _check_same(report: Report, path: Path, model: ModelInBench) -> None:
    """Checks that a benchmark is of the model; of its size before its weights, which are resized along with it."""
    if report.model != model.model:
        raise InvalidArgument(f"{path} is a benchmark of {report.model}, not of {model.model}", _AGAIN)
    dense = {variant.id: variant for variant in report.variants if variant.baseline}
    patches, wanted = model.geometry.patch_tokens, model.weights_sha256
    for row in report.rows:
        if row.variant in dense and row.kept_max != patches:
            raise InvalidArgument(f"{path} is of a model of {row.kept_max} patch tokens, not {patches}", _AGAIN)
    if any(variant.pruning is None and not variant.baseline for variant in report.variants):
        raise InvalidArgument(f"{path} is of an older version and does not say how its variants prune", _AGAIN)
    found = next((one.weights_sha256 for one in dense.values() if one.weights_sha256 != wanted), None)
    if found is not None:
        raise InvalidArgument(
            f"{path} is a benchmark of weights {found[:12]}… (SHA-256), not of {wanted[:12]}…", _AGAIN
        )


def _times(report: Report, path: Path, model: ModelInBench, group: str, batch: int | None) -> BenchTimes:
    variants = {variant.id: variant for variant in report.variants if variant.group == group}
    rows = [row for row in report.rows if row.variant in variants]
    sizes = sorted({row.batch for row in rows})
    if not sizes or (batch is not None and batch not in sizes):
        at = "" if batch is None else f" at batch {batch}"
        known = ", ".join(map(str, sizes))
        raise InvalidArgument(f"{path} has no times on {group}{at}", f"it has batches {known}" if known else _AGAIN)
    chosen = sizes[-1] if batch is None else batch
    points: dict[OperatingPoint, TimedPoint] = {}
    densities: dict[int, float] = {}
    precision = next(variant.precision for variant in variants.values() if variant.baseline)
    for row in rows:
        variant = variants[row.variant]
        if row.batch != chosen or variant.precision != precision:
            continue
        # By throughput: where batches differ in what they keep, their median alone would be one batch's time.
        time = 1e3 * row.batch / row.images_per_second
        if variant.baseline:
            densities[row.kept_max] = time
        elif variant.pruning is not None and model.is_pruned_like(variant.pruning):
            if variant.pruning.density is not None:
                densities[row.kept_max] = time
            elif variant.pruning.point is not None:
                points.setdefault(variant.pruning.point, TimedPoint(time, row.kept_mean))
    if model.geometry.patch_tokens not in densities:
        raise InvalidArgument(f"dense did not run in {path} at batch {chosen} on {group}", _AGAIN)
    return BenchTimes(group, chosen, points, tuple(sorted(densities.items())))
