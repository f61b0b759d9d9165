"""What a manifest says of how tokens are chosen: operating points, what they keep and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sait_deploy.tokens import OperatingPoint, Score


@dataclass(frozen=True, slots=True)
class MacsInfo:
    """Multiply-accumulates per image, those of the dense baseline, and dense over this."""

    per_image: int
    dense: int
    ratio: float


@dataclass(frozen=True, slots=True)
class KeptInfo:
    """Patch tokens kept per image, over ``images`` images: mean, standard deviation, percentiles and the most."""

    images: int
    mean: float
    sd: float
    p5: float
    p95: float
    most: int

    @classmethod
    def of(cls, counts: NDArray[np.int32]) -> KeptInfo:
        """Returns what images keep, from patch tokens per image int32 [n], n >= 1."""
        p5, p95 = np.percentile(counts, (5, 95))
        return cls(len(counts), float(counts.mean()), float(counts.std()), float(p5), float(p95), int(counts.max()))


@dataclass(frozen=True, slots=True)
class PointInfo:
    """A named operating point: what it keeps, and its mean multiply-accumulates over the same images."""

    name: str
    point: OperatingPoint
    kept: KeptInfo
    macs: MacsInfo


@dataclass(frozen=True, slots=True)
class PruningInfo:
    """How tokens are chosen.

    Attributes:
        score: how importance is read off the attention.
        prune_at: block pruned in.
        density: the kept share of a density artifact, as a decimal; None for an adaptive one.
        points: named points, the default first; of a density artifact, its only one.
        importance: name of the graph's tensor that selection reads.
        keep: name of the graph's tensor that selection writes.
        threshold: multiple of uniform importance that a token must hold beyond the least that are kept, of an adaptive
            artifact; None for no such rule.
    """

    score: Score
    prune_at: int
    density: str | None
    points: tuple[PointInfo, ...]
    importance: str
    keep: str
    threshold: float | None = None

    def counts_differ(self, point: OperatingPoint) -> bool:
        """Returns whether images keep different numbers of tokens at a point."""
        limited = point.mass >= 1 and self.threshold is None
        return self.density is None and not limited and point.min_keep < point.max_keep
