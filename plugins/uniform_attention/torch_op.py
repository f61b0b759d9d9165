"""``UniformAttention`` as a torch operator: eager on any device, and traceable by torch.export."""

from __future__ import annotations

import torch
from torch import Tensor

from sait_deploy.plugins.lanes import attend_lanes, lanes_of


@torch.library.custom_op("sait::uniform_attention", mutates_args=())
def uniform_attention(
    qkv: Tensor, slots: Tensor, unslots: Tensor, num_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attends inside each image.

    Args:
        qkv: float32 or float16 [B*S, 3*H*Dh].
        slots: int32 [B, S], counting the rows; only its shape is read.
        unslots: int32 [B*S], counting the rows.
        num_heads: H.
        scale: factor of the scores.

    Returns:
        As qkv, [B*S, H*Dh], and the attention weights, float32 [B, H, S, S].
    """
    y, weights = attend_lanes(*lanes_of(qkv, slots, num_heads), scale)
    return y.flatten(0, 1), weights


@uniform_attention.register_fake
def _(qkv: Tensor, slots: Tensor, unslots: Tensor, num_heads: int, scale: float) -> tuple[Tensor, Tensor]:
    batch, tokens = slots.shape
    weights = qkv.new_empty((batch, num_heads, tokens, tokens), dtype=torch.float32)
    return qkv.new_empty((qkv.shape[0], qkv.shape[1] // 3)), weights
