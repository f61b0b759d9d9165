"""``ClampTokens`` as a torch operator."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("sait::clamp_tokens", mutates_args=())
def clamp_tokens(tokens: Tensor, limit: float) -> Tensor:
    """Clamps float32 [B, D]."""
    return tokens.clamp(-limit, limit)


@clamp_tokens.register_fake
def _(tokens: Tensor, limit: float) -> Tensor:
    return torch.empty_like(tokens)
