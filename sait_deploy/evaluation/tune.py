"""The tune stage: the cheapest operating point that keeps to a limit with confidence, checked on images it did not see.

On the calibration images candidates are tried from safe to cheap, in an order set beforehand, until one does not pass.
That one is the last to be looked at, so the bound needs no correction for how many were tried; sequences that run
beside each other, of other families or artifacts, share what is left to chance. The last to pass is then tried once on
the check images: where it is beyond the limit there, dense is recommended all the same.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sait_deploy.artifacts.files import check_place
from sait_deploy.artifacts.folder import Artifact, ArtifactLike, open_artifact
from sait_deploy.artifacts.pruning_info import PointInfo
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.artifacts.tuned_points import (
    SCHEMA_VERSION,
    Evidence,
    Measure,
    SplitEvidence,
    TunedPoint,
    check_name,
    points_path,
    write_point,
)
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation import tune_report
from sait_deploy.evaluation.retrieval import least_images
from sait_deploy.evaluation.tune_limits import Limit, Verdict
from sait_deploy.evaluation.tune_results import ImagesUsed, Outcome, TuneOptions, TuneResult
from sait_deploy.evaluation.tune_splits import Splits, make_splits
from sait_deploy.evaluation.tune_trials import Candidate, Judge, PointFamily, Trial, candidates
from sait_deploy.images.dataset import Dataset
from sait_deploy.runtime import Runner, load
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.system.progress import Progress, logged

if TYPE_CHECKING:
    from sait_deploy.evaluation.tune_search import SearchExports

__all__ = ["TuneOptions", "TuneResult", "tune"]


def tune(artifact: ArtifactLike, options: TuneOptions, progress: Progress = logged) -> TuneResult:
    """Looks for the cheapest point of an artifact that keeps to a limit, and writes it beside the artifact.

    Example::

        options = TuneOptions(max_drop=0.5, splits=SplitOptions(images="photographs"))
        result = sait_deploy.tune("artifacts/sait_demo_digits-adaptive", options)
        print(result.message)

    Args:
        artifact: an adaptive artifact, opened, or its folder; in a precision of ``options`` that it has not, the one
            made from it or the one that it was made from.
        options: the limit, and how to look.
        progress: reports what is being done.

    Returns:
        What was found. Recommending dense is a result, not an error: ``outcome`` says which.

    Raises:
        InvalidArgument: the artifact is not adaptive, the name is taken, labels or a head are missing for a drop, or
            the model cannot keep to limits of what images keep.
        ImageError: there are no images, or one cannot be read.
        ModelError: a search needs weights that cannot be had.
        StorageError: the point cannot be written.
        ArtifactError, MissingDependency, RuntimeUnavailable: as loading and exporting artifacts.
    """
    artifact = artifact_for(open_artifact(artifact), options.runtime, options.precision)
    manifest = artifact.manifest
    refuse_tower(manifest, "tune")
    check_name(artifact.path, manifest, options.name)
    check_place(points_path(artifact.path, options.name).parent)
    for family in options.families:  # limits that the model cannot keep to are refused before images are read
        _candidates(family, artifact, options)
    limit = options.limit(manifest.model.classes)
    splits = make_splits(manifest.model, options.splits, manifest.preprocessing.channels)
    _check_labels(limit, splits)
    _check_gallery(options, splits)
    search = _search(artifact, options)
    sequences = len(options.families) * (1 if search is None else 1 + len(search.exports))
    shared = limit.shared(sequences)
    result = TuneResult(
        outcome=Outcome.TOO_FEW_IMAGES,
        message="",
        hint="",
        artifact=artifact.path,
        model=manifest.model.name,
        limit=limit,
        sequences=sequences,
        images_needed=shared.images_needed(),
        calibration=_used(splits.calibration),
        check=_used(splits.check),
    )
    if result.calibration.images < result.images_needed:
        return tune_report.too_few(result, options.splits)
    progress(tune_report.limit_line(result))
    artifacts = [artifact] if search is None else _made(search, progress)
    trials = tuple(_trials(artifacts, shared, splits.calibration, options, progress))
    result = dataclasses.replace(result, trials=trials)
    result = _settled(result, artifacts, splits.check, options, progress)
    result = tune_report.with_dense(result, manifest)
    return result if search is None else _searched(result, artifacts)


def _check_labels(limit: Limit, splits: Splits) -> None:
    if limit.measure is not Measure.DROP or splits.labelled:
        return
    unlabelled = splits.check if splits.calibration.labels is not None else splits.calibration
    raise InvalidArgument(
        f"a drop is measured on labelled images, and there are no labels of these: {unlabelled.source}",
        "name a folder with one subfolder for each class, or give --max-disagreement",
    )


def _check_gallery(options: TuneOptions, splits: Splits) -> None:
    """Refuses recall where nearly any order of so few images would have it."""
    if options.max_recall_drop is None:
        return
    least = least_images(options.recall_at)
    for dataset in (splits.calibration, splits.check):
        if len(dataset.images) < least:
            raise InvalidArgument(
                f"{len(dataset.images)} images are too few for recall@{options.recall_at}: {dataset.source}",
                f"give at least {least} images to choose on and {least} to check on",
            )


def _used(dataset: Dataset) -> ImagesUsed:
    return ImagesUsed(len(dataset.images), dataset.source)


def _search(artifact: Artifact, options: TuneOptions) -> SearchExports | None:
    if not options.search:
        return None
    from sait_deploy.evaluation.tune_search import list_exports

    return list_exports(artifact, options.search)


def _made(search: SearchExports, progress: Progress) -> list[Artifact]:
    from sait_deploy.evaluation.tune_search import make_exports

    return make_exports(search, progress)


def _searched(result: TuneResult, artifacts: Sequence[Artifact]) -> TuneResult:
    """Makes the artifact with the point the default of commands, and names the others."""
    from sait_deploy.evaluation.tune_search import make_last_export

    if result.outcome is Outcome.TUNED:
        make_last_export(next(artifact for artifact in artifacts if artifact.path == result.artifact))
    others = tuple(artifact.path.name for artifact in artifacts[1:] if artifact.path != result.artifact)
    return dataclasses.replace(result, exported=others)


def _runner(artifact: Artifact, options: TuneOptions) -> Runner:
    return load(artifact, options.runtime, options.running)


def _candidates(family: PointFamily, artifact: Artifact, options: TuneOptions) -> list[Candidate]:
    geometry = artifact.manifest.model.geometry
    return candidates(family, options.grid, geometry, options.min_keep, options.max_keep)


def _trials(
    artifacts: Sequence[Artifact], limit: Limit, images: Dataset, options: TuneOptions, progress: Progress
) -> Iterator[Trial]:
    """Yields every sequence's candidates, artifact by artifact and family by family."""
    for artifact in artifacts:
        judge = Judge(_runner(artifact, options), images, limit, options.batch, progress)
        for family in options.families:
            for trial in judge.until_failure(_candidates(family, artifact, options)):
                progress(tune_report.trial_line(trial, limit.measure))
                yield trial


