"""``ReadExtents`` in NumPy: the definition that every other form is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def read_extents(rows: NDArray[np.int32], cu_seqlens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Turns the batch's extents into shapes.

    Args:
        rows: int32 [B*(P+N)], kept tokens first.
        cu_seqlens: int32 [B+1], 0 and the running sum of the images' tokens; every image has at least one.

    Returns:
        kept int32 [T], and lanes int32 [W] counting from 0.
    """
    return rows[: cu_seqlens[-1]].copy(), np.arange(np.diff(cu_seqlens).max(), dtype=np.int32)
