"""What an image tower returns: the kept tokens end to end, where each image's begin, and which patches they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sait_deploy.models.transformer import Layout


class TowerTokens(NamedTuple):
    """The answer of an image tower.

    Attributes:
        tokens: float32 [T, D].
        cu_seqlens: int32 [B+1], 0 first and T last: image b has the tokens from cu_seqlens[b] to before the next.
        positions: int32 [T], the number of each token's patch, row by row; of prefix tokens -P to -1.
    """

    tokens: Tensor
    cu_seqlens: Tensor
    positions: Tensor


class Prefix(NamedTuple):
    """Tokens of an image before its patches: how many there are, and how many of the first are left out (all or 0)."""

    tokens: int
    left_out: int


def tower_tokens(
    x: Tensor, kept: Tensor, layout: Layout, whole: int, prefix: Prefix, counts: Tensor | None
) -> TowerTokens:
    """Returns what an image tower answers.

    Args:
        x: the tokens, [T, D].
        kept: their flat indices among all tokens of the batch, int32 [T].
        layout: how they divide into images.
        whole: tokens of an image before pruning.
        prefix: of them, those before the patches.
        counts: tokens kept of each image, prefix included, int32 [B]; not read where all images keep as many.
    """
    images, width = layout.slots.shape
    positions = kept % whole - prefix.tokens
    if layout.mask is None:
        length = width - prefix.left_out
        cu_seqlens = torch.arange(images + 1, dtype=torch.int32, device=x.device) * length
        if prefix.left_out:
            x = x.reshape(images, width, -1)[:, prefix.left_out :].reshape(images * length, -1)
            positions = positions.reshape(images, width)[:, prefix.left_out :].reshape(-1)
        return TowerTokens(x.float(), cu_seqlens, positions)
    assert counts is not None
    cu_seqlens = F.pad((counts - prefix.left_out).cumsum(0, dtype=torch.int32), (1, 0))
    if prefix.left_out:
        index = _patch_rows(kept, cu_seqlens, prefix.left_out)
        x, positions = x.index_select(0, index), positions.index_select(0, index)
    return TowerTokens(x.float(), cu_seqlens, positions)


def _patch_rows(kept: Tensor, cu_seqlens: Tensor, prefix: int) -> Tensor:
    """Returns the packed rows [T] that are patches, int32 [T - B*P].

    Computed from where images begin: to find them by a mask, runtimes would have to wait for how many there are.
    """
    images = cu_seqlens.shape[0] - 1
    rows = torch.arange(kept.shape[0], dtype=torch.int32, device=kept.device)[: kept.shape[0] - images * prefix]
    # Beyond the last image's there may be rows that a runtime added: they count as the last image's.
    image = (rows[:, None] >= cu_seqlens[None, 1:-1]).sum(1, dtype=torch.int32)
    return rows + (image + 1) * prefix
