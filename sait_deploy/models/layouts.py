"""How flat tokens divide into images, with the attention of the deployed graph: as many of each, or packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

import torch
from torch import Tensor, nn

from sait_deploy.models.transformer import Heads, Layout
from sait_deploy.plugins.pack_plan.torch_op import pack_plan
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.plugins.packed_attention.torch_op import packed_attention
from sait_deploy.plugins.read_extents.torch_op import read_extents
from sait_deploy.plugins.uniform_attention.torch_op import uniform_attention


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every image has as many tokens, S: slots int32 [B, S] and unslots int32 [B*S] count them."""

    slots: Tensor
    unslots: Tensor
    mask: ClassVar[None] = None

    @classmethod
    def of(cls, batch: int, tokens: int, device: torch.device) -> Self:
        """Lays out ``batch`` images of ``tokens`` tokens each."""
        rows = torch.arange(batch * tokens, dtype=torch.int32, device=device)
        return cls(rows.reshape(batch, tokens), rows)

    def scored(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """Runs attention inside each image and returns its weights, float32 [B, H, S, S], too."""
        y, weights = uniform_attention(heads.qkv, self.slots, self.unslots, heads.num_heads, heads.scale)
        return y, weights

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention inside each image."""
        return self.scored(heads)[0]

    def drop_path(self, path: nn.Module, update: Tensor) -> Tensor:
        """Returns the update: a deployed model drops nothing."""
        return update


@dataclass(frozen=True, slots=True)
class Packed:
    """Every image has its own number of tokens: slots int32 [B, W], unslots int32 [T], mask bool [B, 1, 1, W]."""

    slots: Tensor
    unslots: Tensor
    mask: Tensor

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention inside each image."""
        qkv, num_heads, scale, _ = heads
        attended: Tensor = packed_attention(qkv, self.slots, self.unslots, self.mask, num_heads, scale)
        return attended

    def drop_path(self, path: nn.Module, update: Tensor) -> Tensor:
        """Returns the update: a deployed model drops nothing."""
        return update


@dataclass(frozen=True, slots=True)
class Layouts:
    """The two layouts, in the form with the deployed operators or in the one with gradients."""

    uniform: type[Uniform]
    packed: type[Packed]

    def of_kept(self, keep: Tensor, counts: Tensor, tokens: int | None) -> tuple[Tensor, Layout]:
        """Lays out what a selection keeps.

        Args:
            keep: int32 [B, P+N], 1 where a token is kept.
            counts: int32 [B], tokens kept of each image.
            tokens: that every image keeps; None where each keeps its own number.

        Returns:
            The flat indices of the kept tokens, int32 [T], and how they divide into images.
        """
        rows, cu_seqlens = pack_rows(keep, counts)
        if tokens is not None:
            return rows[: keep.shape[0] * tokens], self.uniform.of(keep.shape[0], tokens, keep.device)
        kept, lanes = read_extents(rows, cu_seqlens)
        return kept, self.packed(*pack_plan(kept, cu_seqlens, lanes))


DEPLOYED: Final = Layouts(Uniform, Packed)
