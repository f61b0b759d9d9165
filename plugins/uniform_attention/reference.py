"""``UniformAttention`` in NumPy: the definition that every other form is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def uniform_attention(
    qkv: NDArray[np.floating], tokens: int, num_heads: int, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes attention in float64.

    Args:
        qkv: [B*S, 3*H*Dh], queries, keys and values.
        tokens: S; the plan that the operator is given says the same.
        num_heads: H.
        scale: factor of the scores.

    Returns:
        float64 [B*S, H*Dh], and the attention weights, float64 [B, H, S, S].
    """
    q, k, v = np.moveaxis(
        qkv.astype(np.float64).reshape(-1, tokens, 3, num_heads, qkv.shape[1] // 3 // num_heads), 2, 0
    )
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) * scale
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(len(qkv), -1), weights
