"""Limits on what pruning may cost, and how a sample of images decides whether an operating point keeps to one.

A sample is one number per image, its loss against the dense model: of a drop 1 where dense alone is right, -1 where the
point alone is and 0 elsewhere; of disagreement 1 where the answers differ; of features one less their cosine; of recall
1 where the image nearest by dense is not found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.tuned_points import Measure
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation import stats

RECALLS: Final = {1: Measure.RECALL_AT_1, 5: Measure.RECALL_AT_5, 10: Measure.RECALL_AT_10}
"""Recall among how many nearest images is which measure."""

Losses: TypeAlias = NDArray[Any]
"""One loss per image: int8, or float32 of features."""

Tried = TypeVar("Tried")

_MOST_IMAGES: Final = 100_000
_DIGITS: Final = 2


class Verdict(StrEnum):
    """What a sample says of a limit."""

    PASSES = "passes"
    """Its upper bound is within the limit."""

    UNDECIDED = "undecided"
    """The sample itself is within the limit, its upper bound is not."""

    EXCEEDS = "exceeds"
    """The sample itself is beyond the limit."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A sample's mean loss and its one-sided upper bound, percent, and what they say of the limit."""

    value_percent: float
    bound_percent: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit on a measure that is to be kept with confidence.

    Attributes:
        measure: what is limited.
        percent: the limit, in (0, 100); of a drop, points.
        confidence: of the upper bound, in [0.5, 1).

    Raises:
        InvalidArgument: a limit or confidence outside these.
    """

    measure: Measure
    percent: float
    confidence: float

    def __post_init__(self) -> None:
        if not 0 < self.percent < 100:
            raise InvalidArgument(
                f"a limit of {self.percent:g} % cannot be shown to hold", "give one above 0 and below 100, such as 0.5"
            )
        if not 0.5 <= self.confidence < 1:
            raise InvalidArgument(f"confidence {self.confidence:g} is outside [0.5, 1)", "give one such as 0.95")

    def shared(self, sequences: int) -> Limit:
        """Returns this limit for each of several sequences: all together err no more often than one would."""
        return Limit(self.measure, self.percent, 1 - (1 - self.confidence) / sequences)

    def judge(self, losses: Losses) -> Judgement:
        """Judges a sample.

        Args:
            losses: one per image, [n], n >= 1.
        """
        value = 100 * float(np.mean(losses, dtype=np.float64))
        bound = self._bound(losses, len(losses))
        within = Verdict.UNDECIDED if value <= self.percent else Verdict.EXCEEDS
        return Judgement(value, bound, Verdict.PASSES if bound <= self.percent else within)

    def images_needed(self) -> int:
        """Returns how many images it takes at least: as many as pass without a single loss among them."""
        if self.measure is not Measure.COSINE:
            return stats.images_needed(self.percent, self.confidence)
        needed = self._fewest(np.zeros(1), 1)
        if needed is None:
            raise InvalidArgument(f"a limit of {self.percent:g} % needs more than {_MOST_IMAGES} images")
        return needed

    def images_to_decide(self, losses: Losses) -> int | None:
        """Returns about how many images it would take to pass, were they all like these; None where none would do.

        It is rounded up to two digits: the loss among others will differ.
        """
        if 100 * float(np.mean(losses, dtype=np.float64)) >= self.percent:
            return None
        fewest = self._fewest(losses, len(losses))
        if fewest is None:
            return None
        unit: int = 10 ** max(0, len(str(fewest)) - _DIGITS)
        return math.ceil(fewest / unit) * unit

    def _fewest(self, losses: Losses, start: int) -> int | None:
        """Returns the least multiple of the sample that passes, as a number of images."""
        high = start
        while self._bound(losses, high) > self.percent:
            high *= 2
            if high > _MOST_IMAGES:
                return None
        low = high // 2
        while high - low > max(1, high // 1000):
            middle = (low + high) // 2
            low, high = (low, middle) if self._bound(losses, middle) <= self.percent else (middle, high)
        return high

    def _bound(self, losses: Losses, images: int) -> float:
        """Returns the upper bound of that many images like these, percent."""
        if self.measure is Measure.COSINE:
            return 100 * (1 - stats.mean_lower_bound(1 - np.resize(losses, images), self.confidence))
        lost = math.ceil(int((losses > 0).sum()) * images / len(losses))
        if self.measure is not Measure.DROP:
            return stats.upper_bound(lost, images, self.confidence)
        gained = int((losses < 0).sum()) * images // len(losses)
        return stats.drop_upper_bound(lost, min(gained, images - lost), images, self.confidence)


def until_failure(tried: Iterable[Tried], passes: Callable[[Tried], bool]) -> Iterator[Tried]:
    """Yields candidates up to the first that does not pass, that one included.

    The order must be set before the sample is seen. Then each may be tested at the full confidence: one beyond the
    limit is reached and passes only if the first such of the order does, and that is one test, not many.
    """
    for candidate in tried:
        yield candidate
        if not passes(candidate):
            return
