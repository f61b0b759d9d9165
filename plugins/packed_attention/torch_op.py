"""``PackedAttention`` as a torch operator: eager on any device, and traceable by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor


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
    batch, width = slots.shape
    q, k, v = qkv.index_select(0, slots.flatten()).reshape(batch, width, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    scores = ((q * scale) @ k.transpose(-2, -1)).float()
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    lanes = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(batch * width, -1)
    output: Tensor = lanes.index_select(0, unslots)
    return output


@packed_attention.register_fake
def _(qkv: Tensor, slots: Tensor, unslots: Tensor, mask: Tensor, num_heads: int, scale: float) -> Tensor:
    return qkv.new_empty((qkv.shape[0], qkv.shape[1] // 3))
