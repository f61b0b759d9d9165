"""What is asked of a recommendation, and what it says: plain data, as it is written to JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sait_deploy.bench.results import AccuracyMeasure
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.reports.table import Note
from sait_deploy.system.option_values import check_options

SCHEMA_VERSION: Final = 1

DEFAULT_DROP: Final = 0.5
"""Points that may be lost where no limit is given and accuracies are known."""


@dataclass(frozen=True, slots=True)
class RecommendOptions:
    """What the one to deploy has to keep to.

    With ``max_drop``, alone or with ``max_latency_ms``, it is the fastest that keeps to them; with ``max_latency_ms``
    alone the most accurate, or of those that images cannot tell from it the fastest. With neither, ``max_drop`` is
    ``DEFAULT_DROP``, or where no accuracy is known the fastest of all is taken.

    Attributes:
        max_drop: points of accuracy that may be lost to the reference.
        max_latency_ms: milliseconds that a request may take, by its median.
        batch: images per request; None for the fewest measured with ``max_latency_ms``, else for the most.

    Raises:
        InvalidArgument: a limit or batch that cannot be.
    """

    max_drop: float | None = None
    max_latency_ms: float | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and 0 <= self.max_drop <= 100):
            raise InvalidArgument(f"a drop of at most {self.max_drop:g} points cannot be", "give points from 0 to 100")
        if self.max_latency_ms is not None and not (math.isfinite(self.max_latency_ms) and self.max_latency_ms > 0):
            raise InvalidArgument(f"a latency of at most {self.max_latency_ms:g} ms cannot be", "give milliseconds")
        if self.batch is not None and self.batch < 1:
            raise InvalidArgument(f"{self.batch} images are no request", "give a whole number from 1")


class Verdict(StrEnum):
    """What the images say of a drop and its limit."""

    SHOWN = "shown to keep the limit"
    """The whole interval lies within it."""

    MEASURED = "keeps the limit, but the images cannot show it"
    """The measured drop lies within it, and its interval reaches beyond."""

    EXCEEDED = "exceeds the limit"
    """The measured drop does."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Points of accuracy lost to the reference; negative where more is right.

    Attributes:
        measure: what counts as right.
        images: images answered.
        points: lost, with a 95 % interval of differences paired by image.
    """

    measure: AccuracyMeasure
    images: int
    points: Estimate

    def verdict(self, limit: float) -> Verdict:
        """Returns what is known of the drop and a limit in points."""
        if self.points.value > limit:
            return Verdict.EXCEEDED
        return Verdict.SHOWN if self.points.high <= limit else Verdict.MEASURED


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point on one runtime in one precision, which could be deployed.

    Attributes:
        variant: id of the variant in the benchmark.
        label: "dense", "density 0.5", "mass 0.9".
        runtime: name of the runtime.
        precision: that it ran in; None where the benchmark does not say.
        baseline: whether it is dense.
        accuracy_percent: share of right answers; None where unknown.
        drop: points lost to the reference; None where unknown.
        latency_ms: median time of a request.
        p99_ms: 99th percentile of the same.
        images_per_second: throughput with such requests.
        speedup: times as fast as the fastest dense of all, measured in turns with it; None of all candidates where the
            benchmark does not have it of one.
        memory_bytes: peak memory of a process that runs it; None where it was not measured.
        on_front: whether none of the others is at least as good in accuracy, speed and memory, and better in one.
    """

    variant: str
    label: str
    runtime: str
    precision: str | None
    baseline: bool
    accuracy_percent: float | None
    drop: Drop | None
    latency_ms: float
    p99_ms: float
    images_per_second: float
    speedup: float | None
    memory_bytes: int | None
    on_front: bool = False

    @property
    def speed(self) -> float:
        """What is compared: the speed-up, or where there is none the throughput."""
        return self.images_per_second if self.speedup is None else self.speedup

    @property
    def name(self) -> str:
        """Its name in sentences: "mass 0.9 on openvino in bf16"."""
        return f"{self.label} on {self.runtime}" + (f" in {self.precision}" if self.precision else "")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which candidate to deploy.

    Attributes:
        model: the model's name.
        batch: images per request of all figures.
        max_drop: the limit that was judged by, given or assumed; None for none.
        max_latency_ms: likewise.
        reference: name of what drops are counted from; None where no accuracy is known.
        candidates: fastest first.
        chosen: variant of the one to deploy; None where none keeps to the limits.
        shown: variant of the fastest that images show to keep ``max_drop`` among those within ``max_latency_ms``.
        nearest: where none keeps to the limits, variant of the one that misses them by least.
        message: the choice in a sentence.
        commands: lines that use the choice; none where there is none, or its artifact is not at hand.
        notes: what was assumed, and what a reader must know.
    """

    schema_version: int
    model: str
    batch: int
    max_drop: float | None
    max_latency_ms: float | None
    reference: str | None
    candidates: tuple[Candidate, ...]
    chosen: str | None
    shown: str | None
    nearest: str | None
    message: str
    commands: tuple[str, ...]
    notes: tuple[Note, ...]

    def candidate(self, variant: str) -> Candidate:
        """Returns the candidate of a variant."""
        return next(one for one in self.candidates if one.variant == variant)


def to_json(recommendation: Recommendation) -> str:
    """Returns the recommendation as indented JSON."""
    return json.dumps(dataclasses.asdict(recommendation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
