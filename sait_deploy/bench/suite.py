"""The bench stage: artifacts in, a report out."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sait_deploy.artifact import MODEL_FILE, Artifact, Workspace, open_artifact
from sait_deploy.bench.measure import MeasureOptions, measure
from sait_deploy.bench.results import SCHEMA_VERSION, Accuracy, Report, Row, Timing, Variant
from sait_deploy.bench.stats import break_even_batch, make_row, row_notes
from sait_deploy.dataset import Dataset, evaluation_dataset, folder_dataset
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.manifest import Manifest, WeightsSource
from sait_deploy.runtime import Runner, RunOptions, RuntimeName, load
from sait_deploy.runtime.onnxruntime import processors
from sait_deploy.schedule import Score, default_prune_at

ACCURACY_BATCH: Final = 32
MOST_ACCURACY_IMAGES: Final = 2000

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
    """

    batches: tuple[int, ...] = (1, 8, 32)
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME
    threads: int | None = None
    images: Path | None = None
    timing: Timing = Timing.END_TO_END
    warmup: int = 3
    duration: float = 10.0

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
        SaitError: an artifact cannot run on the runtime, or an image cannot be read.
    """
    started = load_average()
    run_options = RunOptions(threads=options.threads)
    runners = {a.manifest.id: load(a, options.runtime, run_options) for a in artifacts}
    dense = artifacts[0].manifest
    dataset = _dataset(dense, options)
    accuracy: dict[str, Accuracy] = {}
    if dense.weights.source is not WeightsSource.RANDOM and dense.model.classes:
        progress(f"accuracy on {dataset.source}")
        accuracy = _accuracy(runners, dataset, dense)
    variants = tuple(_variant(a, accuracy.get(a.manifest.id)) for a in artifacts)
    rows: list[Row] = []
    for batch in options.batches:
        turns = f"{len(runners)} variants in turn" if len(runners) > 1 else "dense alone"
        progress(f"batch {batch}: {turns}, {options.duration:g} s")
        rows += _rows(runners, artifacts, dataset, batch, options)
    environment = _environment(runners[dense.id], options.threads) | {"load average at start": started}
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=dense.model.name,
        runtime=options.runtime.value,
        timing=options.timing,
        environment=environment,
        options={
            "images": dataset.source,
            "warm-up rounds": str(options.warmup),
            "seconds per batch": f"{options.duration:g}",
            "thread spinning": "off",
        },
        variants=variants,
        rows=tuple(rows),
        notes=tuple(_notes(dense, variants, rows)),
    )


def _dataset(manifest: Manifest, options: BenchOptions) -> Dataset:
    if options.images is None:
        return evaluation_dataset(manifest.model.name)
    return folder_dataset(options.images, manifest.model.labels, manifest.model.classes).sample(MOST_ACCURACY_IMAGES)


def _accuracy(runners: dict[str, Runner], dataset: Dataset, dense: Manifest) -> dict[str, Accuracy]:
    """Top-1 and agreement with dense; each image is decoded once for all variants."""
    answers: dict[str, list[np.ndarray[tuple[int], np.dtype[np.int64]]]] = {name: [] for name in runners}
    for start in range(0, len(dataset.images), ACCURACY_BATCH):
        images = runners[dense.id].preprocess(dataset.images[start : start + ACCURACY_BATCH])
        for name, runner in runners.items():
            answers[name].append(runner.run(images).logits.argmax(axis=1))
    reference = np.concatenate(answers[dense.id])
    found = {}
    for name, parts in answers.items():
        answer = np.concatenate(parts)
        top1 = None if dataset.labels is None else 100.0 * float((answer == dataset.labels).mean())
        found[name] = Accuracy(len(answer), top1, 100.0 * float((answer == reference).mean()))
    return found


def _variant(artifact: Artifact, accuracy: Accuracy | None) -> Variant:
    manifest = artifact.manifest
    return Variant(
        id=manifest.id,
        label=_label(manifest),
        baseline=manifest.baseline is None,
        macs=manifest.macs.per_image,
        model_sha256=manifest.files[MODEL_FILE],
        random_weights=manifest.weights.source is WeightsSource.RANDOM,
        accuracy=accuracy,
    )


def _label(manifest: Manifest) -> str:
    """Names a variant in tables by its density, and by what of its pruning is not the default."""
    pruning = manifest.pruning
    if pruning is None:
        return "dense"
    parts = [f"density {pruning.density}"]
    if pruning.prune_at != default_prune_at(manifest.model.geometry.depth):
        parts.append(f"block {pruning.prune_at}")
    if pruning.score is not Score.MEAN:
        parts.append(f"{pruning.score} score")
    return ", ".join(parts)


def _rows(
    runners: dict[str, Runner], artifacts: Sequence[Artifact], dataset: Dataset, batch: int, options: BenchOptions
) -> list[Row]:
    dense = artifacts[0].manifest
    chosen = [dataset.images[i % len(dataset.images)] for i in range(batch)]
    images = runners[dense.id].preprocess(chosen)
    kept = {name: runner.run(images).kept.tolist() for name, runner in runners.items()}
    seconds = measure(runners, images, options.measuring)
    return [
        make_row(
            batch=batch,
            variant=artifact.manifest.id,
            seconds=seconds[artifact.manifest.id],
            dense_seconds=None if artifact.manifest.id == dense.id else seconds[dense.id],
            kept=kept[artifact.manifest.id],
            macs=artifact.manifest.macs.per_image,
            dense_macs=dense.macs.per_image,
        )
        for artifact in artifacts
    ]


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


def _environment(runner: Runner, threads: int | None) -> dict[str, str]:
    found = {
        "processor": processor_name(),
        "processors usable": str(processors()),
        "threads": str(processors() if threads is None else threads),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return found | runner.environment


def processor_name() -> str:
    """Returns the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> str:
    """Returns how busy the machine was over the last 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
