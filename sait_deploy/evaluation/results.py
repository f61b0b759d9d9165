"""What an evaluation found: plain data, as it is written to JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sait_deploy.artifacts.codec import Codec
from sait_deploy.bench.oldforms import notes_with_severity
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.oracle_results import Oracle
from sait_deploy.reports.table import Note
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.system.reading import parse_json
from sait_deploy.tokens import OperatingPoint

SCHEMA_VERSION: Final = 3
_OLD: Final = (1, 2)

_CODEC: Final = Codec("the evaluation report", "evaluate again, or take the file as it was written", SCHEMA_VERSION)


class Kind(StrEnum):
    """What a row stands for."""

    DENSE = "dense"
    """Nothing pruned: what all other rows are compared with."""

    DENSITY = "density"
    """Every image keeps the same number of tokens."""

    MASS = "mass"
    """Every image keeps the tokens that reach a probability mass, within limits."""

    RANDOM = "random"
    """Control: as many tokens, chosen at random."""

    LEAST_IMPORTANT = "least-important"
    """Control: as many tokens, those of the least importance."""

    LOWER_RESOLUTION = "lower-resolution"
    """Rival: the dense model on smaller images, its position embeddings resampled."""


OFFERED: Final = (Kind.DENSE, Kind.DENSITY, Kind.MASS)
"""What a user chooses between."""


TOP1: Final = "top-1"
AGREEMENT: Final = "agreement"
"""Measures that rows with classes are compared by; ``Evaluation.measure``."""


class Basis(StrEnum):
    """What two compared rows have in common."""

    EQUAL_MACS = "equal MACs"
    """The second has at least as many multiply-accumulates as the first, as near as can be."""

    EQUAL_TIME = "equal time"
    """The second takes as long as the first in a benchmark, as near as can be."""


@dataclass(frozen=True, slots=True)
class Recall:
    """A measure of retrieval; ``evaluation.retrieval`` says how each is defined.

    Attributes:
        neighbours: k, how many nearest images count.
        percent: share of images for which it holds.
        change: points gained over dense, paired by image; None for dense.
    """

    neighbours: int
    percent: float
    change: Estimate | None


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well images find each other by their embeddings; ``evaluation.retrieval`` says how that is measured.

    Attributes:
        against_dense: recall of the image that is nearest by dense, by ascending k.
        between_classes: recall of an image of the same class, likewise; empty where classes are unknown.
        knn: accuracy of the class of most of the k nearest; None where classes are unknown, or images too few.
    """

    against_dense: tuple[Recall, ...]
    between_classes: tuple[Recall, ...]
    knn: Recall | None

    @property
    def main(self) -> Recall:
        """The measure that rows are compared by: the accuracy where there is one, else recall of dense's nearest."""
        return self.against_dense[0] if self.knn is None else self.knn

    @property
    def measure(self) -> str:
        """What ``main`` is called."""
        return "recall@1" if self.knn is None else f"{self.knn.neighbours}-NN accuracy"


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One way of answering all images.

    Attributes:
        id: unique in the report, such as ``density0.5``, ``mass0.9``, ``random0.5``, ``64px``.
        label: its name in tables.
        kind: what it stands for.
        point: the operating point; None where nothing is pruned.
        image_size: height and width of its input, pixels.
        top1_percent: share of images whose likeliest class is right; None without labels.
        top5_percent: share whose five likeliest classes hold the right one; None without labels or below six classes.
        top1_change: points of top-1 gained over dense, paired by image; None without labels, and for dense.
        lost_percent: share of images that dense has right and this has wrong; None likewise.
        gained_percent: share of images that dense has wrong and this has right; None likewise.
        agreement_percent: share of images with dense's top-1; 100 less is the churn. None for headless models.
        cosine_mean: mean cosine similarity to dense's logits, or features of a headless model.
        cosine_p5: their fifth percentile.
        kept_mean: patch tokens kept per image, mean; with p95 and the most. Of a lower resolution, all it has.
        macs: mean multiply-accumulates per image.
        mac_ratio: dense's over these.
        images_per_second: preprocessed images answered per second; one pass, not a benchmark.
        retrieval: of a model without classes; None of others, and of fewer than three images.
    """

    id: str
    label: str
    kind: Kind
    point: OperatingPoint | None
    image_size: tuple[int, int]
    top1_percent: float | None
    top5_percent: float | None
    top1_change: Estimate | None
    lost_percent: float | None
    gained_percent: float | None
    agreement_percent: float | None
    cosine_mean: float
    cosine_p5: float
    kept_mean: float
    kept_p95: float
    kept_max: int
    macs: int
    mac_ratio: float
    images_per_second: float
    retrieval: Retrieval | None = None

    @property
    def is_match(self) -> bool:
        """Whether it is a density that nobody named, there because it costs as much as another row."""
        return self.kind is Kind.DENSITY and self.point is not None and self.id == f"kept{self.point.max_keep}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rows that cost the same: top-1 of ``first`` less that of ``second``, in points, paired by image.

    Without labels it is the difference of their agreements with dense, and of a model without classes that of
    ``Retrieval.main``.
    """

    first: str
    second: str
    basis: Basis
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Stratum:
    """A row on some of the images.

    Attributes:
        row: id of the row.
        grouping: what the images are grouped by: "class", "kept at mass0.9", "digit size".
        name: which of the groups.
        images: how many they are.
        dense_top1_percent: dense on these; its agreement with itself, 100, without labels. Of a model without classes
            it is ``Retrieval.main``, and so is the change.
        top1_change: points gained over dense on these (of agreement without labels), paired by image.
        kept_mean: patch tokens kept per image on these.
    """

    row: str
    grouping: str
    name: str
    images: int
    dense_top1_percent: float
    top1_change: Estimate
    kept_mean: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A whole evaluation.

    Attributes:
        model: the model's name.
        weights_sha256: of the weights.
        trained_sparse: whether they were trained dense and sparse.
        score: how importance is read off the attention.
        prune_at: block pruned in.
        runtime: what answered.
        precision: what it ran in; None in reports before schema 3, which do not say it.
        images: images answered.
        image_source: where they came from.
        labelled: whether they have labels.
        environment: the machine it ran on, name to value.
        options: how it was run, name to value.
        rows: dense first.
        comparisons: rows that cost the same.
        strata: accuracy by group of images.
        notes: what a reader must know.
        oracle: what images need, and a bound for choosing tokens image by image; None where it was not asked for.
    """

    schema_version: int
    created: str
    model: str
    weights_sha256: str
    trained_sparse: bool
    score: str
    prune_at: int
    runtime: str
    precision: str | None
    images: int
    image_source: str
    labelled: bool
    environment: dict[str, str]
    options: dict[str, str]
    rows: tuple[EvaluationRow, ...]
    comparisons: tuple[Comparison, ...]
    strata: tuple[Stratum, ...]
    notes: tuple[Note, ...]
    oracle: Oracle | None = None

    @property
    def measure(self) -> str:
        """What rows are compared by: top-1, agreement with dense, or a measure of retrieval."""
        dense = self.rows[0]
        if dense.agreement_percent is None and dense.retrieval is not None:
            return dense.retrieval.measure
        return TOP1 if self.labelled else AGREEMENT

    @property
    def answered_by(self) -> str:
        """The runtime, and the precision where that is not the fp32 that models are exported in."""
        return self.runtime if self.precision in (None, RunPrecision.FP32) else f"{self.runtime} {self.precision}"


def to_json(evaluation: Evaluation) -> str:
    """Returns the evaluation as indented JSON; retrieval, which older reports have not, only where there is one.

    Raises:
        ValueError: a number is not finite.
    """
    fields = dataclasses.asdict(evaluation)
    if evaluation.oracle is None:
        del fields["oracle"]
    for row in fields["rows"]:
        if row["retrieval"] is None:
            del row["retrieval"]
    return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Evaluation:
    """Reads an evaluation, checking every field's presence and type.

    Raises:
        ArtifactError: it is no JSON, of a schema version but 1 to 3, or a field is missing, unknown or of
            another type.
    """
    return _CODEC.read(Evaluation, _upgraded(text))


def _upgraded(text: str) -> str:
    """Returns the text of a report of schema 1 or 2 in the form of 3, and any other text as it is.

    Schema 2 does not say the precision; notes of schema 1 have no severity either.
    """
    try:
        data = parse_json(text)
    except ValueError:
        return text
    if (
        not isinstance(data, dict)
        or type(data.get("schema_version")) is not int
        or data["schema_version"] not in (1, 2)
    ):
        return text
    return json.dumps(data | {"schema_version": 3, "precision": None, "notes": notes_with_severity(data.get("notes"))})
