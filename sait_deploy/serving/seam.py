"""The seam between a stem's batches and a trunk's: one image's tokens on their own, and any of them in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sait_deploy.exporters.names import CU_SEQLENS, GUARD, KEPT, LANES, ROWS, TOKENS
from sait_deploy.runtime.parts import CutArtifact


@dataclass(frozen=True, slots=True)
class CutImage:
    """What one image brings across the seam.

    Attributes:
        order: int32 [P+N], numbers of its tokens: the kept ones first, then the dropped ones, both ascending.
        kept: how many of them are kept, prefix included.
        tensors: the other tensors of the seam that belong to it, by name: ``tokens`` [P+N, D], ``guard`` [1, 1].
    """

    order: NDArray[np.int32]
    kept: int
    tensors: dict[str, NDArray[Any]]

    def keep(self, prefix: int) -> NDArray[np.int32]:
        """Returns int32 [N], 1 for each patch token that is kept."""
        kept = np.zeros(len(self.order), dtype=np.int32)
        kept[self.order[: self.kept]] = 1
        return kept[prefix:]


def split(seam: dict[str, NDArray[Any]]) -> list[CutImage]:
    """Takes a stem's batch apart, image by image.

    Args:
        seam: the stem's outputs: ``rows`` [B*(P+N)], ``cu_seqlens`` [B+1] and what crosses of each image.
    """
    rows, offsets = seam[ROWS], seam[CU_SEQLENS]
    images = len(offsets) - 1
    tokens = len(rows) // images
    kept, dropped = rows[: offsets[-1]], rows[offsets[-1] :]
    before = np.arange(images + 1) * tokens - offsets
    others = {name: seam[name] for name in (TOKENS, GUARD) if name in seam}
    each = {name: array.reshape(images, -1, array.shape[-1]) for name, array in others.items()}
    return [
        CutImage(
            order=np.concatenate([kept[offsets[i] : offsets[i + 1]], dropped[before[i] : before[i + 1]]]) - i * tokens,
            kept=int(offsets[i + 1] - offsets[i]),
            tensors={name: array[i] for name, array in each.items()},
        )
        for i in range(images)
    ]


def join(images: Sequence[CutImage], cut: CutArtifact) -> dict[str, NDArray[Any]]:
    """Makes a trunk's batch of images that may come from different batches of the stem."""
    counts = np.array([image.kept for image in images], dtype=np.int32)
    tokens = len(images[0].order)
    orders = [image.order + np.int32(i * tokens) for i, image in enumerate(images)]
    kept = [order[:count] for order, count in zip(orders, counts, strict=True)]
    dropped = [order[count:] for order, count in zip(orders, counts, strict=True)]
    total, longest = int(counts.sum()), int(counts.max())
    rows, lanes = cut.trunk.extents(len(images), total, longest)
    seam: dict[str, NDArray[Any]] = {
        CU_SEQLENS: np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        ROWS: np.concatenate([*kept, *dropped]),
        KEPT: np.concatenate([*kept, np.zeros(rows - total, dtype=np.int32)]),
        LANES: np.arange(lanes, dtype=np.int32),
    }
    for name in (TOKENS, GUARD):
        if name in cut.trunk_inputs:
            seam[name] = np.concatenate([image.tensors[name] for image in images])
    return {name: seam[name] for name in cut.trunk_inputs}
