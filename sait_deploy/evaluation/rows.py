"""The figures of a report, computed from answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import PointRequest, mass_point, threshold_point
from sait_deploy.evaluation.answerers import Answerer, Identity
from sait_deploy.evaluation.answers import TOP, Answers
from sait_deploy.evaluation.results import Basis, Comparison, EvaluationRow, Kind, Stratum
from sait_deploy.evaluation.retrieval import RetrievalTruth
from sait_deploy.evaluation.stats import paired_difference
from sait_deploy.evaluation.strata import Grouping, strata_of
from sait_deploy.tokens import OperatingPoint, density_point

_GIVEN: Final = re.compile(r"dense|(density|kept|random|random-kept|least-important)[0-9.]+")
"""Ids that rows get here; a point of such a name gets another id."""

_STRATIFIED: Final = (Kind.DENSITY, Kind.MASS, Kind.LOWER_RESOLUTION)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answerer and what it answered."""

    answerer: Answerer
    answers: Answers

    @property
    def identity(self) -> Identity:
        """What the answerer is in the report."""
        return self.answerer.identity


def of_density(density: Decimal, patch_tokens: int, kind: Kind = Kind.DENSITY) -> Identity:
    """Returns a density, or a control of as many tokens."""
    text = f"{density.normalize():f}"
    name = f"{kind.value.replace('-', ' ')} {text}"
    return Identity(f"{kind}{text}", name, kind, density_point(density, patch_tokens))


def of_count(kept: int, kind: Kind = Kind.DENSITY) -> Identity:
    """Returns the density that keeps so many patch tokens of every image, or a control of as many."""
    name, label = (f"kept{kept}", f"{kept} tokens")
    if kind is not Kind.DENSITY:
        name, label = f"{kind}-{name}", f"{kind.value.replace('-', ' ')} {label}"
    return Identity(name, label, kind, OperatingPoint(1.0, kept, kept))


def random_beside(row: str, kept: int) -> Identity:
    """Returns the control that keeps as many patch tokens as a row, chosen at random, with a name like the row's."""
    share = row.removeprefix(Kind.DENSITY)
    if share == row:
        return of_count(kept, Kind.RANDOM)
    return Identity(f"{Kind.RANDOM}{share}", f"{Kind.RANDOM} {share}", Kind.RANDOM, OperatingPoint(1.0, kept, kept))


def of_point(request: PointRequest, patch_tokens: int, threshold: float | None = None) -> Identity:
    """Returns a named point; where all images keep as many tokens there it counts as a density.

    Args:
        request: the point.
        patch_tokens: of an image.
        threshold: of the artifact that is asked; None where it has none.

    Raises:
        InvalidArgument: it keeps more than there are.
    """
    point = request.resolve(patch_tokens)
    fixed = (point.mass >= 1 and threshold is None) or point.min_keep == point.max_keep
    label = request.name
    whole = (point.min_keep, point.max_keep) == (1, patch_tokens)
    limits = "" if whole else f", {point.min_keep} to {point.max_keep}"
    rule = "" if threshold is None else f"threshold {threshold:.12g}"
    if threshold is not None and (label, point.mass) == (threshold_point(threshold).name, 1):
        label = rule + limits
    elif label == mass_point(point.mass).name:
        label = f"mass {point.mass:.12g}{limits}" + (rule and f", {rule}")
    name = f"point-{request.name}" if _GIVEN.fullmatch(request.name) else request.name
    return Identity(name, label, Kind.DENSITY if fixed else Kind.MASS, point)


def of_size(image_size: tuple[int, int]) -> Identity:
    """Returns the dense model on images of another size."""
    height, width = image_size
    name = str(height) if height == width else f"{height}x{width}"
    return Identity(f"{name}px", f"{name} px", Kind.LOWER_RESOLUTION, None)


