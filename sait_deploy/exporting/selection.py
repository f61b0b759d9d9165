"""Holds what a runtime selected against the reference selection of the same importance, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import ParityError
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.plugins.mass_token_select.threshold import limits_by_threshold
from sait_deploy.runtime.answers import Selection


def reference_keep(
    importance: NDArray[np.float32], asked: BatchPoint, prefix: int, threshold: float | None
) -> NDArray[np.int32]:
    """Returns what the reference selection keeps, int32 [B, P+N]; arguments as :func:`check_selection` takes them.

    Args:
        importance: float32 [B, N].
        asked: the operating points of the images.
        prefix: prefix tokens.
        threshold: of the artifact; None where it has none.
    """
    limits = asked.keep_limits
    if threshold is not None:
        limits = limits_by_threshold(importance, limits, threshold)
    return mass_token_select(importance, asked.mass, limits, prefix)[0]


def check_selection(
    selection: Selection, asked: BatchPoint, prefix: int, first: int, threshold: float | None = None
) -> None:
    """Compares kept tokens with the reference selection of the same importance, bit for bit.

    Args:
        selection: what a runner selected.
        asked: the operating points of its images.
        prefix: prefix tokens.
        first: number of its first image, for errors.
        threshold: of the artifact; None where it has none.

    Raises:
        ParityError: they differ.
    """
    keep = reference_keep(selection.importance, asked, prefix, threshold)
    wrong = np.flatnonzero((keep != selection.keep).any(axis=1))
    if len(wrong):
        raise ParityError(
            f"image {first + int(wrong[0])} keeps other tokens than the reference selection of the same importance",
            "the runtime computes an integer operator wrongly: report it with its version",
        )
