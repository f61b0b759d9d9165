"""``PackedAttention`` in NumPy: the definition that every other form is compared with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def packed_attention(
    qkv: NDArray[np.floating], cu_seqlens: NDArray[np.int32], num_heads: int, scale: float
) -> NDArray[np.float64]:
    """Computes attention image by image in float64, with no padding anywhere.

    Args:
        qkv: [T, 3*H*Dh], queries, keys and values.
        cu_seqlens: int32 [B+1]; the plan that the operator is given says the same.
        num_heads: H.
        scale: factor of the scores.

    Returns:
        float64 [T, H*Dh].
    """
    output = np.empty((len(qkv), qkv.shape[1] // 3))
    for start, end in pairwise(cu_seqlens):
        q, k, v = np.moveaxis(qkv[start:end].astype(np.float64).reshape(end - start, 3, num_heads, -1), 1, 0)
        scores = np.einsum("qhd,khd->hqk", q, k) * scale
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        output[start:end] = np.einsum("hqk,khd->qhd", weights, v).reshape(end - start, -1)
    return output
