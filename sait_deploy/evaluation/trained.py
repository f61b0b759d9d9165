"""Which densities and masses of an evaluation lie outside those that the weights were trained at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sait_deploy.evaluation.answerers import Identity
from sait_deploy.evaluation.results import Kind
from sait_deploy.tokens import kept_at_density, parse_density

if TYPE_CHECKING:
    from sait_deploy.models.weights import SparseTraining


def beyond_training(training: SparseTraining | None, asked: Sequence[Identity], patch_tokens: int) -> list[str]:
    """Returns a sentence for each bound of the training that densities or masses lie beyond.

    Args:
        training: how the weights were trained sparse; None, for which there are no sentences, where they were not, or
            where that is unknown.
        asked: densities and points; those that drop no token lie within any training.
        patch_tokens: N.
    """
    if training is None:
        return []
    least, most = (kept_at_density(parse_density(str(d)), patch_tokens) for d in (training.low, training.high))
    fixed = [(one.label, one.point.max_keep) for one in asked if one.point is not None and one.kind is Kind.DENSITY]
    masses = [(one.label, one.point.mass) for one in asked if one.point is not None and one.kind is Kind.MASS]
    lines = _outside(
        [label for label, kept in fixed if kept < least],
        [label for label, kept in fixed if most < kept < patch_tokens],
        f"density {training.low:g}",
        f"density {training.high:g}",
    )
    low, high = training.low_mass, training.high_mass
    if low is None or high is None:
        drawn = f"densities {training.low:g} to {training.high:g}"
        return lines + ([f"the weights never drew a mass in training, only {drawn}"] if masses else [])
    below = [label for label, mass in masses if mass < low]
    above = [label for label, mass in masses if high < mass < 1]  # at 1 a threshold alone decides
    return lines + _outside(below, above, f"mass {low:g}", f"mass {high:g}")


def _outside(below: Sequence[str], above: Sequence[str], lowest: str, highest: str) -> list[str]:
    found = []
    for labels, where in ((below, f"below {lowest}, the lowest"), (above, f"above {highest}, the highest")):
        if labels:
            be = "is" if len(labels) == 1 else "are"
            found.append(f"{', '.join(labels)} {be} {where} that the weights were trained at")
    return found
