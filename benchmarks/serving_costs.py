"""What batches cost in the process that computes them, measured, as seconds for each batch, image and token."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.bench.clock import MeasureOptions, measure
from sait_deploy.runtime import RunOptions
from sait_deploy.runtime.registry import ONNXRUNTIME
from sait_deploy.serving.batching import Stage
from sait_deploy.serving.stages import ImagePoint, Prepared, Stages, open_stages

STEM_SIZES: Final = (1, 2, 4, 8)
TRUNK_SIZES: Final = (1, 4, 8, 15)
_SHARES: Final = (0.28, 0.535, 0.8)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a batch: ``batch`` and for each image and token ``image`` and ``token`` more."""

    batch: float
    image: float
    token: float

    def seconds(self, images: int, tokens: int) -> float:
        """Returns what a batch costs."""
        return self.batch + images * self.image + tokens * self.token


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What an artifact costs.

    Attributes:
        stem: None where the artifact runs whole.
        trunk: or of all of it.
        error: the largest deviation of the measured batches from this, as a share of them.
    """

    stem: Cost | None
    trunk: Cost
    error: float


@dataclass(frozen=True, slots=True)
class _Batch:
    images: int
    tokens: int
    run: Callable[[], None]


def measured_costs(
    artifacts: Mapping[str, Artifact], images: NDArray[np.float32], threads: int, seconds: float
) -> dict[str, ModelCost]:
    """Measures stems and trunks of several sizes, those of all artifacts in turns.

    Args:
        artifacts: by name, to open as a server does.
        images: float32 [n, C, H, W], preprocessed.
        threads: of each operator.
        seconds: to measure for.
    """
    batches: dict[str, dict[Stage, list[_Batch]]] = {}
    for name, artifact in artifacts.items():
        stages = open_stages(artifact, ONNXRUNTIME, RunOptions(threads=threads))
        patches = artifact.manifest.model.geometry.patch_tokens
        fixed = artifact.manifest.form is not Form.ADAPTIVE
        kept = [None] if fixed else [round(share * patches) for share in _SHARES]
        trunks = [_trunk(stages, _prepared(images, n, count)) for n in TRUNK_SIZES for count in kept]
        stems = [] if stages.whole else [_stem(stages, _prepared(images, n, kept[0])) for n in STEM_SIZES]
        batches[name] = {Stage.STEM: stems, Stage.TRUNK: trunks}
    calls = {
        f"{name} {stage} {i}": [one.run]
        for name, stages_of in batches.items()
        for stage, several in stages_of.items()
        for i, one in enumerate(several)
    }
    medians = {
        call: float(np.median(found)) for call, found in measure(calls, MeasureOptions(duration=seconds)).items()
    }
    costs = {}
    for name, stages_of in batches.items():
        fits = {
            stage: _fitted(several, [medians[f"{name} {stage} {i}"] for i in range(len(several))])
            for stage, several in stages_of.items()
            if several
        }
        stem = fits[Stage.STEM][0] if Stage.STEM in fits else None
        costs[name] = ModelCost(stem, fits[Stage.TRUNK][0], max(error for _, error in fits.values()))
    return costs


def _prepared(images: NDArray[np.float32], count: int, kept: int | None) -> list[Prepared]:
    point = None if kept is None else ImagePoint(1.0, kept, kept)
    return [Prepared(images[i % len(images)], point) for i in range(count)]


def _stem(stages: Stages, prepared: list[Prepared]) -> _Batch:
    return _Batch(len(prepared), 0, lambda: _done(stages.stem(prepared)))


def _trunk(stages: Stages, prepared: list[Prepared]) -> _Batch:
    ready = prepared if stages.whole else stages.stem(prepared)
    return _Batch(len(ready), sum(map(stages.tokens, ready)), lambda: _done(stages.trunk(ready)))


def _done(answers: Sequence[object]) -> None:
    """Checks that a batch was computed."""
    wrong = [one for one in answers if isinstance(one, Exception)]
    if wrong:
        raise wrong[0]


def _fitted(batches: Sequence[_Batch], seconds: Sequence[float]) -> tuple[Cost, float]:
    """Fits costs by least squares of relative errors; those of batches that are all alike in a number are 0."""
    sizes = np.array([[1, one.images, one.tokens] for one in batches], dtype=float)
    per_image = len({one.tokens / one.images for one in batches}) == 1
    columns = [0, 1] if per_image else [0, 1, 2]
    relative = sizes[:, columns] / np.array(seconds)[:, None]
    found, *_ = np.linalg.lstsq(relative, np.ones(len(batches)), rcond=None)
    values = [0.0, 0.0, 0.0]
    for column, value in zip(columns, found, strict=True):
        values[column] = float(value)
    return Cost(*values), float(np.abs(relative @ found - 1).max())


def runner_seconds(stages: Stages, images: NDArray[np.float32], kept: int | None, batch: int, seconds: float) -> float:
    """Returns the median seconds of a batch, stem and trunk, that one caller computes over and over."""
    prepared, found, end = _prepared(images, batch, kept), [], time.monotonic() + seconds
    while time.monotonic() < end or len(found) < 3:
        started = time.perf_counter()
        _done(stages.trunk(stages.stem(prepared)))
        found.append(time.perf_counter() - started)
    return float(np.median(found))
