"""Attention over padded lanes in torch: what both attention operators compute, and what training differentiates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def lanes_of(rows: Tensor, slots: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values [B, H, W, Dh] of rows [B*W, 3*H*Dh]; of slots [B, W] only the shape is read."""
    q, k, v = rows.reshape(*slots.shape, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    return q, k, v


def lane_slots(cu_seqlens: Tensor, lanes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the lanes of packed images find their rows, and which of them are real.

    Args:
        cu_seqlens: int32 [B+1], where images begin and end.
        lanes: int32 [W], counting.

    Returns:
        slots int32 [B, W], in which lanes of padding repeat the image's first row, and bool [B, W].
    """
    starts, lengths = cu_seqlens[:-1, None], cu_seqlens.diff()[:, None]
    real = lanes < lengths
    return torch.where(real, starts + lanes, starts), real


def attend_lanes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
    in_float32: bool = True,
) -> tuple[Tensor, Tensor]:
    """Attends inside each image.

    Args:
        q: [B, H, W, Dh], with k and v.
        k: see there.
        v: see there.
        scale: factor of the scores.
        mask: bool [B, 1, 1, W], the lanes to attend to; None for all.
        dropout: share of the weights that are dropped at random.
        in_float32: whether the softmax of a lower precision runs in float32.

    Returns:
        As v, [B, W, H*Dh], and the weights before dropout, [B, H, W, W].
    """
    weights = (q * scale) @ k.transpose(-2, -1)  # one name for scores and weights: memory is free as soon as it can be
    if mask is not None:
        weights = weights.masked_fill(~mask, float("-inf"))
    dtype = torch.promote_types(weights.dtype, torch.float32) if in_float32 else weights.dtype
    weights = F.softmax(weights, dim=-1, dtype=dtype)
    dropped = F.dropout(weights, dropout) if dropout else weights
    return (dropped.to(v.dtype) @ v).transpose(1, 2).flatten(2), weights
