"""``PackRows`` as a torch operator: eager on the CPU, one kernel on CUDA, and traceable by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("sait::pack_rows", mutates_args=())
def pack_rows(keep: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Builds the packing plan from running sums, as the ONNX function does: no data-dependent shape.

    Shapes and dtypes are those of :func:`sait_deploy.plugins.pack_rows.reference.pack_rows`.
    """
    flat = keep.reshape(-1)
    kept_before = torch.cumsum(flat, dim=0) - flat
    dropped = 1 - flat
    dropped_before = torch.cumsum(dropped, dim=0) - dropped
    place = torch.where(flat.bool(), kept_before, dropped_before + flat.sum())
    index = torch.arange(flat.numel(), dtype=torch.int32, device=keep.device)
    rows = torch.empty_like(index).scatter_(0, place, index)
    ends = torch.cumsum(counts, dim=0, dtype=torch.int32)
    return rows, torch.cat([ends.new_zeros(1), ends])


@pack_rows.register_kernel("cuda")
def _(keep: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    from sait_deploy.plugins.pack_rows.triton_kernel import launch

    with torch.cuda.device(keep.device):
        return launch(keep, counts)


@pack_rows.register_fake
def _(keep: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    rows = keep.new_empty((keep.shape[0] * keep.shape[1],), dtype=torch.int32)
    return rows, counts.new_empty((counts.shape[0] + 1,), dtype=torch.int32)
