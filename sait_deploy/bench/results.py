"""What a benchmark found: plain data, as it is written to JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sait_deploy.bench.group_results import Group, Skip, group_name
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.machine_results import PeakMemory, Roofline
from sait_deploy.reports.table import Note
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE
from sait_deploy.tokens import OperatingPoint, Score

SCHEMA_VERSION: Final = 6


class Timing(StrEnum):
    """Which part of a request the clock covers."""

    END_TO_END = "end-to-end"
    """From a float32 batch in host memory to logits in host memory."""

    COMPUTE = "compute"
    """The runtime's execution alone, on buffers bound beforehand."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with a 95 % bootstrap interval."""

    low: float
    median: float
    high: float


class AccuracyMeasure(StrEnum):
    """What counts as a right answer."""

    TOP1 = "top-1"
    """The image's label."""

    AGREEMENT = "agreement"
    """Where images have no labels, the answer of dense: in all groups that of the first group whose dense ran."""

    RETRIEVAL = "retrieval"
    """Of an evaluation of embeddings alone: accuracy by the nearest images, or of unlabelled ones dense's nearest."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a variant is right.

    Attributes:
        measure: what counts as right.
        images: images answered.
        percent: share of right answers.
        lost: images that the first dense to run is right on and this is not; None in reports that do not say it.
        gained: images that this alone is right on, likewise.
    """

    measure: AccuracyMeasure
    images: int
    percent: float
    lost: int | None = None
    gained: int | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a request's time goes, medians in milliseconds; see ``sait_deploy.runtime.answers.StageTimes``.

    Attributes:
        enqueue_ms: the host's time to start the work between the copies; it passes while the device computes.
        upload_ms: host to device.
        compute_ms: between the copies.
        download_ms: device to host.
    """

    enqueue_ms: float
    upload_ms: float
    compute_ms: float
    download_ms: float


@dataclass(frozen=True, slots=True)
class Pruning:
    """How a variant prunes.

    Attributes:
        density: share of the patch tokens that a density artifact keeps, as a decimal; None of an adaptive one.
        point: the operating point; None where numbers of tokens are forced.
        forced: the numbers that are forced; None where they follow from the point.
        score: how importance is read off the attention.
        prune_at: block pruned in.
        threshold: multiple of uniform importance that tokens must hold, of an adaptive one that has one.
    """

    density: str | None
    point: OperatingPoint | None
    forced: KeptDistribution | None
    score: Score
    prune_at: int
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One artifact at one operating point in one group.

    Attributes:
        id: the artifact's id, of an adaptive one the point, and the group.
        label: its short name in tables: "dense", "density 0.6", "mass 0.95".
        runtime: name of the runtime; with ``asked`` and ``device`` it names the group.
        asked: the precision asked for; None where it runs as its artifact or engine is made.
        artifact: the artifact's id. Empty in reports before schema 6, which do not say it.
        baseline: whether it is the dense baseline of the others in its group.
        weights_sha256: hash of the weights, from the artifact's manifest: the same in every form and precision.
            Empty in reports of schema 3, which do not say it.
        model_sha256: hash of the artifact's ONNX file, which engines are built from.
        random_weights: whether its weights were never trained.
        accuracy: None where it was not measured.
        pruning: how it prunes; None of dense. Reports before schema 5 do not say it, and have None of all.
        precision: of the weights and most activations, as they ran; None where nothing could run, and in reports before
            schema 5.
        device: where the runtime was asked to run.
    """

    id: str
    label: str
    runtime: str
    asked: RunPrecision | None
    artifact: str
    baseline: bool
    weights_sha256: str
    model_sha256: str
    random_weights: bool
    accuracy: Accuracy | None
    pruning: Pruning | None
    precision: str | None
    device: str = DEFAULT_DEVICE

    @property
    def group(self) -> str:
        """The name of its group."""
        return group_name(self.runtime, self.asked, self.device)


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One variant at one batch size.

    Attributes:
        batch: images per request.
        variant: id of the variant.
        seconds: raw samples, one per round; sample i of every variant of a batch size and group was taken in the
            same round.
        batches: different batches of images; round i runs batch i modulo that many.
        kept_mean: mean number of patch tokens kept per image; with p95 and the most.
        macs: mean multiply-accumulates per image.
        speedup: dense time over this variant's time, paired by round; None for the baseline itself, and where it cannot
            run.
        share: speed-up over MAC ratio.
        stages: where the time goes; None of a runtime that has no stages.
    """

    batch: int
    variant: str
    seconds: tuple[float, ...]
    batches: int
    kept_mean: float
    kept_p95: float
    kept_max: int
    macs: int
    p50_ms: float
    p99_ms: float
    images_per_second: float
    speedup: Interval | None
    mac_ratio: float
    share: float | None
    stages: Stages | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a variant has no figures.

    Attributes:
        variant: id of the variant.
        batches: at which batch sizes.
        reason: what is wrong, in one line.
        hint: what to do about it; may be empty.
        exit_code: of the kind of error that it is, see ``sait_deploy.errors``.
    """

    variant: str
    batches: tuple[int, ...]
    reason: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Flips:
    """How often images differ between two ways of running one variant.

    Attributes:
        variant: id of the variant.
        between: the two ways, in words.
        images: images compared.
        kept_sets_percent: share that keep other tokens.
        answers_percent: share whose top-1 is another.
    """

    variant: str
    between: str
    images: int
    kept_sets_percent: float
    answers_percent: float


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """One variant of a group in the last pass, in which one of each group takes turns with those of the others.

    Attributes:
        batch: images per request.
        variant: id of the variant: the group's dense baseline, or where that cannot run its first that can.
        seconds: one per round; sample i of all groups at a batch size is of the same round.
        batches: different batches of images; round i runs batch i modulo that many.
    """

    batch: int
    variant: str
    seconds: tuple[float, ...]
    batches: int


