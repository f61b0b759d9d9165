"""An int8 artifact beside the float one: answers and kept tokens of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Manifest, ParityInfo, Precision, Task
from sait_deploy.artifacts.points import resolve
from sait_deploy.artifacts.quantization_info import ComparedPoint
from sait_deploy.exporting.parity import TOLERANCE, cosines, scale_of
from sait_deploy.exporting.selection import check_selection
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.quantization.calibrate import named_choices
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.batches import run_all, select_all
from sait_deploy.system.progress import Progress

_BATCH: Final = 8


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two artifacts said of the same images.

    Attributes:
        points: every operating point.
        kept: patch tokens that the int8 artifact keeps of each image, int32 [n], by operating point.
        difference: largest difference of a logit, relative to the image's largest float logit or 1, over the images
            of which both keep the same tokens.
    """

    points: tuple[ComparedPoint, ...]
    kept: dict[str, NDArray[np.int32]]
    difference: float

    @property
    def agreement(self) -> float:
        """The least of any operating point, in percent."""
        return min(point.agreement for point in self.points)

    def parity(self, runtime: str, images: str) -> ParityInfo:
        """Returns the comparison as the manifest has it of every artifact."""
        count, headless = self.points[0].images, self.points[0].same_top1 is None
        sets = [1 - point.other_sets / count for point in self.points if point.other_sets is not None]
        return ParityInfo(
            runtime=runtime,
            images=count,
            image_source=images,
            batches=tuple(sorted({min(_BATCH, count), count % _BATCH or _BATCH})),
            tolerance=TOLERANCE[Precision.INT8],
            largest_difference=self.difference,
            top1_agreement=None if headless else float(np.mean([point.agreement for point in self.points])) / 100,
            cosine=min(point.cosine for point in self.points),
            kept_sets_equal_torch=float(np.mean(sets)) if sets else None,
            points=tuple(point.name for point in self.points if point.name is not None),
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """An artifact's answers at one operating point: logits float32 [n, C] and keep int32 [n, P+N], None of dense."""

    logits: NDArray[np.float32]
    keep: NDArray[np.int32] | None


def answers(runner: Runner, images: Dataset, progress: Progress, step: str) -> dict[str | None, Answers]:
    """Runs an artifact on images at every operating point.

    Args:
        runner: of the artifact.
        images: which.
        progress: called while they run.
        step: what the progress says.

    Returns:
        The answers by operating point; those of a dense artifact have no name.

    Raises:
        ParityError: the graph keeps other tokens than the reference selection of its own importance.
        ModelError: an answer is not a number.
    """
    manifest = runner.artifact.manifest
    choices, count = named_choices(manifest), len(images.images)
    logits: dict[str | None, list[NDArray[np.float32]]] = {name: [] for name in choices}
    keep: dict[str | None, list[NDArray[np.int32]]] = {name: [] for name in choices}
    progress(step, 0.0)
    for start in range(0, count, _BATCH):
        batch = preprocess(list(images.images[start : start + _BATCH]), manifest.preprocessing)
        for name, choice in choices.items():
            if name is None:
                logits[name].append(run_all(runner, batch, choice).logits)
                continue
            selection, point = select_all(runner, batch, choice), resolve(manifest, len(batch), choice)
            if point is not None:
                prefix, pruning = manifest.model.geometry.prefix_tokens, manifest.pruning
                check_selection(selection, point, prefix, start, None if pruning is None else pruning.threshold)
            logits[name].append(selection.logits)
            keep[name].append(selection.keep)
        progress(step, min(start + _BATCH, count) / count)
    return {
        name: Answers(np.concatenate(parts), np.concatenate(keep[name]) if keep[name] else None)
        for name, parts in logits.items()
    }


def compare(
    reference: Mapping[str | None, Answers], quantised: Runner, images: Dataset, progress: Progress
) -> Comparison:
    """Compares an int8 artifact's answers with the float one's.

    Args:
        reference: the float artifact's answers to the same images.
        quantised: the int8 artifact's runner.
        images: held-out images.
        progress: called while they run.

    Raises:
        ParityError: the int8 graph keeps other tokens than the reference selection of its own importance.
        ModelError: an answer is not a number.
    """
    manifest = quantised.artifact.manifest
    step = f"comparing {len(images.images)} answers with the float artifact's"
    found = answers(quantised, images, progress, step)
    both = [_Both(name, wanted, found[name]) for name, wanted in reference.items()]
    labels = images.labels if manifest.model.classes else None
    return Comparison(
        points=tuple(_compared(point, manifest, labels) for point in both),
        kept={point.name: _counts(point.int8.keep, manifest) for point in both if point.name is not None},
        difference=max(_difference(point, manifest.model.task) for point in both),
    )


@dataclass(frozen=True, slots=True)
class _Both:
    """Both artifacts' answers at one point."""

    name: str | None
    fp32: Answers
    int8: Answers

    @property
    def same_set(self) -> NDArray[np.bool_]:
        """Whether both keep the same tokens, bool [n]."""
        if self.int8.keep is None:
            return np.ones(len(self.int8.logits), dtype=bool)
        same: NDArray[np.bool_] = (self.int8.keep == self.fp32.keep).all(axis=1)
        return same


def _compared(both: _Both, manifest: Manifest, labels: NDArray[np.int64] | None) -> ComparedPoint:
    found, wanted = both.int8.logits.argmax(axis=1), both.fp32.logits.argmax(axis=1)
    if not manifest.model.classes:
        labels = None
    return ComparedPoint(
        name=both.name,
        images=len(found),
        same_top1=int((found == wanted).sum()) if manifest.model.classes else None,
        right=None if labels is None else int((found == labels).sum()),
        float_right=None if labels is None else int((wanted == labels).sum()),
        cosine=float(cosines(both.int8.logits, both.fp32.logits).mean()),
        kept=float(_counts(both.int8.keep, manifest).mean()),
        float_kept=float(_counts(both.fp32.keep, manifest).mean()),
        other_sets=None if both.int8.keep is None else int((~both.same_set).sum()),
    )


def _counts(keep: NDArray[np.int32] | None, manifest: Manifest) -> NDArray[np.int32]:
    """Returns the patch tokens kept of each image, int32 [n]; of a dense artifact one number for all."""
    geometry = manifest.model.geometry
    if keep is None:
        return np.array([geometry.patch_tokens], dtype=np.int32)
    counts: NDArray[np.int32] = keep[:, geometry.prefix_tokens :].sum(axis=1, dtype=np.int32)
    return counts


def _difference(both: _Both, task: Task) -> float:
    difference = np.abs(both.int8.logits - both.fp32.logits).max(axis=1) / scale_of(both.fp32.logits, task)
    return float(difference[both.same_set].max(initial=0.0))
