"""``ReadExtents`` as a torch operator; its fake kernel gives torch.export the two free sizes."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("sait::read_extents", mutates_args=())
def read_extents(rows: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Turns the batch's extents into shapes; on a GPU this waits for it.

    Shapes and dtypes are those of :func:`sait_deploy.plugins.read_extents.reference.read_extents`.
    """
    total, longest = torch.stack([cu_seqlens[-1], cu_seqlens.diff().amax()]).tolist()
    # A custom operator may not return a view of what it was given.
    return rows[:total].clone(), torch.arange(longest, dtype=torch.int32, device=rows.device)


@read_extents.register_fake
def _(rows: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    context = torch.library.get_ctx()
    total, longest = context.new_dynamic_size(min=1), context.new_dynamic_size(min=1)
    torch._check(total <= rows.shape[0])
    torch._check(longest <= total)
    return rows.new_empty((total,)), rows.new_empty((longest,))
