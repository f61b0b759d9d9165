"""``PackRows`` in NumPy: the definition that every other form is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_rows(keep: NDArray[np.int32], counts: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lists the kept tokens of a batch, then the dropped ones.

    Args:
        keep: int32 [B, P+N] of ones and zeros.
        counts: int32 [B], the ones of each row.

    Returns:
        rows int32 [B*(P+N)], a permutation of the flat token indices, and cu_seqlens int32 [B+1].
    """
    flat = keep.reshape(-1)
    rows = np.concatenate([np.flatnonzero(flat), np.flatnonzero(flat == 0)]).astype(np.int32)
    return rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
