"""The bench stage: artifacts in, a report out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy import demo
from sait_deploy.artifact import MODEL_FILE, Artifact, Workspace, open_artifact
from sait_deploy.bench.flips import IMAGES as FLIP_IMAGES
from sait_deploy.bench.flips import Setting, count_flips, flip_notes
from sait_deploy.bench.machine import environment, load_average
from sait_deploy.bench.measure import MeasureOptions, call_for, measure
from sait_deploy.bench.results import SCHEMA_VERSION, Accuracy, Flips, Report, Row, Timing, Variant
from sait_deploy.bench.stats import break_even_batch, make_row, row_notes
from sait_deploy.bench.subjects import NO_SWEEP, Subject, Sweep, make_subjects
from sait_deploy.dataset import Dataset, evaluation_dataset, folder_dataset
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.manifest import Manifest, WeightsSource
from sait_deploy.runtime import Runner, RunOptions, RuntimeName, load
from sait_deploy.schedule import pruned_macs

ACCURACY_BATCH: Final = 32
MOST_ACCURACY_IMAGES: Final = 2000
_MOST_BATCHES: Final = 8
_TIMED_IMAGES: Final = 32
_ORDER_SEED: Final = 0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        batches: images per request.
        runtime: which runtime.
        threads: threads within one operator; None for all processors.
        images: folder to measure accuracy and time on; None for the images that come with the toolkit.
        timing: what the clock covers.
        warmup: rounds not counted.
        duration: seconds per batch size.
        sweep: operating points of adaptive artifacts.
    """

    batches: tuple[int, ...] = (1, 8, 32)
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME
    threads: int | None = None
    images: Path | None = None
    timing: Timing = Timing.END_TO_END
    warmup: int = 3
    duration: float = 10.0
    sweep: Sweep = NO_SWEEP

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            sizes = ", ".join(map(str, self.batches)) or "none"
            raise InvalidArgument(f"batch sizes cannot be {sizes}", "give whole numbers from 1")
        if self.threads is not None and self.threads < 1:
            raise InvalidArgument(f"{self.threads} threads cannot run anything", "give a whole number from 1")
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


def bench(artifacts: Sequence[Artifact], options: BenchOptions, progress: Progress = lambda _: None) -> Report:
    """Measures artifacts against the first of them, the dense baseline.

    Args:
        artifacts: as :func:`with_baseline` returns them.
        options: what to measure.
        progress: told what is being done, one line at a time.

    Raises:
        InvalidArgument: an operating point that an artifact has not, or adaptive counts that would mean nothing.
        SaitError: an artifact cannot run on the runtime, or an image cannot be read.
    """
    started = load_average()
    subjects = make_subjects(artifacts, options.sweep)
    dense = artifacts[0].manifest
    _check_meaning(dense, subjects, options)
    runners = {a.manifest.id: load(a, options.runtime, RunOptions(threads=options.threads)) for a in artifacts}
    dataset = _dataset(dense, options)
    accuracy: dict[str, Accuracy] = {}
    if dense.weights.source is not WeightsSource.RANDOM and dense.model.classes:
        progress(f"accuracy on {dataset.source}")
        accuracy = _accuracy(subjects, runners, dataset)
    variants = tuple(_variant(subject, accuracy.get(subject.id)) for subject in subjects)
    rows: list[Row] = []
    for batch in options.batches:
        turns = f"{len(subjects)} variants in turn" if len(subjects) > 1 else "dense alone"
        progress(f"batch {batch}: {turns}, {options.duration:g} s")
        rows += _rows(subjects, runners, dataset, batch, options)
    flips, unknown = _flips(subjects, runners, dataset, options, progress)
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=dense.model.name,
        runtime=options.runtime.value,
        timing=options.timing,
        environment=environment(runners[dense.id], options.threads) | {"load average at start": started},
        options={
            "images": dataset.source,
            "warm-up rounds": str(options.warmup),
            "seconds per batch": f"{options.duration:g}",
            "thread spinning": "off",
        },
        variants=variants,
        rows=tuple(rows),
        flips=tuple(flips),
        notes=(*_notes(dense, variants, rows), *flip_notes(flips, {v.id: v.label for v in variants}), *unknown),
    )


def _check_meaning(dense: Manifest, subjects: Sequence[Subject], options: BenchOptions) -> None:
    """Refuses to measure how many tokens images keep where the images are not of what the model was made for."""
    counting = any(subject.counts_tokens for subject in subjects)
    if counting and options.images is None and dense.model.name != demo.NAME:
        raise InvalidArgument(
            f"how many tokens {dense.model.name} keeps of the shipped photographs would mean nothing",
            "give --images DIR with images of yours, or --kept MEAN:SD to force a distribution, such as 105:25",
        )


def _dataset(manifest: Manifest, options: BenchOptions) -> Dataset:
    if options.images is None:
        return evaluation_dataset(manifest.model.name)
    return folder_dataset(options.images, manifest.model.labels, manifest.model.classes).sample(MOST_ACCURACY_IMAGES)


