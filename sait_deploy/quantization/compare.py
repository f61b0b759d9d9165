"""An int8 artifact beside the float one: answers and kept tokens of the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Manifest, ParityInfo, Precision
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.artifacts.quantization_info import ComparedPoint
from sait_deploy.exporting.parity import TOLERANCE, check_selection, cosines
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.quantization.calibrate import named_choices
from sait_deploy.runtime.base import Runner
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


def compare(reference: Runner, quantised: Runner, images: Dataset, progress: Progress) -> Comparison:
    """Runs both artifacts on the same images at every operating point.

    Args:
        reference: the float artifact's runner.
        quantised: the int8 one's.
        images: held-out images.
        progress: called while they run.

    Raises:
        ParityError: the int8 graph keeps other tokens than the reference selection of its own importance.
        ModelError: an answer is not a number.
    """
    manifest = reference.artifact.manifest
    collected = {name: _Collected(name, choice) for name, choice in named_choices(manifest).items()}
    count = len(images.images)
    step = f"comparing {count} answers with the float artifact's"
    progress(step, 0.0)
    for start in range(0, count, _BATCH):
        batch = preprocess(list(images.images[start : start + _BATCH]), manifest.preprocessing)
        for point in collected.values():
            point.add(reference, quantised, batch, start)
        progress(step, min(start + _BATCH, count) / count)
    points = [point.joined() for point in collected.values()]
    labels = images.labels if manifest.model.classes else None
    return Comparison(
        points=tuple(_compared(point, manifest, labels) for point in points),
        kept={point.name: _counts(point.keep, manifest) for point in points if point.name is not None},
        difference=max(_difference(point) for point in points),
    )


@dataclass(frozen=True, slots=True)
class _Both:
    """Both artifacts' answers at one point: logits float32 [n, C] and keep int32 [n, P+N], None of dense ones."""

    name: str | None
    float_logits: NDArray[np.float32]
    logits: NDArray[np.float32]
    float_keep: NDArray[np.int32] | None
    keep: NDArray[np.int32] | None

    @property
    def same_set(self) -> NDArray[np.bool_]:
        """Whether both keep the same tokens, bool [n]."""
        if self.keep is None:
            return np.ones(len(self.logits), dtype=bool)
        same: NDArray[np.bool_] = (self.keep == self.float_keep).all(axis=1)
        return same


class _Collected:
    """Both artifacts' answers at one point while they come in."""

    def __init__(self, name: str | None, choice: PointChoice) -> None:
        self._name, self._choice = name, choice
        self._logits: list[list[NDArray[np.float32]]] = [[], []]
        self._keep: list[list[NDArray[np.int32]]] = [[], []]

    def add(self, reference: Runner, quantised: Runner, batch: NDArray[np.float32], first: int) -> None:
        """Runs both on a batch whose first image has this number."""
        manifest = reference.artifact.manifest
        point = resolve(manifest, len(batch), self._choice)
        for side, runner in enumerate((reference, quantised)):
            if self._name is None:
                self._logits[side].append(runner.run_at(batch, self._choice).logits)
                continue
            selection = runner.select_at(batch, self._choice)
            if point is not None and runner is quantised:
                check_selection(selection, point, manifest.model.geometry.prefix_tokens, first)
            self._logits[side].append(selection.logits)
            self._keep[side].append(selection.keep)

    def joined(self) -> _Both:
        """Returns the answers to all images."""
        float_logits, logits = (np.concatenate(parts) for parts in self._logits)
        float_keep, keep = (np.concatenate(parts) if parts else None for parts in self._keep)
        return _Both(self._name, float_logits, logits, float_keep, keep)


def _compared(both: _Both, manifest: Manifest, labels: NDArray[np.int64] | None) -> ComparedPoint:
    found, wanted = both.logits.argmax(axis=1), both.float_logits.argmax(axis=1)
    return ComparedPoint(
        name=both.name,
        images=len(found),
        same_top1=int((found == wanted).sum()) if manifest.model.classes else None,
        right=None if labels is None else int((found == labels).sum()),
        float_right=None if labels is None else int((wanted == labels).sum()),
        cosine=float(cosines(both.logits, both.float_logits).mean()),
        kept=float(_counts(both.keep, manifest).mean()),
        float_kept=float(_counts(both.float_keep, manifest).mean()),
        other_sets=None if both.keep is None else int((~both.same_set).sum()),
    )


def _counts(keep: NDArray[np.int32] | None, manifest: Manifest) -> NDArray[np.int32]:
    """Returns the patch tokens kept of each image, int32 [n]; of a dense artifact one number for all."""
    geometry = manifest.model.geometry
    if keep is None:
        return np.array([geometry.patch_tokens], dtype=np.int32)
    counts: NDArray[np.int32] = keep[:, geometry.prefix_tokens :].sum(axis=1, dtype=np.int32)
    return counts


def _difference(both: _Both) -> float:
    scale = np.maximum(1.0, np.abs(both.float_logits).max(axis=1))
    difference = np.abs(both.logits - both.float_logits).max(axis=1) / scale
    return float(difference[both.same_set].max(initial=0.0))
