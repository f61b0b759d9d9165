"""The rows of one group at one batch size: times in turn with dense, kept tokens, stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.clock import MeasureOptions, call_for, measure
from sait_deploy.bench.results import BenchRow, Stages, Timing
from sait_deploy.bench.runtimes import Failure, GroupSession
from sait_deploy.bench.stats import make_row
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.runtime import Runner
from sait_deploy.runtime.answers import StageTimes
from sait_deploy.tokens import pruned_macs

_MOST_BATCHES: Final = 8
_TIMED_IMAGES: Final = 32
_ORDER_SEED: Final = 0
_STAGE_RUNS: Final = 32
_STAGE_WARM_UP: Final = 4

Request = tuple[NDArray[np.float32], PointChoice]
"""A batch of images, float32 [B, C, H, W], and its operating points."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A variant that has run every batch once.

    Attributes:
        variant: which.
        runner: what runs it.
        requests: batches of images, each with its operating points.
        kept: int32 [n], patch tokens that the images kept.
        calls: what the clock runs, one for each batch.
    """

    variant: RunnableVariant
    runner: Runner
    requests: list[Request]
    kept: NDArray[np.int32]
    calls: list[Callable[[], float | None]]


def measure_batch(
    session: GroupSession, dataset: Dataset, batch: int, options: MeasureOptions
) -> tuple[list[BenchRow], dict[str, Failure]]:
    """Times every variant on the same few batches of images, so that no one image stands for all.

    Returns:
        Rows of those that ran, in the variants' order, and of the others variant id to why they did not.

    Raises:
        ImageError: an image cannot be read.
    """
    refused = dict(session.refused)
    images = timed_images(session.dense.artifact.manifest, dataset, batch) if session.running else []
    ready: list[Ready] = []
    for variant in session.running:
        try:
            ready.append(made_ready(variant, session.runner(variant), images, options.timing))
        except SaitError as error:
            refused[variant.id] = Failure.of(error)
    if not ready:
        return [], refused
    try:
        seconds = measure({one.variant.id: one.calls for one in ready}, options)
        stages = [measure_stages(one.runner, one.requests) for one in ready]
    except SaitError as error:
        # What stops one in the middle, such as a GPU that went away, stops all that share it.
        return [], refused | {one.variant.id: Failure.of(error) for one in ready}
    return [_row(one, session.dense, batch, seconds, own) for one, own in zip(ready, stages, strict=True)], refused


def timed_images(manifest: Manifest, dataset: Dataset, batch: int) -> list[NDArray[np.float32]]:
    """Returns the batches that are timed, float32 [B, C, H, W].

    They are drawn from all of the images and shuffled, as a folder lists them class by class.
    """
    distinct = max(1, min(_MOST_BATCHES, _TIMED_IMAGES // batch))
    count = distinct * batch
    sample = dataset.sample(max(count, _TIMED_IMAGES)).images
    order = np.random.default_rng(_ORDER_SEED).permutation(len(sample))
    images = preprocess([sample[order[i % len(sample)]] for i in range(count)], manifest.preprocessing)
    return [images[start : start + batch] for start in range(0, count, batch)]


def made_ready(
    variant: RunnableVariant, runner: Runner, batches: Sequence[NDArray[np.float32]], timing: Timing
) -> Ready:
    """Runs a variant on every batch, float32 [B, C, H, W], once.

    Raises:
        SaitError: it cannot run them.
    """
    size = len(batches[0])
    choices = variant.choices(size * len(batches))
    requests = [(images, choices.of(slice(i * size, (i + 1) * size))) for i, images in enumerate(batches)]
    kept = np.concatenate([runner.run_at(*one).kept for one in requests])
    return Ready(variant, runner, requests, kept, [call_for(runner, one[0], timing, one[1]) for one in requests])


def _row(
    one: Ready, dense: RunnableVariant, batch: int, seconds: dict[str, list[float]], stages: Stages | None
) -> BenchRow:
    manifest = one.variant.artifact.manifest
    return make_row(
        batch=batch,
        variant=one.variant.id,
        seconds=seconds[one.variant.id],
        dense_seconds=None if one.variant is dense else seconds.get(dense.id),
        kept=one.kept.tolist(),
        batches=len(one.requests),
        macs=_mean_macs(manifest, one.kept),
        dense_macs=dense.artifact.manifest.macs.dense,
        stages=stages,
    )


def _mean_macs(manifest: Manifest, kept: NDArray[np.int32]) -> int:
    if manifest.pruning is None:
        return manifest.macs.dense
    geometry, prune_at = manifest.model.geometry, manifest.pruning.prune_at
    return round(sum(pruned_macs(geometry, prune_at, int(count)) for count in kept) / len(kept))


def measure_stages(runner: Runner, batches: Sequence[Request]) -> Stages | None:
    """Returns where the time of batches goes, run in turn; None of a runtime that has no stages."""
    taken: list[StageTimes] = []
    for turn in range(_STAGE_WARM_UP + _STAGE_RUNS):
        times = runner.stages(*batches[turn % len(batches)])
        if times is None:
            return None
        taken.append(times)
    counted = taken[_STAGE_WARM_UP:]
    return Stages(
        enqueue_ms=_median_ms([times.enqueue for times in counted]),
        upload_ms=_median_ms([times.upload for times in counted]),
        compute_ms=_median_ms([times.compute for times in counted]),
        download_ms=_median_ms([times.download for times in counted]),
    )


def _median_ms(seconds: Sequence[float]) -> float:
    return 1e3 * float(np.median(seconds))
