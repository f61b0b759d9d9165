"""Blocks that all points of a model have in common, run once for each batch in torch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sait_deploy.models.prunable_vit import PrunableViT
    from sait_deploy.models.traced import Begun, Scored, Traced


class SharedBlocks:
    """The blocks before tokens are dropped, for runners of one model that are asked about the same batch in turn.

    What was computed of the batch asked about last is held, whichever runner asked: a batch is the same where it is the
    very same array.

    Args:
        block: the block pruned in, of all of these runners that prune; they have one score, too.

    Attributes:
        spared_seconds: that runners have saved so far, as another had computed it.
    """

    def __init__(self, block: int) -> None:
        self.spared_seconds = 0.0
        self._block = block
        self._images: NDArray[np.float32] | None = None
        self._begun: tuple[Begun, float] | None = None
        self._scored: tuple[Scored, float] | None = None

    def trace(
        self,
        model: PrunableViT,
        images: NDArray[np.float32],
        inputs: tuple[torch.Tensor, ...],
        keep: torch.Tensor | None = None,
    ) -> Traced:
        """Does what ``PrunableViT.trace`` does on the inputs, the first of which are the images."""
        if self._images is not images:
            self._images, self._begun, self._scored = images, None, None
        if model.pruning is None:
            return model.finish_dense(self._before(model, inputs[0]), self._block)
        if self._scored is None:
            begun = self._before(model, inputs[0])
            started = time.perf_counter()
            self._scored = model.score(begun), time.perf_counter() - started
        else:
            self.spared_seconds += self._scored[1] + (0.0 if self._begun is None else self._begun[1])
        return model.finish(self._scored[0], *inputs[1:], keep=keep)

    def _before(self, model: PrunableViT, images: torch.Tensor) -> Begun:
        if self._begun is None:
            started = time.perf_counter()
            self._begun = model.begin(images, self._block), time.perf_counter() - started
        else:
            self.spared_seconds += self._begun[1]
        return self._begun[0]
