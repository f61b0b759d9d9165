"""The bench stage: artifacts in, a report out."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import Final

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, ArtifactLike
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.bench.accuracy import Reference
from sait_deploy.bench.across import FEWEST_GROUPS, over_fastest, time_together
from sait_deploy.bench.flips import flip_notes
from sait_deploy.bench.further import measure_further
from sait_deploy.bench.group_results import Skip
from sait_deploy.bench.groups import GroupPlan, plan_groups, runtimes_for, with_baseline
from sait_deploy.bench.measured import Findings, measure_group
from sait_deploy.bench.notes import report_notes
from sait_deploy.bench.options import DEFAULT_BATCHES, AccuracyOf, Also, BenchOptions
from sait_deploy.bench.results import SCHEMA_VERSION, Report, TurnTimes, names_of
from sait_deploy.bench.runtimes import GroupSession, open_session
from sait_deploy.bench.variants import RunnableVariant, runnable_variants
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.dataset import Dataset, evaluation_dataset, folder_dataset
from sait_deploy.reports.table import Note
from sait_deploy.system.machine import environment, load_average
from sait_deploy.system.progress import Progress, logged, named

__all__ = ["AccuracyOf", "Also", "BenchOptions", "bench", "benchmark", "with_baseline"]

MOST_IMAGES: Final = 2000
"""Of a folder, evenly spaced."""


def benchmark(
    artifacts: ArtifactLike | Iterable[ArtifactLike],
    options: BenchOptions = BenchOptions(),
    progress: Progress = logged,
) -> Report:
    """Measures artifacts of one model against their dense baseline, which is looked for beside them.

    Example::

        options = BenchOptions(batches=(1, 8), duration=5)
        report = sait_deploy.benchmark("artifacts/sait_demo_digits-density0.6", options)
        for row in report.rows:
            print(row.variant, row.batch, row.images_per_second)

    Args:
        artifacts: one or several, opened, or their folders.
        options: what to measure.
        progress: reports each step as it begins; nothing of it runs while times are measured.

    Raises:
        ArtifactError: an artifact cannot be opened, or the baseline is not beside it.
        InvalidArgument: they have different baselines, or as :func:`bench`.
        ImageError: an image cannot be read.
    """
    return bench(with_baseline(artifacts), options, progress)


def bench(artifacts: Sequence[Artifact], options: BenchOptions, progress: Progress = logged) -> Report:
    """Measures artifacts against their dense baseline, in each group by itself: a runtime, and a precision if asked.

    What cannot run has a refusal in the report, and the rest is measured. Where precisions or a device are
    asked for, a group of which nothing can be loaded is skipped.

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
    if dense.batch is not None and options.batches == DEFAULT_BATCHES:
        options = dataclasses.replace(options, batches=(dense.batch,))
        progress(f"batch {dense.batch}: that of the graphs")
    _check_meaning(dense, asked, options)
    dataset = _dataset(dense, options)
    plans, skipped = plan_groups(
        artifacts, runtimes_for(artifacts, options.runtimes), options.precisions, options.device
    )
    measured, unloaded = _measured(plans, dataset, options, progress)
    variants = tuple(variant for one in measured for variant in one.variants)
    rows = tuple(row for one in measured for row in one.rows)
    flips = tuple(found for one in measured for found in one.flips)
    together, apart = _together(measured, dataset, options, progress)
    memory, roofline, unmeasured = measure_further(measured, dataset, options, progress)
    uncompared = dict.fromkeys(note for one in measured for note in one.uncompared)
    notes = (*report_notes(dense, variants, rows), *flip_notes(flips, names_of(variants)), *uncompared)
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
        groups=tuple(one.group for one in measured),
        skipped=(*skipped, *unloaded),
        variants=variants,
        rows=rows,
        refusals=tuple(refusal for one in measured for refusal in one.refusals),
        together=tuple(together),
        over_fastest=tuple(over_fastest(variants, rows, together)),
        memory=memory,
        roofline=roofline,
        flips=flips,
        notes=(*notes, *apart, *unmeasured),
    )


def _measured(
    plans: Sequence[GroupPlan], dataset: Dataset, options: BenchOptions, progress: Progress
) -> tuple[list[Findings], list[Skip]]:
    """Measures group after group; returns what was found, and the groups of which nothing could be loaded."""
    reference, measured, skipped = Reference.of(dataset), list[Findings](), list[Skip]()
    for plan in plans:
        report = named(plan.name, progress) if len(plans) > 1 else progress
        session = _session(plan, options)
        if isinstance(session, Skip):
            report(f"skipped: {session.reason}")
            skipped.append(session)
            continue
        before = tuple(one.plan.runtime for one in measured if one.rows)
        measured.append(measure_group(session, dataset, options, reference, before, report))
        del session  # a GPU's memory is free for the next
    return measured, skipped


def _session(plan: GroupPlan, options: BenchOptions) -> GroupSession | Skip:
    """Loads a group, or says why it is skipped."""
    try:
        session = open_session(plan, runnable_variants(plan.artifacts, options.sweep), options.threads)
    except InvalidArgument as error:
        return plan.skip(error)  # a point that was tuned for the artifact given, and not for its int8 or float one
    if options.skips and not session.running:
        why = session.refused[session.dense.id]
        return Skip(plan.runtime, plan.asked, None, why.reason, why.hint, why.exit_code, plan.device)
    return session


def _together(
    measured: Sequence[Findings], dataset: Dataset, options: BenchOptions, progress: Progress
) -> tuple[list[TurnTimes], list[Note]]:
    """Times one of each group in turn, where more than one group ran."""
    ran = [(one.plan, one.first) for one in measured if one.first is not None]
    if len(ran) < FEWEST_GROUPS:
        return [], []
    return time_together(ran, options.threads, dataset, options.batches, options.measuring, progress)


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
        return evaluation_dataset(manifest.model.name, manifest.preprocessing.channels)
    model = manifest.model
    return folder_dataset(options.images, model.labels, model.classes, options.class_map).sample(MOST_IMAGES)
