"""What is measured of one group: accuracy, times at each batch size, and how often kept sets and answers flip."""

from __future__ import annotations

from dataclasses import dataclass

from sait_deploy.artifacts.folder import MODEL_FILE
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.bench.accuracy import Reference, measure_accuracy
from sait_deploy.bench.flips import IMAGES as FLIP_IMAGES
from sait_deploy.bench.flips import Setting, count_flips
from sait_deploy.bench.group_results import Group
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.options import AccuracyOf, BenchOptions
from sait_deploy.bench.results import Accuracy, BenchRow, Flips, Refusal, Variant
from sait_deploy.bench.rows import measure_batch
from sait_deploy.bench.runtimes import Failure, GroupSession
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.reports.table import Note
from sait_deploy.system.progress import Progress


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found of one group; see :class:`Report`.

    Attributes:
        plan: the group.
        runnable: what was to run, the dense baseline first, with the ids of the report.
    """

    plan: GroupPlan
    group: Group
    runnable: tuple[RunnableVariant, ...]
    variants: tuple[Variant, ...]
    rows: list[BenchRow]
    refusals: list[Refusal]
    flips: list[Flips]
    uncompared: list[Note]

    @property
    def dense(self) -> RunnableVariant:
        """The baseline."""
        return self.runnable[0]

    @property
    def first(self) -> RunnableVariant | None:
        """The baseline where it ran, else the first that did; None where nothing did."""
        ran = {row.variant for row in self.rows}
        return next((variant for variant in self.runnable if variant.id in ran), None)


def measure_group(
    session: GroupSession,
    dataset: Dataset,
    options: BenchOptions,
    reference: Reference,
    before: tuple[str, ...],
    progress: Progress,
) -> Findings:
    """Measures a group.

    Args:
        session: what is loaded of it; what fails is refused in it.
        dataset: the images.
        options: what to measure.
        reference: what counts as a right answer.
        before: runtimes that were measured already.
        progress: reports each step as it begins.

    Raises:
        ImageError: an image cannot be read.
    """
    dense = session.dense.artifact.manifest
    accuracy: dict[str, Accuracy] = {}
    meant = dense.weights.source is not WeightsSource.RANDOM and dense.model.classes
    if session.running and meant and options.accuracy is AccuracyOf.TRAINED:
        accuracy = measure_accuracy(session, dataset, reference, progress)
    rows, refusals = _timed(session, dataset, options, progress)
    flips, uncompared = _flips(session, dataset, options, before, progress)
    variants = tuple(_variant(session, variant, accuracy.get(variant.id)) for variant in session.variants)
    # What is behind a runner may follow from the batches that it ran.
    return Findings(session.plan, session.info(), session.variants, variants, rows, refusals, flips, uncompared)


def _timed(
    session: GroupSession, dataset: Dataset, options: BenchOptions, progress: Progress
) -> tuple[list[BenchRow], list[Refusal]]:
    rows: list[BenchRow] = []
    refused: dict[tuple[str, Failure], list[int]] = {}
    for batch in options.batches:
        running = session.running
        if running:
            turns = f"{len(running)} variants in turn" if len(running) > 1 else f"{running[0].label} alone"
            progress(f"batch {batch}: {turns}, {options.duration:g} s", 0.0)
        found, failures = measure_batch(session, dataset, batch, options.measuring)
        if running:
            progress(f"batch {batch}: {turns}, {options.duration:g} s", 1.0)
        rows += found
        for key in failures.items():
            refused.setdefault(key, []).append(batch)
    if not rows:
        progress(f"nothing can run here: {next(iter(refused))[1].reason}")
    return rows, [
        Refusal(name, tuple(batches), failure.reason, failure.hint, failure.exit_code)
        for (name, failure), batches in refused.items()
    ]


def _variant(session: GroupSession, variant: RunnableVariant, accuracy: Accuracy | None) -> Variant:
    manifest = variant.artifact.manifest
    return Variant(
        id=variant.id,
        label=variant.label,
        runtime=session.plan.runtime,
        asked=session.plan.asked,
        artifact=manifest.id,
        baseline=manifest.baseline is None,
        weights_sha256=manifest.weights.sha256,
        model_sha256=manifest.files[MODEL_FILE],
        random_weights=manifest.weights.source is WeightsSource.RANDOM,
        accuracy=accuracy,
        pruning=variant.pruning,
        precision=session.precision(variant),
        device=session.plan.device,
    )


def _flips(
    session: GroupSession, dataset: Dataset, options: BenchOptions, before: tuple[str, ...], progress: Progress
) -> tuple[list[Flips], list[Note]]:
    if all(variant.artifact.manifest.pruning is None for variant in session.running):
        return [], []
    images = preprocess(dataset.sample(FLIP_IMAGES).images, session.dense.artifact.manifest.preprocessing)
    setting = Setting(session.plan, options.threads, max(options.batches), before)
    return count_flips(session.running, session.runners, images, setting, progress)