def _settled(
    result: TuneResult, artifacts: Sequence[Artifact], images: Dataset, options: TuneOptions, progress: Progress
) -> TuneResult:
    """Chooses among the trials, checks the choice, and writes it where it holds."""
    passing = [trial for trial in result.trials if trial.passes and trial.macs.per_image < trial.macs.dense]
    if not passing:
        return tune_report.nothing_passes(result, options)
    chosen = min(passing, key=lambda trial: trial.macs.per_image)
    artifact = next(artifact for artifact in artifacts if artifact.manifest.id == chosen.artifact)
    runner = _runner(artifact, options)
    progress(f"checking {chosen.candidate.label} on {len(images.images)} other images")
    (checked,) = Judge(runner, images, result.limit, options.batch, progress).trials([chosen.candidate])
    result = dataclasses.replace(result, chosen=chosen, checked=checked)
    if checked.judgement.verdict is Verdict.EXCEEDS:
        return tune_report.check_failed(result)
    file = write_point(artifact.path, artifact.manifest, _point(result, chosen, checked, runner, options))
    return tune_report.tuned(dataclasses.replace(result, artifact=artifact.path, file=file), artifact.manifest)


def _point(result: TuneResult, chosen: Trial, checked: Trial, runner: Runner, options: TuneOptions) -> TunedPoint:
    found, again = chosen.judgement, checked.judgement
    own = [t for t in result.trials if (t.artifact, t.candidate.family) == (chosen.artifact, chosen.candidate.family)]
    evidence = Evidence(
        measure=result.limit.measure,
        limit_percent=result.limit.percent,
        confidence=result.limit.confidence,
        sequences=result.sequences,
        grid=options.grid,
        tried=len(own),
        calibration=SplitEvidence(
            result.calibration.images, result.calibration.source, found.value_percent, found.bound_percent
        ),
        check=SplitEvidence(result.check.images, result.check.source, again.value_percent, again.bound_percent),
        check_passed=again.verdict is not Verdict.EXCEEDS,
        check_confirmed=again.verdict is Verdict.PASSES,
        seed=options.splits.seed,
        runtime=runner.runtime,
        environment=runner.environment,
    )
    return TunedPoint(
        schema_version=SCHEMA_VERSION,
        artifact=chosen.artifact,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        point=PointInfo(options.name, chosen.candidate.point, chosen.kept, chosen.macs),
        evidence=evidence,
    )
