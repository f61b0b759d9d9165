"""``PackPlan`` in NumPy: the definition that every other form is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_plan(
    kept: NDArray[np.int32], cu_seqlens: NDArray[np.int32], lanes: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    """Lists, image by image, which packed row stands in which lane.

    Args:
        kept: int32 [T], at least as many as the images' tokens; only its length is read.
        cu_seqlens: int32 [B+1], 0 and the running sum of the images' tokens; every image has at least one.
        lanes: int32 [W], counting from 0; at least as many as the longest image's tokens.

    Returns:
        slots int32 [B, W], unslots int32 [T] and mask bool [B, 1, 1, W].
    """
    starts, lengths = cu_seqlens[:-1, None], np.diff(cu_seqlens)[:, None]
    mask = lanes < lengths
    slots = np.where(mask, starts + lanes, starts)
    unslots = np.zeros(len(kept), dtype=np.int32)
    unslots[: cu_seqlens[-1]] = np.flatnonzero(mask)
    return slots.astype(np.int32), unslots, mask[:, None, None, :]
