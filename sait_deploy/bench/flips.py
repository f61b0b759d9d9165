"""How often the same image keeps other tokens, or gets another answer, when only the way of running it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Precision, WeightsSource
from sait_deploy.artifacts.precisions import float_of
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.results import Flips
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.errors import SaitError
from sait_deploy.reports.table import Note
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.batches import portions
from sait_deploy.runtime.embeddings import means_of_images, nearest, unit_length
from sait_deploy.runtime.registry import ONNXRUNTIME, find_runtime
from sait_deploy.system.processors import processors
from sait_deploy.system.progress import Progress, no_progress

IMAGES: Final = 48
_LARGE: Final = 8
"""Batch size that others are compared with, unless a larger one is measured."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What one way of running said of each image: keep int32 [n, P+N], and its answer, [n], as ``answers_of`` says."""

    keep: NDArray[np.int32]
    answers: NDArray[np.int_]


@dataclass(frozen=True, slots=True)
class Setting:
    """How the benchmark runs: what flips are counted against.

    Attributes:
        group: what is measured: a runtime in a precision.
        threads: threads within one operator; None for all processors.
        batch: the largest batch measured.
        before: runtimes that flips were counted of already, not to say the same thing twice.
    """

    group: GroupPlan
    threads: int | None
    batch: int
    before: tuple[str, ...] = ()


def count_flips(
    variants: Sequence[RunnableVariant],
    runners: dict[str, Runner],
    images: NDArray[np.float32],
    setting: Setting,
    progress: Progress = no_progress,
) -> tuple[list[Flips], list[Note]]:
    """Compares kept sets and answers between batch sizes, thread counts and runtimes.

    Args:
        variants: what is measured; dense ones select nothing and are left out.
        runners: artifact id to its runner.
        images: float32 [n, 3, H, W].
        setting: the benchmark's runtime, threads and largest batch.
        progress: reports how many of the variants are compared.

    Returns:
        One entry for each pruned variant and comparison, and notes on comparisons that could not be made.
    """
    found: list[Flips] = []
    notes: list[Note] = []
    artifacts = {s.artifact.manifest.id: s.artifact for s in variants if s.artifact.manifest.pruning is not None}
    others = {name: list(_others(artifact, setting, notes)) for name, artifact in artifacts.items()}
    step = f"how often kept sets and answers flip, on {len(images)} images"
    pruned = [variant for variant in variants if variant.artifact.manifest.id in artifacts]
    for number, variant in enumerate(pruned):
        progress(step, number / len(pruned))
        name = variant.artifact.manifest.id
        runner = runners[name]
        fewest, most = runner.batch_range
        batch = min(max(_LARGE, setting.batch, fewest), max(len(images), fewest), most)
        alone = f"batch {fewest} and {batch}"
        ways = [*([] if batch == fewest else [(alone, runner, fewest)]), *((*way, batch) for way in others[name])]
        try:
            base = _run(runner, variant, images, batch)
        except SaitError as error:
            notes += [_uncompared(words, error.message) for words, *_ in ways]
            continue
        for words, other, size in ways:
            try:
                run = _run(other, variant, images, size)
            except SaitError as error:
                notes.append(_uncompared(words, error.message))
                continue
            kept = 100.0 * float((run.keep != base.keep).any(axis=1).mean())
            answers = 100.0 * float((run.answers != base.answers).mean())
            found.append(Flips(variant.id, words, len(images), kept, answers))
    progress(step, 1.0)
    return found, list(dict.fromkeys(notes))


def _others(artifact: Artifact, setting: Setting, notes: list[Note]) -> Iterator[tuple[str, Runner]]:
    """Yields the artifact on one thread, and on another runtime or in another precision where there is one."""
    threads = processors() if setting.threads is None else setting.threads
    attempts: list[tuple[str, Callable[[], Runner]]] = []
    if threads > 1 and find_runtime(setting.group.runtime).own_threads:
        alone = setting.group.running(threads=1)
        attempts.append((f"1 and {threads} threads", lambda: load(artifact, setting.group.runtime, alone)))
    attempts += _on_another(artifact, setting, RunOptions(threads=threads), notes)
    for words, attempt in attempts:
        try:
            yield words, attempt()
        except SaitError as error:
            notes.append(_uncompared(words, error.message))