def _accuracy(subjects: Sequence[Subject], runners: dict[str, Runner], dataset: Dataset) -> dict[str, Accuracy]:
    """Top-1 and agreement with dense; each image is decoded once for all variants. Forced counts have no accuracy."""
    judged = [subject for subject in subjects if subject.kept is None]
    answers: dict[str, list[NDArray[np.int64]]] = {subject.id: [] for subject in judged}
    for start in range(0, len(dataset.images), ACCURACY_BATCH):
        images = next(iter(runners.values())).preprocess(dataset.images[start : start + ACCURACY_BATCH])
        for subject in judged:
            output = runners[subject.artifact.manifest.id].run_at(images, subject.choice)
            answers[subject.id].append(output.logits.argmax(axis=1))
    reference = np.concatenate(answers[judged[0].id])
    found = {}
    for name, parts in answers.items():
        answer = np.concatenate(parts)
        top1 = None if dataset.labels is None else 100.0 * float((answer == dataset.labels).mean())
        found[name] = Accuracy(len(answer), top1, 100.0 * float((answer == reference).mean()))
    return found


def _variant(subject: Subject, accuracy: Accuracy | None) -> Variant:
    manifest = subject.artifact.manifest
    return Variant(
        id=subject.id,
        label=subject.label,
        baseline=manifest.baseline is None,
        model_sha256=manifest.files[MODEL_FILE],
        random_weights=manifest.weights.source is WeightsSource.RANDOM,
        accuracy=accuracy,
    )


def _rows(
    subjects: Sequence[Subject], runners: dict[str, Runner], dataset: Dataset, batch: int, options: BenchOptions
) -> list[Row]:
    """Times every subject on the same few batches of images, so that no one image stands for all."""
    distinct = max(1, min(_MOST_BATCHES, _TIMED_IMAGES // batch))
    count = distinct * batch
    # Drawn from all of the images and shuffled: a folder lists them class by class.
    sample = dataset.sample(max(count, _TIMED_IMAGES)).images
    order = np.random.default_rng(_ORDER_SEED).permutation(len(sample))
    images = next(iter(runners.values())).preprocess([sample[order[i % len(sample)]] for i in range(count)])
    parts = [slice(start, start + batch) for start in range(0, count, batch)]
    calls: dict[str, list[Callable[[], object]]] = {}
    kept: dict[str, NDArray[np.int32]] = {}
    for subject in subjects:
        runner, choices = runners[subject.artifact.manifest.id], subject.choices(count)
        calls[subject.id] = [call_for(runner, images[part], options.timing, choices.of(part)) for part in parts]
        kept[subject.id] = np.concatenate([runner.run_at(images[part], choices.of(part)).kept for part in parts])
    seconds = measure(calls, options.measuring)
    dense = subjects[0]
    return [
        make_row(
            batch=batch,
            variant=subject.id,
            seconds=seconds[subject.id],
            dense_seconds=None if subject is dense else seconds[dense.id],
            kept=kept[subject.id].tolist(),
            batches=distinct,
            macs=_mean_macs(subject.artifact.manifest, kept[subject.id]),
            dense_macs=dense.artifact.manifest.macs.dense,
        )
        for subject in subjects
    ]


def _mean_macs(manifest: Manifest, kept: NDArray[np.int32]) -> int:
    if manifest.pruning is None:
        return manifest.macs.dense
    geometry, prune_at = manifest.model.geometry, manifest.pruning.prune_at
    return round(sum(pruned_macs(geometry, prune_at, int(count)) for count in kept) / len(kept))


def _flips(
    subjects: Sequence[Subject],
    runners: dict[str, Runner],
    dataset: Dataset,
    options: BenchOptions,
    progress: Progress,
) -> tuple[list[Flips], list[str]]:
    if all(subject.artifact.manifest.pruning is None for subject in subjects):
        return [], []
    progress("how often kept sets and answers flip")
    images = next(iter(runners.values())).preprocess(list(dataset.sample(FLIP_IMAGES).images))
    return count_flips(subjects, runners, images, Setting(options.runtime, options.threads, max(options.batches)))


def _notes(dense: Manifest, variants: Sequence[Variant], rows: Sequence[Row]) -> list[str]:
    notes = []
    if dense.weights.source is WeightsSource.RANDOM:
        notes.append("WARNING: random weights: the answers mean nothing, only the speed does")
    elif not dense.weights.trained_sparse and len(variants) > 1:
        notes.append("these weights were never trained sparse: pruning costs them accuracy that training would save")
    labels = {variant.id: variant.label for variant in variants}
    for row in rows:
        notes += row_notes(row, labels[row.variant])
    for variant in variants:
        if not variant.baseline:
            notes.append(f"break-even: {variant.label} is {break_even_text(rows, variant.id)}")
    return notes


def break_even_text(rows: Sequence[Row], variant: str) -> str:
    """Says from which batch size on a variant is faster than dense by its whole interval."""
    smallest = break_even_batch(rows, variant)
    if smallest is not None:
        return f"faster than dense from batch {smallest} on"
    faster = sorted(row.batch for row in rows if row.variant == variant and row.speedup and row.speedup.low > 1)
    if not faster:
        return "not surely faster than dense at any batch size measured"
    return f"surely faster than dense at batch {', '.join(map(str, faster))} only"
