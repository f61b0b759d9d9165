"""The bench stage: artifacts in, a report out."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from sait_deploy import demo
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Manifest, WeightsSource
from sait_deploy.bench.accuracy import measure_accuracy
from sait_deploy.bench.clock import MeasureOptions
from sait_deploy.bench.flips import IMAGES as FLIP_IMAGES
from sait_deploy.bench.flips import Setting, count_flips, flip_notes
from sait_deploy.bench.notes import report_notes
from sait_deploy.bench.results import (
    SCHEMA_VERSION,
    Accuracy,
    BenchRow,
    Flips,
    Refusal,
    Report,
    RuntimeInfo,
    Timing,
    Variant,
    names_of,
)
from sait_deploy.bench.rows import measure_batch
from sait_deploy.bench.runtimes import Failure, RuntimeSession, open_session, runtimes_for
from sait_deploy.bench.variants import NO_SWEEP, RunnableVariant, Sweep, runnable_variants
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.images.dataset import Dataset, check_class_map, evaluation_dataset, folder_dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.reports.table import Note
from sait_deploy.runtime import RunOptions
from sait_deploy.runtime.registry import find_runtime
from sait_deploy.system.machine import environment, load_average
from sait_deploy.system.option_values import check_options
from sait_deploy.system.progress import Progress, named, no_progress

MOST_IMAGES: Final = 2000
"""Of a folder, evenly spaced."""


class AccuracyOf(Enum):
    """Which variants' accuracy is measured beside their speed."""

    NONE = "none"
    TRAINED = "trained"
    """Those whose answers mean something: trained weights, with a head."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        batches: images per request.
        runtimes: which runtimes, each measured by itself; with none, ONNX Runtime and those that artifacts have engines
            of.
        threads: threads within one operator; None for all processors.
        images: folder to measure accuracy and time on; None for the images that come with the toolkit.
        class_map: file that says the class of each subfolder of ``images``; None for the classes of those names.
        accuracy: which variants' accuracy is measured.
        timing: what the clock covers.
        warmup: rounds not counted.
        duration: seconds per batch size.
        sweep: operating points of adaptive artifacts.
    """

    batches: tuple[int, ...] = (1, 8, 32)
    runtimes: tuple[str, ...] = ()
    threads: int | None = None
    images: Path | None = None
    class_map: Path | None = None
    accuracy: AccuracyOf = AccuracyOf.TRAINED
    timing: Timing = Timing.END_TO_END
    warmup: int = 3
    duration: float = 10.0
    sweep: Sweep = NO_SWEEP

    def __post_init__(self) -> None:
        check_options(self)
        check_class_map(self.images, self.class_map)
        if not self.batches or min(self.batches) < 1:
            sizes = ", ".join(map(str, self.batches)) or "none"
            raise InvalidArgument(f"batch sizes cannot be {sizes}", "give whole numbers from 1")
        if self.threads is not None and self.threads < 1:
            raise InvalidArgument(f"{self.threads} threads cannot run anything", "give a whole number from 1")
        for name in self.runtimes:
            find_runtime(name)
        _ = self.measuring

    @property
    def measuring(self) -> MeasureOptions:
        """The part that the clock needs."""
        return MeasureOptions(self.timing, self.warmup, self.duration)


def with_baseline(paths: Sequence[Path]) -> list[Artifact]:
    """Opens artifacts of one model, their dense baseline first, which is looked for beside them.

    Raises:
        ArtifactError: an artifact cannot be opened, or its baseline is not there.
        InvalidArgument: they have different baselines.
    """
    opened = list({artifact.manifest.id: artifact for artifact in map(open_artifact, paths)}.values())
    wanted = {artifact.manifest.baseline or artifact.manifest.id for artifact in opened}
    if len(wanted) != 1:
        raise InvalidArgument(
            f"{', '.join(a.path.name for a in opened)} do not share a dense baseline",
            "bench artifacts of the same weights, image size and precision together",
        )
    baseline = next((a for a in opened if a.manifest.baseline is None), None)
    if baseline is None:
        (wanted_id,) = wanted
        place = Workspace(opened[0].path.parent).find(wanted_id)
        if place is None:
            raise ArtifactError(
                f"the dense baseline {wanted_id} of {opened[0].path.name} is not beside it", "export it with --dense"
            )
        baseline = open_artifact(place)
    return [baseline, *(a for a in opened if a.manifest.baseline is not None)]