class Truth:
    """What answers are compared with: labels, or dense's answers where there are none.

    Args:
        labels: int64 [n]; None where unknown.
        dense: dense's answers.
        classes: how many classes answers are chosen from; 0 where they are none.
    """

    def __init__(self, labels: NDArray[np.int64] | None, dense: Answers, classes: int) -> None:
        self.labels, self.dense = labels, dense
        self._classes, self._classifies = classes, classes > 0
        self._retrieval = RetrievalTruth(dense.nearest, labels) if dense.nearest.shape[1] else None

    @property
    def can_judge(self) -> bool:
        """Whether an image's answer can be right: there are classes, or images enough to be nearest to each other."""
        return self._classifies or (self._retrieval is not None and self._retrieval.can_judge)

    def right(self, answers: Answers) -> NDArray[np.bool_]:
        """Returns for each image whether the answer is right, or that of dense, bool [n].

        Without classes it is whether the image's neighbours are right; see ``RetrievalTruth.right``.
        """
        if not self._classifies:
            assert self._retrieval is not None
            return self._retrieval.right(answers.nearest)
        return self.agrees(answers) if self.labels is None else answers.right(self.labels)

    def agrees(self, answers: Answers) -> NDArray[np.bool_]:
        """Returns for each image whether the answer is dense's, bool [n]."""
        return answers.right(self.dense.top[:, 0])

    def row(self, one: Answered) -> EvaluationRow:
        """Returns a row of the report."""
        identity, model, answers, dense = one.identity, one.answerer.runner.description.model, one.answers, self.dense
        macs = float(answers.macs.mean())
        known = (self.right(answers), self.right(dense)) if self._classifies and self.labels is not None else None
        compared = known if known is not None and identity.kind is not Kind.DENSE else None
        five = self.labels if known is not None and self._classes > TOP else None
        retrieval = self._retrieval
        return EvaluationRow(
            id=identity.id,
            label=identity.label,
            kind=identity.kind,
            point=identity.point,
            image_size=model.image_size,
            top1_percent=None if known is None else _percent(known[0]),
            top5_percent=None if five is None else _percent(answers.right_among_top(five)),
            top1_change=None if compared is None else paired_difference(*compared),
            lost_percent=None if compared is None else _percent(compared[1] & ~compared[0]),
            gained_percent=None if compared is None else _percent(compared[0] & ~compared[1]),
            agreement_percent=_percent(self.agrees(answers)) if self._classifies else None,
            cosine_mean=float(answers.cosine.mean(dtype=np.float64)),
            cosine_p5=float(np.quantile(answers.cosine, 0.05)),
            kept_mean=float(answers.kept.mean()),
            kept_p95=float(np.quantile(answers.kept, 0.95)),
            kept_max=int(answers.kept.max()),
            macs=round(macs),
            mac_ratio=float(dense.macs.mean()) / macs,
            images_per_second=len(answers.kept) / answers.seconds,
            retrieval=None if retrieval is None or not retrieval.can_judge else retrieval.row(answers.nearest),
        )

    def comparison(self, first: Answered, second: Answered, basis: Basis) -> Comparison:
        """Returns how two rows of equal cost differ."""
        difference = paired_difference(self.right(first.answers), self.right(second.answers))
        return Comparison(first.identity.id, second.identity.id, basis, difference)

    def strata(self, rows: Sequence[Answered], groupings: Sequence[Grouping]) -> list[Stratum]:
        """Returns densities, masses and lower resolutions on each group of images; none where nothing is judged."""
        if not self.can_judge:
            return []
        dense, found = self.right(self.dense), []
        for grouping in groupings:
            for one in rows:
                if one.identity.kind in _STRATIFIED:
                    found += strata_of(one.identity.id, grouping, dense, self.right(one.answers), one.answers.kept)
        return found


def ordered(rows: Sequence[Answered]) -> list[Answered]:
    """Returns rows by kind, as they are listed in ``Kind``, and densities and lower resolutions from dear to cheap."""
    kinds = list(Kind)

    def place(one: Answered) -> tuple[int, float]:
        by_cost = one.identity.kind in (Kind.DENSITY, Kind.LOWER_RESOLUTION)
        return kinds.index(one.identity.kind), -float(one.answers.macs.mean()) if by_cost else 0.0

    return sorted(rows, key=place)


def _percent(true: NDArray[np.bool_]) -> float:
    return 100.0 * float(true.mean())