def _on_another(
    artifact: Artifact, setting: Setting, options: RunOptions, notes: list[Note]
) -> Iterator[tuple[str, Callable[[], Runner]]]:
    """Yields what an int8 artifact was made from, on ONNX Runtime; or the artifact on its runtime's other one."""
    if artifact.manifest.dtype is Precision.INT8:
        yield (
            f"{setting.group.name} and the float artifact on {ONNXRUNTIME}",
            lambda: load(float_of(artifact), options=options),
        )
        return
    rival = find_runtime(setting.group.runtime).compared_with
    words = f"{setting.group.name} and {rival}"
    if find_runtime(rival).from_weights and artifact.manifest.weights.source is WeightsSource.PRETRAINED:
        notes.append(_uncompared(words, "the weights would have to be downloaded again"))
    elif rival not in setting.before or find_runtime(rival).compared_with != setting.group.runtime:
        yield words, lambda: load(artifact, rival, options)


def _uncompared(words: str, why: str) -> Note:
    return Note(f"kept sets were not compared between {words}: {why}")


def _run(runner: Runner, variant: RunnableVariant, images: NDArray[np.float32], batch: int) -> _Run:
    choices, keep, logits = variant.choices(len(images)), [], []
    model = variant.artifact.manifest.model
    for numbers in portions(len(images), batch, runner.batch_range):
        selection = runner.select_at(images[numbers], choices.of(numbers))
        keep.append(selection.keep)
        found = selection.logits
        if model.tower is not None:
            left_out = model.tower.left_out(model.geometry.prefix_tokens)
            found = means_of_images(found, selection.keep.sum(axis=1) - left_out)
        logits.append(found)
    answers = answers_of(np.concatenate(logits)[: len(images)], model.classes)
    return _Run(np.concatenate(keep)[: len(images)], answers)


def answers_of(logits: NDArray[np.float32], classes: int) -> NDArray[np.int_]:
    """Returns the likeliest class of each image, [n]; of a model without classes, the image that is nearest to it.

    Args:
        logits: float32 [n, classes], or embeddings [n, D]; of an image tower the means of each image's tokens.
        classes: of the model; 0 without any.
    """
    likeliest: NDArray[np.int_] = logits.argmax(axis=1)
    return likeliest if classes or len(logits) < 2 else nearest(unit_length(logits), 1)[:, 0].astype(np.int_)


def flip_notes(flips: Sequence[Flips], labels: dict[str, str]) -> list[Note]:
    """Says in a line for each variant how often kept sets and answers flipped, and in one for all where none did."""
    lines: list[str] = []
    steady: dict[tuple[str, ...], list[Flips]] = {}
    for variant in dict.fromkeys(flip.variant for flip in flips):
        own = [flip for flip in flips if flip.variant == variant]
        if not any(flip.kept_sets_percent or flip.answers_percent for flip in own):
            steady.setdefault(tuple(flip.between for flip in own), []).append(own[0])
            continue
        parts = [f"{f.kept_sets_percent:.1f} % and {f.answers_percent:.1f} % between {f.between}" for f in own]
        lines.append(f"{labels[variant]}, of {_images(own[0])}, kept sets and answers differ: {'; '.join(parts)}")
    for ways, first in steady.items():
        names = ", ".join(labels[flip.variant] for flip in first)
        lines.append(f"no kept set and no answer of {_images(first[0])} differs between {'; '.join(ways)}: {names}")
    return [Note(line) for line in lines]


def _images(flip: Flips) -> str:
    return "1 image" if flip.images == 1 else f"{flip.images} images"
