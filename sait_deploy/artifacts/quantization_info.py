"""What the manifest of an int8 artifact says of how it was made, and of how it compares with the float one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Gate(StrEnum):
    """Whether an int8 artifact's answers were judged."""

    PASSED = "passed"
    """At every operating point enough of them are the float artifact's."""

    UNMEASURED = "unmeasured"
    """The weights are random, so answers mean nothing."""


@dataclass(frozen=True, slots=True)
class CalibrationInfo:
    """What the ranges of layers' inputs were read from.

    Attributes:
        source: where the images came from, in words.
        images: how many.
        classes: how many classes they are of; None where that is unknown.
        points: operating points that they were run at; empty of a dense artifact.
        method: how ranges and scales are made, in words.
    """

    source: str
    images: int
    classes: int | None
    points: tuple[str, ...]
    method: str


@dataclass(frozen=True, slots=True)
class ComparedPoint:
    """An int8 artifact beside the float one at one operating point, on the same held-out images.

    Attributes:
        name: of the point; None of a dense artifact.
        images: images compared.
        same_top1: images with the same top-1; None of a headless model.
        right: images that the int8 artifact has right; None where they have no labels.
        float_right: those that the float one has right.
        cosine: mean cosine similarity of the two outputs.
        kept: mean number of patch tokens that the int8 artifact keeps.
        float_kept: that of the float one.
        other_sets: images that keep another set of tokens; None of a dense artifact.
    """

    name: str | None
    images: int
    same_top1: int | None
    right: int | None
    float_right: int | None
    cosine: float
    kept: float
    float_kept: float
    other_sets: int | None

    @property
    def agreement(self) -> float:
        """Percent of images with the same top-1; of a headless model 100 times the mean cosine."""
        return 100 * (self.cosine if self.same_top1 is None else self.same_top1 / self.images)


@dataclass(frozen=True, slots=True)
class QuantizationInfo:
    """How an int8 artifact was made.

    Attributes:
        calibration: what its ranges were read from.
        quantized: linear layers in int8.
        kept_float: linear layers that are not, and why.
        gate: whether its answers were judged.
        min_agreement: percent of agreement that was asked for.
        compared: every operating point beside the float artifact's; empty where answers were not judged.
        compared_on: where the held-out images came from, in words; empty likewise.
    """

    calibration: CalibrationInfo
    quantized: tuple[str, ...]
    kept_float: dict[str, str]
    gate: Gate
    min_agreement: float
    compared: tuple[ComparedPoint, ...]
    compared_on: str
