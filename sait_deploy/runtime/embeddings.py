"""Embeddings as answers: brought to unit length, and which images of a set are nearest to each other by them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

NEAREST: Final = 10
"""Nearest images that are returned where no number is named."""

_QUERIES: Final = 1024
"""Images compared with all others at once."""

_SHORTEST: Final = 1e-12


def unit_length(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns rows [n, D] brought to length 1; those that are all zero stay zero."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (rows / np.maximum(lengths, _SHORTEST)).astype(np.float32)
    return scaled


def means_of_images(tokens: NDArray[np.float32], counts: NDArray[np.signedinteger]) -> NDArray[np.float32]:
    """Returns the mean of each image's tokens, float32 [B, D].

    Args:
        tokens: float32 [T, D], end to end.
        counts: how many each image has, [B], 1 or more.
    """
    sums = np.add.reduceat(tokens.astype(np.float64), np.cumsum(counts) - counts)
    means: NDArray[np.float32] = (sums / counts[:, None]).astype(np.float32)
    return means


def nearest(embeddings: NDArray[np.float32], most: int = NEAREST) -> NDArray[np.int32]:
    """Returns for each image the others that are nearest, nearest first; of equally near ones the earlier.

    Args:
        embeddings: float32 [n, D], of unit length.
        most: others to return of each.

    Returns:
        int32 [n, min(most, n - 1)], numbers of images.
    """
    count = len(embeddings)
    most = min(most, count - 1)
    found = np.empty((count, most), dtype=np.int32)
    for start in range(0, count if most else 0, _QUERIES):
        queries = np.arange(start, min(start + _QUERIES, count))
        near = embeddings[queries] @ embeddings.T
        near[np.arange(len(queries)), queries] = -np.inf
        candidates = np.argpartition(-near, most - 1, axis=1)[:, :most]
        order = np.lexsort((candidates, -np.take_along_axis(near, candidates, 1)), axis=1)
        found[queries] = np.take_along_axis(candidates, order, 1)
    return found
