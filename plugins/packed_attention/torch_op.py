"""``PackedAttention`` as a torch operator: eager on any device, and traceable by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor

from sait_deploy.plugins.lanes import attend_lanes, lanes_of


@torch.library.custom_op("sait::packed_attention", mutates_args=())
def packed_attention(qkv: Tensor, slots: Tensor, unslots: Tensor, mask: Tensor, num_heads: int, scale: float) -> Tensor:
    """Gathers rows to padded lanes, attends inside each image, and gathers back.

    Args:
        qkv: float32 or float16 [T, 3*H*Dh].
        slots: int32 [B, W], as :func:`sait_deploy.plugins.pack_plan.reference.pack_plan` makes it, with what follows.
        unslots: int32 [T].
        mask: bool [B, 1, 1, W].
        num_heads: H.
        scale: factor of the scores.

    Returns:
        As qkv, [T, H*Dh].
    """
    rows = qkv.index_select(0, slots.flatten())
    lanes, _ = attend_lanes(*lanes_of(rows, slots, num_heads), scale, mask)
    output: Tensor = lanes.flatten(0, 1).index_select(0, unslots)
    return output


@packed_attention.register_fake
def _(qkv: Tensor, slots: Tensor, unslots: Tensor, mask: Tensor, num_heads: int, scale: float) -> Tensor:
    return qkv.new_empty((qkv.shape[0], qkv.shape[1] // 3))
