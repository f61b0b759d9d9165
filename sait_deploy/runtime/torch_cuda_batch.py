"""What a batch size needs on a GPU: memory that batches are copied to, and recorded work for what they may keep."""

from __future__ import annotations

import torch
from torch import Tensor

from sait_deploy.models.flash_vit import FlashViT, Seam
from sait_deploy.models.traced import Traced
from sait_deploy.runtime.cuda_graphs import Execution, Recorded
from sait_deploy.runtime.token_buckets import bucket_of
from sait_deploy.runtime.torch_cuda_dense import Fastest, dense_forms, fastest


class CompiledParts:
    """A model's functions, each compiled when a batch size first needs it.

    Args:
        vit: the model.
        execution: where it runs.
        image: [C, H, W] of an image.

    Raises:
        InvalidArgument: the model's heads are of a size that cannot run so.
    """

    @torch.no_grad()
    def __init__(self, vit: FlashViT, execution: Execution, image: tuple[int, int, int]) -> None:
        vit.prepare(torch.zeros(1, *image, device=execution.device))
        self.vit = vit
        self.stem = execution.compiled(vit.stem)
        self.trunk = execution.compiled(vit.trunk)
        self.whole = execution.compiled(vit.whole)
        self.dense = {} if vit.pruned else dense_forms(vit, execution)


class BatchWork:
    """Batches of one size on a model.

    The stem has one graph, and the trunk one for each bucket of kept tokens, recorded when a batch first falls into it.
    Between them the host reads one number: how many tokens the batch keeps.

    Args:
        parts: the model's functions.
        execution: where they run.
        shape: of the images, [B, C, H, W].
    """

    def __init__(self, parts: CompiledParts, execution: Execution, shape: tuple[int, ...]) -> None:
        self._parts, self._execution = parts, execution
        batch, device = shape[0], execution.device
        self._images = torch.zeros(shape, device=device)
        self._mass = torch.ones(batch, device=device)
        self._limits = torch.ones(batch, 2, dtype=torch.int32, device=device)
        self._most = batch * parts.vit.tokens
        self._stem: Recorded[Seam] | None = None
        self._whole: Recorded[Traced] | None = None
        self._dense: Fastest | None = None
        self._trunks: dict[int, Recorded[Tensor]] = {}

    @property
    def dense(self) -> Fastest | None:
        """Which form of a dense model runs; None of a pruned one, or before the first batch."""
        return self._dense

    @property
    def buckets(self) -> tuple[int, ...]:
        """Numbers of rows that trunks were recorded for."""
        return tuple(self._trunks)

    def load(self, images: Tensor, mass: Tensor | None = None, keep_limits: Tensor | None = None) -> None:
        """Copies a batch, and the operating point of an adaptive form, to where the work reads them."""
        self._images.copy_(images)
        if mass is not None and keep_limits is not None:
            self._mass.copy_(mass)
            self._limits.copy_(keep_limits)

    @torch.no_grad()
    def run(self) -> Traced:
        """Runs the batch that was loaded; what is returned lasts until the next run."""
        if not self._parts.vit.pruned:
            if self._dense is None:
                self._dense = fastest(self._parts.dense, self._execution, self._images)
            self._dense.recorded.replay()
            return Traced(self._dense.recorded.outputs, None, None, None, None)
        if not self._parts.vit.adaptive:
            if self._whole is None:
                self._whole = self._execution.record(lambda: self._parts.whole(self._images))
            self._whole.replay()
            return self._whole.outputs
        if self._stem is None:
            self._stem = self._execution.record(lambda: self._parts.stem(self._images, self._mass, self._limits))
        self._stem.replay()
        seam = self._stem.outputs
        total = int(seam.cu_seqlens[-1])  # the one number that the host waits for
        trunk = self._trunk(seam, bucket_of(total, self._most))
        trunk.replay()
        return Traced(trunk.outputs, None, seam.counts, seam.keep, seam.importance)

    def _trunk(self, seam: Seam, rows: int) -> Recorded[Tensor]:
        if rows not in self._trunks:

            def compute() -> Tensor:
                first = seam.rows[:rows]
                # One compilation serves every bucket of a batch size.
                torch._dynamo.mark_dynamic(first, 0)
                return self._parts.trunk(seam, first)

            self._trunks[rows] = self._execution.record(compute)
        return self._trunks[rows]
