"""What a benchmark found: plain data, as it is written to JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SCHEMA_VERSION: Final = 2


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


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy in percent over ``images`` labelled images, and agreement with dense in percent over the same."""

    images: int
    top1_percent: float | None
    agreement_percent: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One artifact at one operating point.

    Attributes:
        id: the artifact's id, and of an adaptive one the point.
        label: its short name in tables: "dense", "density 0.6", "mass 0.95".
        baseline: whether it is the dense baseline of the others.
        model_sha256: hash of the file that ran.
        random_weights: whether its weights were never trained.
        accuracy: None where no image was given to measure it on.
    """

    id: str
    label: str
    baseline: bool
    model_sha256: str
    random_weights: bool
    accuracy: Accuracy | None


@dataclass(frozen=True, slots=True)
class Row:
    """One variant at one batch size.

    Attributes:
        batch: images per request.
        variant: id of the variant.
        seconds: raw samples, one per round; sample i of every variant of a batch size was taken in the same round.
        batches: different batches of images; round i runs batch i modulo that many.
        kept_mean: mean number of patch tokens kept per image; with p95 and the most.
        macs: mean multiply-accumulates per image.
        speedup: dense time over this variant's time, paired by round; None for the baseline itself.
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
class Report:
    """A whole benchmark.

    Attributes:
        environment: what it ran on, name to value.
        options: how it was run, name to value.
        flips: how often kept sets and answers differ between batch sizes, threads and runtimes.
        notes: what a reader must know: fallbacks, wide spreads, random weights, break-even.
    """

    schema_version: int
    created: str
    model: str
    runtime: str
    timing: Timing
    environment: dict[str, str]
    options: dict[str, str]
    variants: tuple[Variant, ...]
    rows: tuple[Row, ...]
    flips: tuple[Flips, ...]
    notes: tuple[str, ...]