def bench(artifacts: Sequence[Artifact], options: BenchOptions, progress: Progress = no_progress) -> Report:
    """Measures artifacts against the first of them, the dense baseline, on each runtime by itself.

    What cannot run has a refusal in the report, and the rest is measured.

    Args:
        artifacts: as :func:`with_baseline` returns them.
        options: what to measure.
        progress: reports each step as it begins; nothing of it runs while times are measured.

    Raises:
        InvalidArgument: an operating point that an artifact has not, or adaptive counts that would mean nothing.
        ImageError: an image cannot be read.
    """
    started = load_average()
    asked = runnable_variants(artifacts, options.sweep)
    dense = artifacts[0].manifest
    _check_meaning(dense, asked, options)
    dataset = _dataset(dense, options)
    runtimes = runtimes_for(artifacts, options.runtimes)
    measured: list[_Findings] = []
    for runtime in runtimes:
        report = named(runtime, progress) if len(runtimes) > 1 else progress
        before = tuple(one.runtime for one in measured if one.rows)
        session = open_session(artifacts, asked, runtime, RunOptions(threads=options.threads))
        measured.append(_measured(session, dataset, options, before, report))
        del session  # a GPU's memory is free for the next
    variants = tuple(variant for one in measured for variant in one.variants)
    rows = tuple(row for one in measured for row in one.rows)
    flips = tuple(found for one in measured for found in one.flips)
    uncompared = dict.fromkeys(note for one in measured for note in one.uncompared)
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=dense.model.name,
        timing=options.timing,
        environment=environment(options.threads) | {"load average at start": started},
        options={
            "images": dataset.source,
            "warm-up rounds": str(options.warmup),
            "seconds per batch": f"{options.duration:g}",
            "thread spinning": "off",
        },
        runtimes=tuple(one.info for one in measured),
        variants=variants,
        rows=rows,
        refusals=tuple(refusal for one in measured for refusal in one.refusals),
        flips=flips,
        notes=(*report_notes(dense, variants, rows), *flip_notes(flips, names_of(variants)), *uncompared),
    )


def _check_meaning(dense: Manifest, variants: Sequence[RunnableVariant], options: BenchOptions) -> None:
    """Refuses to measure how many tokens images keep where the images are not of what the model was made for."""
    counting = any(variant.counts_tokens for variant in variants)
    if counting and options.images is None and dense.model.name != demo.NAME:
        raise InvalidArgument(
            f"how many tokens {dense.model.name} keeps of the shipped photographs would mean nothing",
            "give --images DIR with images of yours, or --kept MEAN:SD to force a distribution, such as 105:25",
        )


def _dataset(manifest: Manifest, options: BenchOptions) -> Dataset:
    if options.images is None:
        return evaluation_dataset(manifest.model.name)
    model = manifest.model
    return folder_dataset(options.images, model.labels, model.classes, options.class_map).sample(MOST_IMAGES)


@dataclass(frozen=True, slots=True)
class _Findings:
    """What was found on one runtime; see :class:`Report`."""

    runtime: str
    info: RuntimeInfo
    variants: tuple[Variant, ...]
    rows: list[BenchRow]
    refusals: list[Refusal]
    flips: list[Flips]
    uncompared: list[Note]


def _measured(
    session: RuntimeSession, dataset: Dataset, options: BenchOptions, before: tuple[str, ...], progress: Progress
) -> _Findings:
    dense, info = session.dense.artifact.manifest, session.info()
    accuracy: dict[str, Accuracy] = {}
    meant = dense.weights.source is not WeightsSource.RANDOM and dense.model.classes
    if session.running and meant and options.accuracy is AccuracyOf.TRAINED:
        accuracy = measure_accuracy(session, dataset, progress)
    rows, refusals = _timed(session, dataset, options, progress)
    flips, uncompared = _flips(session, dataset, options, before, progress)
    variants = tuple(_variant(session, variant, accuracy.get(variant.id)) for variant in session.variants)
    return _Findings(session.runtime, info, variants, rows, refusals, flips, uncompared)


def _timed(
    session: RuntimeSession, dataset: Dataset, options: BenchOptions, progress: Progress
) -> tuple[list[BenchRow], list[Refusal]]:
    rows: list[BenchRow] = []
    refused: dict[tuple[str, Failure], list[int]] = {}
    for batch in options.batches:
        running = session.running
        if running:
            turns = f"{len(running)} variants in turn" if len(running) > 1 else f"{running[0].label} alone"
            progress(f"batch {batch}: {turns}, {options.duration:g} s")
        found, failures = measure_batch(session, dataset, batch, options.measuring)
        rows += found
        for key in failures.items():
            refused.setdefault(key, []).append(batch)
    if not rows:
        progress(f"nothing can run here: {next(iter(refused))[1].reason}")
    return rows, [
        Refusal(name, tuple(batches), failure.reason, failure.hint, failure.exit_code)
        for (name, failure), batches in refused.items()
    ]


def _variant(session: RuntimeSession, variant: RunnableVariant, accuracy: Accuracy | None) -> Variant:
    manifest = variant.artifact.manifest
    return Variant(
        id=variant.id,
        label=variant.label,
        runtime=session.runtime,
        baseline=manifest.baseline is None,
        weights_sha256=manifest.weights.sha256,
        model_sha256=manifest.files[MODEL_FILE],
        random_weights=manifest.weights.source is WeightsSource.RANDOM,
        accuracy=accuracy,
        pruning=variant.pruning,
        precision=session.precision(variant),
    )


def _flips(
    session: RuntimeSession, dataset: Dataset, options: BenchOptions, before: tuple[str, ...], progress: Progress
) -> tuple[list[Flips], list[Note]]:
    if all(variant.artifact.manifest.pruning is None for variant in session.running):
        return [], []
    progress("how often kept sets and answers flip")
    images = preprocess(dataset.sample(FLIP_IMAGES).images, session.dense.artifact.manifest.preprocessing)
    setting = Setting(session.runtime, options.threads, max(options.batches), before)
    return count_flips(session.running, session.runners, images, setting)
