"""``MassTokenSelect`` in NumPy: the definition that every other form is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sait_deploy.plugins.mass_token_select.spec import RESOLUTION


def mass_token_select(
    importance: NDArray[np.float32],
    mass: NDArray[np.float32],
    keep_limits: NDArray[np.int32],
    prefix: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Selects tokens by ranking them outright.

    Args:
        importance: float32 [B, N] in [0, 1], row sums at most 1 + 2^-10.
        mass: float32 [B].
        keep_limits: int32 [B, 2], the least and the most patch tokens an image keeps.
        prefix: number of prefix tokens P, which are always kept.

    Returns:
        keep int32 [B, P+N] of ones and zeros, and counts int32 [B], prefix included.
    """
    batch, patches = importance.shape
    score = np.rint(importance * np.float32(RESOLUTION)).astype(np.int32)
    order = np.argsort(-score, axis=1, kind="stable")
    ranked = np.take_along_axis(score, order, axis=1)
    before = np.cumsum(ranked, axis=1, dtype=np.int32) - ranked
    limit = np.ceil(score.sum(axis=1, dtype=np.int32).astype(np.float32) * mass)[:, None]
    rank = np.arange(patches, dtype=np.int32)
    least = np.maximum(keep_limits[:, :1], 1 if prefix == 0 else 0)
    wanted = (before < limit) | (mass[:, None] >= 1)
    kept_ranks = (rank < least) | ((rank < keep_limits[:, 1:]) & wanted)
    keep = np.ones((batch, prefix + patches), dtype=np.int32)
    np.put_along_axis(keep[:, prefix:], order, kept_ranks.astype(np.int32), axis=1)
    return keep, keep.sum(axis=1, dtype=np.int32)
