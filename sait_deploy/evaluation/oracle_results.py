"""What an evaluation found about the tokens that images need: plain data, part of its report."""

from __future__ import annotations

from dataclasses import dataclass

from sait_deploy.evaluation.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Best:
    """A best choice of a number of tokens for each image: how right it is, and its points over a density, paired."""

    right_percent: float
    gain: Estimate


@dataclass(frozen=True, slots=True)
class Step:
    """One number of tokens that all images keep, and best choices for each image that cost as much on average.

    Without labels, an answer is right where it is dense's.

    Attributes:
        kept: patch tokens.
        macs: multiply-accumulates per image.
        stays_percent: share of images whose answer is dense's here and at all higher steps.
        stays_right_percent: share whose answer is right here and at all higher steps; None without labels.
        right_percent: share right here.
        best: where as many images as possible keep dense's answer, at this mean cost or less.
        best_by_label: where as many as possible stay right, or are by chance at the first step; None without labels.
    """

    kept: int
    macs: int
    stays_percent: float
    stays_right_percent: float | None
    right_percent: float
    best: Best
    best_by_label: Best | None


@dataclass(frozen=True, slots=True)
class MassInBound:
    """A mass beside the best choices for each image that cost as much on average.

    Attributes:
        row: its id.
        density: id of the density that costs as much, which all gains here are over.
        gain: points that the mass gains, paired by image.
        best: where as many images as possible keep dense's answer.
        best_by_label: where as many as possible stay right, or are by chance at the first step; None without labels.
        reached_percent: the mass's gain, in percent of the best's; None where the interval of the latter does not leave
            out zero.
        rank_correlation: Spearman's, of the tokens that images need with those that the mass keeps; None where all
            images need, or keep, as many.
        enough_percent: share of images of which the mass keeps as many as they need, or more.
        images: (needed, kept, images): how many images need and keep so many tokens.
    """

    row: str
    density: str
    gain: Estimate
    best: Best
    best_by_label: Best | None
    reached_percent: float | None
    rank_correlation: float | None
    enough_percent: float
    images: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Oracle:
    """The bound: what the fewest tokens for each image would reach.

    An image needs the fewest tokens among the steps from which on its answer stays dense's.

    Attributes:
        needed_mean: tokens needed, mean over images.
        steps: fewest tokens first, dense last.
        masses: in the order of their rows.
    """

    needed_mean: float
    steps: tuple[Step, ...]
    masses: tuple[MassInBound, ...]