@dataclass(frozen=True, slots=True)
class OverFastest:
    """How many times as fast as the fastest dense of all groups a variant is.

    Attributes:
        batch: images per request.
        variant: id of the variant.
        fastest: id of the dense baseline that is the fastest at this batch size.
        speedup: the variant's ratio to the one of its group that ran in the last pass, paired by rounds in its group,
            times that one's ratio to the fastest dense, paired by rounds of the last pass. So no ratio is of times that
            were measured apart.
    """

    batch: int
    variant: str
    fastest: str
    speedup: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """A whole benchmark.

    Attributes:
        environment: the machine it ran on, name to value.
        options: how it was run, name to value.
        groups: what ran the variants, in the order measured: each by itself, with its own dense baseline.
        skipped: what was asked for and does not exist here.
        variants: what was to be measured.
        rows: what was.
        refusals: what could not be: every variant has a row or a refusal for every batch size.
        together: one variant of each group in turn; empty of one group, and in reports before schema 6.
        over_fastest: every row that can be compared with the fastest dense of all; likewise empty.
        memory: peak memory of the variants; None where it was not asked for.
        roofline: what the machine can do; None where it was not asked for.
        flips: how often kept sets and answers differ between batch sizes, threads and runtimes.
        notes: what a reader must know: fallbacks, wide spreads, random weights, break-even.
    """

    schema_version: int
    created: str
    model: str
    timing: Timing
    environment: dict[str, str]
    options: dict[str, str]
    groups: tuple[Group, ...]
    skipped: tuple[Skip, ...]
    variants: tuple[Variant, ...]
    rows: tuple[BenchRow, ...]
    refusals: tuple[Refusal, ...]
    together: tuple[TurnTimes, ...]
    over_fastest: tuple[OverFastest, ...]
    memory: tuple[PeakMemory, ...] | None
    roofline: Roofline | None
    flips: tuple[Flips, ...]
    notes: tuple[Note, ...]


def names_of(variants: Sequence[Variant]) -> dict[str, str]:
    """Returns variant id to the name that tells it from all others: the label, and of several groups which."""
    several = len({variant.group for variant in variants}) > 1
    return {v.id: f"{v.label} on {v.group}" if several else v.label for v in variants}
