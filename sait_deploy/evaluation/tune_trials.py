"""Candidate points in the order in which they are tried, and what each of them costs and loses on a set of images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

import numpy as np

from sait_deploy.artifacts.points import PointChoice, mass_point
from sait_deploy.artifacts.pruning_info import KeptInfo, MacsInfo
from sait_deploy.artifacts.tuned_points import Measure
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.answerers import Answerer, Identity
from sait_deploy.evaluation.answers import Answers, Collector
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.retrieval import recalled
from sait_deploy.evaluation.tune_limits import RECALLS, Judgement, Limit, Losses, Verdict, until_failure
from sait_deploy.images.dataset import Dataset
from sait_deploy.runtime.base import Runner
from sait_deploy.system.progress import Progress
from sait_deploy.tokens import Geometry, OperatingPoint, dense_macs, density_point

GRID: Final = (
    *(0.999, 0.99, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.85, 0.82, 0.79, 0.76, 0.73, 0.7),
    *(0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1),
)
"""Shares from safe to cheap. One more costs time and no certainty: each is tested at the full confidence."""

_AT_ONCE: Final = 3
"""Candidates asked in one pass over the images: decoding is shared, and at most this many less one asked in vain."""

_DENSE: Final = "dense"

_NEIGHBOURS: Final = {measure: neighbours for neighbours, measure in RECALLS.items()}


class PointFamily(StrEnum):
    """What runs along a sequence of candidates."""

    MASS = "mass"
    """Every image keeps what reaches a share of its importance."""

    DENSITY = "density"
    """Every image keeps the same share of its tokens."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point of a sequence."""

    family: PointFamily
    share: float
    point: OperatingPoint

    @property
    def label(self) -> str:
        """Its name in tables: "mass 0.97"."""
        return f"{self.family} {self.share:.12g}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What a candidate kept, cost and lost on the calibration images.

    Attributes:
        artifact: id of the artifact that ran at the point.
        name: name of its folder.
        candidate: the point.
        kept: patch tokens kept.
        macs: mean multiply-accumulates per image, dense's and their ratio.
        judgement: the loss, its bound and the verdict.
        images_to_decide: about how many images like these it would take to pass, of an undecided one; None where more
            than can be asked for.
        dense_percent: of labelled images that dense is right on; None without labels.
    """

    artifact: str
    name: str
    candidate: Candidate
    kept: KeptInfo
    macs: MacsInfo
    judgement: Judgement
    images_to_decide: int | None
    dense_percent: float | None = None

    @property
    def passes(self) -> bool:
        """Whether it keeps to the limit with confidence."""
        return self.judgement.verdict is Verdict.PASSES


def check_grid(grid: Sequence[float]) -> None:
    """Checks that shares run from safe to cheap.

    Raises:
        InvalidArgument: none are given, one is outside (0, 1), or one is not below the one before it.
    """
    if not grid or not all(0 < share < 1 for share in grid):
        raise InvalidArgument(f"the grid {_listed(grid)} has no shares in (0, 1)", "give such as 0.99,0.95,0.9")
    if any(later >= earlier for earlier, later in itertools.pairwise(grid)):
        raise InvalidArgument(f"the grid {_listed(grid)} does not fall throughout", "give such as 0.99,0.95,0.9")


def _listed(grid: Sequence[float]) -> str:
    return ",".join(f"{share:g}" for share in grid) or "''"


def candidates(
    family: PointFamily, grid: Sequence[float], geometry: Geometry, min_keep: int = 1, max_keep: int | None = None
) -> list[Candidate]:
    """Returns a family's candidates from safe to cheap; densities that keep all, or as many as one before, are out.

    Args:
        family: masses or densities.
        grid: shares, from safe to cheap.
        geometry: of the model.
        min_keep: patch tokens that an image keeps at least at any mass.
        max_keep: likewise at most; None for all.

    Raises:
        InvalidArgument: limits that no image of the model can keep to.
    """
    patches = geometry.patch_tokens
    if family is PointFamily.MASS:
        requests = [mass_point(share, min_keep, max_keep) for share in grid]
        return [Candidate(family, request.mass, request.resolve(patches)) for request in requests]
    points = {density_point(Decimal(f"{share:.15g}"), patches): share for share in reversed(grid)}
    return [Candidate(family, share, p) for p, share in reversed(points.items()) if p.max_keep < patches]


class Judge:
    """Tries points of one artifact on one set of images.

    Args:
        runner: the artifact, ready to run.
        dataset: the images, with labels where the limit is on a drop.
        limit: what to hold candidates to.
        batch: images asked about at once.
        progress: reports each pass over the images, and how much of it is done.
    """

    def __init__(self, runner: Runner, dataset: Dataset, limit: Limit, batch: int, progress: Progress) -> None:
        self._runner, self._dataset, self._limit = runner, dataset, limit
        self._collector = Collector(dataset, batch, progress)
        self._dense: Answers | None = None

    def until_failure(self, sequence: Sequence[Candidate]) -> Iterator[Trial]:
        """Tries candidates in their order, up to the first that does not pass, that one included."""
        parts = (sequence[start : start + _AT_ONCE] for start in range(0, len(sequence), _AT_ONCE))
        each = itertools.chain.from_iterable(map(self.trials, parts))
        yield from until_failure(each, lambda trial: trial.passes)

    def trials(self, chosen: Sequence[Candidate]) -> list[Trial]:
        """Tries candidates in one pass over the images, and dense where it was not asked yet."""
        dense_first = [] if self._dense is not None else [self._answerer(None)]
        found = self._collector.collect([*dense_first, *map(self._answerer, chosen)])
        dense = self._dense = found[_DENSE] if self._dense is None else self._dense
        return [self._trial(candidate, found[candidate.label], dense) for candidate in chosen]

    def _answerer(self, candidate: Candidate | None) -> Answerer:
        """Returns what answers at a point; where all tokens are the least to keep, the graph is the dense model."""
        if candidate is None:
            patches = self._runner.artifact.manifest.model.geometry.patch_tokens
            everything = PointChoice(mass=1.0, min_keep=patches, max_keep=patches)
            return Answerer(Identity(_DENSE, _DENSE, Kind.DENSE, None), self._runner, everything)
        kind, point = Kind(candidate.family), candidate.point
        return Answerer(Identity(candidate.label, candidate.label, kind, point), self._runner, PointChoice.of(point))

    def _trial(self, candidate: Candidate, answers: Answers, dense: Answers) -> Trial:
        artifact, losses = self._runner.artifact, self._losses(answers, dense)
        whole, macs = dense_macs(artifact.manifest.model.geometry), round(float(answers.macs.mean()))
        judgement = self._limit.judge(losses)
        undecided = judgement.verdict is Verdict.UNDECIDED
        return Trial(
            artifact.manifest.id,
            artifact.path.name,
            candidate,
            KeptInfo.of(answers.kept),
            MacsInfo(macs, whole, whole / macs),
            judgement,
            self._limit.images_to_decide(losses) if undecided else None,
            self._percent_right(dense),
        )

    def _percent_right(self, answers: Answers) -> float | None:
        labels = self._dataset.labels
        if labels is None or not answers.top.shape[1]:  # unlabelled, or without classes
            return None
        return 100 * float(answers.right(labels).mean())

    def _losses(self, answers: Answers, dense: Answers) -> Losses:
        if self._limit.measure is Measure.COSINE:
            distance: Losses = 1 - answers.cosine.astype(np.float64)
            return distance
        if self._limit.measure is Measure.DISAGREEMENT:
            differs: Losses = (answers.top[:, 0] != dense.top[:, 0]).astype(np.int8)
            return differs
        if self._limit.measure in _NEIGHBOURS:
            missed: Losses = (~recalled(dense.nearest, answers.nearest, _NEIGHBOURS[self._limit.measure])).astype(
                np.int8
            )
            return missed
        labels = self._dataset.labels
        assert labels is not None
        drop: Losses = dense.right(labels).astype(np.int8) - answers.right(labels).astype(np.int8)
        return drop
