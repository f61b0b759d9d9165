"""``ClampTokens`` in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clamp_tokens(tokens: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """Clamps float32 [B, D]."""
    return np.clip(tokens, -np.float32(limit), np.float32(limit))
