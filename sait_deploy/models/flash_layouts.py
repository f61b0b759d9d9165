"""How flat tokens divide into images on a GPU: FLASH attention, importance without its weights, rows to spare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from sait_deploy.models.layers import importance_shares
from sait_deploy.models.layouts import Uniform
from sait_deploy.models.transformer import Heads
from sait_deploy.plugins.flash_attention import attention_column_sums, flash_packed, flash_uniform
from sait_deploy.plugins.lanes import lane_slots, lanes_of
from sait_deploy.tokens import Score


@dataclass(frozen=True, slots=True)
class FlashUniform(Uniform):
    """Every image has as many tokens."""

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention inside each image."""
        return self._flash(heads)[0]

    def attend_and_score(self, heads: Heads, prefix: int, score: Score) -> tuple[Tensor, Tensor]:
        """Runs attention inside each image and reads importance off it, float32 [B, N], without [B, H, S, S]."""
        qkv, num_heads, scale, _ = heads
        y, lse = self._flash(heads)
        if score is Score.MEAN:
            return y, importance_shares(attention_column_sums(qkv, lse, scale) / self.slots.shape[1], prefix)
        q, k, _ = lanes_of(qkv, self.slots, num_heads)
        products = (q[:, :, :1].float() * k.float()).sum(dim=-1) * scale
        return y, importance_shares((products - lse[:, :, :1]).exp(), prefix)

    def _flash(self, heads: Heads) -> tuple[Tensor, Tensor]:
        y, lse = flash_uniform(heads.qkv, self.slots.shape[0], heads.num_heads, heads.scale)
        return y, lse


@dataclass(frozen=True, slots=True)
class FlashPacked:
    """Every image has its own number of tokens; rows behind the last image belong to none and change no answer.

    Attributes:
        cu_seqlens: int32 [B+1], where images begin and end.
        slots: int32 [B, W], where W is the most tokens that an image can have, so that no shape depends on data.
        mask: bool [B, 1, 1, W].
    """

    cu_seqlens: Tensor
    slots: Tensor
    mask: Tensor

    @classmethod
    def of(cls, cu_seqlens: Tensor, most: int) -> Self:
        """Lays out images of at most ``most`` tokens."""
        slots, real = lane_slots(cu_seqlens, torch.arange(most, dtype=torch.int32, device=cu_seqlens.device))
        return cls(cu_seqlens, slots, real[:, None, None, :])

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention inside each image."""
        qkv, num_heads, scale, _ = heads
        attended: Tensor = flash_packed(qkv, self.cu_seqlens, self.slots.shape[1], num_heads, scale)
        return attended

    def drop_path(self, path: nn.Module, update: Tensor) -> Tensor:
        """Returns the update: a deployed model drops nothing."""
        return update
